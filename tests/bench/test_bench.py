from __future__ import annotations

import copy
import os
import shutil

import pytest

from tests.bench import proc, report
from tests.bench.__main__ import TOOLS, parse
from tests.bench.harness import rotated
from tests.bench.micro.__main__ import CASES
from tests.bench.micro.timing import nanoseconds
from tests.bench.servers import DEFAULT, PEERS, Running
from tests.bench.visit import Wrk, parse_wrk, visit
from tests.bench.workloads import IDLE, WORKLOADS, answers

CLEAN = """Running 3s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   765.21us  152.86us   5.43ms   96.95%
    Req/Sec    84.10k     2.31k   87.22k    83.87%
  Latency Distribution
     50%  742.00us
     75%  799.00us
     90%    0.86ms
     99%    1.09ms
  259463 requests in 3.10s, 36.62MB read
Requests/sec:  83697.74
Transfer/sec:     11.81MB
"""

TROUBLED = """Running 1m test @ http://127.0.0.1:8000/
  Latency Distribution
     50%    1.20s
     75%    1.30s
     90%    1.40s
     99%    1.02m
  120 requests in 1.00m, 12.00KB read
  Socket errors: connect 0, read 17, write 0, timeout 4
  Non-2xx or 3xx responses: 3
Requests/sec:      2.00
"""


def test_wrk_reports_requests_time_and_latencies():
    assert parse_wrk(CLEAN) == Wrk(requests=259463, seconds=3.1, p50_us=742.0, p99_us=1090.0)


def test_wrk_reports_socket_errors_and_bad_statuses():
    wrk = parse_wrk(TROUBLED)
    assert wrk.errors == {"read": 17, "timeout": 4, "status": 3}
    assert (wrk.seconds, wrk.p50_us, wrk.p99_us) == (60.0, 1.2e6, pytest.approx(61.2e6))


@pytest.mark.parametrize("text", ["", "unable to connect to 127.0.0.1:1 Connection refused", CLEAN.partition("50%")[0]])
def test_what_is_no_output_of_wrk_is_refused(text):
    with pytest.raises(ValueError, match="no output of wrk"):
        parse_wrk(text)


def test_a_process_may_have_any_name():
    stat = "4711 (a) b (c) S 17 4711 23 0 -1 0 0 0 0 0 250 50 7 7 20 0 1 0 99"
    assert proc.parse_stat(stat) == (17, 23, 300 / proc.TICKS_PER_SECOND)


def test_a_process_belongs_to_its_own_tree():
    assert os.getpid() in proc.tree(os.getpid())


def seen(server, rate, number=0, workload="hello", cpu_us=10.0, problems=(), busy=1.0, others=0.0):
    return {
        "round": number, "workload": workload, "server": server, "requests": int(rate), "seconds": 1.0,
        "requests_per_second": float(rate), "cpu_us_per_request": cpu_us, "p50_us": 700.0, "p99_us": 1500.0,
        "pss_kib": 20480, "server_busy": busy, "client_busy": 0.5, "others_on_server_core": others,
        "others_on_client_core": 0.0, "errors": {}, "problems": list(problems),
    }  # fmt: skip


def weighed(server, problems=()):
    return {
        "round": 0, "workload": IDLE, "server": server, "connections": 5000, "pss_before_kib": 20480,
        "pss_after_kib": 28160, "kib_per_connection": 1.536, "problems": list(problems),
    }  # fmt: skip


def results(*visits, rounds=1):
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "machine": {"cpu": "Some CPU", "cores": 2, "kernel": "Linux 6", "load_average": 0.1},
        "versions": {"python": "CPython 3.13.0", "wrk": "4.1", "uvloop": "0.23", "aioserve": "0.1", "uvicorn": "0.5"},
        "settings": {
            "rounds": rounds, "seconds": 3, "servers": ["aioserve", "uvicorn"], "workloads": ["hello"],
            "base": "uvicorn", "cores": [0, 1], "idle_connections": 5000, "commands": {}, "loops": {},
        },
        "missing": [],
        "failed": {},
        "visits": list(visits),
    }  # fmt: skip


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    visits = [
        seen(server, rate, number)
        for number, rates in enumerate([(200, 100), (90, 30), (100, 100)])
        for server, rate in zip(("aioserve", "uvicorn"), rates, strict=True)
    ]
    cell = report.summarize(results(*visits, rounds=3))["hello", "aioserve"]
    assert (cell["ratio"], cell["ratio_low"], cell["ratio_high"]) == (2.0, 1.0, 3.0)
    assert cell["requests_per_second"] == 100.0


