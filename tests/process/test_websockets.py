"""WebSockets of a real server, as an operator sees them: every pattern and parser, proxies, limits, logs, ends."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.process.clients import Client
from tests.process.front_ends import CLIENT, NGINX, Nginx
from tests.process.servers import PATIENCE, Served, wait_until
from tests.process.test_choices import MODES

HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec_websocket_version": "13",
    "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def opened(server, path="/", **how):
    return connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=PATIENCE, proxy=None, **how)


def end_of(websocket):
    """The close that the server has sent."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            websocket.recv(PATIENCE)
    return caught.value.rcvd and (caught.value.rcvd.code, caught.value.rcvd.reason)


def refused(server, path="/", **how):
    with pytest.raises(InvalidStatus) as caught:
        opened(server, path, **how)
    return caught.value.response


@pytest.mark.parametrize("parser", ["httptools", "h11"])
@pytest.mark.parametrize("mode", MODES)
def test_messages_go_both_ways_in_every_pattern_and_the_log_says_so(mode, parser):
    with Served("talking:app", *MODES[mode], "--http", parser) as server:
        with opened(server) as websocket:
            for message in ("hello", "é" * 40_000, b"\xff" * 200_000):
                websocket.send(message)
                assert websocket.recv(PATIENCE) == message
            assert websocket.protocol.extensions
            websocket.close(1001, "enough")
        line = ", closed with 1001, 280005B received\n"
        wait_until(lambda: line in server.stdout(), "the line of the WebSocket")
        assert '"GET / HTTP/1.1" 101 Switching Protocols 280005B ' in server.stdout()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_every_loop_closes_in_good_order(loop):
    with Served("talking:app", "--loop", loop, "--accept", "single", tracebacks=1) as server:
        with opened(server, "/breaks") as websocket:
            assert end_of(websocket) == (1011, "internal error")
        with opened(server, max_size=None) as websocket:
            websocket.send(b"x" * (17 << 20))
            assert end_of(websocket)[0] == 1009
        server.wait_for("RuntimeError: in the middle of a WebSocket")


@pytest.mark.parametrize(
    ("options", "path", "seen"),
    [
        ((), "/scope", "ws 127.0.0.1  /scope"),
        (("--mount", "/api=talking:app"), "/api/scope", "ws 127.0.0.1 /api /api/scope"),
        (("--root-path", "/shop"), "/scope", "ws 127.0.0.1 /shop /shop/scope"),
        (("--interface", "asgi2"), "/scope", "ws 127.0.0.1  /scope"),
    ],
)
def test_mounts_and_interfaces_have_them_too(options, path, seen):
    app = "talking:Asgi2" if "asgi2" in options else "talking:app"
    with Served(app, *options, "--accept", "single") as server, opened(server, path) as websocket:
        assert websocket.recv(PATIENCE) == f"{seen} {server.pid}"


@pytest.mark.parametrize(
    ("options", "path"),
    [(("--mount", "/api=talking:app"), "/elsewhere"), (("on_wsgi:app", "--interface", "wsgi"), "/")],
)
def test_where_no_application_knows_them_they_are_forbidden(options, path):
    with Served(*options) as server:
        assert refused(server, path).status_code == 403


def test_an_application_may_answer_the_handshake_with_a_response():
    with Served("talking:app", "--access-log-format", "json") as server:
        response = refused(server, "/deny")
        assert (response.status_code, response.headers["x-why"], response.body) == (401, "no token", b"who are you?")
        line = json.loads(wait_until(server.stdout, "the line of the handshake"))
    assert (line["status"], line["bytes"], line["close_code"]) == (401, 12, None)


def test_with_ws_none_a_handshake_is_a_plain_request():
    with Served("talking:app", "--ws", "none") as server, server.connect() as client:
        assert client.get("/", **HANDSHAKE).status == 200


