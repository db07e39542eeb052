"""The worker's end of the nursery: asks it for children, has it kill them, and tells each how its process ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.offloading import nursery
from aioserve.system.oom import OomCounter

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("aioserve")

#: Seconds for the nursery to end after its socket has been closed; it kills what is left after half a second.
SHUT_SECONDS: Final = 3.0


class Ward(Protocol):
    """A child, as the nursery knows it."""

    pid: int

    @property
    def name(self) -> int: ...
    def begin(self, house: Nursery, /) -> tuple[socket.socket, int]:
        """It is about to be started: its end of the channel, and its arena."""

    def begun(self) -> None:
        """The process has its own copies of these."""

    def abandon(self) -> None:
        """The loop is closed."""

    def died(self, how: str, /) -> None:
        """The process has ended; ``how`` goes on from "it"."""


@final
class Nursery:
    """The worker's end of a nursery."""

    def __init__(self, loop: asyncio.AbstractEventLoop, imports: Sequence[str], start: str) -> None:
        self.gone = False
        self._loop: Final = loop
        self._children: dict[str, Ward] = {}
        self._buffer = b""
        self._memory = OomCounter()
        self._over = asyncio.Event()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                nursery.command("main", theirs.fileno(), os.getpid()),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._control.setblocking(False)
        wanted = {"sys_path": sys.path, "imports": list(imports), "method": start}
        self._control.sendall(f"{json.dumps(wanted)}\n".encode())
        loop.add_reader(self._control.fileno(), self._readable)

    def start(self, child: Ward) -> None:
        theirs, arena = child.begin(self)
        socket.send_fds(self._control, [f"start {child.name}\n".encode()], [theirs.fileno(), arena])
        self._children[str(child.name)] = child
        child.begun()

    def kill(self, child: Ward) -> None:
        if str(child.name) not in self._children:
            return
        # One that has ended is about to be noticed, and its children with it.
        with suppress(OSError):
            self._control.sendall(f"kill {child.name}\n".encode())

    def shut(self) -> None:
        """Let it end, and its children with it."""
        if not self.gone:
            self._control.shutdown(socket.SHUT_WR)

    def abandon(self) -> None:
        """``shut`` where there is no loop any more."""
        if not self.gone:
            self.gone = True
            self._control.close()
            for child in self._children.values():
                child.abandon()
            # It ends in a moment, for which nobody here should stand still.
            threading.Thread(target=self._process.wait, name="offload: the end of a nursery", daemon=True).start()

    async def ended(self) -> None:
        """Return once it has ended, which takes a moment if a child does not leave by itself."""
        try:
            async with asyncio.timeout(SHUT_SECONDS):
                await self._over.wait()
        except TimeoutError:
            self._process.kill()
            self._lost()

    def _readable(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._hear(line.decode())

    def _hear(self, line: str) -> None:
        what, _, rest = line.partition(" ")
        if what == "started":
            name, pid = rest.split(" ")
            if name in self._children:
                self._children[name].pid = int(pid)
        elif what == "ended":
            name, status = rest.split(" ")
            child = self._children.pop(name, None)
            if child is not None:
                child.died(self._how(int(status)))
        elif what == "failed":
            name, _, problem = rest.partition(" ")
            child = self._children.pop(name, None)
            if child is not None:
                child.died(problem)
        elif rest == "spawn" and sys.platform == "linux":
            log.warning(
                "offload: a module of --offload-import has started a thread, so children are not forked but started "
                "anew, and import everything themselves; start the thread in a function"
            )

    def _how(self, status: int) -> str:
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"has exited with status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if -code == signal.SIGKILL and self._memory.grown():
            return "was killed by the kernel for want of memory (SIGKILL, and its count of such kills has grown)"
        return f"was killed by {name}"

    def _lost(self) -> None:
        """It has ended, and all children with it."""
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._process.wait()  # it has closed its socket by ending
        children, self._children = self._children, {}
        for child in children.values():
            if child.pid:
                # The kernel has killed it, and nobody what it had started: that is in a group of its name, which nobody
                # else can have as long as one is left. It may have ended in good order, with all of them.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
            child.died("was lost with the process that had started it")
        self._over.set()
