"""Makes an ASGI 3 application of whatever the user has: ASGI 3, ASGI 2 or WSGI.

Looks at signatures only, once, when a worker starts. What ``adapt`` returns gives a coroutine when it is called, as
``asyncio.Task`` wants it; a plain function that returns some other awaitable is wrapped for that.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal, cast

from aioserve.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.types import ASGIApp, Receive, Scope, Send


def adapt(app: object, interface: Literal["auto", "asgi3", "asgi2", "wsgi"]) -> ASGIApp:
    """The application as ASGI 3. ``auto`` tells ASGI 3 from ASGI 2 and never takes WSGI for meant: see ``_refusal``."""
    if not callable(app):
        raise BootError(f"{app!r} cannot be called: an ASGI application is a callable")
    return {"auto": _detect, "asgi3": _asgi3, "asgi2": _asgi2, "wsgi": _wsgi}[interface](app)


def _detect(app: Callable[..., Any]) -> ASGIApp:
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        # A callable in C that shows no signature. Nobody writes ASGI 2 in C.
        return _asgi3(app)
    if _takes(signature, 3):
        return _asgi3(app)
    if _takes(signature, 1) and not _is_async(app):
        return _asgi2(app)
    raise BootError(_refusal(app, signature))


def _refusal(app: Callable[..., Any], signature: inspect.Signature) -> str:
    """Say what the callable looks like.

    WSGI is not guessed: its applications would run in a few threads, without WebSockets and lifespan, and whoever gets
    that should have asked for it.
    """
    name = getattr(app, "__qualname__", None) or f"{type(app).__qualname__} instance"
    if _is_async(app):
        return f"{name}{signature} is async, but an ASGI application takes (scope, receive, send)"
    if _takes(signature, 2):
        return f"{name}{signature} looks like a WSGI application: pass --interface wsgi to serve it as one"
    if _takes(signature, 0):
        return f"{name}{signature} takes no arguments: if it makes the application, pass --factory"
    return f"{name}{signature} is no ASGI application: that takes (scope, receive, send)"


def _asgi3(app: Callable[..., Any]) -> ASGIApp:
    if _is_async(app):
        return cast("ASGIApp", app)

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return asgi3


def _asgi2(app: Callable[..., Any]) -> ASGIApp:
    async def asgi2(scope: Scope, receive: Receive, send: Send) -> None:
        scope["asgi"] = {**scope["asgi"], "version": "2.0"}
        await app(scope)(receive, send)

    return asgi2


def _wsgi(app: Callable[..., Any]) -> ASGIApp:
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError:
        raise BootError("--interface wsgi needs the package a2wsgi: pip install 'aioserve[wsgi]'") from None
    return _asgi3(WSGIMiddleware(app))


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*(None,) * count)
    except TypeError:
        return False
    return True


def _is_async(app: Callable[..., Any]) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.iscoroutinefunction(app):
        return True
    # Calling a class makes an instance, whatever that instance's own __call__ is.
    return not inspect.isclass(app) and inspect.iscoroutinefunction(type(app).__call__)
