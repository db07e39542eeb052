"""aioserve in somebody else's loop, thread and test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from importlib.metadata import entry_points

import httpx
import pytest

import aioserve
from aioserve.testing import serving
from tests.tls import Authority


async def hello(scope, receive, send):
    assert scope["type"] == "http"
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class WithLifespan:
    def __init__(self, fail=False):
        self.events = []
        self.fail = fail

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            return await hello(scope, receive, send)
        while True:
            kind = (await receive())["type"]
            self.events.append(kind)
            if self.fail:
                return await send({"type": "lifespan.startup.failed", "message": "no database"})
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return None


async def test_serve_says_when_it_accepts_and_where_and_ends_when_told():
    app = WithLifespan()
    shutdown, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving_task = asyncio.ensure_future(
        aioserve.serve(app, port=0, access_log=False, shutdown=shutdown, started=started)
    )
    running = await asyncio.wait_for(started, 10)
    assert running.url == f"http://127.0.0.1:{running.port}"
    async with httpx.AsyncClient() as client:
        assert (await client.get(running.url + "/x")).text == "/x"
    shutdown.set()
    await asyncio.wait_for(serving_task, 10)
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


async def test_nobody_finds_its_unix_socket_while_it_drains(tmp_path):
    entered, release = asyncio.Event(), asyncio.Event()

    async def patient(scope, receive, send):
        entered.set()
        await release.wait()
        await hello(scope, receive, send)

    shutdown, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    path = tmp_path / "s"
    task = asyncio.ensure_future(
        aioserve.serve(patient, uds=str(path), lifespan="off", shutdown=shutdown, started=started)
    )
    await asyncio.wait_for(started, 10)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(entered.wait(), 10)
    shutdown.set()
    async with asyncio.timeout(10):
        while path.exists():
            await asyncio.sleep(0)
    release.set()
    assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"/x")
    await asyncio.wait_for(task, 10)
    writer.close()


async def test_serve_leaves_signals_alone():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    shutdown, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(aioserve.serve(hello, port=0, shutdown=shutdown, started=started))
    await asyncio.wait_for(started, 10)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    shutdown.set()
    await asyncio.wait_for(task, 10)


async def test_cancelling_serve_shuts_the_application_down():
    app = WithLifespan()
    started = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(aioserve.serve(app, port=0, started=started))
    running = await asyncio.wait_for(started, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert app.events[-1] == "lifespan.shutdown"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)


async def test_a_failed_startup_reaches_both_who_serve_and_who_wait():
    started = asyncio.get_running_loop().create_future()
    with pytest.raises(aioserve.BootError, match="no database"):
        await aioserve.serve(WithLifespan(fail=True), port=0, started=started)
    with pytest.raises(aioserve.BootError, match="no database"):
        await started


async def test_a_taken_address_is_a_bind_error():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(aioserve.BindError, match="another process is listening there"),
    ):
        await aioserve.serve(hello, port=taken.getsockname()[1])


async def test_all_wrong_settings_are_reported_together():
    with pytest.raises(aioserve.ConfigError) as caught:
        await aioserve.serve(hello, port=70000, backlog=0, timout_header=1)
    assert len(caught.value.problems) == 3


async def test_settings_of_a_process_are_refused():
    with pytest.raises(aioserve.ConfigError) as caught:
        await aioserve.serve(hello, workers=4, log_level="debug", port=0)
    assert [line.partition("=")[0] for line in caught.value.problems] == ["log_level", "workers"]


async def test_a_config_and_settings_exclude_each_other():
    with pytest.raises(aioserve.ConfigError, match="not both"):
        await aioserve.serve(hello, aioserve.Config(), port=0)


def test_a_server_in_a_thread_serves_and_stops():
    with serving(hello) as running:
        assert httpx.get(running.url + "/thread").text == "/thread"
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url)


def test_a_server_that_cannot_start_raises_in_the_test():
    with pytest.raises(aioserve.BootError, match="no database"), serving(WithLifespan(fail=True)):
        pass


def test_the_fixture_serves_until_the_test_is_over(pytester):
    pytester.makepyfile(
        """
        import urllib.request

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hi"})

        def test_it(aioserve_server):
            running = aioserve_server(app, lifespan="off")
            with urllib.request.urlopen(running.url) as response:
                assert response.read() == b"hi"
        """
    )
    plugin = [] if "aioserve" in entry_points(group="pytest11").names else ["-p", "aioserve.pytest_plugin"]
    # pytest-asyncio warns where it has no configuration, which is an error here.
    without = [option for name in ("asyncio", "xdist", "cacheprovider") for option in ("-p", f"no:{name}")]
    result = pytester.runpytest_inprocess(*plugin, *without)
    result.assert_outcomes(passed=1)


def test_only_the_public_names_are_offered():
    assert all(hasattr(aioserve, name) for name in aioserve.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        aioserve.nothing  # noqa: B018


def test_connections_over_the_limit_wait_until_one_closes():
    with serving(hello, limit_connections=1, lifespan="off") as running:
        first = socket.create_connection(("127.0.0.1", running.port))
        first.sendall(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"/first" in first.recv(1000)
        second = socket.create_connection(("127.0.0.1", running.port))
        second.sendall(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
        second.settimeout(0.1)
        with pytest.raises(TimeoutError):
            second.recv(1000)
        first.close()
        second.settimeout(10)
        assert b"/second" in second.recv(1000)
        second.close()


async def test_with_a_certificate_the_url_is_https(tmp_path):
    authority = Authority()
    certfile, keyfile = authority.server().write(tmp_path)
    shutdown, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(
        aioserve.serve(
            hello,
            bind=["127.0.0.1:0"],
            ssl_certfile=[certfile],
            ssl_keyfile=[keyfile],
            ssl_redirect=["127.0.0.2:0"],
            ssl_hsts="max-age=60",
            access_log=False,
            shutdown=shutdown,
            started=started,
        )
    )
    running = await asyncio.wait_for(started, 10)
    secure, redirect = running.addresses
    assert running.url == secure == f"https://127.0.0.1:{running.port}"
    async with httpx.AsyncClient(verify=authority.client_context(), trust_env=False) as client:
        response = await client.get(f"{secure}/x")
        assert (response.text, response.headers["strict-transport-security"]) == ("/x", "max-age=60")
        moved = await client.get(f"{redirect}/x")
        assert moved.headers["location"] == f"https://127.0.0.2:{running.port}/x"
    shutdown.set()
    await asyncio.wait_for(task, 10)


async def test_a_server_with_tls_that_cannot_start_leaves_no_keys_open(tmp_path):
    certfile, keyfile = Authority().server().write(tmp_path)
    opened = set(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(aioserve.BindError):
        await aioserve.serve(hello, port=taken.getsockname()[1], ssl_certfile=[certfile], ssl_keyfile=[keyfile])
    assert set(os.listdir("/proc/self/fd")) == opened


def test_a_server_for_tests_may_speak_tls(tmp_path):
    authority = Authority()
    certfile, keyfile = authority.server().write(tmp_path)
    with serving(hello, ssl_certfile=[certfile], ssl_keyfile=[keyfile]) as running:
        assert running.url == f"https://127.0.0.1:{running.port}"
        assert httpx.get(running.url + "/y", verify=authority.client_context(), trust_env=False).text == "/y"
