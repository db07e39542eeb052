"""What a worker is doing right now, for the log: its requests in flight, where each waits, and what blocks the loop.

Two ways lead here. faulthandler writes the stacks of all threads from C, whatever the process is stuck in, also when it
dies of a fatal signal. ``report`` says more, and runs as a Python signal handler: between two bytecodes of the main
thread, so while a callback loops or sleeps, but not before a call into C comes back. Both work under uvloop as under
asyncio (tried: time.sleep, a loop in Python, pbkdf2, an idle loop).

Everything here only reads, and may be called at any moment: in the middle of a callback, and in another thread.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import traceback
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.observe.faults import watch_for_faults
from aioserve.worker.places import frames, in_application, is_theirs, place, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from aioserve.worker.server import InFlight, Server

log = logging.getLogger("aioserve")

#: Requests, and other tasks, that one report lists; the oldest come first. A line of each is about 200 bytes.
LISTED: Final = 100


@final
class Stacks:
    """One per process that serves; ``server`` is given once there is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.server: Server | None = None
        self._loop: Final = loop

    def install(self, on_quit: Callable[[], None]) -> None:
        """Report on USR2, and on QUIT before ``on_quit`` is called in the loop. Call it in the main thread."""

        def usr2(_number: int, frame: FrameType | None) -> None:
            self._say("SIGUSR2", frame)

        def quit_(_number: int, frame: FrameType | None) -> None:
            self._say("SIGQUIT", frame)
            self._loop.call_soon_threadsafe(on_quit)

        # Not the loop's own handlers: those wait for the loop, which may be what is stuck.
        signal.signal(signal.SIGUSR2, usr2)
        signal.signal(signal.SIGQUIT, quit_)
        watch_for_faults(usr2=True)

    def _say(self, name: str, frame: FrameType | None) -> None:
        # The signal may have come in the middle of a write to the same stream, which is then "reentrant".
        with suppress(RuntimeError):
            log.warning("%s", self.report(name, frame))

    def report(self, reason: str, frame: FrameType | None) -> str:
        """All that can be said; ``frame`` is the innermost one of the loop's thread."""
        requests = sorted(self.requests(), key=lambda found: found[0].started)
        lines = [f"{reason}: {len(requests)} request{'' if len(requests) == 1 else 's'} in flight"]
        lines += [f"  {self._line(cycle, task, frame)}" for cycle, task in requests[:LISTED]]
        if len(requests) > LISTED:
            lines.append(f"  and {len(requests) - LISTED} younger ones")
        lines += self._other_tasks({task for _, task in requests})
        lines += self._threads(frame)
        return "\n".join(lines)

    def requests(self) -> Iterator[tuple[InFlight, asyncio.Task[Any] | None]]:
        """Every request in flight and its task; None: it runs right now and has never waited yet."""
        if self.server is None:
            return
        tasks = {cycle: task for task, cycle in self.server.in_flight()}
        yield from tasks.items()
        current = self.current()
        for cycle in self.server.open_cycles():
            if cycle not in tasks:
                yield cycle, current

    def _line(self, cycle: InFlight, task: asyncio.Task[Any] | None, frame: FrameType | None) -> str:
        if task is None:
            return describe(cycle)
        where = f"RUNNING at {running(frame)}" if task is self.current() else f"at {place(task)}"
        return f"{describe(cycle)}, {where}"

    def current(self) -> asyncio.Task[Any] | None:
        """The task that the loop runs at this moment."""
        return asyncio.current_task(self._loop)

    def _other_tasks(self, known: set[asyncio.Task[Any] | None]) -> list[str]:
        """Tasks that the application has made besides its requests, and its lifespan."""
        found = [
            f"  {task.get_name()}, at {place(task)}"
            for task in asyncio.all_tasks(self._loop) - known - {self.current()}
            if any(map(is_theirs, frames(task)))
        ]
        more = [f"  and {len(found) - LISTED} more"] if len(found) > LISTED else []
        return ["other tasks:", *sorted(found)[:LISTED], *more] if found else []

    def _threads(self, frame: FrameType | None) -> list[str]:
        main = threading.main_thread().ident
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        lines = []
        for ident, innermost in sys._current_frames().items():
            shown = frame if ident == main and frame is not None else innermost
            text = stack(shown)
            if text:
                lines.append(f"thread {names.get(ident, ident)} (most recent call last):")
                lines.append(text)
        return lines


def describe(cycle: InFlight) -> str:
    """One request: which, whose, how old, how far."""
    client = cycle.scope.get("client")
    whose = f"{client[0]}:{client[1]}" if client else "a unix peer"
    return f"{cycle} of {whose}, {perf_counter() - cycle.started:.1f} s old, {cycle.sent_bytes} bytes sent"


def stack(innermost: FrameType | None) -> str:
    """What the application does on a thread's stack, as a traceback shows it; empty if nothing."""
    chain = in_application(innermost)
    return "".join(traceback.StackSummary.extract((f, f.f_lineno) for f in chain).format()).rstrip("\n")


def running(innermost: FrameType | None) -> str:
    """The innermost place of the application on a thread's stack."""
    return next((spell(frame) for frame in reversed(in_application(innermost)) if is_theirs(frame)), "an unknown place")
