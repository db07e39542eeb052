"""Importing the applications before the workers are forked, so that all of them share the memory.

What an import leaves running does not survive a fork: a thread is gone in the child, with whatever lock it held, and a
loop's descriptor is shared by all. So both are named in a warning.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aioserve.worker.assemble import assemble_all

if TYPE_CHECKING:
    from aioserve.config.tree import Config
    from aioserve.worker.applications import Applications

log = logging.getLogger("aioserve")


def preload(config: Config) -> list[Applications]:
    """Import everything, in the process that will fork. Raises ``BootError``."""
    applications = assemble_all(config)
    for line in leftovers():
        log.warning("--preload: %s", line)
    gc.collect()
    # A collection in a worker writes to every object that it looks at, and each such page is a copy of its own; what
    # is frozen is not looked at any more.
    gc.freeze()
    log.info("preloaded: %d objects are shared by the workers", gc.get_freeze_count())
    return applications


def leftovers() -> list[str]:
    """What the import has left behind that a fork breaks."""
    lines = [
        f"the import of the application has started the thread {thread.name!r}, which workers will not have; start it "
        "in the lifespan"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ]
    with suppress(OSError):  # only Linux lists them
        native = len(list(Path("/proc/self/task").iterdir())) - threading.active_count()
        if native > 0:
            lines.append(f"{native} threads of native libraries run already, which workers will not have")
    loops = [found for found in gc.get_objects() if isinstance(found, asyncio.AbstractEventLoop)]
    if any(not loop.is_closed() for loop in loops):
        lines.append(
            "the import of the application has made an event loop, which workers would share; make it in the lifespan"
        )
    return lines
