"""The recommendation, from made-up tables: each rule decides once, and is what is said."""

from __future__ import annotations

import dataclasses

from aioserve.tune.verdict import judge
from tests.pure.tune.rows import row

MIB = 1 << 20


def best(table):
    return judge(table, cpus=2, connections=8).best.candidate.label


def said(table, cpus=2):
    return " ".join(judge(table, cpus=cpus, connections=8).reasons)


def cautions(table, cpus=2):
    return " ".join(judge(table, cpus=cpus, connections=8).cautions)


def test_most_requests_per_second_win():
    table = [row("shared x 1", 1000), row("shared x 2", 1900), row("shared x 4", 1500)]
    assert best(table) == "shared x 2"
    assert (
        said(table) == "shared x 2 serves most requests per second in every round, 27% more than shared x 4, the next."
    )


def test_a_difference_within_noise_is_none_and_the_simplest_wins():
    table = [row("reuseport x 2", 1040), row("shared x 2", 1000), row("shared x 4", 1040)]
    assert best(table) == "shared x 2"
    assert "No candidate serves measurably more" in said(table)
    assert "Among reuseport x 2 and shared x 2, no pattern is measurably better for this application here." in said(
        table
    )


def test_a_lead_that_is_not_there_in_every_round_is_none():
    table = [row("shared x 2", 1000, rounds=(900, 1000, 1100)), row("reuseport x 2", 1300, rounds=(850, 1300, 1350))]
    assert best(table) == "shared x 2"


def test_rounds_that_are_far_apart_widen_the_tolerance():
    table = [
        row("shared x 1", 1000, rounds=(700, 1000, 1300)),
        row("shared x 2", 1200, rounds=(1250, 1200, 900)),
        row("shared x 4", 1300, rounds=(1260, 1300, 1310)),
    ]
    verdict = judge(table, cpus=2, connections=8)
    assert verdict.tolerance == verdict.scatter > 0.05
    assert f"the rounds themselves were {verdict.scatter:.0%} apart" in said(table)
    assert "Longer ones say more (--seconds 20)" in cautions(table)


def test_several_that_are_ahead_are_told_apart_by_the_next_rule():
    table = [row("shared x 1", 1000), row("shared x 2", 1900, p99=0.001), row("reuseport x 2", 1910, p99=0.045)]
    assert best(table) == "shared x 2"
    assert "shared x 2 and reuseport x 2 serve most requests per second, up to 91% more than shared x 1" in said(table)
    assert "p99 is 1.0 ms with shared x 2, and up to 45.0 with reuseport x 2" in said(table)


def test_a_tail_that_is_longer_by_less_than_a_millisecond_is_not():
    assert best([row("shared x 2", 1000, p99=0.0012), row("reuseport x 2", 1000, p99=0.0004)]) == "shared x 2"


def test_a_tail_that_is_not_longer_in_every_round_is_not():
    table = [row("shared x 2", 1000, p99=0.02, p99_rounds=(0.001, 0.04)), row("reuseport x 2", 1000, p99=0.003)]
    assert best(table) == "shared x 2"


def test_on_a_restless_machine_tails_and_new_connections_decide_nothing():
    calm = [row("shared x 2", 1000, p99=0.9, fresh_rate=9), row("reuseport x 2", 1000, p99=0.005, fresh_rate=99)]
    used = [dataclasses.replace(one, others=0.3) for one in calm]
    there_and_back = ((500, 1000, 1500), (1500, 1000, 500))
    wild = [dataclasses.replace(one, rounds=rounds) for one, rounds in zip(calm, there_and_back, strict=True)]
    assert (best(calm), best(used), best(wild)) == ("reuseport x 2", "shared x 2", "shared x 2")
    assert "Tails and new connections are not compared" in said(used)
    assert "Tails" not in said(calm)


def test_a_restless_machine_makes_the_verdict_doubtful():
    assert judge([row("shared x 2", 1000, others=0.2)], cpus=2, connections=8).doubtful
    assert not judge([row("shared x 2", 1000, others=0.02)], cpus=2, connections=8).doubtful


def test_nothing_is_said_of_comparisons_with_nobody():
    verdict = judge([row("shared x 2", 1000, others=0.2)], cpus=2, connections=8)
    assert verdict.reasons == ("Nothing else was measured.",)


def test_tails_that_were_not_measured_decide_nothing():
    assert best([row("shared x 2", 1000), row("reuseport x 2", 1000, p99=0.0004)]) == "shared x 2"


def test_who_could_not_keep_up_is_out():
    table = [row("shared x 1", 1000, behind=True), row("shared x 2", 1000, p99=0.1)]
    assert best(table) == "shared x 2"
    assert "shared x 1 could not keep up with the paced load." in said(table)
    both = said([*table, row("shared x 4", 1000, p99=0.9)])
    assert "shared x 1 could not keep up with the paced load. At the paced load p99 is 100.0 ms with shared x 2" in both


