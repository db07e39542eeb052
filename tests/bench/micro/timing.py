"""How a micro benchmark is timed: CPU time of batches, the least of several.

The least, because everything else that the machine does can only add. ``time.process_time`` does not count what other
processes take, but caches and clock speed are shared: compare only results of one run.
"""

from __future__ import annotations

import time
import timeit

#: Long enough for a clock of 1 us and for the collector to have its share.
BATCH_SECONDS = 0.05
REPEATS = 9


def nanoseconds(run, *, repeats=REPEATS, batch_seconds=BATCH_SECONDS):
    """CPU time of one operation; ``run(number)`` does it ``number`` times."""
    number = 1
    while _least(run, number, 1) < batch_seconds and number < 10_000_000:
        number *= 4
    return _least(run, number, repeats) / number * 1e9


def _least(run, number, repeats):
    return min(timeit.Timer(lambda: run(number), timer=time.process_time).repeat(repeats, 1))
