"""offload() with real children."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

import aioserve
from aioserve import OffloadClosed, OffloadCrashed, OffloadError, OffloadFull, OffloadTimeout, OffloadUnfit, offload
from aioserve.offloading import api
from aioserve.offloading.children import Children
from tests import offloaded
from tests.descriptors import few_descriptors
from tests.loop.offloading.conftest import arenas, begun, descendants, until
from tests.process.servers import REPO, processes, wait_until


async def test_a_result_comes_back_from_another_process(pool):
    await pool()
    assert await offload(offloaded.add, 1, b=2) == 3
    assert await offload(offloaded.pid) in descendants()


async def test_one_child_runs_one_call_after_another(pool):
    await pool()
    pids = await asyncio.gather(*[offload(offloaded.pid) for _ in range(20)])
    assert len(set(pids)) == 1


async def test_as_many_calls_run_at_once_as_there_are_workers(pool, tmp_path):
    running = await pool(workers=2)
    calls = [asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / name, 60)) for name in "ab"]
    for name in "ab":
        await begun(tmp_path / name)
    assert running.snapshot().running == 2
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_what_the_function_raises_is_raised_with_the_traceback_in_the_child(pool):
    await pool()
    with pytest.raises(LookupError, match="lost") as caught:
        await offload(offloaded.fail, "lost")
    assert "offloaded.py" in str(caught.value.__cause__)
    assert "raise LookupError(text)" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (offloaded.cancelled, OffloadError, "raised CancelledError"),
        (functools.partial(offloaded.exit_, 3), OffloadError, "raised SystemExit: 3"),
        (offloaded.stop_iteration, RuntimeError, "raised StopIteration"),
        (offloaded.fail_awkwardly, OffloadError, "raised Awkward: awkward"),
        (offloaded.make_a_lock, OffloadUnfit, "the result, of type lock, cannot be sent back"),
        (offloaded.hidden_coroutine, OffloadUnfit, "returned a coroutine"),
        (offloaded.offload_again, OffloadError, "called in an offloaded function"),
    ],
)
async def test_what_a_loop_could_not_bear_is_an_error_of_the_call(pool, function, error, text):
    await pool()
    with pytest.raises(error, match=text):
        await offload(function)
    assert await offload(offloaded.add, 1) == 2


async def test_an_error_brings_what_it_holds(pool):
    await pool()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await offload(offloaded.fail_with_output, 200_000)
    assert len(caught.value.output) == 200_000
    with pytest.raises(OffloadError, match=r"raised CalledProcessError: .*exit status 3"):
        await offload(offloaded.fail_with_output, 2_000_000)


async def test_functions_that_call_each_other_for_ever_are_a_recursion_error(pool):
    await pool()
    with pytest.raises(RecursionError) as caught:
        await offload(offloaded.ping)
    assert "characters)" in str(caught.value.__cause__)


@pytest.mark.parametrize("size", [1, 200_000])
async def test_what_ends_a_process_when_it_is_pickled_is_an_error_of_the_call(pool, size):
    await pool()
    with pytest.raises(OffloadError, match="raised SystemExit: 4"):
        await offload(offloaded.make_mine, os.getpid(), size)
    assert await offload(offloaded.add, 1) == 2


async def test_an_argument_that_ends_a_process_is_unfit(pool):
    await pool()
    with pytest.raises(OffloadUnfit, match="SystemExit: 3"):
        await offload(offloaded.give_back, ["x" * 200_000, offloaded.Mine(None, 1)], timeout=5)
    assert await offload(offloaded.add, 1) == 2


async def test_a_child_that_writes_anything_into_its_socket_has_crashed(pool):
    await pool()
    with pytest.raises(OffloadCrashed, match="SIGKILL"):
        await offload(offloaded.write_everywhere, timeout=10)
    assert await offload(offloaded.add, 1) == 2


async def test_a_fork_that_comes_out_of_a_call_is_no_second_child(pool, caplog):
    await pool()
    assert await offload(offloaded.fork_and_come_back) == 1
    assert await offload(offloaded.add, 1) == 2
    assert "os._exit() is missing" in caplog.text


async def test_without_descriptors_the_call_fails_and_nothing_is_lost(pool):
    running = await pool(max_tasks=1)
    await offload(offloaded.add, 1)
    open_before = len(os.listdir("/proc/self/fd"))
    for free in range(3):
        with few_descriptors(free), pytest.raises(OffloadError, match="no child can be started"):
            await offload(offloaded.add, 1)
    assert running.snapshot().waiting == 0
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert await offload(offloaded.add, 1) == 2


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (functools.partial(offloaded.leave, 3), "has exited with status 3"),
        (offloaded.crash, "was killed by SIGSEGV"),
        (offloaded.kill_itself, "was killed by SIGKILL"),
        (offloaded.close_everything, "was killed by SIGKILL"),
    ],
    ids=["os._exit", "segfault", "kill", "closes its socket"],
)
async def test_a_crash_fails_its_call_alone_and_says_how(pool, function, how):
    running = await pool(workers=2)
    other = asyncio.create_task(offload(offloaded.sleep, 0.5))
    with pytest.raises(OffloadCrashed, match=how):
        await offload(function)
    assert await other == 0.5
    assert await offload(offloaded.add, 1) == 2
    assert running.snapshot().crashes == 1


async def test_a_call_that_takes_too_long_is_killed_and_fails_alone(pool, tmp_path):
    running = await pool(workers=2)
    await asyncio.gather(*[offload(offloaded.sleep, 0.5) for _ in range(2)])
    before = descendants()
    other = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 1.5))
    with pytest.raises(OffloadTimeout, match=r"sleep was not done after 0.5 s: it was killed after running") as caught:
        await offload(offloaded.sleep, 60, timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    await until(lambda: len(descendants() & before) == len(before) - 1, "the stuck child has ended")
    assert await other == 1.5
    assert (running.snapshot().timeouts, running.snapshot().kills) == (1, 1)


async def test_a_call_whose_time_is_up_in_the_queue_was_never_begun(pool, tmp_path):
    running = await pool()
    first = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 0.5))
    await begun(tmp_path / "begun")
    with pytest.raises(OffloadTimeout, match="it was never begun, because 1 others are running"):
        await offload(offloaded.add, 1, timeout=0.1)
    assert await first == 0.5
    assert running.snapshot().kills == 0


async def test_the_timeout_of_the_settings_holds_where_a_call_has_none(pool):
    await pool(timeout=0.3)
    with pytest.raises(OffloadTimeout, match=r"after 0.3 s"):
        await offload(offloaded.sleep, 60)
    assert await offload(offloaded.sleep, 0.4, timeout=0) == 0.4


async def test_a_cancelled_call_is_killed(pool, tmp_path):
    running = await pool()
    task = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 60))
    child = int(await begun(tmp_path / "begun"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: child not in descendants(), "the child has ended")
    assert (running.snapshot().cancelled, running.snapshot().kills) == (1, 1)


async def test_a_call_that_is_cancelled_in_the_queue_costs_nothing(pool, tmp_path):
    running = await pool()
    first = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 0.5))
    await begun(tmp_path / "begun")
    second = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "never", 0.5))
    await until(lambda: running.snapshot().waiting == 1, "the second call waits")
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert await first == 0.5
    assert (running.snapshot().kills, running.snapshot().waiting) == (0, 0)
    assert not (tmp_path / "never").exists()


async def test_what_a_call_has_started_dies_with_it(pool, tmp_path):
    await pool()
    with pytest.raises(OffloadTimeout):
        await offload(offloaded.start_a_program, tmp_path / "pid", timeout=1.0)
    program = int((tmp_path / "pid").read_text())
    await until(lambda: not os.path.exists(f"/proc/{program}") or is_zombie(program), "the program has ended")


def is_zombie(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


async def test_a_full_queue_refuses_at_once(pool, tmp_path):
    running = await pool(queue=1)
    first = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 0.5))
    await begun(tmp_path / "begun")
    second = asyncio.create_task(offload(offloaded.add, 1))
    await until(lambda: running.snapshot().waiting == 1, "the second call waits")
    with pytest.raises(OffloadFull, match=r"1 calls wait already \(--offload-queue 1\) for 1 at a time"):
        await offload(offloaded.add, 1)
    assert [await first, await second] == [0.5, 2]
    assert running.snapshot().full == 1


async def test_no_workers_means_no_offloading(pool):
    await pool(workers=0)
    with pytest.raises(OffloadError, match="turned off"):
        await offload(offloaded.add, 1)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: 1, "is a lambda: make it a function at the top level of a module"),
        (functools.partial(lambda: 1), "cannot be sent to another process"),
        (offloaded.coroutine, "is an async function"),
        (offloaded.count, r"is a generator: use offload.stream\(\)"),
        (5, "5 cannot be called"),
    ],
    ids=["lambda", "partial", "coroutine", "generator", "number"],
)
async def test_a_function_that_cannot_go_is_refused_at_the_call(pool, function, text):
    await pool()
    with pytest.raises(OffloadUnfit, match=text) as caught:
        await offload(function)
    assert isinstance(caught.value, TypeError)
    assert not descendants()


async def test_a_function_within_a_function_is_refused_with_what_to_do(pool):
    def inner():
        return 1

    await pool()
    with pytest.raises(OffloadUnfit, match="a function within a function: make it a function at the top level"):
        await offload(inner)


async def test_an_argument_that_cannot_go_is_refused_and_named(pool, tmp_path):
    await pool()
    with (tmp_path / "file").open("w") as file, pytest.raises(OffloadUnfit, match=r"an argument of .*length"):
        await offload(offloaded.length, file)
    with (tmp_path / "file").open("w") as file, pytest.raises(OffloadUnfit, match=r"an argument of .*length"):
        await offload(offloaded.length, [bytes(1 << 20), file])
    assert await offload(offloaded.add, 1) == 2


async def test_a_builtin_method_of_an_object_goes_with_the_object(pool):
    await pool()
    assert await offload("a,b".split, ",") == ["a", "b"]


@pytest.mark.parametrize("size", [1000, 70_000, 5 << 20])
async def test_data_of_any_size_goes_there_and_back(pool, size):
    await pool()
    thing = {"bytes": os.urandom(size), "list": [bytearray(size)]}
    assert await offload(offloaded.give_back, thing) == thing


async def test_what_offers_its_memory_goes_there_and_back(pool):
    await pool()
    thing = bytearray(os.urandom(1 << 20))
    assert await offload(offloaded.length, pickle.PickleBuffer(thing)) == 1 << 20
    assert bytes(await offload(offloaded.give_back, memoryview(thing))) == bytes(thing)


async def test_large_data_does_not_hold_up_the_loop(pool):
    await pool()
    await offload(offloaded.add, 1)
    thing = [list(range(500_000)), os.urandom(64 << 20)]
    gaps = []

    async def watch():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - before)

    watcher = asyncio.create_task(watch())
    assert await offload(offloaded.give_back, thing) == thing
    watcher.cancel()
    gaps.sort()
    # The comparison above is not offload's, and the machine has other things to do; pickling it all takes 200 ms.
    assert gaps[len(gaps) * 9 // 10] < 0.05


async def test_a_cancelled_call_with_large_data_leaves_its_child_alone(pool):
    running = await pool()
    first = await offload(offloaded.pid)
    # So much that writing it takes longer than a busy machine may take to come back to this thread.
    task = asyncio.create_task(offload(offloaded.length, bytes(128 << 20)))
    while running.snapshot().running != 1:  # in every turn: its arguments are being written, which takes some
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await offload(offloaded.pid) == first
    assert running.snapshot().kills == 0
    (arena,) = arenas()
    assert os.stat(arena).st_size == 0


async def test_children_are_replaced_after_so_many_calls(pool):
    await pool(max_tasks=2)
    pids = [await offload(offloaded.pid) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_child_that_has_grown_is_replaced(pool):
    await pool(memory=120 << 20)
    small = await offload(offloaded.pid)
    assert await offload(offloaded.pid) == small
    assert await offload(offloaded.hold, 200 << 20) == small
    assert await offload(offloaded.pid) != small


async def test_idle_children_are_stopped_and_started_again(pool):
    running = await pool(idle=0.2)
    first = await offload(offloaded.pid)
    await until(lambda: not descendants(), "all processes have ended")
    assert running.snapshot().children == 0
    assert await offload(offloaded.pid) != first


async def test_an_idle_child_that_dies_is_nobodys_error(pool, caplog):
    await pool()
    os.kill(await offload(offloaded.pid), signal.SIGKILL)
    await until(lambda: "idle child" in caplog.text, "it is noticed")
    assert await offload(offloaded.add, 1) == 2


async def test_the_loss_of_the_process_that_starts_them_fails_what_runs_and_no_more(pool, tmp_path):
    await pool()
    task = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 60))
    child = int(await begun(tmp_path / "begun"))
    (nursery,) = descendants() - {child}
    os.kill(nursery, signal.SIGKILL)
    with pytest.raises(OffloadCrashed, match="was lost with the process that had started it"):
        await task
    await until(lambda: child not in descendants(), "the child has ended")
    assert await offload(offloaded.add, 1) == 2


@pytest.mark.parametrize("fork", ["", "os.fork() or time.sleep(30)"])
def test_what_a_call_has_started_dies_with_a_killed_worker(tmp_path, fork):
    """Even if a process that it has forked still holds its end of every socket."""
    program = f"""
