"""What runs in a child: one call after another, from its socket, until that ends.

It does not look after itself: whoever started it kills it when a call takes too long, and takes it down when its
socket has been closed. INT and TERM, which a terminal or a service manager sends to every process, do nothing here: the
worker decides. Their handlers are functions and not SIG_IGN, which programs that a call starts would inherit.
"""

from __future__ import annotations

import gc
import importlib
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.errors import OffloadError, OffloadUnfit
from aioserve.offloading import carried, parcel, relay, wire
from aioserve.offloading.bound import Place
from aioserve.offloading.foreign import plain, shown
from aioserve.offloading.target import name_of, target_of
from aioserve.system.process import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger("aioserve")

#: An exception, with what it holds (the output of a program, say), goes in one frame of this many bytes at most; a
#: larger one comes as its text. Its traceback, as text, has this many characters at most.
LARGEST_ERROR: Final = 1024 * 1024
LONGEST_TRACEBACK: Final = 32 * 1024

#: Among the first to go when memory is short: the worker and the master should outlive a call that wants too much.
OOM_SCORE: Final = "500"


def main(channel: int, arena: int) -> None:
    """What a new process does that is to be a child."""
    Place.in_child = True
    with socket.socket(fileno=channel) as open_channel:
        serve(open_channel, arena)


def serve(channel: socket.socket, arena: int) -> None:
    """Be a child until the other end of ``channel`` is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _not_ours)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    if sys.stderr is not None:
        # Here, because an interpreter beside the main one, which imports this module too, refuses to load it.
        import faulthandler

        with suppress(OSError, ValueError, AttributeError):
            faulthandler.enable(sys.stderr)
    with suppress(ConnectionError):
        _Child(channel, arena).run()


def _not_ours(_number: int, _frame: object) -> None:
    """See the module's docstring."""


def set_up(sys_path: Iterable[str], imports: Iterable[str]) -> None:
    """Find modules where the worker finds them, and import those that are wanted in advance."""
    sys.path[:] = sys_path
    for name in imports:
        importlib.import_module(name)