def test_what_is_no_handshake_is_answered_and_the_connection_closed():
    with Served("talking:app") as server:
        with server.connect() as client:
            response = client.get("/", **{**HANDSHAKE, "sec_websocket_version": "7"})
            assert (response.status, response.headers["sec-websocket-version"], client.rest()) == (426, "13", b"")
        with server.connect() as client:
            assert client.get("/", **{**HANDSHAKE, "sec_websocket_key": "short"}).status == 400


def test_a_websocket_takes_the_place_of_a_request_in_flight():
    with Served("talking:app", "--limit-concurrency", "1", "--accept", "single") as server:
        with opened(server) as websocket:
            websocket.send("in")
            websocket.recv(PATIENCE)
            response = refused(server)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        wait_until(lambda: server.get("/").status == 200, "the place is free again")


def test_an_application_that_does_not_answer_is_503():
    with Served("talking:app", "--ws-handshake-timeout", "0.3") as server:
        assert refused(server, "/silent").status_code == 503
        server.wait_for("the application has not answered the handshake within 0.3 s")


def test_a_client_that_answers_no_ping_is_closed_and_one_that_does_is_not():
    options = ("--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.4", "--accept", "single")
    with Served("talking:app", *options) as server, opened(server) as alive, server.connect() as dead:
        dead.request("/", **HANDSHAKE)
        assert dead.head().status == 101
        began = time.monotonic()

        assert dead.rest().endswith(b"\x88\x18\x03\xf3keepalive ping timeout")
        assert 0.5 < time.monotonic() - began < PATIENCE
        wait_until(lambda: "closed with 1006, 0B received" in server.stdout(), "the line of the WebSocket")
        alive.send("still here")
        assert alive.recv(PATIENCE) == "still here"


def test_an_idle_websocket_is_closed_where_that_is_wanted():
    with Served("talking:app", "--ws-idle-timeout", "0.5") as server, opened(server) as websocket:
        assert end_of(websocket) == (1001, "no message for 0.5 s")


def test_a_flood_is_held_back_while_the_application_does_not_receive():
    with Served("talking:app", "--ws-ping-interval", "0") as server, server.connect() as client:
        client.request("/deaf", **HANDSHAKE)
        assert client.head().status == 101
        client.sock.settimeout(0.5)
        sent = 0
        message = b"\x82\xff" + (1 << 16).to_bytes(8, "big") + bytes(4) + bytes(1 << 16)
        with pytest.raises(TimeoutError):
            while sent < 64 << 20:
                sent += client.sock.send(message)
        # What the kernels of both ends hold.
        assert sent < 16 << 20


@pytest.mark.parametrize("mode", MODES)
def test_a_stop_closes_with_1012_and_awaits_the_answers(mode):
    with Served("talking:app", *MODES[mode], "--timeout-graceful-shutdown", "4") as server, ExitStack() as open_ones:
        websockets = [open_ones.enter_context(opened(server)) for _ in range(20)]
        began = time.monotonic()
        server.signal(signal.SIGTERM)

        assert [end_of(websocket) for websocket in websockets] == [(1012, "service restart")] * 20
        assert server.wait() == 0
        # Half of the grace time at least; the whole of it would have cut them.
        assert time.monotonic() - began > 1.5
        assert "cut" not in server.log()
        assert server.stdout().count(", closed with 1012, 0B received\n") == 20


def test_a_reload_moves_clients_to_the_new_generation():
    with (
        Served("talking:app", "--workers", "2", "--timeout-graceful-shutdown", "1") as server,
        opened(server, "/scope") as websocket,
    ):
        before = websocket.recv(PATIENCE)
        old = server.workers()
        server.signal(signal.SIGHUP)
        assert end_of(websocket) == (1012, "service restart")
        wait_until(lambda: not old & server.workers(), "the old workers have gone")
        with opened(server, "/scope") as again:
            assert again.recv(PATIENCE) != before


