"""Workers that die, are replaced or leave while clients are being served, in both accept modes that have workers."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.process.clients import Broken, Client, Load, Response
from tests.process.servers import APPS, Served, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "reuseport": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
}


@pytest.fixture(params=MODES)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served("plain:app", *MODES[request.param], "--no-access-log") as server:
        yield server


def clients_of_every_worker(server: Served, stack: ExitStack, *, each: int = 1) -> dict[int, list[Client]]:
    """Connections that have been answered, by the process id of the worker that holds them."""
    found: dict[int, list[Client]] = {pid: [] for pid in server.workers()}

    def all_found() -> bool:
        client = stack.enter_context(server.connect())
        found[int(client.get("/pid").text)].append(client)
        return all(len(clients) >= each for clients in found.values())

    wait_until(all_found, "connections to each worker")
    return found


def first_to_drain(probes: dict[int, Client]) -> int:
    """The worker that has begun to leave: from then on each response is the last of its connection.

    All probes are kept busy, because a connection that has been quiet for a while may be closed at once.
    """

    def look() -> int | None:
        answers = {pid: probe.get("/pid") for pid, probe in probes.items()}
        return next((pid for pid, answer in answers.items() if answer.closes), None)

    return wait_until(look, "a worker drains")


def wait_draining(*probes: Client) -> None:
    """Until all the workers on the other ends have begun to leave."""
    left = set(probes)

    def look() -> bool:
        left.difference_update([probe for probe in left if probe.get("/pid").closes])
        return not left

    wait_until(look, "the workers drain")


class Slow:
    """A request without its last bytes: the application waits for them as long as the test likes."""

    HEAD = b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"

    def __init__(self, client: Client) -> None:
        self._client = client
        client.send(self.HEAD)
        assert client.head().status == 100  # the application has begun to read
        client.send(b"ab")

    def finish(self) -> Response:
        self._client.send(b"cd")
        return self._client.response()


def test_killed_worker_is_replaced_while_the_others_serve_on(served):
    before = served.workers()
    victim = min(before)
    with Load(served) as load:
        load.progress()
        served.signal(signal.SIGKILL, victim)
        load.progress()
        served.wait_for(" is ready", since=served.log().index("ready: 2 workers"))
        load.progress()

    assert f"(pid {victim}) killed by SIGKILL" in served.log()
    assert len(served.workers()) == 2
    assert served.workers() & before == before - {victim}
    # A client that keeps its connection knows who served it; of the others, each can have lost the one under way.
    assert {failure.server for failure in load.failures if not failure.fresh} <= {str(victim), None}
    assert max(len(failures) for failures in load.failures_by_client) <= 1, load.failures


def test_killed_worker_takes_only_its_own_connections_along(served):
    with ExitStack() as stack:
        clients = clients_of_every_worker(served, stack)
        victim, survivor = clients

        served.signal(signal.SIGKILL, victim)

        assert [client.rest() for client in clients[victim]] == [b""] * len(clients[victim])
        assert {client.get("/pid").text for client in clients[survivor]} == {str(survivor)}


def test_nobody_waits_for_a_successor_that_takes_long_to_start(tmp_path):
    """Under --reuseport a client could be given to the slot of the worker that died."""
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "patient.py").write_text(
        "import pathlib, time\n"
        "from plain import app\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
    )
    with Served(
        "patient:app", "--workers", "2", "--reuseport", "--no-access-log", cwd=tmp_path, app_dir=APPS
    ) as server:
        victim, survivor = sorted(server.workers())
        gate.unlink()
        server.signal(signal.SIGKILL, victim)
        server.wait_for(f"(pid {victim}) killed by SIGKILL")
        assert {server.get("/pid").text for _ in range(30)} == {str(survivor)}

        mark = server.mark()
        gate.touch()
        server.wait_for("is ready", since=mark)
        wait_until(lambda: server.get("/pid").text != str(survivor), "the successor has its share")


def test_reloads_under_load_fail_no_request(served):
    before = served.workers()
    with Load(served) as load:
        load.progress()
        for generation in (2, 3, 4):
            served.signal(signal.SIGHUP)
            served.wait_for(f"reload to generation {generation} finished: 2 replaced")
            load.progress()

    assert load.failures == []
    assert load.answered > 100
    assert not served.workers() & before
    assert len(served.workers()) == 2


def test_hangups_in_quick_succession_under_load_fail_no_request(served):
    with Load(served) as load:
        load.progress()
        for _ in range(5):
            served.signal(signal.SIGHUP)
            load.progress(2)
        served.wait_for("reload to generation 3 finished: 2 replaced")
        load.progress()

    assert load.failures == []


def test_requests_in_flight_outlive_a_reload(served):
    with ExitStack() as stack:
        clients = clients_of_every_worker(served, stack, each=2)
        requests = {pid: Slow(own[0]) for pid, own in clients.items()}
        served.signal(signal.SIGHUP)

        probes = {pid: own[1] for pid, own in clients.items()}
        while probes:
            leaving = first_to_drain(probes)
            del probes[leaving]
            response = requests[leaving].finish()
            assert (response.status, response.text, response.closes) == (200, "abcd", True)

        served.wait_for("finished: 2 replaced")


def test_term_lets_requests_in_flight_finish_and_leaves_nothing_behind(served):
    with ExitStack() as stack:
        clients = clients_of_every_worker(served, stack, each=2)
        requests = [Slow(own[0]) for own in clients.values()]

        served.signal(signal.SIGTERM)
        wait_draining(*(own[1] for own in clients.values()))
        responses = [request.finish() for request in requests]

    assert [(response.status, response.text, response.closes) for response in responses] == [(200, "abcd", True)] * 2
    assert served.wait() == 0
    assert served.members() == set()


def test_term_under_load_breaks_no_connection_that_is_in_use(served):
    with Load(served) as load:
        load.progress()
        served.signal(signal.SIGTERM)
        assert served.wait() == 0

    # New connections find nobody, sooner or later; one that was being served has been told "Connection: close".
    assert [failure for failure in load.failures if failure.server is not None] == []
    assert served.members() == set()


def test_second_term_cuts_what_is_still_running(served):
    with ExitStack() as stack:
        clients = clients_of_every_worker(served, stack, each=2)
        first, second = next(iter(clients.values()))[:2]
        Slow(first)

        served.signal(signal.SIGTERM)
        wait_draining(second)
        wait_until(lambda: "stopping at once" in served.log() or served.signal(signal.SIGTERM), "a quick stop")

        assert served.wait() == 0
        assert re.search(r"cut at once: .*POST '/echo' of 127\.0\.0\.1:\d+, .*/plain\.py:\d+ read\(\)", served.log())
        assert first.response().status == 503


def test_workers_drain_and_leave_when_the_master_is_killed(served):
    with ExitStack() as stack:
        clients = clients_of_every_worker(served, stack, each=2)
        requests = [Slow(own[0]) for own in clients.values()]

        served.signal(signal.SIGKILL)
        wait_draining(*(own[1] for own in clients.values()))

        assert [request.finish().text for request in requests] == ["abcd", "abcd"]
    served.wait()
    wait_until(lambda: not served.members(), "the workers have left")


def test_one_process_without_a_master_serves_and_drains():
    with Served("plain:app", "--accept", "single") as server:
        assert server.workers() == set()
        with server.connect() as client, server.connect() as probe:
            request = Slow(client)
            server.signal(signal.SIGTERM)
            wait_draining(probe)
            assert request.finish().text == "abcd"
        assert server.wait() == 0


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTTIN", "SIGTTOU"])
def test_one_process_without_a_master_answers_signals_that_are_a_masters(name):
    with Served("plain:app", "--accept", "single") as server:
        server.signal(signal.Signals[name])
        server.wait_for(f"{name}: there is")
        assert server.get("/").status == 200


def test_one_process_without_a_master_leaves_at_the_second_interrupt():
    with Served("plain:app", "--accept", "single") as server, server.connect() as client, server.connect() as probe:
        Slow(client)
        server.signal(signal.SIGINT)
        wait_draining(probe)
        wait_until(lambda: "cut at once" in server.log() or server.signal(signal.SIGINT), "a quick stop")

        assert server.wait() == 0


@pytest.mark.parametrize("mode", [("--workers", "2", "--reuseport"), ("--workers", "2"), ("--accept", "single")])
def test_new_clients_are_refused_while_the_server_drains(mode):
    with Served("plain:app", *mode) as server, server.connect() as client:
        request = Slow(client)
        server.signal(signal.SIGTERM)

        wait_until(lambda: refuses(server), "a new connection is refused")
        assert request.finish().text == "abcd"
        assert server.wait() == 0


def refuses(server: Served) -> bool:
    """Whether nobody takes a connection; one that was taken just before is closed without an answer."""
    try:
        with server.connect() as client, suppress(Broken, ConnectionError):
            client.get("/")
    except ConnectionRefusedError:
        return True
    return False
