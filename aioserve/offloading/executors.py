"""The engines that are executors: threads, interpreters, dask, and whatever a user names.

A lane is a place in the executor's queue here: the pool gives it one call, and the executor's future says when that is
over. What has begun in an executor cannot be stopped, except by dask, which forgets it; so a call that has timed out
fails at once, and its lane is taken until the function returns.

A stream from a thread comes piece by piece. From any other executor it comes when the generator has ended, because what
runs elsewhere can hand over one result and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import queue
import socket
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.errors import OffloadCrashed, OffloadError, OffloadUnfit
from aioserve.offloading import carried
from aioserve.offloading.call import OVER, Call
from aioserve.offloading.foreign import plain
from aioserve.offloading.target import run, run_to_the_end, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioserve.offloading.pool import Pool

log = logging.getLogger("aioserve")

#: For an executor to be there, in seconds: dask's scheduler may be on its way up, too.
OPEN_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 0.2


@final
class Executors:
    """The engine. ``name`` is one of its kinds, or the import path of a factory."""

    stops = False

    def __init__(self, pool: Pool, name: str) -> None:
        self.pool: Final = pool
        self.name: Final = name
        self.pickles: Final = name != "thread"
        self._executor: asyncio.Future[Executor] | None = None
        self._ending: list[asyncio.Future[None]] = []

    def open(self) -> Place:
        place = Place(self)
        if self._executor is None:
            # To connect, and to import somebody's factory, takes time that the loop does not have.
            loop = self.pool.loop
            self._executor = loop.run_in_executor(None, make_executor, self.name, self.pool.settings.workers)
        self._executor.add_done_callback(lambda done: self._opened(place, done))
        return place

    def rest(self) -> None:
        opened = self._executor
        if opened is not None and opened.done():
            self._executor = None
            if not opened.cancelled() and opened.exception() is None:
                # In a thread: it may have to talk to somebody.
                self._ending.append(self.pool.loop.run_in_executor(None, _end, opened.result()))

    def abandon(self) -> None:
        opened = self._executor
        if opened is not None and opened.done() and not opened.cancelled() and not opened.exception():
            opened.result().shutdown(wait=False)

    def renew(self, executor: Executor) -> None:
        """``executor`` is broken and takes no call any more: whoever opens a lane next has another one made."""
        opened = self._executor
        if opened is not None and opened.done() and not opened.exception() and opened.result() is executor:
            self.rest()

    async def shut(self) -> None:
        if self._executor is not None:
            await asyncio.wait([self._executor], timeout=OPEN_SECONDS)
            self.rest()
        await asyncio.gather(*self._ending)

    def _opened(self, place: Place, done: asyncio.Future[Executor]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            place.executor = done.result()
            self.pool.opened(place)
            return
        if self._executor is done:
            self._executor = None  # the next call tries again
        self.pool.cannot_open(place, OffloadError(f"offload: --offload-engine {self.name}: {error}"))


@final
class Place:
    """A lane."""

    def __init__(self, engine: Executors) -> None:
        self.calls = 0
        self.executor: Executor | None = None
        self._engine: Final = engine
        self._pool: Final = engine.pool
        self._future: Future[Any] | None = None
        self._pieces: Pieces | None = None

    def run(self, call: Call) -> None:
        assert self.executor is not None
        self.calls += 1
        work: Callable[..., Any] = functools.partial(run, *call.contents)
        if call.streams and self._engine.pickles:
            work = functools.partial(run_to_the_end, *call.contents)
        elif call.streams:
            self._pieces = Pieces(call, functools.partial(self._tell, self._pool.answered, call))
            work = functools.partial(self._pieces.run, *call.contents)
        try:
            self._future = self.executor.submit(work)
        except Exception as error:  # noqa: BLE001  # an executor of any kind, which may be broken or shut down
            self._pool.loop.call_soon(self._refused, call, error)
            return
        self._future.add_done_callback(lambda done: self._tell(self._done, call, done))

    def _refused(self, call: Call, error: Exception) -> None:
        """The executor has not taken ``call``."""
        assert self.executor is not None
        broken = isinstance(error, BrokenExecutor)
        if broken:
            self._engine.renew(self.executor)
        if broken and self.calls > 1:
            # It was broken by another call.
            self._pool.lost(self, crash(call, error))
            self._pool.put_back(call)
        else:
            self._pool.lost(self, crash(call, error), call)

    def _tell(self, act: Callable[..., None], *arguments: object) -> None:
        """Have the loop do it; it may have ended while a thread went on."""
        with contextlib.suppress(RuntimeError):
            self._pool.loop.call_soon_threadsafe(act, *arguments)

    def more(self, call: Call) -> None:
        pieces = self._pieces
        if pieces is not None:
            pieces.wanted.put(True)
        elif self._future is not None and self._future.done():
            self._next(call, self._future.result())

    def close(self, call: Call) -> None:
        if self._pieces is not None:
            self._pieces.wanted.put(False)
        elif self._future is not None and self._future.done():
            self._free(call)

    def kill(self, why: str) -> bool:
        if self._future is not None and self._engine.name.startswith("dask:") and self._future.cancel():
            self._future = None  # what it says of that is not a lane's end any more
            log.info("offload: given up: %s", why)
            return True
        return False

    def retire(self) -> None:
        """There is nothing to end but the executor, which is shared."""

    def _done(self, call: Call, done: Future[Any]) -> None:
        if self._future is not done:
            return
        error: BaseException | None = CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            broken = isinstance(error, BrokenExecutor)
            if broken and self.executor is not None:
                self._engine.renew(self.executor)
            self._pool.failed(call, told(call, error))
            self._free(call, tired=broken)
        elif not call.streams:
            self._pool.answered(call, done.result())
            self._free(call)
        elif self._pieces is None and self._pool.waits_for(call):
            self._next(call, done.result())
        else:
            self._pool.answered(call, OVER)
            self._free(call)

    def _next(self, call: Call, pieces: list[Any]) -> None:
        """The next piece of a stream that came as a whole."""
        if pieces:
            self._pool.answered(call, pieces.pop(0))
        else:
            self._pool.answered(call, OVER)
            self._free(call)

    def _free(self, call: Call, *, tired: bool = False) -> None:
        self._future = None
        self._pieces = None
        self._pool.freed(self, call, tired=tired)


#: How dask says that a call was lost with the worker that ran it.
LOST: Final = frozenset(("KilledWorker", "FutureCancelledError", "FuturesCancelledError", "CommClosedError"))


def told(call: Call, error: BaseException) -> Exception:
    """What a call raises whose future has ended with ``error``."""
    kind = type(error).__name__
    if isinstance(error, (BrokenExecutor, CancelledError)) or kind in LOST:
        return crash(call, error)
    return unfit(call, error) if kind == "NotShareableError" else plain(error)


def crash(call: Call, error: BaseException) -> OffloadError:
    return OffloadCrashed(f"{call.name} has not returned: the executor lost it: {type(error).__name__}: {error}")


def unfit(call: Call, error: BaseException) -> OffloadUnfit:
    """``error`` is what an interpreter says of what it cannot have; the reason is at the end of its causes."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    # Tracebacks of the other interpreter, as text: the first is of what went wrong there.
    reason = str(cause).partition("\n\nThe above exception")[0].strip().rpartition("\n")[2]
    return OffloadUnfit(f"{call.name} cannot go to an interpreter or back: {reason}; use --offload-engine process")


