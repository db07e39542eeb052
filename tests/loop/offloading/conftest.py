from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from aioserve.offloading.api import pooled
from aioserve.offloading.settings import Settings
from tests.process.servers import processes


def descendants(pid=None):
    """Every process below ``pid`` that is not a zombie."""
    family, below = {pid or os.getpid()}, set()
    table = {child: at for child, at in processes().items() if not tracks_resources(child)}
    while more := {child for child, (parent, _) in table.items() if parent in family} - family:
        family |= more
        below |= more
    return below


def tracks_resources(pid):
    """Whether it is multiprocessing's own process, which stays for as long as we do."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def arenas():
    """The descriptors of shared memory that this process has."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found += [fd] * ("memfd" in os.readlink(fd))
    return found


@pytest.fixture
async def pool():
    """Open it with settings; what it has started must be gone at the end, and no descriptor left open."""
    before, open_before = descendants(), len(os.listdir("/proc/self/fd"))
    contexts = []

    async def open_pool(**settings):
        contexts.append(pooled(Settings(**settings)))
        return await contexts[-1].__aenter__()

    yield open_pool
    for context in contexts:
        await context.__aexit__(None, None, None)
    await until(lambda: descendants() <= before, "all processes have ended")
    # A thread of an executor closes its pipes some time after its processes have ended.
    await until(lambda: len(os.listdir("/proc/self/fd")) <= open_before, "all descriptors are closed")


async def until(condition, what, seconds=20.0):
    """Let the loop turn until ``condition`` is true."""
    async with asyncio.timeout(seconds):
        while not (answer := condition()):
            await asyncio.sleep(0.01)
    assert answer, what
    return answer


async def begun(path):
    """The text of a file that an offloaded function writes when it begins."""
    return await until(lambda: Path(path).exists() and Path(path).read_text(), f"{path} is written")