def test_a_round_with_problems_does_not_count_and_is_named():
    visits = [
        seen("aioserve", 900, 0, problems=["3 read errors"]), seen("uvicorn", 100, 0),
        seen("aioserve", 150, 1), seen("uvicorn", 100, 1),
    ]  # fmt: skip
    data = results(*visits, rounds=2)
    assert report.summarize(data)["hello", "aioserve"]["ratio"] == 1.5
    assert "- hello, aioserve: 1 of 2 rounds do not count (3 read errors)" in report.render(data)


def test_a_round_in_which_the_base_had_problems_gives_no_ratio():
    data = results(seen("aioserve", 150), seen("uvicorn", 100, problems=["1 status errors"]))
    assert "ratio" not in report.summarize(data)["hello", "aioserve"]
    assert "| aioserve 0.1 | - · 10.0 µs |" in report.render(data)
    assert "| uvicorn 0.5 | † |" in report.render(data)


def test_a_server_that_answers_wrongly_has_an_empty_cell():
    data = results({"round": 0, "workload": "hello", "server": "aioserve", "problems": ["answered 500"]})
    assert "| aioserve 0.1 | † |" in report.render(data)
    assert "| aioserve | † | † |" in report.details(data)


def test_the_table_shows_servers_by_workloads_and_memory():
    data = results(
        seen("aioserve", 190, cpu_us=9.0), seen("uvicorn", 100, cpu_us=17.04), weighed("aioserve"), weighed("uvicorn")
    )
    assert report.render(data).splitlines()[2:] == [
        "|  | hello | at rest | idle connection |",
        "| - | -: | -: | -: |",
        "| aioserve 0.1 | 1.90 x · 9.0 µs | 20 MiB | 1.5 KiB |",
        "| uvicorn 0.5 | 1.00 x · 17.0 µs | 20 MiB | 1.5 KiB |",
    ]


def test_details_show_each_workload_with_all_that_was_measured():
    text = report.details(results(seen("aioserve", 190), seen("uvicorn", 100), weighed("aioserve")))
    assert "| aioserve | 190 | 1.90 (1.90-1.90) | 10.0 | 1.00 | 0.70 | 1.50 | 20.0 | 100% / 50% | 0% / 0% |" in text
    assert "| aioserve | 1.54 | 20.0 | 27.5 |" in text


def test_a_server_that_was_not_the_limit_is_marked():
    assert "1.90 x ‡" in report.render(results(seen("aioserve", 190, busy=0.5), seen("uvicorn", 100)))


def test_a_busy_machine_is_named():
    data = results(seen("aioserve", 190, others=0.4), seen("uvicorn", 100, others=0.4))
    assert "not quiet: others took 40%" in report.render(data)


def test_one_core_for_both_ends_is_named():
    data = copy.deepcopy(results(seen("uvicorn", 100)))
    data["settings"]["cores"] = [0, 0]
    assert "say nothing" in report.render(data)


def test_everybody_is_first_in_turn():
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]


def test_servers_and_workloads_are_chosen_by_name():
    options = parse(["--servers", "aioserve,granian", "--workloads", "hello,idle5000"])
    assert (options.servers, options.workloads) == (["aioserve", "granian"], ["hello", "idle5000"])
    assert parse([]).servers == DEFAULT


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["--servers", "nginx"])
    assert "'nginx' is none of aioserve, uvicorn" in capsys.readouterr().err


@pytest.mark.parametrize("case", CASES)
def test_micro_benchmark_runs(case):
    CASES[case](3)


def test_time_is_given_per_operation():
    batches = []
    assert nanoseconds(batches.append, repeats=2, batch_seconds=0.0) >= 0.0
    assert batches == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="needs wrk and taskset")
def test_a_server_is_started_visited_and_ended(tmp_path):
    with Running(PEERS["aioserve"], min(os.sched_getaffinity(0)), tmp_path) as server:
        server.await_boot(answers)
        server.pause()
        record = visit(server, WORKLOADS["hello"], 1)
        pids = server.processes()
    assert record["problems"] == []
    assert record["requests"] > 0
    assert record["cpu_us_per_request"] > 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
