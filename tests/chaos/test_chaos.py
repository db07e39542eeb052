"""A short run of ``python -m tests.chaos`` in each accept mode: everything at once, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import PARTS, Wish
from tests.chaos.clients import Pace

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(240), pytest.mark.xdist_group("chaos")]

#: Short answers make short drains.
SHORT = Pace(stream_seconds=0.6)


MODES = [("shared", "late"), ("dispatch", "late"), ("reuseport", "late"), ("reuseport", "always")]

#: Each takes twenty seconds, so what differs least is left to ``python -m tests.chaos``: who steals has next
#: to nothing to do with mishaps and scarcity.
CASES = [(part, *mode, 0) for part in PARTS for mode in MODES if part == "planned" or mode[1] != "always"]
CASES += [("planned", "reuseport", "late", 2)]


@pytest.mark.parametrize(("part", "accept", "steal", "tls_processes"), CASES)
def test_nothing_is_lost_that_must_not_be(part, accept, steal, tls_processes):
    report = PARTS[part](Wish(accept=accept, steal=steal, tls_processes=tls_processes, pace=SHORT))

    print(report.log if report.problems() else "", report, sep="\n")
    assert report.problems() == []
