"""offload.stream() with real children."""

from __future__ import annotations

import asyncio
import os

import pytest

from aioserve import OffloadCrashed, OffloadTimeout, OffloadUnfit, offload
from tests import offloaded
from tests.loop.offloading.conftest import begun, descendants, until


async def test_pieces_come_one_by_one(pool):
    await pool()
    assert [piece async for piece in offload.stream(offloaded.count, 5)] == [0, 1, 2, 3, 4]
    assert await offload(offloaded.add, 1) == 2


async def test_an_empty_stream_ends(pool):
    await pool()
    assert [piece async for piece in offload.stream(offloaded.count, 0)] == []


async def test_large_pieces_come_whole(pool):
    await pool()
    sizes = [(piece[0], len(piece)) async for piece in offload.stream(offloaded.large_pieces, 4, 1 << 20)]
    assert sizes == [(number, 1 << 20) for number in range(4)]


async def test_the_generator_is_at_most_one_piece_ahead(pool, tmp_path):
    await pool()
    path = tmp_path / "at"
    stream = offload.stream(offloaded.count, 100, str(path))
    assert await anext(stream) == 0
    assert await anext(stream) == 1
    await until(lambda: path.read_text() == "2", "the third piece is worked out")
    await asyncio.sleep(0.1)
    assert path.read_text() == "2"
    await stream.aclose()


async def test_leaving_early_closes_the_generator_and_keeps_the_child(pool, tmp_path):
    running = await pool()
    child = await offload(offloaded.pid)
    path = tmp_path / "at"
    async for piece in offload.stream(offloaded.count, 100, str(path)):
        if piece == 2:
            break
    await until(lambda: path.read_text() == "closed", "its finally has run")
    assert await offload(offloaded.pid) == child
    assert running.snapshot().kills == 0


async def test_a_generator_that_does_not_come_to_a_yield_is_killed(pool, tmp_path):
    running = await pool()
    stream = offload.stream(offloaded.stubborn, str(tmp_path / "busy"))
    assert await anext(stream) == 1
    child = int(await begun(tmp_path / "busy"))
    await stream.aclose()
    await until(lambda: child not in descendants(), "the child has ended")
    assert await offload(offloaded.add, 1) == 2
    assert running.snapshot().kills == 1


async def test_an_error_between_pieces_is_raised(pool):
    await pool()
    stream = offload.stream(offloaded.pieces_then_fail)
    assert await anext(stream) == 1
    with pytest.raises(LookupError, match="after one"):
        await anext(stream)
    assert await offload(offloaded.add, 1) == 2


async def test_a_crash_between_pieces_is_raised(pool):
    await pool()
    stream = offload.stream(offloaded.pieces_then_crash)
    assert await anext(stream) == 1
    with pytest.raises(OffloadCrashed, match="exited with status 4"):
        await anext(stream)
    assert await offload(offloaded.add, 1) == 2


async def test_the_timeout_is_for_each_piece(pool):
    await pool()
    await offload(offloaded.add, 1)
    assert [piece async for piece in offload.stream(offloaded.slow_pieces, 0.3, timeout=0.8)] == [0, 1, 2]
    with pytest.raises(OffloadTimeout):
        await anext(offload.stream(offloaded.slow_pieces, 60, timeout=0.2))


async def test_a_generator_is_stopped_whose_piece_was_being_read_when_its_time_was_over(pool):
    running = await pool()
    await offload(offloaded.add, 1)  # the time is not spent on the start of a process
    with pytest.raises(OffloadTimeout, match="its data was still being copied"):
        await anext(offload.stream(offloaded.piece_that_is_slow_to_read, os.getpid(), timeout=0.3))
    assert await offload(offloaded.add, 1, timeout=10) == 2
    assert running.snapshot().kills == 1


async def test_a_slow_reader_is_not_the_generators_fault(pool):
    await pool()
    await offload(offloaded.add, 1)
    seen = []
    async for piece in offload.stream(offloaded.count, 2, timeout=1.0):
        await asyncio.sleep(1.1)
        seen.append(piece)
    assert seen == [0, 1]


async def test_a_plain_function_is_no_stream(pool):
    await pool()
    with pytest.raises(OffloadUnfit, match="returned int, which is no generator"):
        await anext(offload.stream(offloaded.add, 1))


async def test_a_cancelled_reader_ends_the_stream(pool):
    running = await pool()

    async def read():
        async for _ in offload.stream(offloaded.slow_pieces, 60):
            pass

    task = asyncio.create_task(read())
    await until(lambda: running.snapshot().running == 1, "it runs")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await offload(offloaded.add, 1, timeout=10) == 2
