"""--tls-processes: real terminators, real workers, and what becomes of connections when either goes."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.clients import Broken, Client, Load
from tests.process.servers import Served, freeze, processes, wait_until
from tests.tls import Authority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="--tls-processes needs Linux")

LINE = b"PROXY TCP4 203.0.113.9 198.51.100.1 50000 443\r\n"

PATTERNS = {
    "shared": [],
    "reuseport": ["--reuseport"],
    "dispatch": ["--accept", "dispatch"],
    "threads": ["--accept", "threads", "--threads", "2"],
}


class House:
    """An authority with a server's certificate, and clients that know it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.certfile, self.keyfile = self.authority.server().write(folder)
        self.ca = self.authority.write(folder)
        self.client = self.authority.client_context()
        self.folder = folder

    @property
    def flags(self) -> list[str]:
        return ["--ssl-certfile", str(self.certfile), "--ssl-keyfile", str(self.keyfile)]

    def served(self, app: str = "plain:app", *arguments: str, processes: int = 1, **options: object) -> Served:
        flags = [*self.flags, "--tls-processes", str(processes), "--no-access-log", *arguments]
        return Served(app, *flags, **options)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("certificates"))


def one(pids: set[int]) -> int:
    (pid,) = pids
    return pid


# What the application sees.


@pytest.fixture(scope="module")
def both(house, tmp_path_factory):
    """The same server twice: with TLS in the worker, and with a terminator. TCP, a unix socket, and behind a proxy."""
    folder = tmp_path_factory.mktemp("sockets")
    asks = [*house.flags, "--ssl-ca-certs", str(house.ca), "--ssl-cert-reqs", "optional", "--no-access-log"]
    made = []
    try:
        for name, more in (("inline", []), ("terminated", ["--tls-processes", "1"])):
            binds = ["--bind", "127.0.0.1:0", "--bind", "[::1]:0", "--bind", f"unix:{folder}/{name}"]
            made.append(Served("scoped:app", *asks, *binds, *more).__enter__())
        yield made
    finally:
        for server in made:
            server.__exit__(None)


def scope_of(client: Client) -> dict:
    """What the application was given, but for what is another one on each connection."""
    scope = ast.literal_eval(client.get("/").text)
    if scope["client"] is not None:
        assert scope["client"][1] == client.sock.getsockname()[1]
        scope["client"] = scope["client"][0]
        scope["server"] = scope["server"][0]
    scope["headers"] = dict(scope["headers"])
    return scope