@final
class _Child:
    def __init__(self, channel: socket.socket, arena: int) -> None:
        self._channel: Final = channel
        self._arena: Final = arena
        self._frames = wire.Frames()
        self._ready: list[tuple[int, int, bytes]] = []
        self._sending = threading.Lock()
        self._pid: Final = os.getpid()
        self._memory = 0
        #: What ``__main__`` is in the worker: (how it is found, its name or path).
        self._main: tuple[str, str] = ("", "")

    def run(self) -> None:
        while (received := self._receive()) is not None:
            kind, flags, body = received
            if kind == wire.CALL:
                self._call(flags, body)
            elif kind == wire.STREAM:
                self._stream(flags, body)
            elif kind == wire.SETUP:
                self._set_up(pickle.loads(body))  # noqa: S301  # from the worker
            # MORE and CLOSE for a stream that has ended meanwhile mean nothing.

    def _set_up(self, wanted: dict[str, Any]) -> None:
        try:
            self._main = wanted["main"]
            self._memory = wanted["memory"]
            relay.set_levels(wanted["levels"])
            logging.root.addHandler(relay.SendingHandler(lambda data: self._send(wire.LOG, 0, data)))
            logging.captureWarnings(wanted["warnings"])
            set_up(wanted["sys_path"], wanted["imports"])
            if wanted["initializer"]:
                module, _, attribute = wanted["initializer"].partition(":")
                found: Any = importlib.import_module(module)
                for name in attribute.split("."):
                    found = getattr(found, name)
                found()
        except BaseException:  # noqa: BLE001  # foreign code: whatever it raises is the report
            self._send(wire.FAILED, 0, traceback.format_exc().encode())
        else:
            # What has been loaded so far is there for good.
            gc.collect()
            gc.freeze()
            self._send(wire.READY, 0, b"")

    # One call.

    def _call(self, flags: int, body: bytes) -> None:
        try:
            function, arguments, keywords, along = self._load(flags, body)
            result = carried.unpack(along).run(target_of(function), *arguments, **keywords)
            if isinstance(result, CoroutineType):
                result.close()
                raise OffloadUnfit(  # noqa: TRY301  # one place that answers
                    f"{name_of(function)} returned a coroutine, and there is no event loop in a child; offload a plain "
                    "function"
                )
        except BaseException as error:  # noqa: BLE001  # foreign code: the worker has it
            self._fail(error)
            return
        self._answer(wire.RESULT, result)

    def _stream(self, flags: int, body: bytes) -> None:
        try:
            function, arguments, keywords, along = self._load(flags, body)
            context = carried.unpack(along)
            pieces = context.run(target_of(function), *arguments, **keywords)
            if not isinstance(pieces, Iterator):
                raise OffloadUnfit(  # noqa: TRY301  # one place that answers
                    f"{name_of(function)} returned {type(pieces).__name__}, which is no generator; use offload()"
                )
            self._send_pieces(lambda: context.run(next, pieces, _END), pieces)
        except BaseException as error:  # noqa: BLE001  # foreign code: the worker has it
            self._fail(error)

    def _send_pieces(self, advance: Callable[[], Any], pieces: Any) -> None:
        """Work out the next piece while the last one is on its way, and no further."""
        asked = True
        while (piece := advance()) is not _END:
            if not asked:
                received = self._receive()
                if received is None or received[0] == wire.CLOSE:
                    close = getattr(pieces, "close", None)
                    if close is not None:
                        close()
                    break
            asked = False
            if not self._answer(wire.PIECE, piece):
                return
        self._send(wire.END, self._retire(), b"")

    def _load(self, flags: int, body: bytes) -> Any:
        if flags & wire.ARENA:
            return parcel.read(self._arena, wire.unpack_sizes(body), self._unpickler)
        return self._unpickler(io.BytesIO(body)).load()

    def _unpickler(self, file: Any, **keywords: Any) -> pickle.Unpickler:
        return _Unpickler(self._main, file, **keywords)

    def _answer(self, kind: int, thing: object) -> bool:
        try:
            try:
                body, flags = parcel.pack(thing), 0
            except parcel.TooLarge:
                body, flags = wire.pack_sizes(parcel.write(self._arena, thing)), wire.ARENA
        except BaseException as error:  # noqa: BLE001  # foreign code: the worker has it
            why = f"the result, of type {type(thing).__name__}, cannot be sent back: {shown(error)}"
            self._fail(OffloadUnfit(f"{why}; return plain data"))
            return False
        self._send(kind, flags | (self._retire() if kind == wire.RESULT else 0), body)
        return True

    def _fail(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        if len(text) > LONGEST_TRACEBACK:
            # Functions that call each other for ever: where it began, and where it ended.
            half = LONGEST_TRACEBACK // 2
            text = f"{text[:half]}\n  ... ({len(text)} characters)\n{text[-half:]}"
        error = plain(error)
        try:
            body = parcel.pack((error, text), LARGEST_ERROR)
            pickle.loads(body)  # noqa: S301  # ours; many exceptions can be pickled and not unpickled
        except BaseException:  # noqa: BLE001  # an exception of any kind
            body = parcel.pack((OffloadError(f"the function raised {shown(error)[:1000]}"), text), LARGEST_ERROR)
        self._send(wire.ERROR, self._retire(), body)

    def _retire(self) -> int:
        return wire.RETIRE if self._memory and resident_bytes() > self._memory else 0

    # The socket.

    def _receive(self) -> tuple[int, int, bytes] | None:
        while not self._ready:
            data = self._channel.recv(wire.READ_SIZE)
            if not data:
                return None
            self._ready += self._frames.feed(data)
        return self._ready.pop(0)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        if kind != wire.LOG and os.getpid() != self._pid:
            # A second answer would be taken for that of the next call.
            log.error(
                "offload: a process that was forked in a call has come out of it, and ends: os._exit() is missing"
            )
            os._exit(1)
        with self._sending:
            self._channel.sendall(wire.frame(kind, flags, body))


_END: Final = object()


@final
class _Unpickler(pickle.Unpickler):
    """Finds what the worker's main module defines, which is not the main module here."""

    def __init__(self, main: tuple[str, str], file: Any, **keywords: Any) -> None:
        super().__init__(file, **keywords)
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            _import_main(*self._main)
        return super().find_class(module, name)


def _import_main(kind: str, where: str) -> None:
    """Run the program that the worker runs, under another name than ``__main__``, as multiprocessing does."""
    if getattr(sys.modules.get("__mp_main__"), "__name__", "") == "__mp_main__":
        return  # not that of multiprocessing, which gives this process's own main module the name when it is imported
    from multiprocessing import spawn

    # Whatever it starts at its top level would start again here; offload() and serve() refuse to.
    if kind == "name":
        spawn._fixup_main_from_name(where)  # type: ignore[attr-defined]  # typeshed leaves it out
    elif kind == "path":
        spawn._fixup_main_from_path(where)  # type: ignore[attr-defined]  # typeshed leaves it out


def reseed() -> None:
    """NumPy's global generator was seeded when it was imported: without this all children draw the same numbers."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            numpy.random.seed()
