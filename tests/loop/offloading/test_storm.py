"""A thousand calls at random, many of which go wrong: each ends once, in its own way, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

import pytest

from aioserve import OffloadCrashed, OffloadFull, OffloadTimeout, offload
from tests import offloaded
from tests.loop.offloading.conftest import arenas

CALLS = 1000
LARGE = 3 << 20


async def plain(chance):
    number = chance.randrange(1000)
    assert await offload(offloaded.add, number, 1) == number + 1
    return "result"


async def large(chance):
    thing = chance.randbytes(chance.randint(1, LARGE))
    assert await offload(offloaded.give_back, thing) == thing
    return "result"


async def failing(chance):
    with pytest.raises(LookupError, match="as it should"):
        await offload(offloaded.fail, "as it should")
    return "error"


async def crashing(chance):
    function = chance.choice([offloaded.crash, offloaded.kill_itself])
    with pytest.raises(OffloadCrashed, match="was killed by SIG"):
        await offload(function)
    return "crash"


async def leaving(chance):
    with pytest.raises(OffloadCrashed, match="has exited with status 7"):
        await offload(offloaded.leave, 7)
    return "crash"


async def timing_out(chance):
    with pytest.raises(OffloadTimeout):
        await offload(offloaded.sleep, 60, timeout=chance.uniform(0.001, 0.2))
    return "timeout"


async def cancelled(chance):
    task = asyncio.create_task(offload(offloaded.give_back, bytes(chance.choice([1, LARGE]))))
    if chance.random() < 0.7:
        task = asyncio.create_task(offload(offloaded.sleep, 60))
    await asyncio.sleep(chance.uniform(0, 0.1))
    if task.done():
        return "result"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return "cancelled"


async def streamed(chance):
    stop = chance.randint(1, 20)
    seen = []
    async for piece in offload.stream(offloaded.count, 10):
        seen.append(piece)
        if len(seen) == stop:
            break
    assert seen == list(range(min(stop, 10)))
    return "result"


KINDS = {plain: 40, large: 15, failing: 10, crashing: 5, leaving: 5, timing_out: 10, cancelled: 10, streamed: 5}


@pytest.mark.once
@pytest.mark.timeout(240)
async def test_a_thousand_calls_end_each_in_its_own_way(pool):
    seed = int(os.environ.get("OFFLOAD_SEED") or random.randrange(1 << 32))
    print(f"OFFLOAD_SEED={seed}")
    chance = random.Random(seed)
    running = await pool(workers=2, queue=CALLS, max_tasks=50)
    tally = Counter()
    gate = asyncio.Semaphore(6)

    async def one(kind, seed):
        async with gate:
            while True:
                try:
                    tally[await kind(random.Random(seed))] += 1
                except OffloadFull:
                    await asyncio.sleep(0.05)
                else:
                    return

    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=CALLS)
    async with asyncio.TaskGroup() as group:
        for kind in kinds:
            group.create_task(one(kind, chance.randrange(1 << 32)))

    print(tally, running.snapshot())
    assert tally.total() == CALLS
    assert min(tally[how] for how in ("result", "error", "crash", "timeout", "cancelled")) > 0
    after = running.snapshot()
    assert (after.waiting, after.crashes, after.timeouts) == (0, tally["crash"], tally["timeout"])
    # Nothing is stuck: both lanes still take calls.
    assert await asyncio.gather(*[offload(offloaded.add, number) for number in range(10)]) == list(range(1, 11))
    assert len(arenas()) <= 2
