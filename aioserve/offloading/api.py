"""``offload``: run a function beside the loop, and have it end when its request does.

    result = await offload(render, page, timeout=5.0)
    async for row in offload.stream(rows, table): ...

The pool is the one of the running loop. A server gives its loops one (``pooled``); any other loop has one of its own
from its first call to its end, with the settings of ``offload.configure``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

from aioserve.errors import ClientDisconnected, OffloadError, OffloadFull
from aioserve.offloading.bound import OVERLOADED, REQUEST, Place, forget, when_gone
from aioserve.offloading.call import OVER, Call, State, check
from aioserve.offloading.engines import make_engine
from aioserve.offloading.pool import Pool, Snapshot
from aioserve.offloading.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from aioserve.offloading.bound import Request, Requests

R = TypeVar("R")

#: Why a call ends with its request.
_CLIENT_LEFT: Final = "the client has left"


@final
@dataclass(slots=True)
class _Seat:
    """What a loop has."""

    pool: Pool
    #: Its servers: one as a rule, none in a program without.
    servers: list[Requests] = field(default_factory=list)
    #: Keeps the pool of a loop without a server until the loop ends.
    guard: AsyncGenerator[None] | None = None

    def find(self, task: asyncio.Task[Any] | None) -> Request | None:
        """The request that ``task`` serves."""
        return next((found for server in self.servers if (found := server.find(task)) is not None), None)


_seats: Final[dict[asyncio.AbstractEventLoop, _Seat]] = {}


@contextlib.asynccontextmanager
async def pooled(settings: Settings, row: memoryview | None = None) -> AsyncIterator[Pool]:
    """A pool for the running loop, closed at the end of the block: what a server puts around all that it does.

    ``row`` are the cells of this process on the scoreboard.
    """
    pool = Pool(settings, make_engine, row=row)
    try:
        with attached(pool):
            yield pool
    finally:
        await pool.close()


@contextlib.contextmanager
def attached(pool: Pool) -> Iterator[None]:
    """Calls of the running loop are ``pool``'s within the block; it may be the pool of a loop in another thread."""
    loop = asyncio.get_running_loop()
    before = _seats.get(loop)
    _seats[loop] = _Seat(pool)
    try:
        yield
    finally:
        if before is None:
            del _seats[loop]
        else:
            _seats[loop] = before


def bind(server: Requests) -> None:
    """Calls of the running loop belong to requests of ``server``, if it is one of those."""
    seat = _seats.get(asyncio.get_running_loop())
    if seat is not None:
        seat.servers.append(server)


def unbind(server: Requests) -> None:
    """In the loop that it was bound in: other threads come and go in ``_seats`` meanwhile."""
    seat = _seats.get(asyncio.get_running_loop())
    if seat is not None and server in seat.servers:
        seat.servers.remove(server)


@final
class Offload:
    """The one object behind ``aioserve.offload`` and ``scope["extensions"]["aioserve.offload"]``."""

    def __init__(self) -> None:
        self._settings = Settings()

    async def __call__(
        self,
        fn: Callable[..., R],
        /,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109  # the pool keeps it, and kills
        **kwargs: Any,
    ) -> R:
        """Run ``fn(*args, **kwargs)`` beside the loop and return what it returns, or raise what it raises.

        ``timeout`` is for the whole call, in seconds, waiting included (None: --offload-timeout, 0: none). Raises
        ``OffloadFull``, ``OffloadTimeout``, ``OffloadCrashed``, ``OffloadUnfit``, ``OffloadClosed``, and
        ``ClientDisconnected`` if the client of the request has left.
        """
        seat, call = self._prepare(fn, args, kwargs, timeout)
        with _bound(seat, call):
            _submit(seat.pool, call)
            try:
                result: R = await call.future
            except asyncio.CancelledError:
                _leave(seat.pool, call, "its task was cancelled")
                raise
            return result

    async def stream(
        self,
        fn: Callable[..., Iterator[R]],
        /,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109  # as above
        **kwargs: Any,
    ) -> AsyncIterator[R]:
        """Run a generator beside the loop, and yield what it yields; it is never more than one piece ahead.

        ``timeout`` is for each piece, from when it is asked for. Leaving the loop early closes the generator.
        """
        seat, call = self._prepare(fn, args, kwargs, timeout, streams=True)
        with _bound(seat, call):
            _submit(seat.pool, call)
            try:
                while (piece := await call.future) is not OVER:
                    yield piece
                    if call.ask():
                        _more(seat.pool, call)
            finally:
                if call.state is not State.ENDED:
                    _leave(seat.pool, call, "its stream was left early")

    @overload
    def function(self, fn: Callable[..., R], /) -> Offloaded[R]: ...
    @overload
    def function(self, /, *, timeout: float | None = None) -> Callable[[Callable[..., R]], Offloaded[R]]: ...
    def function(self, fn: Callable[..., Any] | None = None, /, *, timeout: float | None = None) -> Any:
        """Decorate a function so that calling it offloads it: ``await f(x)``, or ``async for`` over a generator."""
        if fn is None:
            return functools.partial(Offloaded, timeout=timeout)
        return Offloaded(fn, timeout=timeout)

    def configure(self, **settings: Any) -> None:
        """Settings for loops without a server, by the names of their flags without ``offload_``, before the first call.

        Under a server its own configuration holds.
        """
        self._settings = replace(self._settings, **settings)

    def snapshot(self) -> Snapshot | None:
        """How the pool of the running loop is; None if there is none yet."""
        seat = _seats.get(asyncio.get_running_loop())
        return None if seat is None else seat.pool.snapshot()

    def _prepare(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,  # it is the pool that keeps it
        *,
        streams: bool = False,
    ) -> tuple[_Seat, Call]:
        check(fn, streams=streams)
        loop = asyncio.get_running_loop()
        seat = _seats.get(loop) or self._open(loop)
        if not seat.pool.settings.workers:
            raise OffloadError("offloading is turned off (--offload-workers 0)")
        request = REQUEST.get()
        if request is None and seat.servers:
            Place.binding = True
            request = seat.find(asyncio.current_task())
        _check_client(request)
        call = Call(loop, fn, args, kwargs, timeout=timeout, request=request, streams=streams)
        if seat.pool.pickles:
            call.pack()
        return seat, call

    def _open(self, loop: asyncio.AbstractEventLoop) -> _Seat:
        """A pool for a loop without a server."""
        if Place.in_child:
            raise OffloadError(
                "offload() was called in an offloaded function: call the function itself; a program that is started "
                "with its own functions offloaded begins with: if __name__ == '__main__'"
            )
        for other in list(_seats):  # a copy: loops of other threads come and go meanwhile
            if other.is_closed() and (left := _seats.pop(other, None)) is not None and left.pool.loop is other:
                # It was closed without its asynchronous generators, of which the guard is one.
                left.pool.abandon()
        seat = _seats[loop] = _Seat(Pool(self._settings, make_engine))
        seat.guard = _until_loop_ends(seat.pool)
        # Its first step, which needs no loop; the loop closes it with all asynchronous generators at its end.
        with contextlib.suppress(StopIteration):
            seat.guard.__anext__().send(None)
        return seat


