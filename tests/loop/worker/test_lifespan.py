from __future__ import annotations

import asyncio
import logging

import pytest

from aioserve.errors import BootError
from aioserve.worker.applications import Applications
from aioserve.worker.lifespan import Lifespan


@pytest.fixture(autouse=True)
def no_task_is_left_behind(caplog):
    caplog.set_level(logging.INFO, "aioserve")


async def settle(count: int = 5) -> None:
    """Let callbacks that are due run."""
    for _ in range(count):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def lifespan(app, *, mode="auto", startup=5.0, shutdown=5.0, name="main:app", leave=0.01) -> Lifespan:
    return Lifespan(app, mode=mode, startup_timeout=startup, shutdown_timeout=shutdown, name=name, leave_timeout=leave)


def good(calls: list | None = None, name: str = "app"):
    async def app(scope, receive, send):
        assert (await receive()) == {"type": "lifespan.startup"}
        scope["state"]["name"] = name
        if calls is not None:
            calls.append(f"{name} up")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive()) == {"type": "lifespan.shutdown"}
        if calls is not None:
            calls.append(f"{name} down")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_startup_and_shutdown_run_with_state_and_leave_no_task():
    calls = []
    one = lifespan(good(calls))
    await one.startup()
    assert one.state == {"name": "app"}
    assert await one.shutdown()
    assert calls == ["app up", "app down"]
    assert not others()


async def test_the_scope_is_the_specified_one():
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)
        raise RuntimeError

    one = lifespan(app)
    await one.startup()
    assert seen == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    assert seen["state"] is one.state


async def test_off_never_calls_the_application():
    one = lifespan(None, mode="off")
    await one.startup()
    assert await one.shutdown()


async def test_auto_takes_an_exception_for_lack_of_support(caplog):
    async def app(scope, receive, send):
        raise ValueError("http only\nand nothing else")

    one = lifespan(app)
    await one.startup()
    assert await one.shutdown()
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "main:app: does not support lifespan (ValueError: http only)")
    ]


async def test_auto_shows_an_exception_of_one_that_had_begun_its_startup(caplog):
    async def app(scope, receive, send):
        await receive()
        raise ConnectionError("no database")

    await lifespan(app).startup()
    assert caplog.records[0].levelname == "WARNING"
    assert "ConnectionError: no database" in caplog.text
    assert "lifespan.py" not in caplog.records[0].message.replace("test_lifespan.py", "")


async def test_auto_takes_a_silent_return_for_lack_of_support(caplog):
    async def app(scope, receive, send): ...

    await lifespan(app).startup()
    assert caplog.messages == ["main:app: does not support lifespan"]


async def test_on_refuses_an_exception():
    async def app(scope, receive, send):
        raise ConnectionError("no database")

    with pytest.raises(BootError, match=r"main:app: startup failed: ConnectionError: no database") as caught:
        await lifespan(app, mode="on").startup()
    assert "in app" in caught.value.detail
    assert not others()


async def test_on_refuses_a_silent_return():
    async def app(scope, receive, send): ...

    with pytest.raises(BootError, match="returned from its lifespan without"):
        await lifespan(app, mode="on").startup()


async def test_an_application_that_exits_the_process_is_reported_and_does_not():
    async def app(scope, receive, send):
        raise SystemExit(7)

    with pytest.raises(BootError, match="SystemExit: 7"):
        await lifespan(app, mode="on").startup()


async def test_a_task_that_cancels_itself_is_a_failure():
    async def app(scope, receive, send):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(BootError, match="cancelled"):
        await lifespan(app, mode="on").startup()


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_startup_failed_is_a_failure_in_every_mode(mode):
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(BootError, match=r"^/api \(api:app\): startup failed: no database$"):
        await lifespan(app, mode=mode, name="/api (api:app)").startup()
    assert not others()


async def test_startup_failed_without_a_message_is_still_a_sentence():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(BootError, match=r"^main:app: startup failed$"):
        await lifespan(app).startup()


async def test_startup_failed_with_a_traceback_ends_in_its_last_line():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "Traceback:\n  File x\nKeyError: 'A'\n"})

    with pytest.raises(BootError, match=r"startup failed: KeyError: 'A'$") as caught:
        await lifespan(app).startup()
    assert caught.value.detail.startswith("Traceback:")


async def test_the_exception_after_startup_failed_is_what_is_shown():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "Traceback\nlong\n"})
        raise KeyError("DATABASE_URL")

    with pytest.raises(BootError, match="KeyError: 'DATABASE_URL'") as caught:
        await lifespan(app).startup()
    assert "in app" in caught.value.detail
    assert "worker/lifespan.py" not in caught.value.detail


async def test_one_that_stays_after_startup_failed_is_cancelled():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no"})
        await asyncio.Event().wait()

    with pytest.raises(BootError):
        await lifespan(app).startup()
    assert not others()


async def connect_for_ever():
    await asyncio.Event().wait()


async def test_a_startup_that_takes_too_long_says_where_it_waited():
    async def app(scope, receive, send):
        await connect_for_ever()

    with pytest.raises(BootError, match=r"main:app: startup was not complete after 0.01 s") as caught:
        await lifespan(app, startup=0.01).startup()
    assert "in connect_for_ever" in caught.value.detail
    assert not others()