@pytest.mark.parametrize("shown", [True, False], ids=["certificate", "anonymous"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_the_scope_is_the_same_whoever_speaks_tls(both, house, version, shown):
    certificate = house.authority.client("alice", organization='Wonder + "L\u00e4nd"') if shown else None
    tls = house.authority.client_context(certificate, maximum_version=version)
    scopes = []
    for server in both:
        with server.connect(tls=tls) as client:
            scopes.append(scope_of(client))
    inline, terminated = scopes
    assert terminated == inline
    said = inline["extensions"]["tls"]
    assert said["server_cert"] == house.certfile.read_text()
    assert said["tls_version"] == (0x0303 if version is ssl.TLSVersion.TLSv1_2 else 0x0304)
    assert said["cipher_suite"]
    assert bool(said["client_cert_chain"]) is shown
    assert ("alice" in (said["client_cert_name"] or "")) is shown


def test_the_scope_of_a_resumed_session_is_the_same(both, house):
    """With TLS 1.2, where the session has the client's certificate and no handshake shows it again."""
    certificate = house.authority.client("alice")
    scopes = []
    for server in both:
        tls = house.authority.client_context(certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
        with server.connect(tls=tls) as client:
            scope_of(client)
            session = client.sock.session
        raw = socket.create_connection(("127.0.0.1", server.port))
        with tls.wrap_socket(raw, server_hostname="localhost", session=session) as sock:
            assert sock.session_reused
            scopes.append(scope_of(on(sock)))
    assert scopes[0] == scopes[1]


def on(sock: ssl.SSLSocket) -> Client:
    """A client on a connection that is there already."""
    client = Client.__new__(Client)
    client.sock = sock
    client._file = sock.makefile("rb")
    return client


def test_the_scope_over_ipv6_and_over_a_unix_socket_is_the_same(both, house):
    scopes = []
    for server in both:
        port = int(server.urls[1].rpartition(":")[2])
        with house.client.wrap_socket(socket.create_connection(("::1", port)), server_hostname="localhost") as sock:
            six = scope_of(on(sock))
        path = server.urls[2].partition("unix:")[2]
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(path)
            with house.client.wrap_socket(raw, server_hostname="localhost") as sock:
                local = scope_of(on(sock))
        assert local["server"] == (path, None)
        local["server"] = None
        scopes.append((six, local))
    assert scopes[0] == scopes[1]
    assert scopes[0][0]["client"] == "::1"
    assert scopes[0][1]["client"] is None


def test_the_scope_behind_a_load_balancer_that_does_not_speak_tls_is_the_same(house):
    scopes = []
    for more in ([], ["--tls-processes", "1"]):
        with (
            Served("scoped:app", *house.flags, "--proxy-protocol", "v1", *more) as server,
            socket.create_connection(("127.0.0.1", server.port)) as raw,
        ):
            raw.sendall(LINE)
            with house.client.wrap_socket(raw, server_hostname="localhost") as sock:
                scopes.append(ast.literal_eval(on(sock).get("/").text))
    assert scopes[0] == scopes[1]
    assert scopes[1]["client"] == ("203.0.113.9", 50000)


def test_no_application_is_imported_where_the_keys_are(house):
    with house.served("scoped:app", "--workers", "2", processes=2) as server:
        assert server.get("/", tls=house.client).status == 200
        imported = {int(pid) for pid in re.findall(r"imported in (\d+)", server.stdout())}
        assert imported == server.workers()
        assert len(server.terminators()) == 2
        assert server.wait_for("2 workers").endswith("--accept shared, --tls-processes 2")


def test_plain_addresses_stay_the_workers_own(house):
    with house.served("scoped:app", "--bind", "https://127.0.0.1:0", "--bind", "http://localhost:0") as server:
        secured, plain = (int(url.rpartition(":")[2]) for url in server.urls[:2])
        assert "'scheme': 'https'" in server.get("/", port=secured, tls=house.client).text
        assert "'scheme': 'http'," in server.get("/", port=plain).text
        assert "private" not in " ".join(server.urls)


# Who goes, and what is lost.


@pytest.mark.once
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_stop_under_load_loses_nothing_that_was_accepted(house, pattern):
    with house.served("plain:app", "--workers", "2", *PATTERNS[pattern], processes=2) as server:
        with Load(server, tls=house.client) as load:
            load.progress()
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        refused = [failure for failure in load.failures if "ConnectionRefused" in failure.error]
        assert load.failures == refused


@pytest.mark.once
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_reload_under_load_replaces_terminators_too_and_loses_nothing(house, pattern):
    with house.served("plain:app", "--workers", "2", *PATTERNS[pattern]) as server:
        before = server.terminators()
        with Load(server, tls=house.client) as load:
            load.progress()
            mark = server.mark()
            server.signal(signal.SIGHUP)
            server.wait_for("reload to generation 2 finished", since=mark)
            wait_until(lambda: not before & server.terminators(), "the old terminator has left")
            load.progress()
        assert not load.failures
        assert len(server.terminators()) == 1


def test_all_who_are_told_to_end_at_once_end_in_order(house):
    """As a terminal does, and the kernel when the master dies: workers wait for what is still to come."""
    with house.served("plain:app", "--workers", "2", processes=2) as server:
        with Load(server, tls=house.client, keep_alive=0, fresh=8) as load:
            load.progress()
            os.killpg(server.pid, signal.SIGTERM)
            assert server.wait() == 0
        broken = [failure for failure in load.failures if "ConnectionRefused" not in failure.error]
        # Whoever comes between a terminator's last look at the queue and its close is reset by the kernel. Workers that
        # do not wait for those who shake hands lose about as many as there are clients.
        assert len(broken) <= 2
        assert all("ConnectionReset" in failure.error for failure in broken)


def test_a_terminator_that_is_killed_takes_its_own_connections_along_and_no_others(house):
    with house.served("plain:app", processes=2) as server:
        victim, other = sorted(server.terminators())
        theirs = {}
        for pid, idle in ((victim, other), (other, victim)):
            freeze(idle)  # so that it is known who accepts
            theirs[pid] = [server.connect(tls=house.client) for _ in range(8)]
            server.signal(signal.SIGCONT, idle)
        for client in (*theirs[victim], *theirs[other]):
            assert client.get("/pid").status == 200
        mark = server.mark()
        server.signal(signal.SIGKILL, victim)
        # New ones are accepted at once by the other, before there is a successor.
        assert server.get("/pid", tls=house.client).status == 200
        # These first: an error of one client may be told of the next in this thread (CPython issue 148594).
        for client in theirs[other]:
            assert client.get("/pid").status == 200
        for client in theirs[victim]:
            with pytest.raises((Broken, OSError)):
                client.get("/pid")
        server.wait_for("is ready", since=mark)
        assert len(server.terminators()) == 2
        for client in (*theirs[victim], *theirs[other]):
            client.close()


def test_a_download_goes_on_through_a_terminator_that_was_replaced(house):
    with house.served("plain:app") as server:
        old = one(server.terminators())
        with server.connect(tls=house.client) as client:
            client.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234")
            mark = server.mark()
            (worker,) = server.workers()
            listening = len(os.listdir(f"/proc/{worker}/fd"))
            server.signal(signal.SIGHUP)
            # The worker that has the request drains, and so does the terminator that has the connection.
            wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) < listening, "its listeners are closed")
            assert old in processes()
            client.send(b"56789")
            response = client.response()
        assert response.body == b"0123456789"
        assert response.closes
        server.wait_for("reload to generation 2 finished", since=mark)
        wait_until(lambda: old not in processes(), "it has left")


def test_a_kept_connection_is_told_to_close_when_its_terminator_leaves(house):
    """Although its worker stays: this one has been replaced before."""
    with house.served("plain:app") as server, server.connect(tls=house.client) as busy:
        server.signal(signal.SIGHUP)
        server.wait_for("takes over from pid")
        wait_until(lambda: busy.get("/pid").closes, "it is told to")


def test_certificates_are_renewed_in_terminators(house, tmp_path):
    mine = House(tmp_path)
    with mine.served("plain:app") as server, server.connect(tls=mine.client) as old:
        before = old.sock.getpeercert(binary_form=True)
        mine.authority.server("localhost", "127.0.0.1").write(tmp_path)
        server.wait_for("new certificate")

        def shown() -> bytes:
            with server.connect(tls=mine.client) as client:
                return client.sock.getpeercert(binary_form=True)

        wait_until(lambda: shown() != before, "the new certificate is shown")
        assert old.get("/pid").status == 200


def test_sessions_are_resumed_whichever_terminator_accepts(house):
    with house.served("plain:app", processes=2) as server:
        tls = house.authority.client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
        with server.connect(tls=tls) as client:
            assert client.get("/pid").status == 200
            session = client.sock.session
        resumed = 0
        for _ in range(8):
            raw = socket.create_connection(("127.0.0.1", server.port))
            with tls.wrap_socket(raw, server_hostname="localhost", session=session) as sock:
                resumed += sock.session_reused
        assert resumed == 8


# Who may not.


def test_a_stranger_at_the_private_socket_is_closed_and_named(house):
    with house.served("plain:app") as server:
        name = next(
            line.split()[-1]
            for line in Path("/proc/net/unix").read_text().splitlines()
            if line.split()[-1].startswith("@") and inode_of(server, line.split()[6])
        )
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("\0" + name[1:])
            sock.settimeout(10)
            with suppress(ConnectionError):
                assert sock.recv(1) == b""
        line = server.wait_for("is no terminator")
        assert f"process {os.getpid()} has connected" in line


def inode_of(server: Served, inode: str) -> bool:
    """Whether the socket with this inode is open in the master."""
    links = Path(f"/proc/{server.pid}/fd")
    for link in links.iterdir():
        with suppress(OSError):
            if os.readlink(link) == f"socket:[{inode}]":
                return True
    return False


# What else belongs to it.


@pytest.mark.once
def test_a_client_that_does_not_read_is_cut_by_its_worker_in_time(house):
    """Little is kept between them: the worker sees that nothing is taken, although it does not see the client."""
    flags = ["--timeout-write", "1"]
    with house.served("plain:app", *flags) as server, server.connect(tls=house.client) as client:
        client.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        server.wait_for("it has read next to nothing for 1 s")
        with pytest.raises(Broken):
            client.response()


@pytest.mark.once
def test_a_stop_waits_for_a_download_through_a_terminator(house):
    with house.served("plain:app", "--timeout-graceful-shutdown", "20") as server:
        with server.connect(tls=house.client) as client:
            client.send(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
            client.head()
            server.signal(signal.SIGTERM)
            server.wait_for("stopping")
            client.sock.settimeout(20)
            total = 0
            while data := client._file.read1(65536):
                total += len(data)
        assert server.wait() == 0
        assert total >= 1 << 20


@pytest.mark.once
def test_a_drain_delay_is_served_through_and_then_nobody_is_accepted(house):
    with house.served("plain:app", "--drain-delay", "1") as server:
        with server.connect(tls=house.client) as kept:
            assert not kept.get("/pid").closes
            server.signal(signal.SIGTERM)
            server.wait_for("draining: serving on for 1 s")
            assert not kept.get("/pid").closes
            assert server.get("/pid", tls=house.client).status == 200
        assert server.wait() == 0


@pytest.mark.once
def test_a_new_master_takes_over_the_addresses_and_has_terminators_of_its_own(house):
    with house.served("plain:app") as server:
        old = server.terminators()
        with Load(server, tls=house.client, keep_alive=2, fresh=2) as load:
            load.progress(5)
            server.signal(signal.SIGUSR2)
            server.wait_for("the new master, pid")
            server.signal(signal.SIGWINCH)
            wait_until(lambda: not old & set(processes()), "the old terminators have left")
            load.progress(5)
            server.signal(signal.SIGQUIT)
            server.wait_for("the old master has gone")
            load.progress(5)
        assert not load.failures
        # ``Served`` asks the first process to end, which has: so it is asked here.
        heir = int(re.search(r"the new master, pid (\d+)", server.log())[1])
        os.kill(heir, signal.SIGTERM)
        wait_until(lambda: heir not in processes(), "the new master has ended")


@pytest.mark.once
def test_a_handshake_that_never_ends_does_not_keep_the_server_from_stopping(house):
    with house.served("plain:app") as server, socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(b"\x16\x03\x01")
        # Accepted, and begun: a later one is answered by the same terminator.
        assert server.get("/pid", tls=house.client).status == 200
        server.signal(signal.SIGTERM)
        assert server.wait(8) == 0
        assert half.recv(1) == b""


@pytest.mark.once
def test_more_workers_and_fewer_are_found_by_the_same_terminators(house):
    with house.served("plain:app") as server:
        before = server.terminators()
        server.signal(signal.SIGTTIN)
        server.wait_for("worker 1 (pid")
        seen = set()
        wait_until(lambda: seen.add(server.get("/pid", tls=house.client).text) or len(seen) == 2, "both serve")
        server.signal(signal.SIGTTOU)
        server.wait_for("worker 1 has gone")
        assert server.get("/pid", tls=house.client).status == 200
        assert server.terminators() == before


@pytest.mark.once
def test_a_terminator_that_stands_still_is_replaced(house):
    with house.served("plain:app", "--timeout-worker", "1", processes=2) as server:
        victim = min(server.terminators())
        server.signal(signal.SIGSTOP, victim)
        server.wait_for(f"(pid {victim}) is stuck")
        wait_until(lambda: victim not in processes() and len(server.terminators()) == 2, "it has a successor")
        assert server.get("/pid", tls=house.client).status == 200


def test_logs_are_opened_again_by_terminators_too(house, tmp_path):
    log = tmp_path / "server.log"
    with house.served("plain:app", "--log-file", str(log), "--log-level", "debug", ready=False) as server:
        wait_until(lambda: log.exists() and " ready: " in log.read_text(), "it serves")
        port = int(re.search(r"listening on https://127.0.0.1:(\d+)", log.read_text())[1])
        log.rename(tmp_path / "old.log")
        server.signal(signal.SIGUSR1)
        pid = one(server.terminators())

        def told() -> bool:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(b"\x16\x03\x01\x00\x05hello")
                with suppress(ConnectionError):
                    sock.recv(100)
            return log.exists() and f"[{pid}]" in log.read_text()

        wait_until(told, "the failed handshake is in the new file")
