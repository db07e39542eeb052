"""A lane of the engine ``process``: one child, from its start to its end, as the worker sees it.

STARTING --READY--> IDLE --run--> (WRITING) --> RUNNING --RESULT--> (READING) --> IDLE
   any --killed, or it died--> GONE         IDLE --retire--> GONE: its end of the socket closes, and it leaves
"""

from __future__ import annotations

import enum
import logging
import os
import pickle
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.errors import OffloadCrashed, OffloadError
from aioserve.offloading import parcel, relay, wire
from aioserve.offloading.call import OVER, Call, unfit
from aioserve.offloading.foreign import plain, shown

if TYPE_CHECKING:
    import asyncio

    from aioserve.offloading.children import Children
    from aioserve.offloading.starter import Nursery

log = logging.getLogger("aioserve")

#: A child whose socket has been closed has this long to leave, in seconds; then it is killed.
LEAVE_SECONDS: Final = 5.0

#: What a socket should hold, so that a frame leaves in one write: macOS has 8 KiB.
SOCKET_BYTES: Final = 256 * 1024

ExceptionText = tuple[BaseException, str]


@final
class Stage(enum.Enum):
    STARTING = enum.auto()
    IDLE = enum.auto()
    WRITING = enum.auto()
    RUNNING = enum.auto()
    READING = enum.auto()
    GONE = enum.auto()


