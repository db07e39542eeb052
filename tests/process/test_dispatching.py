"""``--accept dispatch``: what a dispatcher adds to the behaviour that all accept modes share."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.served import links
from tests.process.clients import Client, Load
from tests.process.servers import Served, freeze, wait_until

LOOPS = ["uvloop", "asyncio"]


def serve(*options, workers=2, app="plain:app", **how):
    return Served(app, "--workers", str(workers), "--accept", "dispatch", "--no-access-log", *options, **how)


def requests(server, stack, count, target="/pid"):
    """So many clients that have sent a request each."""
    clients = [stack.enter_context(server.connect()) for _ in range(count)]
    for client in clients:
        client.request(target)
    return clients


def sockets_of(pid):
    return sum(link.startswith("socket:") for link in links(pid))


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_that_are_held_are_spread_evenly(loop):
    with serve("--loop", loop, workers=4) as server:

        def spread():
            with ExitStack() as stack:
                clients = [stack.enter_context(server.connect()) for _ in range(64)]
                return Counter(client.get("/pid").text for client in clients)

        # A worker that waits for a processor for some milliseconds is passed over, and of 64 that come at once all
        # may have come by then. Whenever none has to, there are 16 on each.
        wait_until(lambda: set(spread().values()) == {16}, "16 connections on each worker")


def test_killed_dispatcher_takes_only_what_it_had_not_passed_on_and_is_replaced():
    with serve() as server:
        workers, victim = server.workers(), server.dispatcher()
        at_rest = sockets_of(victim)
        with Load(server) as load:
            load.progress()
            freeze(victim)
            inside = sockets_of(victim) - at_rest
            server.signal(signal.SIGKILL, victim)
            server.wait_for(f"dispatcher (pid {victim}) killed by SIGKILL")
            server.wait_for("dispatcher (pid ", since=server.log().index("killed by SIGKILL"))
            load.progress()

        assert server.workers() == workers
        assert server.dispatcher() not in {0, victim}
        assert all(failure.fresh for failure in load.failures)
        assert len(load.failures) <= inside


def test_reload_replaces_the_dispatcher_too():
    with serve() as server:
        before = server.dispatcher()
        with Load(server) as load:
            server.signal(signal.SIGHUP)
            server.wait_for("reload to generation 2 finished: 2 replaced")
            wait_until(lambda: server.dispatcher() not in {0, before}, "the dispatcher is another one")
            load.progress()
        assert load.failures == []


def test_nobody_waits_for_a_worker_that_is_busy_while_another_one_is_idle():
    with serve() as server, ExitStack() as stack:
        busy, idle = server.workers()
        freeze(busy)
        clients = requests(server, stack, 20)

        assert {client.response().text for client in clients} == {str(idle)}
        server.signal(signal.SIGCONT, busy)

        def comes_back():
            return stack.enter_context(server.connect()).get("/pid").text == str(busy)

        wait_until(comes_back, "it is given connections again")


def test_what_waits_for_a_worker_that_is_killed_is_served_by_its_successor():
    with serve(workers=1) as server, ExitStack() as stack:
        [victim] = server.workers()
        freeze(victim)
        clients = requests(server, stack, 5)
        dispatcher, at_rest = server.dispatcher(), sockets_of(server.dispatcher())
        wait_until(lambda: sockets_of(dispatcher) <= at_rest, "all are passed on")
        server.signal(signal.SIGKILL, victim)

        [answer] = {client.response().text for client in clients}
        assert {int(answer)} == server.workers() - {victim}


def test_connections_above_the_limit_wait_and_are_served_when_there_is_room():
    with serve("--limit-connections", "2") as server, ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(4)]
        assert set(Counter(client.get("/pid").text for client in held).values()) == {2}
        server.wait_for("2 connections are open, the limit")
        waiting = requests(server, stack, 3)
        # Who holds a connection is served, whoever waits.
        assert [client.get("/pid").status for client in held] == [200] * 4
        assert not any(readable(client) for client in waiting)

        for client in held:
            client.close()
        assert [client.response().status for client in waiting] == [200] * 3


def readable(client: Client) -> bool:
    client.sock.setblocking(False)
    try:
        return bool(client.sock.recv(1))
    except BlockingIOError:
        return False
    finally:
        client.sock.settimeout(20)


@pytest.mark.parametrize("loop", LOOPS)
def test_each_connection_knows_where_it_was_accepted(tmp_path, loop):
    path = f"{tmp_path}/s"
    with serve("--loop", loop, "-b", "127.0.0.1:0", "-b", f"unix:{path}") as server, ExitStack() as stack:
        port = int(server.urls[0].rpartition(":")[2])
        clients = [stack.enter_context(Client(address)) for address in (("127.0.0.1", port), path) * 3]
        seen = [json.loads(client.get("/scope").body)["server"] for client in clients]

    assert seen == [["127.0.0.1", port], [path, None]] * 3


def test_a_load_balancer_says_who_the_client_is():
    with serve("--proxy-protocol", "v1", app="proxied:app") as server, server.connect() as client:
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n")
        assert json.loads(client.get("/").body)["client"] == ["192.0.2.1", 5000]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_dispatcher_is_the_user_that_the_workers_are():
    with serve("--user", "nobody") as server:
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in server.workers() | {server.dispatcher()}}
        answers = [server.get("/").status for _ in range(4)]

    assert len(owners) == 1
    assert owners != {0}
    assert answers == [200] * 4