@final
class Pieces:
    """A generator in a thread: it goes on when a piece is wanted, and is at most one ahead."""

    def __init__(self, call: Call, give: Callable[[Any], None]) -> None:
        self.wanted: Final[queue.SimpleQueue[bool]] = queue.SimpleQueue()
        self._call: Final = call
        self._give: Final = give

    def run(self, function: Any, arguments: Any, keywords: Any, along: carried.Carried | None) -> None:
        context = carried.unpack(along)
        pieces: Iterator[Any] = context.run(target_of(function), *arguments, **keywords)
        if not hasattr(pieces, "__next__"):
            raise OffloadUnfit(f"{self._call.name} returned {type(pieces).__name__}, which is no generator")
        asked = True
        while (piece := context.run(next, pieces, OVER)) is not OVER:
            if not asked and not self.wanted.get():
                close = getattr(pieces, "close", None)
                if close is not None:
                    close()
                return
            asked = False
            self._give(piece)


def make_executor(name: str, workers: int) -> Executor:
    """The executor that ``name`` stands for. Raises whatever is wrong with it."""
    if name == "thread":
        return ThreadPoolExecutor(workers, "offload")
    if name == "interpreter":
        import concurrent.futures

        kind = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
        if kind is None:
            raise OffloadError("interpreters need Python 3.14; use process")
        executor: Executor = kind(max_workers=workers)
        return executor
    if name.startswith("dask://"):
        return _dask(name.removeprefix("dask://"))
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    made = found()
    if not isinstance(made, Executor):
        raise OffloadError(f"it returned {type(made).__name__}, which is no concurrent.futures.Executor")
    return made


def _dask(address: str) -> Executor:
    try:
        import distributed
    except ImportError:
        raise OffloadError("the package distributed is not installed: pip install 'aioserve[dask]'") from None
    _await_listener(address)
    # It has annotations in part only, whether or not it is installed here.
    connect: Any = distributed.Client
    client = connect(f"tcp://{address}", timeout=OPEN_SECONDS, set_as_default=False, name="aioserve")
    # pure=False: two calls with the same arguments are two calls.
    executor: Executor = client.get_executor(pure=False, retries=0)
    executor.aioserve_close = client.close  # type: ignore[attr-defined]  # the executor's own shutdown leaves it open
    return executor


def _await_listener(address: str) -> None:
    """Return once somebody listens there: a client that cannot connect leaves its thread and its loop behind."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=OPEN_SECONDS).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise OffloadError(f"the scheduler cannot be reached: {error}") from None
            time.sleep(RETRY_SECONDS)
        else:
            return


def _end(executor: Executor) -> None:
    # What still runs in it is wanted by nobody, and may never end; of what waits there is nothing.
    executor.shutdown(wait=False)
    close = getattr(executor, "aioserve_close", None)
    if close is not None:
        close()
