"""How a server ends: what waits is served, streams are told, what is cut is named, and nobody has to wait in vain."""

from __future__ import annotations

import errno
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.handshakes import begin, error_of, is_over
from tests.process.servers import PATIENCE, Served, freeze, wait_until

if TYPE_CHECKING:
    import socket

pytestmark = pytest.mark.slow

MODES = [
    ("--workers", "2", "--accept", "dispatch"),
    ("--workers", "2"),
    ("--workers", "2", "--reuseport"),
    ("--accept", "single"),
    ("--accept", "threads", "--threads", "2"),
]
LOOPS = ["uvloop", "asyncio"]


def serve(*arguments: str) -> Served:
    return Served("draining:app", *arguments, "--no-access-log")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_connections_that_wait_in_the_queue_are_served_before_the_end(mode, loop):
    with serve(*mode, "--loop", loop) as server:
        # While the application keeps every loop busy, nobody accepts; the kernel takes the connections.
        blockers = [server.connect() for _ in range(16)]
        for blocker in blockers:
            blocker.request("/block")
        server.wait_for("blocks")
        waiting = [server.connect() for _ in range(20)]
        for client in waiting:
            client.request("/")
        server.signal(signal.SIGTERM)
        assert [client.response().text for client in waiting] == ["hello"] * 20
        assert [blocker.response().text for blocker in blockers] == ["blocked"] * 16
        assert server.wait() == 0
    for client in waiting + blockers:
        client.close()


@pytest.mark.parametrize("mode", [mode for mode in MODES if "single" not in mode], ids=" ".join)
def test_nobody_gets_in_between_the_last_look_at_the_queue_and_the_end(mode):
    with serve(*mode) as server:
        # They keep their copies of the listening sockets, as if the CPU were others' just then.
        accepting = server.members() - {server.pid}
        for pid in accepting:
            freeze(pid)
        server.signal(signal.SIGTERM)
        *let_in, late = attempts(server.port)
        for client in let_in:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for pid in accepting:
            server.signal(signal.SIGCONT, pid)
        for client in let_in:
            client.settimeout(PATIENCE)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            client.close()
        assert server.wait() == 0
        assert is_over(late, within=PATIENCE)
        assert error_of(late) == errno.ECONNREFUSED
        late.close()


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_nobody_finds_a_unix_socket_while_the_server_drains(mode, tmp_path):
    path = tmp_path / "s"
    bind = ("--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    with serve(*mode, *bind, "--timeout-graceful-shutdown", "100s") as server, server.connect() as client:
        client.request("/stream")
        assert next(client.body(client.head())) == b"first"
        assert path.exists()
        server.signal(signal.SIGTERM)
        wait_until(lambda: not path.exists(), "the file is gone")
        # The stream would have held it for 50 s more.
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0


def attempts(port: int) -> list[socket.socket]:
    """One client after the other, until one is not let in."""
    clients: list[socket.socket] = []

    def is_kept_out() -> bool:
        clients.append(begin(port))
        return not is_over(clients[-1])

    wait_until(is_kept_out, "nobody is let in any more")
    return clients


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_delay_serves_on_with_new_connections_too(mode):
    with serve(*mode, "--drain-delay", "60s") as server, server.connect() as kept:
        assert kept.get("/").text == "hello"
        server.signal(signal.SIGTERM)
        server.wait_for("draining: serving on for 60 s (--drain-delay)")
        assert server.get("/").text == "hello"
        answer = kept.get("/")
        assert (answer.text, answer.closes) == ("hello", False)
        server.signal(signal.SIGQUIT)
        assert server.wait() == 0


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_streams_are_told_at_half_time_and_say_goodbye(mode):
    with serve(*mode, "--timeout-graceful-shutdown", "2s") as server, server.connect() as client:
        client.request("/stream")
        response = client.head()
        body = client.body(response)
        assert next(body) == b"first"
        server.signal(signal.SIGTERM)
        assert b"".join(body) == b"goodbye"
        assert server.wait() == 0
        assert "cut" not in server.log()


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_what_is_cut_is_reported_with_the_place_where_it_waited(mode):
    with serve(*mode, "--timeout-graceful-shutdown", "500ms") as server, server.connect() as client:
        client.request("/deaf")
        response = client.head()
        assert next(client.body(response)) == b"first"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    line = next(line for line in server.log().splitlines() if " cut " in line)
    assert re.search(
        r"cut at the end of the grace time: draining:app: GET '/deaf' of 127\.0\.0\.1:\d+, \d\.\d s old, "
        r"\d+ bytes sent, "
        r"at .*draining\.py:\d+ rest\(\), there in .*tasks\.py:\d+ sleep\(\)",
        line,
    )


def test_heart_beats_on_during_the_shutdown_of_the_lifespan():
    with serve("--workers", "1", "--timeout-worker", "3s", "--timeout-lifespan-shutdown", "20s") as server:
        with server.connect() as client:
            client.get("/slow-shutdown")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        server.wait_for("draining:app: shutdown complete")
        assert "stuck" not in server.log()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_single_process_that_is_stopped_while_it_imports_ends_cleanly(sig, tmp_path):
    (tmp_path / "slow.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    with Served("slow:app", "--accept", "single", cwd=tmp_path, ready=False) as server:
        wait_until(lambda: "importing" in server.stdout(), "the import")
        server.signal(sig)
        assert server.wait() == 0
        assert f"{sig.name}: stopped before the application was imported" in server.log()


def test_single_process_stops_also_when_the_application_swallows_the_signal(tmp_path):
    (tmp_path / "slow.py").write_text(
        "print('importing', flush=True)\nimport time\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
        "async def app(scope, receive, send): ...\n"
    )
    with Served("slow:app", "--accept", "single", cwd=tmp_path, ready=False) as server:
        wait_until(lambda: "importing" in server.stdout(), "the import")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_single_process_that_is_process_one_stops_while_it_imports(tmp_path):
    # A process 1 of a namespace gets only those signals that it has handlers for.
    (tmp_path / "slow.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    with Served("slow:app", "--accept", "single", cwd=tmp_path, ready=False) as server:
        wait_until(lambda: "importing" in server.stdout(), "the import")
        caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{server.pid}/status").read_text())
        assert caught is not None
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            assert int(caught[1], 16) >> (sig - 1) & 1
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
