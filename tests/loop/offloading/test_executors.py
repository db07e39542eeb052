"""The engines that are executors, behind the same pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker

import pytest

from aioserve import OffloadCrashed, OffloadError, OffloadTimeout, OffloadUnfit, offload
from tests import offloaded
from tests.loop.offloading.conftest import until

#: What the stuck functions of these tests wait for: threads cannot be killed.
let_go = threading.Event()


@pytest.fixture(autouse=True)
def never_stuck():
    # The standard library starts it with its first process and keeps it.
    resource_tracker.ensure_running()
    let_go.clear()
    yield
    let_go.set()


def wait_to_be_let_go():
    let_go.wait(30)
    return "let go"


def one_process():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def no_executor():
    return 5


def same_thread():
    return threading.current_thread().name


def stuck_and_endless():
    while True:
        let_go.wait(30)
        yield 1


def same_thread_for_ever():
    while True:
        yield threading.current_thread().name


async def test_a_thread_runs_in_this_process(pool):
    await pool(engine="thread")
    assert await offload(offloaded.pid) == os.getpid()
    assert await offload(same_thread) != threading.current_thread().name


async def test_what_cannot_be_pickled_goes_to_a_thread(pool):
    await pool(engine="thread")
    thing = threading.Lock()
    assert await offload(lambda: thing) is thing


async def test_an_error_in_a_thread_is_raised(pool):
    await pool(engine="thread")
    with pytest.raises(LookupError, match="x"):
        await offload(offloaded.fail, "x")
    with pytest.raises(OffloadError, match="raised SystemExit"):
        await offload(offloaded.exit_, 1)


async def test_a_thread_cannot_be_stopped_and_keeps_its_place(pool):
    running = await pool(engine="thread")
    with pytest.raises(OffloadTimeout, match="it goes on, and cannot be stopped"):
        await offload(wait_to_be_let_go, timeout=0.1)
    assert running.snapshot().running == 1
    second = asyncio.create_task(offload(offloaded.add, 1))
    await until(lambda: running.snapshot().waiting == 1, "the next call waits")
    let_go.set()
    assert await second == 2


async def test_a_stream_from_a_thread_comes_piece_by_piece(pool):
    await pool(engine="thread")
    stream = offload.stream(offloaded.count, 1 << 60)
    assert [await anext(stream), await anext(stream)] == [0, 1]
    await stream.aclose()
    assert [piece async for piece in offload.stream(offloaded.count, 3)] == [0, 1, 2]
    assert await offload(offloaded.add, 1) == 2


async def test_a_stream_from_a_thread_whose_time_is_over_ends_at_its_next_yield(pool):
    await pool(engine="thread")
    with pytest.raises(OffloadTimeout, match="cannot be stopped"):
        await anext(offload.stream(stuck_and_endless, timeout=0.1))
    let_go.set()
    assert await offload(offloaded.add, 1, timeout=5) == 2


async def test_closing_ends_a_stream_in_a_thread_that_waits_to_be_asked(pool):
    running = await pool(engine="thread")
    stream = offload.stream(same_thread_for_ever)
    name = await anext(stream)
    await running.close()
    await until(lambda: name not in {thread.name for thread in threading.enumerate()}, "the thread has ended")
    await stream.aclose()


async def test_an_error_within_a_stream_from_a_thread_is_raised(pool):
    await pool(engine="thread")
    stream = offload.stream(offloaded.pieces_then_fail)
    assert await anext(stream) == 1
    with pytest.raises(LookupError, match="after one"):
        await anext(stream)


async def test_a_factory_of_executors_is_an_engine(pool):
    await pool(engine="tests.loop.offloading.test_executors:one_process")
    child = await offload(offloaded.pid)
    assert child != os.getpid()
    assert await offload(offloaded.add, 1) == 2
    assert [piece async for piece in offload.stream(offloaded.count, 3)] == [0, 1, 2]
    async for piece in offload.stream(offloaded.count, 3):
        assert piece == 0
        break
    assert await offload(offloaded.pid) == child


async def test_a_broken_executor_fails_its_calls_and_is_replaced(pool):
    await pool(workers=2, engine="tests.loop.offloading.test_executors:one_process")
    await asyncio.gather(offload(offloaded.add, 1), offload(offloaded.add, 2))
    with pytest.raises(OffloadCrashed, match="the executor lost it: BrokenProcessPool"):
        await offload(offloaded.leave, 3)
    # The other lane is still one of the broken executor.
    assert await asyncio.gather(offload(offloaded.add, 1), offload(offloaded.add, 2)) == [2, 3]


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("tests.loop.offloading.test_executors:no_executor", "returned int, which is no concurrent.futures.Executor"),
        ("tests.loop.offloading.test_executors:missing", "has no attribute 'missing'"),
        ("tests.there_is_no_such_module:x", "No module named"),
    ],
)
async def test_an_engine_that_is_none_fails_the_calls_that_wait(pool, engine, text):
    await pool(engine=engine)
    with pytest.raises(OffloadError, match=text):
        await offload(offloaded.add, 1)


@pytest.mark.skipif(hasattr(concurrent.futures, "InterpreterPoolExecutor"), reason="this Python has interpreters")
async def test_interpreters_need_a_newer_python(pool):
    await pool(engine="interpreter")
    with pytest.raises(OffloadError, match=r"interpreters need Python 3.14; use process"):
        await offload(offloaded.add, 1)


@pytest.mark.skipif(not hasattr(concurrent.futures, "InterpreterPoolExecutor"), reason="needs Python 3.14")
async def test_an_interpreter_runs_in_this_process(pool):
    await pool(engine="interpreter")
    assert await offload(offloaded.pid) == os.getpid()
    with pytest.raises(LookupError, match="x"):
        await offload(offloaded.fail, "x")
    offloaded.USER.set("anna")
    assert await offload(offloaded.user) == "anna"
    assert await offloaded.doubled(4) == 8
    assert [piece async for piece in offload.stream(offloaded.count, 3)] == [0, 1, 2]


@pytest.mark.skipif(not hasattr(concurrent.futures, "InterpreterPoolExecutor"), reason="needs Python 3.14")
async def test_a_module_that_interpreters_do_not_load_is_named(pool):
    await pool(engine="interpreter")
    with pytest.raises(OffloadUnfit, match=r"is_enabled cannot go to an interpreter.*faulthandler.*; use --off"):
        await offload(faulthandler.is_enabled)
    assert await offload(offloaded.add, 1) == 2
