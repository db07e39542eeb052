"""The engine dask: a real scheduler and two real workers, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aioserve import OffloadError, OffloadTimeout, offload
from tests import offloaded
from tests.loop.offloading.conftest import begun
from tests.process.servers import REPO, Served, wait_until

pytest.importorskip("distributed")

pytestmark = [pytest.mark.once, pytest.mark.timeout(120), pytest.mark.xdist_group("dask")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """host:port of a scheduler with two workers, which find the modules of the tests, and the workers' ids."""
    place = tmp_path_factory.mktemp("dask")
    file = place / "scheduler.json"
    path = os.pathsep.join([str(REPO), str(REPO / "tests/process/apps")])
    environment = {**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    with (place / "log").open("wb") as log:

        def start(module, *options):
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *common, *options],
                cwd=place, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

        processes = [start("dask_scheduler", "--port", "0")]
        try:
            wait_until(file.exists, "the scheduler is there")
            workers = [start("dask_worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]
            processes += workers
            wait_until(
                lambda: (place / "log").read_text().count("Registered to:") >= 2, "both workers are there", timeout=60
            )
            yield json.loads(file.read_text())["address"].removeprefix("tcp://"), {worker.pid for worker in workers}
        finally:
            for process in processes:
                process.kill()
                process.wait()


def thread_names():
    import threading

    return {thread.name for thread in threading.enumerate()}


@pytest.fixture
async def dask(cluster, pool):
    address, _ = cluster
    return await pool(engine=f"dask://{address}", workers=2)


async def test_calls_run_on_the_workers(cluster, dask):
    _, workers = cluster
    pids = await asyncio.gather(*[offload(offloaded.pid) for _ in range(20)])
    assert set(pids) <= workers
    assert os.getpid() not in pids


async def test_errors_data_and_streams_come_back(dask):
    with pytest.raises(LookupError, match="x"):
        await offload(offloaded.fail, "x")
    thing = os.urandom(3 << 20)
    assert await offload(offloaded.give_back, thing) == thing
    assert [piece async for piece in offload.stream(offloaded.count, 3)] == [0, 1, 2]
    assert await offloaded.doubled(2) == 4


async def test_the_same_arguments_twice_are_two_calls(dask):
    assert await offload(offloaded.an_id) != await offload(offloaded.an_id)


async def test_a_call_that_takes_too_long_is_given_up(dask, tmp_path):
    with pytest.raises(OffloadTimeout):
        await offload(offloaded.touch_and_sleep, str(tmp_path / "begun"), 2, timeout=0.5)
    assert await offload(offloaded.add, 1) == 2


async def test_a_scheduler_that_is_not_there_fails_the_calls_that_wait(pool, monkeypatch):
    monkeypatch.setattr("aioserve.offloading.executors.OPEN_SECONDS", 0.5)
    await pool(engine="dask://127.0.0.1:1")
    with pytest.raises(OffloadError, match=r"--offload-engine dask://127.0.0.1:1"):
        await offload(offloaded.add, 1)


def test_the_same_application_runs_on_it_unchanged(cluster, tmp_path):
    address, workers = cluster
    with Served("offloading:app", "--offload-engine", f"dask://{address}", "--offload-workers", "2") as server:
        assert int(server.get(f"/work?path={tmp_path / 'x'}&seconds=0").text) in workers
        assert server.get("/total?count=20").text == "50"
        assert server.get("/large?size=2000000").text == "2000000"


async def test_a_worker_that_dies_fails_its_call(cluster, dask, tmp_path):
    """The last one: it leaves one worker."""
    _, workers = cluster
    task = asyncio.create_task(offload(offloaded.touch_and_sleep, str(tmp_path / "begun"), 60))
    victim = int(await begun(tmp_path / "begun"))
    assert victim in workers
    os.kill(victim, signal.SIGKILL)
    # dask runs it again on the other worker, as it does: that one is not killed.
    Path(tmp_path / "begun").unlink()
    assert int(await begun(tmp_path / "begun")) in workers - {victim}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
