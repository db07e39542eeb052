"""A candidate that runs: a whole server in a process tree of its own, started as the command line would start it.

It is forked with a scoreboard that tune reads: the master finds it made already. Its log goes to a file without a name,
which is shown when it fails; its access log goes where nobody reads it, because writing it is a part of what is
measured.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final, NoReturn, Self, final

from aioserve.errors import BootError, ConfigError
from aioserve.observe.scoreboard import Phase, Scoreboard
from aioserve.tune import processes
from aioserve.tune.children import Child
from aioserve.tune.plan import HOST, configure

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.config.tree import Config
    from aioserve.observe.scoreboard import Snapshot
    from aioserve.tune.plan import Candidate
    from aioserve.tune.waits import Waits

#: A master makes room for 64 workers, or twice as many as it starts, and for others beside them.
ROOM: Final = 128

#: Seconds that a server has to cut what is in flight and to shut down its applications.
STOP_PATIENCE: Final = 10.0

#: Lines of its log that are shown when it fails.
LAST_LINES: Final = 40

#: Exit statuses of a server (see the command line's help).
_CONFIGURATION, _APPLICATION, _NOT_BOUND = 2, 3, 4

#: Somebody may take the port between our look and the server's bind.
_PORTS: Final = 3


class NotServing(Exception):
    """The server has not started, or has ended. ``status`` is its exit status, ``log`` what it has said."""

    def __init__(self, message: str, *, status: int | None, log: str) -> None:
        super().__init__(message)
        self.status = status
        self.log = log


@final
class Serving:
    """``with Serving(...) as server``: it accepts from here on; at the end of the block no process of it is left."""

    def __init__(
        self,
        serve: Callable[[Config, Scoreboard], int],
        prepared: Config,
        candidate: Candidate,
        waits: Waits,
    ) -> None:
        self._serve: Final = serve
        self._prepared: Final = prepared
        self._candidate: Final = candidate
        self._waits: Final = waits
        self._log: Final = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object, at the end of the block
        self._child: Child | None = None
        self._scoreboard = Scoreboard(1)
        self.address = (HOST, 0)
        #: Seconds from the fork until it accepted.
        self.boot = 0.0

    def __enter__(self) -> Self:
        try:
            for left in reversed(range(_PORTS)):
                child = self._start()
                self._waits.until(self._settled, self._prepared.timeout.boot)
                if child.status != _NOT_BOUND or not left:
                    break
            if child.status is not None or not self._ready():
                self.fail("did not start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()

    def look(self) -> None:
        """Raise ``NotServing`` if it has ended."""
        if self._child is None or self._child.ended():
            self.fail("has ended while it was measured")

    def fail(self, what: str) -> NoReturn:
        """Raise ``NotServing``, with its log."""
        status = None if self._child is None else self._child.status
        how = "in time" if status is None else f"(exit status {status})"
        raise NotServing(f"the server {what} {how}", status=status, log=self.log())

    def log(self) -> str:
        """The last lines, without those that only say that all is well."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 1 << 16, max(size - (1 << 16), 0)).decode("utf-8", "backslashreplace")
        return "\n".join(_telling(text.splitlines())[-LAST_LINES:])

    def rows(self) -> list[Snapshot]:
        """Every place on the scoreboard where requests are served."""
        found = [row.snapshot() for row in self._scoreboard]
        return [row for row in found if row.phase is not Phase.EMPTY]

    def usage(self) -> dict[int, float]:
        """Its processes and their CPU seconds; empty where nobody can say."""
        if self._child is None or not processes.AVAILABLE:
            return {}
        return processes.of_session(self._child.pid)

    def memory(self) -> int | None:
        """Bytes of all its processes together."""
        usage = self.usage()
        return processes.memory(usage, os.getpid()) or None if usage else None

    def _start(self) -> Child:
        self._stop()
        config = configure(self._prepared, self._candidate, free_port())
        self.address = (HOST, config.listen.port)
        self._scoreboard = Scoreboard(2 * self._candidate.count + ROOM)
        null = os.open(os.devnull, os.O_WRONLY)
        began = time.monotonic()
        try:
            self._child = Child(
                lambda: _run(self._serve, config, self._scoreboard), self._waits, out=null, err=self._log.fileno()
            )
        finally:
            os.close(null)
        self.boot = -began
        return self._child

    def _settled(self) -> bool:
        return (self._child is not None and self._child.ended()) or self._ready()

    def _ready(self) -> bool:
        """Whether every worker serves; a process may have several rows, or fewer than the pattern has threads."""
        workers = self._candidate.count if self._candidate.pattern.counts == "workers" else 1
        # Workers have the first slots; others (a dispatcher) come after them.
        ready = sum(row.phase is Phase.READY and row.slot < workers for row in self.rows()) >= workers
        if ready and self.boot < 0:
            self.boot += time.monotonic()
        return ready

    def _stop(self) -> None:
        if self._child is not None:
            # Quickly: whoever still waits for an answer is a client of ours, and the client has gone.
            self._child.stop(signal.SIGQUIT, STOP_PATIENCE)
            self._child = None


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def _run(serve: Callable[[Config, Scoreboard], int], config: Config, scoreboard: Scoreboard) -> int:
    """In the new process: be the server; the exit status."""
    try:
        return serve(config, scoreboard)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return _CONFIGURATION
    except BootError as error:
        sys.stderr.write("\n".join(filter(None, (str(error), error.detail))) + "\n")
        return _APPLICATION


_INFO: Final = re.compile(r"^\S+ \S+ \[\d+\] (INFO|DEBUG) |^\{.*\"level\": ?\"(info|debug)\"")


def _telling(lines: list[str]) -> list[str]:
    return [line for line in lines if not _INFO.match(line)] or lines