def test_where_nobody_keeps_up_it_decides_nothing():
    assert best([row("shared x 1", 1000, behind=True), row("shared x 2", 1000, behind=True)]) == "shared x 1"


def test_new_connections_decide_when_they_differ_by_more_than_twice_the_tolerance():
    table = [row("shared x 2", 1000, fresh_rate=800), row("reuseport x 2", 1000, fresh_rate=1000)]
    assert best(table) == "reuseport x 2"
    assert "reuseport x 2 takes more new connections per second than shared x 2." in said(table)
    assert best([row("shared x 2", 1000, fresh_rate=920), row("reuseport x 2", 1000, fresh_rate=1000)]) == "shared x 2"


def test_new_connections_of_which_there_were_few_decide_nothing():
    table = [row("shared x 2", 1000, fresh_rate=800, fresh_answers=15), row("reuseport x 2", 1000, fresh_rate=1000)]
    assert best(table) == "shared x 2"


def test_few_answers_are_said_and_make_the_verdict_doubtful():
    verdict = judge([row("shared x 2", 1000, answers=15)], cpus=2, connections=8)
    assert verdict.doubtful
    assert verdict.cautions == ("Few answers came in a visit (15). Take longer (--seconds 20) or fewer --connections.",)


def test_less_memory_wins_among_equals():
    table = [row("shared x 2", 1000, memory=90 * MIB), row("reuseport x 2", 1000, memory=60 * MIB)]
    assert best(table) == "reuseport x 2"
    assert "Of these, reuseport x 2 needs less memory than shared x 2." in said(table)


def test_memory_that_is_not_known_decides_nothing():
    assert best([row("shared x 2", 1000), row("reuseport x 2", 1000, memory=MIB)]) == "shared x 2"


def test_less_memory_and_simpler_is_said_as_both():
    table = [
        row("shared x 1", 1000, memory=30 * MIB),
        row("reuseport x 1", 1000, memory=30 * MIB),
        row("shared x 2", 1000, memory=60 * MIB),
    ]
    assert best(table) == "shared x 1"
    assert "Of these, shared x 1 needs less memory than shared x 2, and is the simplest." in said(table)


def test_no_supervisor_is_only_for_who_is_faster_without():
    table = [row("shared x 1", 1000, memory=35 * MIB), row("single", 1010, memory=26 * MIB)]
    assert best(table) == "shared x 1"
    faster = [row("shared x 1", 1000), row("single", 1200)]
    assert best(faster) == "single"
    assert "no supervisor" in cautions(faster)


def test_what_was_measured_with_errors_is_not_recommended():
    assert (
        best([row("shared x 1", 1000), row("shared x 2", 1900, errors=("status 500 (kept connections)",))])
        == "shared x 1"
    )


def test_without_anything_that_counts_there_is_no_verdict():
    assert judge([], cpus=2, connections=8) is None
    assert judge([row("shared x 1", 0.0)], cpus=2, connections=8) is None


def test_the_only_one_is_recommended():
    assert said([row("shared x 1", 1000)]) == "Nothing else was measured."


def test_what_others_are_better_at_is_its_cost():
    table = [
        row("shared x 1", 1000, fresh_rate=500, memory=40 * MIB, cpu=40e-6),
        row("shared x 2", 1900, fresh_rate=600, memory=50 * MIB, cpu=41e-6),
        row("reuseport x 2", 1500, fresh_rate=1000, memory=50 * MIB, cpu=41e-6),
        row("shared x 4", 100, fresh_rate=9000, behind=True),
    ]
    assert judge(table, cpus=2, connections=8).costs == (
        "40% fewer new connections per second than reuseport x 2",
        "25% more memory than shared x 1",
    )


def test_a_path_that_waits_is_recognised():
    waiting = row("shared x 1", 100, busy=0.1, client_busy=0.05, others=0.0)
    assert "neither a pattern nor more workers change that" in cautions([waiting])
    # On a machine that others use it may not have had what it wanted.
    assert "neither" not in cautions([dataclasses.replace(waiting, others=0.5)])


def test_cpus_that_client_and_server_share_are_said():
    table = [row("shared x 2", 100, busy=1.2, client_busy=0.75)]
    assert "Client and server share 2 CPUs, of which the client took 0.8." in cautions(table)
    assert cautions(table, cpus=4) == ""
    assert "share 1 CPU," in cautions([row("shared x 1", 100, busy=0.6, client_busy=0.4)], cpus=1)


def test_a_machine_that_others_use_is_said():
    assert "Other processes took up to 40% of the machine" in cautions([row("shared x 2", 100, others=0.4)])


def test_a_loop_that_stood_still_is_said():
    assert "Event loops stood still for up to 3.2 s" in cautions([row("shared x 2", 100, lag=3.2)])
