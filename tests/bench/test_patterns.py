from __future__ import annotations

import math
import os
import shutil
import socket
import threading

import pytest

from tests.bench.patterns import balance, losses, rates, report, tails
from tests.bench.patterns.__main__ import estimate, parse, plan, shortfall
from tests.bench.patterns.arrivals import Arrivals, quantile, summary
from tests.bench.patterns.quiet import rest
from tests.bench.patterns.table import FEW, MANY, PATTERNS, Pattern, available
from tests.bench.servers import Running
from tests.bench.workloads import WORKLOADS, answers
from tests.chaos.ledger import Loss

SHARED, SINGLE, GRANIAN = (PATTERNS[name] for name in ("shared", "single", "granian --workers"))


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.76, 4), (0.999, 4), (1.0, 4), (0.0, 1)])
def test_a_quantile_is_one_of_the_values(share, value):
    assert quantile([4, 1, 3, 2], share) == value


def test_a_summary_is_in_microseconds():
    found = summary([0.001, 0.003], [0.0, 0.0001], {})
    assert (found["connections"], found["p50_us"], found["max_us"]) == (2, 1000.0, 3000.0)
    assert found["client_late_max_us"] == 100.0


def test_without_any_answer_there_is_no_latency():
    assert summary([], [0.0], {"ECONNREFUSED": 3}) == {"failed": {"ECONNREFUSED": 3}}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nHello, World!", {}),
        (b"HTTP/1.1 500 Oh\r\n\r\nHello, World!", {"status": 2}),
        (b"HTTP/1.1 200 OK\r\n\r\nHello", {"closed early": 2}),
    ],
)
def test_arrivals_take_nothing_but_whole_answers(answer, failed):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(2):
                with listener.accept()[0] as sock:
                    sock.recv(4096)
                    sock.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        arrivals = Arrivals(listener.getsockname()[1], rate=200, seconds=0.01)
        arrivals.run()
        thread.join()
    assert arrivals.failed == failed
    assert len(arrivals.late) == 2


def test_a_refused_arrival_is_counted():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        arrivals = Arrivals(sock.getsockname()[1], rate=200, seconds=0.01)
        arrivals.run()
    assert arrivals.failed.total() == 2
    assert not arrivals.latencies


@pytest.mark.parametrize(("counts", "most_to_least"), [([32, 16, 16], 2.0), ([64, 0], math.inf)])
def test_spread_is_most_to_least(counts, most_to_least):
    assert balance.spread(counts) == most_to_least


def loss(kind="keep", stage="head", error="IncompleteReadError 0 bytes read on a total of undefined", pid=7):
    return Loss(kind, stage, error, 1.0, 1.1, 0.5, 4000, pid, 0.02, race=False)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(loss(), "race", id="a kept connection closed before the first byte"),
        pytest.param(loss(error="ConnectionResetError [Errno 104] reset"), "race", id="or reset"),
        pytest.param(loss(error="IncompleteReadError 10 bytes read on a total"), "lost", id="half a head"),
        pytest.param(loss(error="Wrong answered with b'HTTP/1.1 503'"), "lost", id="another answer"),
        pytest.param(loss(stage="body"), "lost", id="half a body"),
        pytest.param(loss(pid=0), "lost", id="the first request on its connection"),
        pytest.param(loss(kind="fresh", pid=0), "lost", id="the only request on its connection"),
        pytest.param(loss(stage="connect", pid=0), "lost", id="no connection"),
        pytest.param(
            loss(stage="idle", error="ConnectionResetError", pid=0), "lost", id="reset before its first request"
        ),
        pytest.param(loss(stage="idle"), "ended", id="no request was on it"),
    ],
)
def test_only_a_request_that_may_be_sent_again_is_a_race(found, verdict):
    assert losses.verdict(found) == verdict


@pytest.mark.slow
def test_flags_that_are_refused_make_a_pattern_unavailable():
    unknown = Pattern("unknown", "--accept telepathy")
    usable, refused = available([unknown, SINGLE])
    assert usable == {SINGLE: SINGLE.flags}
    assert list(refused) == ["unknown"]
    assert "telepathy" in refused["unknown"]


def test_a_pattern_has_all_workers_in_one_command():
    command = SHARED.peer(3).options("8000")
    assert command[-4:] == ["--accept", "shared", "--workers", "3"]
    assert "tests.bench.patterns.app:app" in command


def test_each_pattern_is_visited_for_what_it_has():
    options = parse(["--rounds", "1"])
    assert plan(options, [SHARED, SINGLE, GRANIAN]) == [
        (0, SHARED, FEW, ["rates", "tails"]),
        (0, SHARED, MANY, ["tails", "balance"]),
        (0, SINGLE, 1, ["rates", "tails"]),
        (0, GRANIAN, FEW, ["tails"]),
        (0, SHARED, FEW, ["losses"]),
        (0, GRANIAN, FEW, ["losses"]),
    ]


def test_the_whole_run_takes_about_twelve_minutes():
    options = parse([])
    assert estimate(options, plan(options, list(PATTERNS.values()))) < 12.5 * 60


def test_quick_is_quick():
    options = parse(["--quick", "--only", "reuseport --steal late,shared"])
    assert (options.only, options.rounds, options.replacements) == (["reuseport --steal late", "shared"], 1, 20)


def rated(workload, server, rate, cpu):
    return seen(
        workload, server, requests_per_second=rate, cpu_us_per_request=cpu, server_cores=1.2, client_cores=0.7,
        other_cores=0.01,
    )  # fmt: skip


