"""A short run of ``python -m tests.chaos`` in each accept mode: everything at once, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import PARTS, Wish
from tests.chaos.clients import Pace

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(240), pytest.mark.xdist_group("chaos")]

#: Short answers make short drains.
SHORT = Pace(stream_seconds=0.6)


@pytest.mark.parametrize("accept", ["shared", "reuseport", "dispatch"])
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_lost_that_must_not_be(part, accept):
    report = PARTS[part](Wish(accept=accept, pace=SHORT))

    print(report.log if report.problems() else "", report, sep="\n")
    assert report.problems() == []
