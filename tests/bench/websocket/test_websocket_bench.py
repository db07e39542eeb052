from __future__ import annotations

import os
import shutil
import socket
import threading

import pytest

from tests.bench.servers import Running, ServerError
from tests.bench.websocket import report
from tests.bench.websocket.__main__ import parse
from tests.bench.websocket.crowd import CROWDS
from tests.bench.websocket.load import WORKLOADS, answers, converse, exchange, join, visit
from tests.bench.websocket.peers import SOCKET_PEERS, WEIGHED
from tests.bench.websocket.wire import BINARY, TEXT, accept_for, answer, echo_of, handshake, request


def test_the_accept_is_that_of_the_rfcs_example():
    asked = b"GET /chat HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in accept_for(asked)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_an_echo_is_the_answer_with_the_same_payload(opcode, size):
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    assert echo_of(request(opcode, payload)) == answer(opcode, payload)


def test_the_rfcs_frames():
    assert answer(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert len(request(BINARY, bytes(65_536))) == 1 + 9 + 4 + 65_536


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_two_clients_say_the_same(name):
    workload = WORKLOADS[name]
    said = {workload.payload(number) for number in range(workload.connections)}
    assert len(said) == workload.connections
    assert {len(payload) for payload in said} == {workload.size}


def conversation(*said):
    """What ``converse`` makes of a server that says each of ``said`` once, in pieces, and then closes."""
    workload = WORKLOADS["echo32"]
    ours, theirs = socket.socketpair()

    def serve():
        with theirs:
            for pieces in said:
                theirs.recv(4096)
                for piece in pieces:
                    theirs.sendall(piece)
            theirs.recv(4096)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours:
        result = converse(workload, [ours], 5)
    thread.join()
    return result


def test_an_answer_may_come_in_pieces():
    whole = WORKLOADS["echo32"].answer(0)
    assert conversation([whole], [whole[:7], whole[7:]]) == (2, "closed a connection")


def test_a_wrong_answer_does_not_count():
    right = WORKLOADS["echo32"].answer(0)
    answered, problem = conversation([right], [right[:-1] + b"?"])
    assert (answered, problem) == (1, f"answered {right[:-1] + b'?'!r}")


def record(server, workload, **numbers):
    return {"round": 0, "workload": workload, "server": server, "problems": [], **numbers}


def spoken(server, rate, cpu_us, busy=1.0):
    return record(
        server, "echo32", requests_per_second=float(rate), cpu_us_per_request=cpu_us, pss_kib=20480,
        server_busy=busy, client_busy=0.4, others_on_server_core=0.0, others_on_client_core=0.0,
    )  # fmt: skip


def results(*visits):
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "machine": {"cpu": "Some CPU", "cores": 2, "kernel": "Linux 6", "load_average": 0.1},
        "versions": {
            "python": "CPython 3.13.0", "uvloop": "0.23", "websockets": "17", "aioserve": "0.1", "uvicorn": "0.5",
            "floor": None,
        },
        "settings": {
            "rounds": 1, "seconds": 3, "servers": ["aioserve", "uvicorn", "floor"], "base": "uvicorn",
            "workloads": ["echo32", "plain"], "cores": [0, 1], "idle_connections": 5000,
        },
        "visits": list(visits),
    }  # fmt: skip


def test_the_table_shows_messages_and_memory():
    data = results(
        spoken("aioserve", 150, 8.04), spoken("uvicorn", 100, 12.0), spoken("floor", 300, 3.0, busy=0.5),
        record("aioserve", "plain", kib_per_connection=2.04, pss_before_kib=1, pss_after_kib=2),
    )  # fmt: skip
    assert report.render(data).splitlines()[2:] == [
        "|  | 32 bytes of text | idle, no compression |",
        "| - | -: | -: |",
        "| aioserve 0.1 | 1.50 x · 8.0 µs | 2.0 KiB |",
        "| uvicorn 0.5 | 1.00 x · 12.0 µs |  |",
        "| floor | 3.00 x ‡ · 3.0 µs |  |",
        "",
        "‡ busy for less than 90% of its core: not the server was the limit.",
    ]


def test_details_show_all_that_was_measured():
    data = results(spoken("aioserve", 150, 8.0), spoken("uvicorn", 100, 12.0))
    assert "| aioserve | 150 | 1.50 (1.50-1.50) | 8.0 | 20.0 | 100% / 40% | 0% / 0% |" in report.details(data)


def test_where_the_base_was_not_visited_details_show_no_ratio():
    assert "| aioserve | 150 | - | 8.0 |" in report.details(results(spoken("aioserve", 150, 8.0)))


def test_servers_and_workloads_are_chosen_by_name():
    options = parse(["--servers", "aioserve,floor", "--workloads", "echo32,plain"])
    assert (options.servers, options.workloads) == (["aioserve", "floor"], ["echo32", "plain"])
    assert parse([]).servers == list(SOCKET_PEERS)
    assert set(WEIGHED) < set(SOCKET_PEERS)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")
@pytest.mark.parametrize("name", ["aioserve", "floor"])
def test_a_server_is_visited(name, tmp_path):
    if SOCKET_PEERS[name].version is None:
        pytest.skip("uvloop is not installed")
    with Running(SOCKET_PEERS[name], min(os.sched_getaffinity(0)), tmp_path) as server:
        server.await_boot(answers)
        records = [visit(server, workload, 0.2) for workload in WORKLOADS.values()]
    assert [seen["problems"] for seen in records] == [[], []]
    assert all(seen["requests"] > 0 and seen["requests_per_second"] > 0 for seen in records)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")
@pytest.mark.parametrize("crowd", CROWDS)
def test_a_crowd_is_open_until_it_is_closed(crowd, tmp_path):
    with Running(SOCKET_PEERS["aioserve"], min(os.sched_getaffinity(0)), tmp_path) as server:
        server.await_boot(answers)
        crowd = CROWDS[crowd][1](server.port, 20)
        try:
            assert crowd.count_lost() == 0
        finally:
            crowd.close()


def test_a_handshake_that_is_refused_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse():
            sock, _ = server.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(ServerError, match="403"):
            join(server.getsockname()[1])
        thread.join()


def test_a_wrong_echo_is_told():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x81\x02no")
        with pytest.raises(ServerError, match="answered"):
            exchange(ours, handshake(), b"\x81\x03yes"[:4])
