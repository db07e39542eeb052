"""A short run of ``python -m tests.chaos`` in each accept mode: everything at once, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import Wish, run_planned
from tests.chaos.clients import Pace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("chaos")]

#: Short answers make short drains.
SHORT = Pace(stream_seconds=0.6)


@pytest.mark.parametrize("accept", ["shared", "reuseport"])
def test_planned_operations_lose_nothing(accept):
    report = run_planned(Wish(accept=accept, pace=SHORT))

    print(report)
    assert report.problems() == []