async def _until_loop_ends(pool: Pool) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        _seats.pop(pool.loop, None)
        await pool.close()


@final
class Offloaded(Generic[R]):
    """A function that is offloaded when it is called. ``__wrapped__`` is the plain one.

    It is sent to a child by its name, under which the child finds this object too, and calls what it wraps.
    """

    def __init__(self, fn: Callable[..., Any], *, timeout: float | None = None) -> None:
        functools.update_wrapper(self, fn)
        self.__offloaded__ = fn
        self._timeout = timeout
        self._streams = inspect.isgeneratorfunction(fn)
        check(fn, streams=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = offload.stream if self._streams else offload
        return start(self, *args, timeout=self._timeout, **kwargs)

    def __reduce__(self) -> str:
        return self.__offloaded__.__qualname__


@contextlib.contextmanager
def _bound(seat: _Seat, call: Call) -> Iterator[None]:
    """Let ``call`` end when the client of its request leaves."""
    if call.request is None and not seat.servers:
        yield
        return

    def leave() -> None:
        call.refuse(ClientDisconnected("the client has closed the connection"))
        _leave(seat.pool, call, _CLIENT_LEFT)

    handle = None
    task = asyncio.current_task()
    if call.request is not None:
        when_gone(call.request, leave)
    else:
        # An application that has not waited yet is known to its server in the next turn of the loop.
        handle = call.loop.call_soon(_find_later, seat, call, task, leave)
    try:
        yield
    except OffloadFull:
        request = call.request or seat.find(task)
        if request is not None:
            request.scope[OVERLOADED] = True
        raise
    finally:
        if handle is not None:
            handle.cancel()
        if call.request is not None:
            forget(call.request, leave)


def _find_later(seat: _Seat, call: Call, task: asyncio.Task[Any] | None, leave: Callable[[], None]) -> None:
    if call.state is not State.ENDED:
        call.request = seat.find(task)
        if call.request is not None:
            when_gone(call.request, leave)


def _check_client(request: Request | None) -> None:
    if request is not None and request.gone:
        raise ClientDisconnected("the client has closed the connection")


def _submit(pool: Pool, call: Call) -> None:
    if pool.loop is call.loop:
        pool.submit(call)
    else:
        pool.loop.call_soon_threadsafe(pool.submit_from_afar, call)


def _more(pool: Pool, call: Call) -> None:
    if pool.loop is call.loop:
        pool.more(call)
    else:
        pool.loop.call_soon_threadsafe(pool.more, call)


def _leave(pool: Pool, call: Call, why: str) -> None:
    if pool.loop is call.loop:
        pool.leave(call, why)
    else:
        with contextlib.suppress(RuntimeError):  # that loop is closed, and its children are gone
            pool.loop.call_soon_threadsafe(pool.leave, call, why)


offload: Final = Offload()