class RemoteTraceback(Exception):
    """The traceback in the child, as the cause of what its function raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@final
class Child:
    """A lane."""

    def __init__(self, children: Children, name: int) -> None:
        self.calls = 0
        self.name: Final = name
        self.pid = 0
        #: What the worker has killed it for.
        self.killed = ""
        self._children: Final = children
        self._pool: Final = children.pool
        self._loop: Final = children.pool.loop
        self._stage = Stage.STARTING
        self._call: Call | None = None
        # It is not to have another call.
        self._retired = False
        # How the process ended, while its last words were being read.
        self._how = ""
        # What has come while a piece was being read.
        self._held: list[tuple[int, int, bytes]] = []
        # A thread is using the arena.
        self._copying = False
        self._frames = wire.Frames()
        self._unsent = b""
        self._nursery: Nursery | None = None
        self._channel, self._theirs = socket.socketpair()
        try:
            self._arena = parcel.open_arena()
        except OSError:
            self._channel.close()
            self._theirs.close()
            raise
        self._channel.setblocking(False)
        if sys.platform != "linux":
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self._channel.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        self._fd: Final = self._channel.fileno()

    def begin(self, house: Nursery) -> tuple[socket.socket, int]:
        """What the child is to have; it is told what to prepare, and says READY or FAILED."""
        self._nursery = house
        settings = self._pool.settings
        self._loop.add_reader(self._fd, self._readable)
        wanted = {
            "sys_path": sys.path,
            "imports": settings.imports,
            "initializer": settings.initializer,
            "memory": settings.memory,
            "levels": relay.levels(),
            "warnings": logging._warnings_showwarning is not None,  # type: ignore[attr-defined]  # captureWarnings
            "main": _main_module(),
        }
        self._send(wire.SETUP, 0, pickle.dumps(wanted, 5))
        return self._theirs, self._arena

    def begun(self) -> None:
        """The child has its own copies now."""
        self._theirs.close()

    def abandon(self) -> None:
        """It could not be started, or its loop is closed."""
        self._stage = Stage.GONE
        self._close()

    # What the pool calls.

    def run(self, call: Call) -> None:
        self.calls += 1
        self._call = call
        if call.packed is None:
            self._stage = Stage.WRITING
            self._copying = True
            writing = self._children.in_thread(parcel.write, self._arena, call.contents)
            writing.add_done_callback(lambda done: self._written(call, done))
            return
        self._stage = Stage.RUNNING
        self._send(wire.STREAM if call.streams else wire.CALL, 0, call.packed)

    def more(self, call: Call) -> None:
        if self._call is call and self._stage is Stage.RUNNING:
            self._send(wire.MORE, 0, b"")

    def close(self, call: Call) -> None:
        if self._call is call and self._stage is Stage.RUNNING:
            self._send(wire.CLOSE, 0, b"")

    def kill(self, why: str) -> bool:
        if self._stage is not Stage.RUNNING:
            # It has not begun or has done its part: what is written and read meanwhile is dropped.
            return False
        self.killed = why
        self._stage = Stage.GONE
        self._call = None
        if self._nursery is not None:
            self._nursery.kill(self)
        self._close()
        return True

    def retire(self) -> None:
        self._retired = True
        self._stage = Stage.GONE
        self._close()
        if self._nursery is not None:
            self._loop.call_later(LEAVE_SECONDS, self._nursery.kill, self)

    # What the nursery calls.

    def died(self, how: str) -> None:
        """The process has ended, or nobody knows what became of it."""
        if self._stage is Stage.GONE:
            return
        self._retired = True
        stage, call = self._last_words()
        if stage is Stage.GONE:
            return
        if stage is Stage.READING:
            # What it has left in the arena is complete.
            self._how = how
            return
        self._stage = Stage.GONE
        self._close()
        if stage is Stage.STARTING:
            self._pool.cannot_open(self, OffloadError(f"offload: a child could not be started: it {how}"))
        elif stage is Stage.WRITING and call is not None:
            # The thread still writes, for nobody; the call has not begun.
            self._pool.lost(self, OffloadError(how))
            self._pool.put_back(call)
        elif call is not None:
            crashed = OffloadCrashed(f"{call.name} has not returned: its child, process {self.pid}, {how}")
            self._pool.lost(self, crashed, call)
        else:
            log.warning("offload: idle child, process %d, %s", self.pid, how)
            self._pool.lost(self, OffloadError(how))

    # The socket.

    def _readable(self) -> None:
        if not self._read() and self._stage is not Stage.GONE:
            # It may have closed it itself, or written something else into it, and live on: then nobody hears what it
            # says. If it is dying, this changes nothing, and the nursery says how it died.
            self._loop.remove_reader(self._fd)
            if self._nursery is not None:
                self._nursery.kill(self)

    def _last_words(self) -> tuple[Stage, Call | None]:
        """Act on everything that is still in the socket; where that leads."""
        while self._channel.fileno() >= 0 and self._stage is not Stage.READING:
            try:
                data = self._channel.recv(wire.READ_SIZE)
            except OSError:
                break
            if not data or not self._feed(data):
                break
        return self._stage, self._call

    def _read(self) -> bool:
        """Act on what has come; False at the end of it."""
        try:
            data = self._channel.recv(wire.READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return bool(data) and self._feed(data)

    def _feed(self, data: bytes) -> bool:
        """Act on frames; False if they are none."""
        try:
            for kind, flags, body in self._frames.feed(data):
                if self._stage is Stage.READING and kind != wire.LOG:
                    # The end of a stream overtakes its last piece, which a thread still reads.
                    self._held.append((kind, flags, body))
                else:
                    self._take(kind, flags, body)
        except wire.Garbage:
            return False
        return True

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == wire.LOG:
            relay.hand_over(body)
            return
        call = self._call
        if kind in {wire.RESULT, wire.PIECE} and call is not None and self._stage is Stage.RUNNING:
            self._take_result(call, kind, flags, body)
        elif kind == wire.ERROR and call is not None:
            error, text = _load(body)
            error.__cause__ = RemoteTraceback(text)
            self._pool.failed(call, error)
            self._free(call, flags)
        elif kind == wire.END and call is not None:
            self._pool.answered(call, OVER)
            self._free(call, flags)
        elif kind == wire.READY and self._stage is Stage.STARTING and not self._retired:
            self._stage = Stage.IDLE
            self._pool.opened(self)
        elif kind == wire.FAILED and self._stage is Stage.STARTING:
            self.retire()
            problem = f"offload: a child could not be set up (--offload-import, --offload-initializer)\n{body.decode()}"
            self._pool.cannot_open(self, OffloadError(problem.rstrip()))

    def _take_result(self, call: Call, kind: int, flags: int, body: bytes) -> None:
        if flags & wire.ARENA:
            self._stage = Stage.READING
            self._copying = True
            reading = self._children.in_thread(parcel.read, self._arena, wire.unpack_sizes(body))
            reading.add_done_callback(lambda done: self._was_read(call, kind, flags, done))
            return
        try:
            value = pickle.loads(body)  # noqa: S301  # from a child of ours
        except BaseException as error:  # noqa: BLE001  # whatever a foreign __setstate__ raises, or a module's import
            self._broken(call, kind, flags, plain(error))
            return
        self._pool.answered(call, value)
        if kind == wire.RESULT:
            self._free(call, flags)

    def _was_read(self, call: Call, kind: int, flags: int, done: asyncio.Future[tuple[Any, Exception | None]]) -> None:
        self._copying = False
        if self._stage is Stage.GONE:
            self._close()
            return
        if kind == wire.PIECE:
            self._stage = Stage.RUNNING
        value, error = done.result()
        if error is not None:
            self._broken(call, kind, flags, error)
            return
        self._pool.answered(call, value)
        if kind == wire.RESULT:
            self._free(call, flags)
            return
        if not self._pool.waits_for(call):
            # It was left, or its time was over, while nothing could be said to the child.
            self._pool.close_stream(call, "nobody waits for the rest of its stream")
        held, self._held = self._held, []
        for frame in held:
            self._take(*frame)
        if self._how:
            self.died(self._how)

    def _broken(self, call: Call, kind: int, flags: int, error: Exception) -> None:
        """A result has come that cannot be unpickled here."""
        self._pool.failed(call, error)
        if kind == wire.RESULT:
            self._free(call, flags)
        else:
            self._pool.close_stream(call, "a piece of its stream could not be read")

    def _free(self, call: Call, flags: int) -> None:
        self._call = None
        if self._retired:
            self._stage = Stage.GONE
            self._close()
            self._pool.freed(self, call, tired=True)
            return
        self._stage = Stage.IDLE
        self._pool.freed(self, call, tired=bool(flags & wire.RETIRE))

    def _written(self, call: Call, done: asyncio.Future[tuple[Any, Exception | None]]) -> None:
        self._copying = False
        if self._stage is not Stage.WRITING:
            self._close()
            return
        sizes, error = done.result()
        if isinstance(error, OSError):
            self._pool.failed(call, OffloadError(f"the arguments of {call.name} do not fit into memory: {error}"))
        elif error is not None:
            self._pool.failed(call, unfit(call, error))
        if error is not None:
            self._free(call, 0)
            return
        if not self._pool.waits_for(call):
            # What was written takes memory until the child has read it, which it will not.
            self._copying = True
            trimming = self._children.in_thread(parcel.trim, self._arena, sum(sizes))
            trimming.add_done_callback(lambda _: self._trimmed(call))
            return
        self._stage = Stage.RUNNING
        kind = wire.STREAM if call.streams else wire.CALL
        self._send(kind, wire.ARENA, wire.pack_sizes(sizes))

    def _trimmed(self, call: Call) -> None:
        self._copying = False
        if self._stage is Stage.WRITING:
            self._free(call, 0)
        else:
            self._close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        data = wire.frame(kind, flags, body)
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._channel.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # it has died, and the nursery is about to say so
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        data, self._unsent = self._unsent, b""
        try:
            self._unsent = data[self._channel.send(data) :]
        except (BlockingIOError, InterruptedError):
            self._unsent = data
        except OSError:
            pass
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _close(self) -> None:
        if self._channel.fileno() >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
                self._loop.remove_writer(self._fd)
            self._unsent = b""
            self._channel.close()
        self._theirs.close()
        # A thread that still uses it closes it: another file would have its number by then.
        if self._arena >= 0 and not self._copying:
            os.close(self._arena)
            self._arena = -1


def _load(body: bytes) -> ExceptionText:
    """What a function has raised. The child has made sure that it can be unpickled, but its module may be missing."""
    try:
        loaded: ExceptionText = pickle.loads(body)  # noqa: S301  # from a child of ours
    except BaseException as error:  # noqa: BLE001  # whatever a foreign __init__ raises, or a module's import
        return OffloadError(f"what the function raised cannot be read here: {shown(error)}"), ""
    return loaded


def _main_module() -> tuple[str, str]:
    """How a child finds the program that runs here: by name, by path, or not at all."""
    main = sys.modules.get("__main__")
    if main is not None:
        # What comes back from there has its classes under this name, as with multiprocessing, which does the same.
        sys.modules.setdefault("__mp_main__", main)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return "name", spec.name
    path = getattr(main, "__file__", None)
    return ("path", str(Path(path).absolute())) if path else ("", "")