import asyncio, os, time
from aioserve import offload
from tests import offloaded

async def main():
    await offload(offloaded.add, 1)
    {fork}
    await offload(offloaded.start_a_program, {str(tmp_path / "program")!r})

asyncio.run(main())
"""
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=REPO, process_group=0)
    try:
        wait_until((tmp_path / "program").exists, "the call has begun")
        started = int(wait_until((tmp_path / "program").read_text, "the program has started"))
        worker.kill()
        worker.wait()
        wait_until(lambda: started not in processes() or is_zombie(started), "the program has ended")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("start", ["auto", "spawn"])
async def test_what_a_call_has_started_dies_with_the_process_that_starts_children(pool, tmp_path, start, monkeypatch):
    monkeypatch.setattr(Children.__init__, "__kwdefaults__", {"start": start})
    await pool()
    before = descendants()
    task = asyncio.create_task(offload(offloaded.start_a_program, tmp_path / "program"))
    program = int(await begun(tmp_path / "program"))
    (nursery,) = {pid for pid in descendants() - before if processes()[pid][0] == os.getpid()}
    os.kill(nursery, signal.SIGKILL)
    with pytest.raises(OffloadCrashed, match="was lost"):
        await task
    await until(lambda: program not in processes(), "the program has ended")


async def test_signals_of_a_terminal_do_not_end_a_child(pool):
    await pool()
    child = await offload(offloaded.signals)
    assert await offload(offloaded.pid) == child


async def test_a_child_has_nothing_open_that_is_not_its_own(pool, tmp_path):
    await pool(workers=2)
    other = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 0.5))
    await begun(tmp_path / "begun")
    found = await offload(offloaded.descriptors)
    await other
    # libffi, which the tests' use of ctypes brings along, may keep its own file open.
    foreign = ("/proc/", "/usr/lib/")
    mine = {fd: what for fd, what in found.items() if fd > 2 and not what.startswith(foreign)}
    assert sorted(what.partition(":")[0] for what in mine.values()) == ["/memfd", "socket"], mine


async def test_programs_of_a_call_inherit_nothing(pool):
    await pool()
    assert await offload(offloaded.inherited) == []


async def test_the_initialiser_runs_once_in_each_child(pool):
    await pool(initializer="tests.offloaded:initialise", max_tasks=1)
    assert [await offload(offloaded.was_initialised) for _ in range(2)] == [True, True]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"initializer": "tests.offloaded:fail_to_initialise"}, "RuntimeError: no database"),
        ({"imports": ("tests.there_is_no_such_module",)}, "there_is_no_such_module"),
    ],
    ids=["initialiser", "import"],
)
async def test_a_child_that_cannot_be_set_up_fails_the_calls_that_wait(pool, settings, text):
    await pool(**settings)
    results = await asyncio.gather(*[offload(offloaded.add, 1) for _ in range(2)], return_exceptions=True)
    for error in results:
        assert isinstance(error, OffloadError)
        assert text in str(error)


async def test_modules_are_imported_in_advance(pool):
    await pool(imports=("colorsys",))
    assert await offload(offloaded.is_imported, "colorsys")


async def test_modules_that_start_threads_are_not_forked_with(pool, tmp_path, monkeypatch, caplog):
    (tmp_path / "starts_threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    await pool(imports=("starts_threads",))
    assert await offload(offloaded.is_imported, "starts_threads")
    assert "has started a thread" in caplog.text


async def test_a_child_logs_as_if_it_were_here(pool, caplog):
    await pool()
    offloaded.USER.set("ann")
    assert await offload(offloaded.say, "hello") == "hello"
    (record,) = [record for record in caplog.records if record.name == "tests.offloaded"]
    assert (record.getMessage(), record.user, record.process) == ("hello", "ann", await offload(offloaded.pid))


async def test_tracebacks_and_odd_extras_survive_the_way(pool, caplog):
    await pool()
    await offload(offloaded.say_traceback)
    await offload(offloaded.say_oddly)
    assert "ValueError: inner" in caplog.text
    assert "odd" in caplog.text


async def test_a_record_whose_extras_cannot_be_read_here_is_logged_without_them(pool, caplog):
    await pool()
    assert await offload(offloaded.say_awkwardly, timeout=5) == "said"
    (record,) = [record for record in caplog.records if record.name == "tests.offloaded"]
    assert (record.getMessage(), record.user, hasattr(record, "error")) == ("awkward", "ann", False)


async def test_a_filter_that_raises_is_not_the_calls_error(pool, caplog):
    def refuse(record):
        raise LookupError("no context here")

    logging.getLogger("tests.offloaded").addFilter(refuse)
    try:
        await pool()
        assert await offload(offloaded.say_awkwardly, timeout=5) == "said"
    finally:
        logging.getLogger("tests.offloaded").removeFilter(refuse)
    assert "could not be logged here: awkward" in caplog.text


async def test_a_record_is_cut_to_what_a_frame_holds(pool, caplog):
    await pool()
    await offload(offloaded.say_much)
    (record,) = [record for record in caplog.records if record.name == "tests.offloaded"]
    assert len(record.load) < 100_000
    assert not hasattr(record, "thing")


async def test_the_context_goes_along(pool):
    await pool()
    context = contextvars.copy_context()
    context.run(offloaded.USER.set, "bob")
    assert await asyncio.create_task(offload(offloaded.user), context=context) == "bob"
    assert await offload(offloaded.user) == "nobody"


async def test_closing_fails_what_waits_and_kills_what_runs(pool, tmp_path):
    running = await pool()
    task = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 60))
    child = int(await begun(tmp_path / "begun"))
    waiting = asyncio.create_task(offload(offloaded.add, 1))
    await until(lambda: running.snapshot().waiting == 1, "the second call waits")
    await running.close()
    for error in await asyncio.gather(task, waiting, return_exceptions=True):
        assert isinstance(error, OffloadClosed)
    assert child not in descendants()
    with pytest.raises(OffloadClosed, match="pool is closed"):
        await offload(offloaded.add, 1)


async def test_the_decorator_offloads_where_the_function_is_called(pool):
    await pool()
    assert await offloaded.doubled(4) == 8
    assert offloaded.doubled.__wrapped__(4) == 8
    assert offloaded.doubled.__name__ == "doubled"
    with pytest.raises(OffloadTimeout, match=r"too_long was not done after 0.2 s"):
        await offloaded.too_long()
    assert [value async for value in offloaded.counted(3)] == [0, 1, 2]


async def test_the_decorator_refuses_what_can_never_be_offloaded():
    with pytest.raises(OffloadUnfit, match="is an async function"):
        offload.function(offloaded.coroutine)


def test_it_works_without_a_server_and_ends_with_the_loop():
    async def main():
        assert offload.snapshot() is None
        assert await offload(offloaded.add, 1) == 2
        assert offload.snapshot().calls == 1
        return descendants()

    before = descendants()
    started = asyncio.run(main()) - before
    assert len(started) == 2
    assert not descendants() & started


def test_a_loop_that_is_closed_with_calls_in_flight_leaves_nothing_to_the_next(tmp_path):
    async def main():
        task = asyncio.create_task(offload(offloaded.touch_and_sleep, tmp_path / "begun", 60))
        await begun(tmp_path / "begun")
        return task

    def close_early():
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(main())
        loop.close()
        task.get_coro().close()

    before, open_before = descendants(), len(os.listdir("/proc/self/fd"))
    close_early()
    assert len(descendants() - before) == 2
    assert asyncio.run(offload(offloaded.add, 1)) == 2
    wait_until(lambda: descendants() <= before, "all have ended")
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_settings_without_a_server_are_configured_in_the_program(monkeypatch):
    own = type(offload)()
    own.configure(workers=0)

    async def main():
        await own(offloaded.add, 1)

    with pytest.raises(OffloadError, match="turned off"):
        asyncio.run(main())
    with pytest.raises(TypeError, match="nonsense"):
        own.configure(nonsense=1)


def test_a_loop_in_another_thread_shares_the_pool():
    """As with --accept threads: one process, one queue, several loops."""
    from aioserve.offloading.api import attached, pooled
    from aioserve.offloading.settings import Settings

    async def guest(shared):
        with attached(shared):
            pids = {await offload(offloaded.pid) for _ in range(5)}
            with pytest.raises(OffloadTimeout):
                await offload(offloaded.sleep, 60, timeout=0.2)
            with pytest.raises(LookupError):
                await offload(offloaded.fail, "x")
            # A guest has its answer before the lane is free.
            await until(lambda: shared.snapshot().running == 0, "the one before is over")
            task = asyncio.create_task(offload(offloaded.sleep, 60))
            await until(lambda: shared.snapshot().running == 1, "it runs")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            pieces = [piece async for piece in offload.stream(offloaded.count, 3)]
            return pids, pieces

    async def main():
        async with pooled(Settings()) as shared:
            home = await offload(offloaded.pid)
            pids, pieces = await asyncio.to_thread(lambda: asyncio.run(guest(shared)))
            assert pids == {home}
            assert pieces == [0, 1, 2]
            await until(lambda: shared.snapshot().running == 0, "all are over")
            assert shared.snapshot().kills == 2

    asyncio.run(main())


def test_a_guests_full_queue_is_its_error():
    from aioserve.offloading.api import attached, pooled
    from aioserve.offloading.settings import Settings

    async def guest(shared):
        with attached(shared):
            results = await asyncio.gather(*[offload(offloaded.sleep, 0.1) for _ in range(3)], return_exceptions=True)
            return sum(isinstance(result, OffloadFull) for result in results)

    async def main():
        async with pooled(Settings(queue=0)) as shared:
            return await asyncio.to_thread(lambda: asyncio.run(guest(shared)))

    assert asyncio.run(main()) == 2


def test_the_package_says_what_it_has():
    assert aioserve.offload is offload
    assert {"offload", "OffloadFull", "OffloadTimeout", "OffloadCrashed"} <= set(aioserve.__all__)


async def test_a_server_leaves_its_own_loop_while_loops_of_other_threads_end(pool):
    await pool()
    server, elsewhere = Bystander(), asyncio.new_event_loop()

    class Ending:
        """The seat of a loop that ends the moment that somebody looks at it."""

        @property
        def servers(self):
            del api._seats[elsewhere]
            return []

    api.bind(server)
    api._seats[elsewhere] = Ending()
    try:
        api.unbind(server)
        assert server not in api._seats[asyncio.get_running_loop()].servers
    finally:
        api._seats.pop(elsewhere, None)
        elsewhere.close()


class Bystander:
    def find(self, task):
        return None
