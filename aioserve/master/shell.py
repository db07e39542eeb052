"""The master process: turns signals, exits and messages into events, and actions into fork and kill.

Dull on purpose. There is no event loop and no thread, because the master forks: a child forked under a running loop
shares its epoll descriptor, and one that inherits a lock held by another thread waits for it for ever. There is no
policy: what to do is the machine's business, the application's code is the child function's.

A signal handler writes one byte to a pipe (``signal.set_wakeup_fd``), and one ``select`` waits for that pipe and for
the children's channels.

The fork is made with all signals blocked. What arrives meanwhile for the master waits and is seen after the fork; a
pending signal is not inherited (fork(2)). What arrives meanwhile for the child waits in the child until the handlers
that belong to the master have gone, and then has the child's own disposition: TERM and QUIT end it, whatever it is
doing, until the child function installs handlers of its own; INT and HUP are ignored, because a terminal sends them
to everybody and the master decides; USR1 and USR2 are ignored, because their default action is death, TTIN and TTOU,
because theirs is to stop, and people send them to all processes of a name.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
import traceback
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, assert_never, final

from aioserve.master import channel as channels
from aioserve.master.events import (
    BootFailed,
    Exited,
    Kill,
    Level,
    Mark,
    Quit,
    Ready,
    RecycleRequested,
    ReloadRequested,
    ReopenRequested,
    Role,
    Say,
    Spawn,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Tick,
    WakeAt,
)
from aioserve.observe.scoreboard import PID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aioserve.accept.base import Acceptor
    from aioserve.master.events import Event
    from aioserve.master.machine import Machine
    from aioserve.master.observer import Observer
    from aioserve.observe.scoreboard import Row, Scoreboard

_REQUESTS: Final[dict[int, Event]] = {
    signal.SIGTERM: StopRequested(quick=False, reason="SIGTERM"),
    signal.SIGINT: StopRequested(quick=False, reason="SIGINT"),
    signal.SIGQUIT: StopRequested(quick=True, reason="SIGQUIT"),
    signal.SIGHUP: ReloadRequested("SIGHUP"),
    signal.SIGUSR1: ReopenRequested(),
}
# People know these from other servers: an answer is better than their default actions, which stop or end the master.
_UNSUPPORTED: Final = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)
_CAUGHT: Final = (*_REQUESTS, signal.SIGCHLD, *_UNSUPPORTED)
_IGNORED_BY_CHILDREN: Final = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

CRASHED: Final = 1


@final
class Master:
    """Runs the server: ``run()`` returns its exit status when no child is left.

    The acceptor is open when ``run`` is called, and is the caller's to close. ``child`` runs in each new process and
    answers its exit status. ``log`` writes a line; ``reopen_logs`` opens the master's own log files again. Observers
    are told of everything and change nothing.
    """

    def __init__(
        self,
        *,
        machine: Machine,
        child: Callable[[channels.Birth], int],
        acceptor: Acceptor,
        scoreboard: Scoreboard,
        log: Callable[[Say], None],
        reopen_logs: Callable[[], None],
        observers: Sequence[Observer] = (),
    ) -> None:
        self._machine: Final = machine
        self._child: Final = child
        self._acceptor: Final = acceptor
        self._scoreboard: Final = scoreboard
        self._log: Final = log
        self._reopen_logs: Final = reopen_logs
        self._observers: Final = tuple(observers)
        # The rows of a role come after those of the roles before it.
        self._first_row: Final[dict[Role, int]] = {}
        rows = 0
        for spec in machine.specs:
            self._first_row[spec.role] = rows
            rows += spec.slots
        self._selector: Final = selectors.DefaultSelector()
        self._children: Final[dict[int, tuple[channels.MasterChannel, Row]]] = {}
        self._wake_read = self._wake_write = -1
        self._wake_at: float | None = None
        self._status: int | None = None

    def run(self) -> int:
        """Supervise until the machine says ``Quit``."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        # A full pipe loses nothing that matters: there is something to read, and exits are looked for every time.
        old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        # The handler itself has nothing to do; it has to exist for the byte to be written.
        old_handlers = {caught: signal.signal(caught, _nothing) for caught in _CAUGHT}
        try:
            self._dispatch(Started())
            while self._status is None:
                self._turn()
            return self._status
        finally:
            for caught, handler in old_handlers.items():
                signal.signal(caught, handler)
            signal.set_wakeup_fd(old_wakeup)
            self._close()

    def _turn(self) -> None:
        wakes = [self._wake_at, *(observer.wake_at for observer in self._observers)]
        wake_at = min((wake for wake in wakes if wake is not None), default=None)
        timeout = None if wake_at is None else max(0.0, wake_at - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fd == self._wake_read:
                self._read_signals()
                self._reap()
            else:
                self._read_channel(key.data)
        if self._wake_at is not None and time.monotonic() >= self._wake_at:
            self._dispatch(Tick())
        for observer in self._observers:
            if observer.wake_at is not None and time.monotonic() >= observer.wake_at:
                observer.tick(time.monotonic())

    def _read_signals(self) -> None:
        caught = b""
        with suppress(BlockingIOError):
            caught = os.read(self._wake_read, 65536)
        for number in caught:
            if number in _UNSUPPORTED:
                self._log(Say(Level.WARNING, f"{signal.Signals(number).name} is not supported in this version"))
            elif number in _REQUESTS:
                if number == signal.SIGUSR1:
                    self._reopen_logs()
                self._dispatch(_REQUESTS[number])
                if isinstance(_REQUESTS[number], StopRequested):
                    # From now on nobody accepts: a connection taken by the kernel would wait for the end of the drain.
                    self._acceptor.close()

    def _read_channel(self, pid: int) -> None:
        if pid not in self._children:  # reaped earlier in this turn
            return
        channel, _ = self._children[pid]
        messages, is_open = channel.receive()
        if not is_open:
            self._selector.unregister(channel)
        for message in messages:
            self._dispatch(_event(pid, message))

    def _reap(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            status = os.waitstatus_to_exitcode(wait_status)
            if pid in self._children:
                self._bury(pid)
            self._dispatch(Exited(pid, status, _how(status)))

    def _bury(self, pid: int) -> None:
        """Hear the last words of a reaped child before its exit is told, and clear what was its own."""
        channel, row = self._children.pop(pid)
        messages: list[channels.Message] = []
        if channel.fileno() in self._selector.get_map():
            messages, _ = channel.receive()
            self._selector.unregister(channel)
        channel.close()
        row.clear()
        for message in messages:
            self._dispatch(_event(pid, message))

    def _dispatch(self, event: Event) -> None:
        events = deque([event])
        while events:
            event = events.popleft()
            actions = self._machine.handle(event, time.monotonic())
            for action in actions:
                match action:
                    case Spawn():
                        events.append(self._spawn(action))
                    case Kill():
                        # Reaped a moment ago, while the machine hears its last words: the number may be another's.
                        if action.pid in self._children:
                            os.kill(action.pid, signal.Signals[action.sig.value])
                    case WakeAt():
                        self._wake_at = action.time
                    case Say():
                        self._log(action)
                    case Mark():
                        pass
                    case Quit():
                        self._status = action.status
                    case _:
                        assert_never(action)
            for observer in self._observers:
                observer.saw(event, actions, time.monotonic())

    def _spawn(self, spawn: Spawn) -> Event:
        row = self._scoreboard.row(self._first_row[spawn.role] + spawn.slot, spawn.seat)
        try:
            mine, theirs = channels.pair()
        except OSError as error:
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, f"socketpair: {error.strerror}")
        row.begin(generation=spawn.generation, started_ns=time.monotonic_ns())
        _flush()  # what is buffered would be written by both
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                mine.close()
                birth = channels.Birth(
                    role=spawn.role, slot=spawn.slot, generation=spawn.generation, row=row, channel=theirs
                )
                self._be_child(birth, old_mask)
        except OSError as error:
            mine.close()
            row.clear()
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, f"fork: {error.strerror}")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
            theirs.close()
        row.cells[PID] = pid
        self._children[pid] = (mine, row)
        self._selector.register(mine, selectors.EVENT_READ, pid)
        return Spawned(spawn.role, spawn.slot, spawn.seat, pid)

    def _be_child(self, birth: channels.Birth, mask: Iterable[int]) -> NoReturn:
        status = CRASHED
        try:
            signal.set_wakeup_fd(-1)
            for caught in _CAUGHT:
                signal.signal(caught, signal.SIG_DFL)
            for ignored in _IGNORED_BY_CHILDREN:
                signal.signal(ignored, signal.SIG_IGN)
            # A copy of the master's end in a sibling would keep that sibling's brothers from seeing the master die.
            for sibling, _ in self._children.values():
                sibling.close()
            self._close()
            birth.row.cells[PID] = os.getpid()
            self._acceptor.keep_only(birth.slot if birth.role is Role.WORKER else None)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = self._child(birth)
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else CRASHED
        except BaseException:  # noqa: BLE001 - nothing may unwind into the master's frames, which this process has too
            traceback.print_exc()
        finally:
            _flush()
            os._exit(status)

    def _close(self) -> None:
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _nothing(_number: int, _frame: object) -> None:
    pass


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Whoever reads them may have gone, and they are None or closed in a server started without them.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _event(pid: int, message: channels.Message) -> Event:
    match message:
        case channels.ReadyMessage():
            return Ready(pid)
        case channels.FailedMessage():
            return BootFailed(pid, message.message, message.detail)
        case channels.ReloadMessage():
            return ReloadRequested(message.reason)
        case channels.RecycleMessage():
            return RecycleRequested(pid, message.reason)
        case _:
            assert_never(message)


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