def test_a_client_that_does_not_answer_does_not_hold_up_the_stop():
    options = ("--timeout-graceful-shutdown", "0.6", "--accept", "single")
    with Served("talking:app", *options) as server, server.connect() as client:
        client.request("/", **HANDSHAKE)
        assert client.head().status == 101
        server.signal(signal.SIGTERM)

        assert client.rest() == b"\x88\x11\x03\xf4service restart"
        assert server.wait() == 0


def test_an_application_that_is_deaf_is_named_when_it_is_cut():
    options = ("--timeout-graceful-shutdown", "0.4", "--accept", "single")
    with Served("talking:app", *options) as server, opened(server, "/deaf") as websocket:
        server.signal(signal.SIGTERM)
        assert end_of(websocket) == (1012, "service restart")
        assert server.wait() == 0
        line = server.wait_for("cut at the end of the grace time")
    assert "talking:app: WebSocket '/deaf' of 127.0.0.1:" in line
    assert "talking.py" in line


def test_a_quick_stop_and_a_report_name_open_websockets():
    with Served("talking:app") as server, opened(server) as websocket:
        websocket.send("in")
        websocket.recv(PATIENCE)
        (worker,) = server.workers()
        server.signal(signal.SIGUSR2, worker)
        line = server.wait_for("talking:app: WebSocket '/' of 127.0.0.1:")
        # "at", or "RUNNING at": it may not have come back to receive() yet.
        assert "2 bytes sent, " in line
        assert "talking.py" in line
        server.signal(signal.SIGQUIT)
        assert end_of(websocket) in {(1012, "service restart"), None}


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("line", '"GET /?a=b HTTP/1.1" 101 Switching Protocols 2B '),
        ("combined", '"GET /?a=b HTTP/1.1" 101 2 "-" "'),
        ("json", '"status":101,"bytes":2,'),
    ],
)
def test_every_format_has_code_and_bytes(form, pattern):
    with Served("talking:app", "--access-log-format", form) as server:
        with opened(server, "/?a=b") as websocket:
            websocket.send("in")
            websocket.recv(PATIENCE)
        line = wait_until(server.stdout, "the line of the WebSocket")
    ends = {"line": ", closed with 1000, 2B received\n", "combined": " 1000 2\n"}
    ends["json"] = '"close_code":1000,"received_bytes":2}\n'
    assert pattern in line
    assert line.endswith(ends[form])


def test_a_unix_socket_and_a_proxy_header_come_before_them(tmp_path):
    path = str(tmp_path / "s")
    with Served("talking:app", "--uds", path, "--proxy-protocol", "v1", "--accept", "single") as server:
        client = Client(path)
        client.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 1234 443\r\n")
        with connect("ws://test/scope", proxy=None, sock=client.sock, open_timeout=PATIENCE) as websocket:
            assert websocket.recv(PATIENCE) == f"ws 192.0.2.9  /scope {server.pid}"
        client.close()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_nginx_in_front_passes_them_on_and_no_other_upgrade(tmp_path, tls):
    with (
        Served("talking:app", "--accept", "single") as server,
        Nginx(tmp_path, f"127.0.0.1:{server.port}", tls=tls) as nginx,
    ):
        with socket.create_connection(("127.0.0.1", nginx.port), PATIENCE, source_address=(CLIENT, 0)) as sock:
            how = {"ssl": nginx.trust()} if tls else {}
            url = f"{'wss' if tls else 'ws'}://127.0.0.1:{nginx.port}/scope"
            with connect(url, sock=sock, proxy=None, open_timeout=PATIENCE, **how) as websocket:
                assert websocket.recv(PATIENCE) == f"{'wss' if tls else 'ws'} {CLIENT}  /scope {server.pid}"
        if not tls:
            with Client(("127.0.0.1", nginx.port)) as client:
                assert client.get("/", **{**HANDSHAKE, "upgrade": "h2c"}).status == 200
