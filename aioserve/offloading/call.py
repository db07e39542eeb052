"""One call: what is to be run, who waits for it, and how it ended.

    WAITING --a lane takes it--> RUNNING --> ENDED        WAITING --> ENDED: it never began

It ends once, in one way: with a result, with an error, or with nobody waiting any more (``leave``). What comes after
that is ignored. Everything but ``future`` belongs to the pool's loop; ``future`` belongs to the loop that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import TYPE_CHECKING, Any, final

from aioserve.errors import OffloadUnfit
from aioserve.offloading import carried, parcel
from aioserve.offloading.bound import request_id
from aioserve.offloading.foreign import shown
from aioserve.offloading.target import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.offloading.bound import Request


@final
class State(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


#: In place of a piece: the stream is over.
OVER = object()

#: co_flags of coroutine functions, generators and asynchronous generators (inspect).
_COROUTINE = 0x80 | 0x200
_GENERATOR = 0x20


@final
class Call:
    __slots__ = (
        "along",
        "arguments",
        "function",
        "future",
        "keywords",
        "lane",
        "loop",
        "packed",
        "queued",
        "request",
        "started",
        "state",
        "streams",
        "timeout",
        "timer",
        "unasked",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        *,
        timeout: float | None,
        request: Request | None,
        streams: bool = False,
    ) -> None:
        self.loop = loop
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.timeout = timeout
        self.request = request
        self.streams = streams
        self.along = carried.pack(request_id(request))
        #: The pickle, if it is small; else it is made when a lane has an arena for it.
        self.packed: bytes | None = None
        self.future: asyncio.Future[Any] = loop.create_future()
        self.state = State.WAITING
        self.lane: Any = None
        self.timer: asyncio.TimerHandle | None = None
        #: What has come of a stream while nobody waited for it: its end, or an error.
        self.unasked: tuple[object, BaseException | None] | None = None
        self.queued = 0.0
        self.started = 0.0

    @property
    def name(self) -> str:
        return name_of(self.function)

    @property
    def contents(self) -> tuple[Any, ...]:
        """What goes to the child."""
        return self.function, self.arguments, self.keywords, self.along

    def pack(self) -> None:
        """Pickle it now if it is small. Raises ``OffloadUnfit`` for what cannot be pickled, large or not."""
        try:
            self.packed = parcel.pack(self.contents)
        except parcel.TooLarge:
            self.packed = None
        except Exception as error:  # whatever a foreign __reduce__ raises
            raise unfit(self, error) from error

    def answer(self, value: object) -> None:
        """Give whoever waits a result, or the next piece."""
        self._settle(value, None)

    def refuse(self, error: BaseException) -> None:
        """Give whoever waits an error."""
        self._settle(None, error)

    def ask(self) -> bool:
        """Wait for the next piece with a new future; False if it is there already."""
        self.future = self.loop.create_future()
        if self.unasked is None:
            return True
        self._resolve(*self.unasked)
        return False

    def _settle(self, value: object, error: BaseException | None) -> None:
        if asyncio._get_running_loop() is self.loop:
            self._resolve(value, error)
        else:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                self.loop.call_soon_threadsafe(self._resolve, value, error)

    def _resolve(self, value: object, error: BaseException | None) -> None:
        future = self.future
        if future.done():
            if self.unasked is None:
                self.unasked = value, error
        elif error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):
            # A future cannot carry it; what a coroutine that raises it does is this.
            future.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            future.set_exception(error)


def check(function: object, *, streams: bool) -> None:
    """Refuse at the call what could only fail in the child. Raises ``OffloadUnfit``."""
    if not callable(function):
        raise OffloadUnfit(f"{function!r} cannot be called: offload(function, *arguments) takes the function first")
    code = getattr(getattr(function, "__offloaded__", function), "__code__", None)
    flags = getattr(code, "co_flags", 0)
    if flags & _COROUTINE:
        raise OffloadUnfit(
            f"{name_of(function)} is an async function, and there is no event loop in a child: offload the plain "
            "function that does the work, or await this one"
        )
    if flags & _GENERATOR and not streams:
        raise OffloadUnfit(f"{name_of(function)} is a generator: use offload.stream()")


def unfit(call: Call, error: Exception) -> OffloadUnfit:
    """Why ``call`` cannot be sent to another process, and what to do."""
    name = call.name
    inner = getattr(call.function, "__qualname__", "")
    if "<lambda>" in inner or "<locals>" in inner:
        what = "a lambda" if "<lambda>" in inner else "a function within a function"
        return OffloadUnfit(
            f"{name} cannot be sent to another process, which finds functions by module and name, because it is "
            f"{what}: make it a function at the top level of a module, and give it what it needs as arguments"
        )
    try:
        parcel.pack(call.function)
    except parcel.TooLarge:
        pass
    except Exception:  # noqa: BLE001  # as above
        return OffloadUnfit(
            f"{name} cannot be sent to another process ({shown(error)}): offload a function at the "
            "top level of a module; of an object, send the data that its method needs instead"
        )
    return OffloadUnfit(
        f"an argument of {name} cannot be sent to another process ({shown(error)}): pass plain data, "
        "and open connections, files and locks inside the function"
    )
