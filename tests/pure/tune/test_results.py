"""From visits to rows, and how far rounds may be apart."""

from __future__ import annotations

import pytest

from aioserve.tune.measured import Measured
from aioserve.tune.results import Visit, is_ahead, rows, scatter
from tests.pure.tune.rows import candidate, row

SHARED, REUSEPORT = candidate("shared x 2"), candidate("reuseport x 2")


def visit(number, requests, *, one=SHARED, **values):
    return Visit(candidate=one, round=number, kept=Measured(requests=requests, seconds=2.0), **values)


def test_a_row_has_the_medians_of_its_rounds():
    found = rows([SHARED], [visit(1, 200, memory=3), visit(2, 600, memory=5), visit(3, 400, memory=4)])
    assert [(one.rate, one.rounds, one.memory, one.answers) for one in found] == [
        (200.0, (100.0, 300.0, 200.0), 4, 400)
    ]


def test_candidates_that_were_not_visited_have_no_row():
    assert [one.candidate for one in rows([SHARED, REUSEPORT], [visit(1, 1, one=REUSEPORT)])] == [REUSEPORT]


def test_cpu_time_is_per_request_and_per_connection():
    fresh = Measured(requests=50, seconds=1.0)
    (found,) = rows([SHARED], [visit(1, 100, kept_cpu=1.0, fresh=fresh, fresh_cpu=0.5)])
    assert found.fresh_rounds == (50.0,)
    assert (found.cpu, found.fresh_cpu, found.fresh_rate, found.busy) == (0.01, 0.01, 50.0, 0.5)


def test_cpu_time_that_nobody_can_say_is_not_said():
    (found,) = rows([SHARED], [visit(1, 100), visit(2, 0, kept_cpu=1.0)])
    assert (found.cpu, found.memory, found.share, found.others) == (None, None, None, None)


def test_latencies_are_those_of_the_paced_load():
    paced = Measured(requests=100, seconds=1.0, p50=0.1, p99=0.2)
    (found,) = rows([SHARED], [visit(1, 1), visit(2, 1, paced=paced)])
    assert (found.p50, found.p99, found.p999, found.behind) == (0.1, 0.2, None, False)
    assert found.p99_rounds == (0.2,)


def test_who_does_not_send_what_is_due_is_behind():
    (found,) = rows([SHARED], [visit(2, 1, paced=Measured(requests=90, seconds=1.0, behind=10))])
    assert found.behind
    in_time = visit(3, 1, paced=Measured(requests=100, seconds=1.0))
    (found,) = rows([SHARED], [visit(2, 1, paced=Measured(requests=90, seconds=1.0, behind=10)), in_time])
    assert not found.behind


def test_problems_and_errors_are_named_once_and_the_row_does_not_count():
    bad = Measured(requests=9, seconds=1.0, errors={"status 500": 3})
    (found,) = rows([SHARED], [visit(1, 1, fresh=bad), visit(2, 1, fresh=bad), visit(3, 1, problem="it died")])
    assert found.errors == ("status 500 (new connections)", "it died")
    assert not found.counts


def test_a_visit_without_anything_does_not_count():
    (found,) = rows([SHARED], [Visit(candidate=SHARED, round=1, problem="did not start")])
    assert (found.rate, found.counts) == (None, False)


def test_a_machine_that_is_slower_for_a_whole_round_is_no_scatter():
    assert scatter([row("shared x 1", 100, rounds=(100, 50, 100)), row("shared x 2", 200, rounds=(200, 100, 200))]) == 0


def test_scatter_is_how_far_the_rounds_of_one_candidate_are_apart():
    calm, wild = row("shared x 1", 100), row("shared x 2", 100, rounds=(90, 100, 110))
    assert scatter([calm, wild, row("shared x 4", 100, rounds=(95, 100, 105))]) == pytest.approx(0.1, abs=0.001)


def test_a_round_without_any_answer_is_as_far_apart_as_can_be():
    empty = row("shared x 1", 100, rounds=(0, 100, 100))
    assert scatter([empty]) == 1
    assert scatter([empty, row("shared x 2", 100), row("shared x 4", 100)]) == 0
    assert scatter([row("shared x 2", 100, rounds=(1, 100, 1000))] * 2 + [row("shared x 1", 100)]) <= 1


@pytest.mark.parametrize("table", [[], [row("shared x 1", 100, rounds=(100,))], [row("shared x 1", 0.0)]])
def test_without_rounds_to_compare_there_is_no_scatter(table):
    assert scatter(table) == 0


@pytest.mark.parametrize(
    ("mine", "theirs", "ahead"),
    [
        ((120, 120, 120), (100, 100, 100), True),
        ((104, 104, 104), (100, 100, 100), False),  # within the tolerance
        ((120, 90, 120), (100, 100, 100), False),  # not in every round
        ((), (100, 100, 100), False),
        ((120, 120, 120), (), False),
    ],
)
def test_ahead_is_who_is_so_in_every_round(mine, theirs, ahead):
    assert is_ahead(mine, theirs, 1.05) is ahead
    assert not is_ahead(theirs, mine, 1.05)
