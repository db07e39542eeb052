"""The engine ``process``: lanes are children, each a process that runs one call at a time.

The loop reads and writes the children's sockets itself. An executor of the standard library does that with a thread for
management, one for its queue and two locks, and takes ten times as long for a small call; and it cannot be told to stop
one call. What is large is pickled and unpickled by threads, while the child belongs to that call.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.errors import OffloadError
from aioserve.offloading.foreign import plain
from aioserve.offloading.lane import Child
from aioserve.offloading.starter import Nursery

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aioserve.offloading.pool import Pool


@final
class Children:
    """The engine. ``start`` says how children are made: "auto" forks where it is safe, "spawn" never does."""

    pickles = True
    stops = True

    def __init__(self, pool: Pool, *, start: str = "auto") -> None:
        self.pool: Final = pool
        self._start: Final = start
        self._nursery: Nursery | None = None
        self._leaving: list[Nursery] = []
        self._last = 0
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> Child:
        settings = self.pool.settings
        self._last += 1
        child: Child | None = None
        try:
            child = Child(self, self._last)
            if self._nursery is None or self._nursery.gone:
                self._nursery = Nursery(self.pool.loop, settings.imports, self._start)
            self._nursery.start(child)
        except OSError as error:
            if child is not None:
                child.abandon()
            hint = " (whoever this process runs as has to reach it)" if isinstance(error, PermissionError) else ""
            raise OffloadError(f"offload: no child can be started: {error}{hint}") from error
        return child

    def rest(self) -> None:
        self._leaving = [house for house in self._leaving if not house.gone]
        if self._nursery is not None:
            self._nursery.shut()
            self._leaving.append(self._nursery)
            self._nursery = None

    async def shut(self) -> None:
        self.rest()
        for house in self._leaving:
            await house.ended()
        if self._threads is not None:
            # What they do is bounded: they write into arenas and read from them.
            self._threads.shutdown(wait=True)

    def abandon(self) -> None:
        for house in (*self._leaving, *([self._nursery] if self._nursery is not None else [])):
            house.abandon()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    def in_thread(self, work: Callable[..., Any], *arguments: object) -> asyncio.Future[tuple[Any, Exception | None]]:
        """What would keep the loop for too long. Not the loop's own threads: the application may have filled those."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.pool.settings.workers, "offload")
        return self.pool.loop.run_in_executor(self._threads, _outcome, work, *arguments)


def _outcome(work: Callable[..., Any], *arguments: object) -> tuple[Any, Exception | None]:
    """What ``work`` returns, and what it raises: a future does not carry everything that foreign code may raise."""
    try:
        return work(*arguments), None
    except BaseException as error:  # noqa: BLE001  # a foreign __reduce__ or __setstate__
        return None, plain(error)
