from __future__ import annotations

import functools
import inspect
import sys

import pytest

from aioserve.errors import BootError
from aioserve.worker.adapters import adapt


class Calls(list):
    async def receive(self):
        return {"type": "http.request"}

    async def send(self, message):
        self.append(message)


async def asgi3(scope, receive, send):
    await send({"type": "done", "scope": scope["type"]})


class Instance:
    async def __call__(self, scope, receive, send):
        await asgi3(scope, receive, send)


class Awaitable:
    """What Starlette's class-based endpoints are: an awaitable that is no coroutine."""

    def __init__(self, scope, receive, send):
        self.arguments = scope, receive, send

    def __await__(self):
        return asgi3(*self.arguments).__await__()


class Two:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await send({"type": "done", "scope": self.scope["type"], "version": self.scope["asgi"]["version"]})


def make_two(scope):
    return Two(scope)


def decorated(*args, **kwargs):
    return asgi3(*args, **kwargs)


async def run(app):
    calls = Calls()
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}}
    coroutine = app(scope, calls.receive, calls.send)
    assert inspect.iscoroutine(coroutine)
    await coroutine
    return calls


@pytest.mark.parametrize(
    "app",
    [
        asgi3,
        Instance(),
        functools.partial(asgi3),
        functools.partial(Instance()),
        Awaitable,
        decorated,
        Instance().__call__,
    ],
)
async def test_auto_takes_asgi3_in_every_shape(app):
    assert await run(adapt(app, "auto")) == [{"type": "done", "scope": "http"}]


@pytest.mark.parametrize("interface", ["auto", "asgi2"])
async def test_asgi2_is_adapted_and_told_its_version(interface):
    assert await run(adapt(Two, interface)) == [{"type": "done", "scope": "http", "version": "2.0"}]


async def test_a_function_of_one_argument_is_asgi2():
    assert (await run(adapt(make_two, "auto")))[0]["version"] == "2.0"


async def test_an_async_application_is_not_wrapped():
    assert adapt(asgi3, "auto") is asgi3


async def test_asgi3_is_believed_when_asked_for():
    assert await run(adapt(decorated, "asgi3")) == [{"type": "done", "scope": "http"}]


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


async def not_enough(scope, receive): ...


def factory(): ...


def too_many(a, b, c, d): ...


@pytest.mark.parametrize(
    ("app", "part"),
    [
        (wsgi, "wsgi(environ, start_response) looks like a WSGI application: pass --interface wsgi"),
        (not_enough, "is async, but an ASGI application takes (scope, receive, send)"),
        (factory, "takes no arguments: if it makes the application, pass --factory"),
        (Instance, "takes no arguments"),
        (too_many, "is no ASGI application"),
        (42, "cannot be called"),
    ],
)
def test_auto_says_what_a_callable_looks_like_instead(app, part):
    with pytest.raises(BootError) as caught:
        adapt(app, "auto")
    assert part in str(caught.value)


async def test_wsgi_goes_through_a2wsgi():
    from concurrent.futures import ThreadPoolExecutor

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/api/x", "raw_path": b"/api/x", "query_string": b"", "root_path": "/api", "headers": [],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        return wsgi(environ, start_response)

    adapted = adapt(app, "wsgi")
    calls = Calls()
    await adapted(scope, calls.receive, calls.send)
    assert isinstance(adapted.executor, ThreadPoolExecutor)
    adapted.executor.shutdown()
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/api", "/x")
    assert calls[0]["status"] == 200
    assert b"".join(m.get("body", b"") for m in calls) == b"hello"


def test_wsgi_without_a2wsgi_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(BootError, match=r"aioserve\[wsgi\]"):
        adapt(wsgi, "wsgi")


def test_a_callable_without_a_signature_is_taken_for_asgi3():
    class Opaque:
        __signature__ = "none that can be read"

        def __call__(self, *args):
            return asgi3(*args)

    assert inspect.iscoroutinefunction(adapt(Opaque(), "auto"))
