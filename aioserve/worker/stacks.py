"""What a worker is doing right now, for the log: its requests in flight, where each waits, and what blocks the loop.

Two ways lead here. faulthandler writes the stacks of all threads from C, whatever the process is stuck in, when it dies
of a fatal signal and, where Python does that safely, when USR2 asks for it. ``report`` says more, and runs as a Python
signal handler: between two bytecodes of the main thread, so while a callback loops or sleeps, but not before a call
into C comes back. Both work under uvloop as under asyncio (tried: time.sleep, a loop in Python, pbkdf2, an idle loop).

Everything here only reads, and may be called at any moment: in the middle of a callback, and in another thread. What
changes under the eyes of another thread is looked at again.
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
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from aioserve.observe.faults import watch_for_faults
from aioserve.worker.places import frames, in_application, is_theirs, place, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType

    from aioserve.worker.server import InFlight, Server

log = logging.getLogger("aioserve")

#: Requests, and other tasks, that one report lists; the oldest come first. A line of each is about 200 bytes.
LISTED: Final = 100

#: How often something is looked at that another thread changes meanwhile (RuntimeError) before it is left out.
LOOKS: Final = 100

T = TypeVar("T")


@final
class Stacks:
    """One per loop, made in its thread; ``server`` is given once there is one.

    ``others`` are those of the process's other loops: its report then speaks of all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.server: Server | None = None
        self.others: list[Stacks] = []
        self.thread: Final = threading.get_ident()
        self._loop: Final = loop

    def install(self, on_quit: Callable[[], None]) -> None:
        """Report on USR2, and on QUIT before ``on_quit`` is called in the loop. Call it in the main thread."""

        def usr2(_number: int, frame: FrameType | None) -> None:
            self._say("SIGUSR2", frame)

        def quit_(_number: int, frame: FrameType | None) -> None:
            self._say("SIGQUIT", frame)
            # These handlers stay when the loop has ended, and then there is nothing left to hurry.
            if not self._loop.is_closed():
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
        """All that can be said; ``frame`` is the innermost one of the main thread, None where it is not known."""
        innermost = sys._current_frames()
        main = threading.main_thread().ident
        if frame is not None and main is not None:
            innermost[main] = frame  # not that of the signal's handler
        everybody = (self, *self.others)
        requests = [(one, cycle, task) for one in everybody for cycle, task in steady(one.requests)]
        requests.sort(key=lambda found: found[1].started)
        lines = [f"{reason}: {len(requests)} request{'' if len(requests) == 1 else 's'} in flight"]
        lines += [f"  {one._line(cycle, task, innermost)}" for one, cycle, task in requests[:LISTED]]
        if len(requests) > LISTED:
            lines.append(f"  and {len(requests) - LISTED} younger ones")
        lines += _other_tasks(everybody, {task for _, _, task in requests})
        lines += _threads(innermost)
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

    def _line(self, cycle: InFlight, task: asyncio.Task[Any] | None, innermost: Mapping[int, FrameType]) -> str:
        if task is None:
            return describe(cycle)
        where = f"RUNNING at {running(innermost.get(self.thread))}" if task is self.current() else f"at {place(task)}"
        return f"{describe(cycle)}, {where}"

    def current(self) -> asyncio.Task[Any] | None:
        """The task that the loop runs at this moment."""
        return asyncio.current_task(self._loop)

    def waiting(self) -> set[asyncio.Task[Any]]:
        """All tasks of the loop but the one that runs."""
        return {task for task in asyncio.all_tasks(self._loop) if task is not self.current()}


def steady(look: Callable[[], Iterable[T]]) -> list[T]:
    """All that ``look`` finds, which another thread may change while it is being looked at."""
    for _ in range(LOOKS):
        with suppress(RuntimeError):
            return list(look())
    return []


def _other_tasks(everybody: Iterable[Stacks], known: set[asyncio.Task[Any] | None]) -> list[str]:
    """Tasks that the application has made besides its requests, and its lifespan."""
    found = [
        f"  {task.get_name()}, at {place(task)}"
        for one in everybody
        for task in steady(one.waiting)
        if task not in known and any(map(is_theirs, frames(task)))
    ]
    more = [f"  and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return ["other tasks:", *sorted(found)[:LISTED], *more] if found else []


def _threads(innermost: Mapping[int, FrameType]) -> list[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in innermost.items():
        text = stack(frame)
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