def late(workload, server, p99):
    return seen(
        workload, server, connections=1200, p50_us=512.0, p99_us=p99, p999_us=12_345.0, max_us=50_000.0,
        cpu_us_per_connection=300.0, client_late_p99_us=120.0, client_late_max_us=2000.0,
    )  # fmt: skip


def seen(workload, server, *, number=0, problems=(), **numbers):
    return {"round": number, "workload": workload, "server": server, **numbers, "problems": list(problems)}


VISITS = [
    rated("hello", "shared", 50_000, 18.2),
    rated("hello", "reuseport", 55_000, 17.6),
    late("quiet", "shared", 800.0),
    late("blocked", "reuseport", 45_678.0),
    late("blocked-4", "reuseport", 9_876.0),
    seen("burst64", "shared", counts=[60, 4, 0, 0]),
    seen("burst64", "shared", number=1, counts=[32, 16, 8, 8]),
    seen("burst64", "reuseport", counts=[18, 16, 15, 15]),
    seen("replace", "reuseport", replacements=200, requests=34_540, connections=30_000, lost=0, race=2, ended=0,
         seconds=23.0),
    seen("replace", "shared", problems=["after 4 replacements: not within 20 s"]),
]  # fmt: skip


def results(**changes):
    return {
        "date": "2026-01-02T03:04:05+00:00", "commit": "0123456789abcdef", "dirty": False,
        "machine": {"cpu": "Some CPU", "cores": 2, "kernel": "Linux 6", "load_average": 0.1},
        "versions": {"python": "CPython 3.13.0", "wrk": "4.1", "uvloop": "0.23", "aioserve": "0.1", "granian": "2.8"},
        "settings": {
            "rounds": 2, "seconds": 2, "base": "shared", "cores": [0, 1], "gil": True,
            "servers": ["aioserve", "granian"], "patterns": ["shared", "reuseport"],
        },
        "unavailable": {}, "failed": {}, "client": {"p50_us": 210.0, "p99_us": 700.0, "p999_us": 1900.0},
        "visits": VISITS, **changes,
    }  # fmt: skip


def test_the_table_has_a_row_for_each_pattern():
    rows = [line.split(" | ") for line in report.render(results()).splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| ", "| -", "| shared", "| reuseport"]
    assert rows[2][1:] == ["1.00 x · 18 µs", "", "0.51 / 0.80 / 12", "", "", "∞", "", "† |"]
    assert rows[3][1:] == [
        "1.10 x · 18 µs", "", "", "0.51 / 46 / 12", "0.51 / 9.9 / 12", "1.2", "", "0 of 34,540 in 200 |",
    ]  # fmt: skip


def test_a_replacement_that_did_not_end_is_named_below_the_table():
    assert "- replace, shared: 1 of 1 rounds do not count (after 4 replacements: not within 20 s)" in report.render(
        results()
    )


def test_only_what_aioserve_has_lost_is_a_failure():
    visits = [
        seen("replace", "shared", lost=2, requests=1000),
        seen("replace", "reuseport", lost=0, requests=1000),
        seen("replace", "granian --workers", lost=5, requests=1000),
    ]
    assert shortfall(results(visits=visits)) == ["shared: 2 of 1,000 requests"]


def test_balance_shows_the_median_the_worst_and_an_example():
    text = report.details(results())
    assert "| shared | ∞ / ∞ (32:16:8:8) |" in text
    assert "| reuseport | 1.2 / 1.2 (18:16:15:15) |" in text


def test_details_have_a_table_for_what_was_measured():
    text = report.details(results())
    assert "| reuseport | 55,000 | 1.10 (1.10-1.10) | 17.6 | 1.20 / 0.70 / 0.01 |" in text
    assert "| reuseport | 0.51 | 46 | 12 | 50 | 300 | 0.12 / 2.00 |" in text
    assert "| reuseport | 200 | 34,540 | 0 | 2 | 0 | 23 |" in text
    assert "Connections per second" not in text


def test_the_caption_says_what_the_client_itself_costs():
    assert "A server that does nothing gave p50 / p99 / p99.9 of 0.21 / 0.70 / 1.9 ms" in report.caption(results())


def test_what_is_not_there_is_named():
    text = report.render(results(unavailable={"dispatch": "not in this version"}, failed={"threads": "ended with 1"}))
    assert "Not measured:\n- dispatch: not in this version\n- threads: ended with 1" in text


def test_a_busy_machine_is_named():
    busy = rated("hello", "shared", 50_000, 18.2) | {"other_cores": 0.8}
    assert "others took 0.80 cores" in report.caption(results(visits=[busy]))


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not shutil.which("wrk") or not shutil.which("taskset"), reason="needs wrk and taskset")
def test_a_pattern_is_started_measured_and_ended(tmp_path):
    cores = ",".join(map(str, os.sched_getaffinity(0)))
    with Running(SHARED.peer(FEW), cores, tmp_path) as server:
        server.await_boot(answers)
        rest(server)
        rate = rates.measure(server, WORKLOADS["newconn"], 1)
        tail = tails.measure(server, 0.5, blocked=True)
        spread = balance.measure(server, "burst64", FEW)
        lost = losses.measure(server, SHARED, FEW, 2)
        pids = server.processes()
    assert [record["problems"] for record in (rate, tail, spread, lost)] == [[], [], [], []]
    assert rate["cpu_us_per_request"] > 0
    assert tail["connections"] == 300
    assert tail["blocks"] >= 2
    assert sum(spread["counts"]) == 64
    assert (lost["replacements"], lost["lost"]) == (2, 0)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
