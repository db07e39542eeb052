from __future__ import annotations

import os
import shutil

import pytest

from tests.bench.servers import Running
from tests.bench.tls import report
from tests.bench.tls.__main__ import TOOLS, parse
from tests.bench.tls.loads import LOADS, NEGOTIATED, answers, check, parse_s_time
from tests.bench.tls.peers import FLAGS, VARIANTS, peers
from tests.bench.visit import visit
from tests.process.identities import self_signed

S_TIME = """No CIPHER specified
Collecting connection statistics for 1 seconds


Now timing with session id reuse.
starting
{marks}

{count} connections in 0.12s; 775.00 connections/user sec, bytes read 15531
{count} connections in 2 real seconds, {size} bytes read per connection
"""


def timed(marks, size=167):
    return S_TIME.format(marks=marks, count=len(marks), size=size)


def test_resumed_handshakes_of_all_clients_count():
    seen = parse_s_time([timed("rrr"), timed("rr")], 1.5)
    assert (seen.requests, seen.seconds, seen.errors) == (5, 1.5, {})
    assert (seen.p50_us, seen.p99_us) == (None, None)


def test_whole_handshakes_and_missing_answers_are_errors():
    seen = parse_s_time([timed("r*r*", size=0)], 1)
    assert (seen.requests, seen.errors) == (2, {"not resumed": 2, "no answer": 1})


@pytest.mark.parametrize("text", ["", "connect: Connection refused", timed("rr").partition("\nstarting")[0]])
def test_what_is_no_output_of_s_time_is_refused(text):
    with pytest.raises(ValueError, match="no output of openssl s_time"):
        parse_s_time([text], 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_server_has_certificate_and_key_in_front_of_what_it_had(name):
    words = peers("a.crt", "a.key")[name].options("1234")
    certificate, key = FLAGS[VARIANTS[name][0]]
    assert words[:6] == [*words[:2], certificate, "a.crt", key, "a.key"]
    assert "1234" in " ".join(words[6:])


def test_variants_have_other_options():
    known = peers("a.crt", "a.key")
    assert "--ktls" in known["aioserve-ktls"].options("1")
    assert "--tls-processes 2" in " ".join(known["aioserve-tls2"].options("1"))
    assert "--accept" not in known["aioserve-tls2"].options("1")


def test_wrk_asks_for_the_same_over_tls():
    words = LOADS["full"].wrk(1234, 3)
    assert words[0] == "env"
    assert words[2] == "wrk"
    assert (words[-2], words[-1]) == ("Connection: close", "https://127.0.0.1:1234/")


def seen(server, workload, rate, cpu_us, p99_us=None, busy=1.0):
    return {
        "round": 0, "workload": workload, "server": server, "requests_per_second": float(rate), "pss_kib": 20480,
        "cpu_us_per_request": cpu_us, "client_us_per_request": 5.0, "p50_us": p99_us and 500.0, "p99_us": p99_us,
        "server_busy": busy, "client_busy": 0.5, "others_on_server_core": 0.0, "others_on_client_core": 0.0,
        "problems": [],
    }  # fmt: skip


RESULTS = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789abcdef",
    "dirty": False,
    "machine": {"cpu": "Some CPU", "cores": 2, "kernel": "Linux 6", "load_average": 0.1},
    "versions": {"python": "CPython 3.13.0", "wrk": "4.1.0", "uvloop": "0.23", "aioserve": "0.1", "uvicorn": "0.5"},
    "settings": {
        "rounds": 1, "seconds": 3, "servers": ["aioserve", "uvicorn"], "base": "uvicorn", "cores": [0, 1],
        "workloads": ["hello", "paced", "resumed"], "negotiated": ["TLSv1.3", "SOME_CIPHER"],
    },
    "visits": [
        seen("aioserve", "hello", 200, 10.0, 900.0), seen("uvicorn", "hello", 100, 20.0, 1100.0),
        seen("aioserve", "paced", 50, 12.0, 700.0, busy=0.3), seen("uvicorn", "paced", 50, 24.0, 1500.0, busy=0.5),
        seen("aioserve", "resumed", 30, 300.0, busy=0.5), seen("uvicorn", "resumed", 20, 500.0),
    ],
}  # fmt: skip


def test_the_table_shows_rates_and_the_tail_of_the_paced_load():
    text = report.render(RESULTS)
    assert "TLSv1.3 with SOME_CIPHER" in text
    assert text.splitlines()[2:] == [
        "|  | hello | resumed handshake | p99 of a paced load |",
        "| - | -: | -: | -: |",
        "| aioserve 0.1 | 2.00 x · 10.0 µs | 1.50 x ‡ · 300.0 µs | 0.70 ms · 12.0 µs |",
        "| uvicorn 0.5 | 1.00 x · 20.0 µs | 1.00 x · 500.0 µs | 1.50 ms · 24.0 µs |",
        "",
        "‡ busy for less than 90% of its core: not the server was the limit.",
    ]


def test_details_show_what_the_client_costs_and_no_latency_that_was_not_told():
    lines = report.details(RESULTS).splitlines()
    assert ("| aioserve | 30 | 1.50 (1.50-1.50) | 300.0 | 1.67 | 5.0 | - | - | 20.0 | 50% / 50% | 0% / 0% |") in lines
    assert any(line.startswith("| aioserve | 200 |") and "| 0.50 | 0.90 |" in line for line in lines)


def test_servers_and_workloads_are_chosen_by_name():
    options = parse(["--servers", "aioserve,granian", "--workloads", "hello,full"])
    assert (options.servers, options.workloads) == (["aioserve", "granian"], ["hello", "full"])
    assert parse([]).servers == list(VARIANTS)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}")
def test_a_server_is_visited(tmp_path):
    peer = peers(*self_signed("localhost", "127.0.0.1").write(tmp_path))["aioserve"]
    with Running(peer, min(os.sched_getaffinity(0)), tmp_path) as server:
        server.await_boot(answers)
        records = [visit(server, load, 1, check=check, load=load.load) for load in LOADS.values()]
    assert [record["problems"] for record in records] == [[]] * len(LOADS)
    assert all(record["requests"] > 0 and record["client_us_per_request"] > 0 for record in records)
    assert NEGOTIATED[0] == "TLSv1.3"
