"""What is printed: the table, its explanation, the recommendation; and the JSON document."""

from __future__ import annotations

import dataclasses
import json

from aioserve.tune import report
from aioserve.tune.measured import Measured
from aioserve.tune.results import Visit
from aioserve.tune.verdict import judge
from tests.pure.tune.rows import SETUP, TABLE, candidate, row


def test_the_table_reads_like_this():
    text = report.table(TABLE, SETUP, best=candidate("shared x 2"), current=candidate("shared x 1"))
    assert text.splitlines() == [
        "                    kept connections                 new connections paced at 4,000/s, ms",
        "                    requests/s  +-  us CPU  busiest  per s  us CPU   p50   p99  p99.9  MiB",
        "  shared x 1 (now)      10,000  0%    40.0        -  4,000       -  0.20  0.90   4.00   35",
        "> shared x 2            15,000  3%    41.0     56 %  6,000    90.0  0.20  0.80   2.00   44",
        "  reuseport x 2         15,100  0%    42.0     70 %  6,100       -  0.20    45      -   44",
    ]


def test_no_line_of_the_table_is_wider_than_a_hundred_columns():
    wide = [dataclasses.replace(one, rate=1234567.0, fresh_rate=123456.0, memory=99999 << 20) for one in TABLE]
    text = report.table(wide, SETUP, best=None, current=candidate("reuseport x 2"))
    assert max(map(len, text.splitlines())) <= 100


def test_columns_that_nobody_could_fill_are_left_out():
    text = report.table([row("single", 100.0, rounds=(100.0,))], SETUP, best=None, current=None)
    assert text.split() == ["kept", "connections", "requests/s", "single", "100"]


def test_who_could_not_keep_up_has_no_latencies():
    text = report.table([row("single", 100.0, p50=1.0, p99=2.0, behind=True)], SETUP, best=None, current=None)
    assert text.split()[-3:] == ["behind", "behind", "behind"]


def test_columns_are_explained_and_errors_are_named():
    lines = report.explanations([*TABLE, row("single", 1.0, errors=("status 500 (new connections)",))], SETUP)
    assert [line.partition(":")[0] for line in lines] == ["+-", "us CPU", "busiest", "paced", "single"]
    assert lines[-1] == "single: status 500 (new connections)"


def test_columns_that_are_not_there_are_not_explained():
    setup = dataclasses.replace(SETUP, paced_rate=None)
    assert report.explanations([row("single", 1.0, rounds=(1.0,))], setup) == [
        "CPU time and memory can be told on Linux only."
    ]


def test_the_recommendation_has_flags_reason_cost_and_next_step():
    lines = report.recommendation(judge(TABLE, cpus=2, connections=8), SETUP, current=None).splitlines()
    assert lines[0] == "Recommended: --accept shared --workers 2"
    assert lines[1].startswith("Why:   shared x 2 and reuseport x 2 serve most requests per second")
    assert any(line.startswith("Cost:  26% more memory than shared x 1.") for line in lines)
    assert lines[-2:] == [
        "Next:  aioserve shop:app --accept shared --workers 2",
        '       or in aioserve.toml, [process]: accept = "shared", workers = 2',
    ]


def test_flags_that_are_left_out_of_the_next_step_are_said():
    setup = dataclasses.replace(SETUP, command="aioserve shop:create ...")
    text = report.recommendation(judge(TABLE, cpus=2, connections=8), setup, current=None)
    assert "\nNext:  aioserve shop:create ... --accept shared --workers 2   (...: your other flags)\n" in text


def test_a_doubtful_recommendation_is_said_to_be():
    text = report.recommendation(
        judge([row("shared x 2", 100.0, others=0.5)], cpus=2, connections=8), SETUP, current=None
    )
    assert text.startswith("Recommended: --accept shared --workers 2   (not for certain: see the notes)\n")


def test_what_is_configured_already_is_said_to_be():
    text = report.recommendation(judge(TABLE, cpus=2, connections=8), SETUP, current=candidate("shared x 2"))
    assert text.startswith("Recommended: --accept shared --workers 2   (as it is configured now)\n")


def test_notes_follow_the_costs():
    verdict = judge([row("shared x 1", 100.0, lag=1.0)], cpus=2, connections=8)
    assert "\nNote:  Event loops stood still" in report.recommendation(verdict, SETUP, current=None)


def test_the_document_is_json_with_everything_in_it():
    visits = [Visit(candidate=candidate("shared x 2"), round=1, kept=Measured(requests=3, seconds=1.0))]
    found = json.loads(report.dump(report.document(SETUP, TABLE, visits, judge(TABLE, cpus=2, connections=8))))
    assert (found["format"], found["setup"]["app"], found["setup"]["paced_rate"]) == (1, "shop:app", 4000.0)
    assert [one["label"] for one in found["candidates"]] == ["shared x 1", "shared x 2", "reuseport x 2"]
    assert found["candidates"][1]["flags"] == "--accept shared --workers 2"
    assert found["candidates"][1]["rounds"] == [14800.0, 15000.0, 15300.0]
    assert found["visits"][0]["kept"]["requests"] == 3
    assert found["recommendation"]["label"] == "shared x 2"
    assert found["recommendation"]["reasons"]


def test_the_document_of_a_run_without_a_verdict_says_so():
    assert report.document(SETUP, [], [], None)["recommendation"] is None


def test_a_visit_is_a_line():
    run = Measured(requests=3000, seconds=1.0, p99=0.004)
    one = Visit(candidate=candidate("shared x 2"), round=2, kept=run, fresh=run, paced=run)
    assert report.visited(one) == "round 2, shared x 2: 3,000 requests/s, 3,000 new connections/s, p99 4.00 ms"
    assert report.visited(dataclasses.replace(one, paced=None, fresh=None)) == (
        "round 2, shared x 2: 3,000 requests/s, - new connections/s"
    )
    assert report.visited(dataclasses.replace(one, problem="it died")) == "round 2, shared x 2: it died"