async def test_a_cancelled_startup_cancels_the_application():
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await connect_for_ever()

    startup = asyncio.create_task(lifespan(app).startup())
    await entered.wait()
    startup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await startup
    assert not others()


async def test_one_that_cannot_be_cancelled_is_named(caplog):
    release = asyncio.Event()

    async def app(scope, receive, send):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(BootError):
        await lifespan(app, startup=0.01).startup()
    assert "does not end when it is cancelled" in caplog.text
    release.set()
    await settle()


@pytest.mark.parametrize("kind", ["lifespan.startup.complete", "lifespan.shutdown.complete", "http.response.start"])
async def test_a_message_that_is_not_due_is_the_applications_error(kind, caplog):
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        await send({"type": kind})

    one = lifespan(app)
    await one.startup()
    await settle()
    assert f"AppError: {kind!r} was sent when it was not due" in caplog.text
    assert not await one.shutdown()


async def test_leaving_while_serving_is_logged(caplog):
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        await leave.wait()

    leave = asyncio.Event()
    one = lifespan(app)
    await one.startup()
    leave.set()
    await settle()
    assert "returned from its lifespan while it was serving" in caplog.text
    assert await one.shutdown()


async def test_leaving_in_the_same_turn_as_completing_is_logged(caplog):
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})

    await lifespan(app).startup()
    await settle()
    assert caplog.text.count("returned from its lifespan while it was serving") == 1


async def test_breaking_while_serving_is_logged_with_its_traceback(caplog):
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        await leave.wait()
        raise ConnectionError("lost the queue")

    leave = asyncio.Event()
    one = lifespan(app)
    await one.startup()
    leave.set()
    await settle()
    assert "its lifespan broke while it was serving" in caplog.text
    assert "ConnectionError: lost the queue" in caplog.text
    assert not await one.shutdown()


def ending(*messages, then=None):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for message in messages:
            await send(message)
        if then is not None:
            await then()

    return app


async def test_a_shutdown_that_takes_too_long_is_cancelled_and_logged(caplog):
    one = lifespan(ending(then=connect_for_ever), shutdown=0.01)
    await one.startup()
    assert not await one.shutdown()
    assert "shutdown was not complete after 0.01 s" in caplog.text
    assert "in connect_for_ever" in caplog.text
    assert not others()


@pytest.mark.parametrize(("message", "text"), [("disk full", "shutdown failed: disk full"), ("", "shutdown failed")])
async def test_shutdown_failed_is_logged(caplog, message, text):
    one = lifespan(ending({"type": "lifespan.shutdown.failed", "message": message}))
    await one.startup()
    assert not await one.shutdown()
    assert caplog.messages[-1] == f"main:app: {text}"


async def test_an_exception_in_shutdown_is_logged(caplog):
    async def fail():
        raise ConnectionError("already closed")

    one = lifespan(ending(then=fail))
    await one.startup()
    assert not await one.shutdown()
    assert "ConnectionError: already closed" in caplog.text


async def test_returning_without_shutdown_complete_is_clean():
    one = lifespan(ending())
    await one.startup()
    assert await one.shutdown()


async def test_one_that_goes_on_after_shutdown_complete_is_cancelled():
    one = lifespan(ending({"type": "lifespan.shutdown.complete"}, then=connect_for_ever))
    await one.startup()
    assert await one.shutdown()
    assert not others()


async def test_shutdown_twice_is_harmless():
    one = lifespan(good())
    await one.startup()
    assert await one.shutdown()
    assert await one.shutdown()


async def test_applications_start_in_order_and_stop_in_reverse():
    calls = []
    entries = [(p, good(calls, n), None) for p, n in [("", "main"), ("/a", "a"), ("/b", "b")]]
    apps = Applications([(p, app, lifespan(app)) for p, app, _ in entries])
    await apps.startup()
    assert await apps.shutdown()
    assert calls == ["main up", "a up", "b up", "b down", "a down", "main down"]


async def test_a_failing_mount_shuts_down_those_before_it_and_names_itself():
    calls = []

    async def bad(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no"})

    first, last = good(calls, "first"), good(calls, "last")
    names = {"": first, "/b": bad, "/c": last}
    apps = Applications([(prefix, app, lifespan(app, name=prefix)) for prefix, app in names.items()])
    with pytest.raises(BootError, match=r"^/b: startup failed: no"):
        await apps.startup()
    assert calls == ["first up", "first down"]
    assert not others()


async def test_one_unclean_shutdown_does_not_keep_the_others_from_theirs():
    calls = []
    bad = ending({"type": "lifespan.shutdown.failed"})
    first = good(calls, "first")
    apps = Applications([("", first, lifespan(first)), ("/b", bad, lifespan(bad))])
    await apps.startup()
    assert not await apps.shutdown()
    assert calls == ["first up", "first down"]


async def test_each_mount_has_its_own_state():
    a, b = good(name="a"), good(name="b")
    apps = Applications([("/a", a, lifespan(a)), ("/b", b, lifespan(b))])
    await apps.startup()
    assert apps.mounts.resolve("/a").state == {"name": "a"}
    assert apps.mounts.resolve("/b").state == {"name": "b"}
    await apps.shutdown()
