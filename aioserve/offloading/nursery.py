"""The process that starts a worker's children, kills them when it is told to, and says how they ended.

A worker has a loop, perhaps threads, and sockets that accept: nothing that should be forked. So it executes this
program once, which holds nothing but the modules that children need in advance, and forks *that* for each child: a
replacement for a killed child is there in milliseconds. Where forking is not safe (macOS; modules that have started
threads) each child is an interpreter of its own instead. The standard library's fork server does the same and needs a
place for a socket file, which a container with a read-only root does not have, a second process for its resource
tracker, and the application's program imported anew in each child.

    worker: a line of JSON with what to import, then "start ID", which brings the child's channel and arena, "kill ID"
    nursery: "method fork|spawn", "started ID PID", "failed ID TEXT", "ended ID STATUS" (as in waitpid(2))

The worker's end of the control socket closes when the worker does, in whatever way; children have then a moment to see
the end of their own channels, and are killed, with all that they have started. A process that the worker has forked may
keep that end open, and so the kernel tells the nursery as well (``end_with_parent``: TERM, to wake it). A child that is
alone in the world is killed by the kernel.
Only whoever reaps a process may kill it by its id, which is somebody else's a moment later: hence "kill" and not
kill(2) in the worker.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final, final

from aioserve.offloading import child
from aioserve.system.process import end_with_parent

#: How long children have to end by themselves once the worker has gone, in seconds.
LEAVE_SECONDS: Final = 0.5

#: Descriptors that come with one read: two for each child, and no worker starts so many children at once.
MOST_DESCRIPTORS: Final = 200


def command(function: str, *arguments: int) -> list[str]:
    """How this interpreter is started anew to run ``function`` of this module."""
    import subprocess

    # The package is found where it is now, whatever -P, the directory and the user's own sys.path say.
    place = str(Path(__file__).parents[2])
    program = (
        f"import sys; sys.path.insert(0, {place!r}); "
        f"from aioserve.offloading.nursery import {function}; {function}({', '.join(map(str, arguments))})"
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # what multiprocessing uses
    # -P: a queue.py in the working directory must not take the place of the standard library's.
    return [sys.executable, *flags, "-P", "-c", program]


def main(control: int, worker: int) -> None:
    """Look after children until ``worker`` closes the other end of ``control``, or has ended."""
    # As long as there are no children, and an import may hang, nothing is lost by that.
    end_with_parent(worker, signal.SIGKILL)
    os.set_inheritable(control, False)
    with socket.socket(fileno=control) as channel:
        _Nursery(channel, worker).run()


def spawned(channel: int, arena: int, nursery: int) -> None:
    """A child in an interpreter of its own."""
    _settle(nursery)
    for fd in (channel, arena):
        os.set_inheritable(fd, False)
    child.main(channel, arena)


def _settle(nursery: int) -> None:
    # A group of its own: what a call has started dies with it, and a terminal's INT goes elsewhere.
    os.setpgid(0, 0)
    end_with_parent(nursery, signal.SIGKILL)


@final
class _Nursery:
    def __init__(self, control: socket.socket, worker: int) -> None:
        self._control: Final = control
        self._worker: Final = worker
        self._buffer = b""
        self._descriptors: list[int] = []
        self._children: dict[int, str] = {}  # by process id, the worker's name for it
        self._forks = sys.platform == "linux"
        self._wake, self._waker = os.pipe()

    def run(self) -> None:
        os.set_blocking(self._waker, False)
        os.set_blocking(self._wake, False)
        self._listen()
        with contextlib.suppress(ConnectionError):
            while self._turn():
                pass
        self._end()

    def _listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, child._not_ours)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def _turn(self) -> bool:
        """Wait for something and do it; False when the worker has gone."""
        readable, _, _ = select.select([self._control.fileno(), self._wake], [], [])
        if self._wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._reap()
            if os.getppid() != self._worker:
                return False  # and a process that it has forked holds its end of the socket open
        if self._control.fileno() not in readable:
            return True
        data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, MOST_DESCRIPTORS)
        for fd in descriptors:
            os.set_inheritable(fd, False)  # which they are, having come this way; programs of a call must not have them
        self._descriptors += descriptors
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._obey(line.decode())
        return True

    def _obey(self, line: str) -> None:
        if line.startswith("{"):
            self._prepare(json.loads(line))
            return
        what, name = line.split(" ")
        if what == "start":
            channel, arena, *self._descriptors = self._descriptors
            try:
                pid = self._fork(channel, arena) if self._forks else self._spawn(channel, arena)
            except OSError as error:
                self._say(f"failed {name} cannot be started: {error.strerror}")
            else:
                self._children[pid] = name
                self._say(f"started {name} {pid}")
            finally:
                os.close(channel)
                os.close(arena)
        else:
            for pid, known in self._children.items():
                if known == name:
                    _kill(pid)

    def _prepare(self, wanted: dict[str, Any]) -> None:
        if wanted["method"] == "spawn":
            self._forks = False
        if self._forks:
            self._import(wanted)
        # From now on there may be children, and programs that they have started: these have to be killed, too.
        self._listen()  # again: an import may have set handlers of its own
        end_with_parent(self._worker, signal.SIGTERM)

    def _import(self, wanted: dict[str, Any]) -> None:
        with contextlib.suppress(Exception, SystemExit):  # each child meets the same, and reports it
            child.set_up(wanted["sys_path"], wanted["imports"])
        if _threads() > 1:
            self._forks = False
        gc.collect()
        # A collection in a child writes to every object that it looks at, and each such page is a copy of its own.
        gc.freeze()
        self._say(f"method {'fork' if self._forks else 'spawn'}")

    def _fork(self, channel: int, arena: int) -> int:
        nursery = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _settle(nursery)
            self._control.close()
            # What came along for siblings is theirs.
            for fd in (self._wake, self._waker, *self._descriptors):
                os.close(fd)
            child.reseed()
            child.main(channel, arena)
            status = 0
        except BaseException:  # noqa: BLE001  # nothing may unwind into the frames of the nursery
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(status)

    def _spawn(self, channel: int, arena: int) -> int:
        arguments = command("spawned", channel, arena, os.getpid())
        # All other descriptors of this process are closed on exec, and these two are closed here in a moment.
        for fd in (channel, arena):
            os.set_inheritable(fd, True)
        return os.posix_spawn(arguments[0], arguments, os.environ)

    def _reap(self) -> None:
        while pid := _ended():
            # What it has started goes with it, before its id can be somebody else's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            name = self._children.pop(pid, None)
            if name is not None:
                self._say(f"ended {name} {status}")

    def _end(self) -> None:
        """The worker has gone: so should we all."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._children and (left := deadline - time.monotonic()) > 0:
            select.select([self._wake], [], [], left)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            self._reap()
        for pid in self._children:
            _kill(pid)

    def _say(self, line: str) -> None:
        # Nobody listens any more after the worker has gone; the end of the socket says so, too.
        with contextlib.suppress(OSError):
            self._control.sendall(f"{line}\n".encode())


def _ended() -> int:
    """A child that has ended and is still to be waited for; 0 if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return 0 if found is None else found.si_pid


def _kill(pid: int) -> None:
    """Kill a child and what it has started."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _threads() -> int:
    """How many threads this process has, those of native libraries included."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        import threading

        return threading.active_count()
