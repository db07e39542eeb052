"""The master process: turns signals, exits and messages into events, and actions into fork and kill.

Dull on purpose. There is no event loop and no thread, because the master forks: a child forked under a running loop
shares its epoll descriptor, and one that inherits a lock held by another thread waits for it for ever. There is no
policy: what to do is the machine's business, the application's code is the child function's.

A signal handler writes one byte to a pipe (``signal.set_wakeup_fd``), and one ``select`` waits for that pipe and for
the children's channels.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never, final

from aioserve.errors import BindError, ConfigError
from aioserve.master import channel as channels
from aioserve.master import forks, upgrade
from aioserve.master.events import (
    Beats,
    BootFailed,
    DrainRequested,
    Exited,
    Forget,
    Grow,
    GrowFailed,
    Grown,
    HeirFailed,
    HeirReady,
    HeirStarted,
    Kill,
    Level,
    Mark,
    Milestone,
    PredecessorGone,
    Prepare,
    Prepared,
    PrepareFailed,
    Quit,
    Ready,
    RecycleRequested,
    ReloadRequested,
    ReopenRequested,
    ResizeRequested,
    Role,
    Say,
    Spawn,
    Spawned,
    SpawnFailed,
    Started,
    Steer,
    StopRequested,
    Tick,
    Unlisten,
    Upgrade,
    UpgradeRequested,
    WakeAt,
)
from aioserve.master.oom import OomCounter
from aioserve.observe.scoreboard import HEARTBEAT_NS, PID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Acceptor
    from aioserve.master.events import Action, Event
    from aioserve.master.machine import Machine
    from aioserve.master.observer import Observer
    from aioserve.master.slots import Policy
    from aioserve.observe.scoreboard import Row, Scoreboard

_REQUESTS: Final[dict[int, Event]] = {
    signal.SIGTERM: StopRequested(quick=False, reason="SIGTERM"),
    signal.SIGINT: StopRequested(quick=False, reason="SIGINT"),
    signal.SIGQUIT: StopRequested(quick=True, reason="SIGQUIT"),
    signal.SIGHUP: ReloadRequested("SIGHUP"),
    signal.SIGTTIN: ResizeRequested(1, "SIGTTIN"),
    signal.SIGTTOU: ResizeRequested(-1, "SIGTTOU"),
    signal.SIGUSR1: ReopenRequested(),
    signal.SIGUSR2: UpgradeRequested("SIGUSR2"),
    signal.SIGWINCH: DrainRequested("SIGWINCH"),
}
_CAUGHT: Final = (*_REQUESTS, signal.SIGCHLD)


@final
@dataclass(frozen=True, slots=True)
class Generation:
    """What the configuration makes of the children that start with it."""

    child: Callable[[channels.Birth], int]  # runs in the new process and answers its exit status
    workers: int
    policy: Policy


@final
class Master:
    """Runs the server: ``run()`` returns its exit status when no child is left.

    The acceptor is open when ``run`` is called. ``child`` is what runs in the processes of the first generation;
    ``renew`` reads the configuration for a later one, or raises ``ConfigError`` (without it, nothing changes). ``log``
    writes a line; ``reopen_logs`` opens the master's own log files again. Observers are told of everything and change
    nothing. ``origin`` is how to start a new master, ``predecessor`` the old one, if there is one.
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
        renew: Callable[[], Generation] | None = None,
        origin: upgrade.Origin | None = None,
        predecessor: upgrade.Predecessor | None = None,
    ) -> None:
        self._machine: Final = machine
        self._generations: Final = {1: child}
        self._renew: Final = renew or (lambda: Generation(child, machine.workers, machine.policy))
        self._acceptor: Final = acceptor
        self._scoreboard: Final = scoreboard
        self._log: Final = log
        self._reopen_logs: Final = reopen_logs
        self._origin: Final = origin or upgrade.Origin.now()
        self._predecessor = predecessor
        self._observers: Final = tuple(observers)
        # The rows of a role come after those of the roles before it.
        self._first_row: Final[dict[Role, int]] = {}
        self._worker_rows = range(0)
        rows = 0
        for spec in machine.specs:
            self._first_row[spec.role] = rows
            if spec.role is Role.WORKER:
                self._worker_rows = range(rows, rows + spec.room)
            rows += spec.room
        self._selector: Final = selectors.DefaultSelector()
        self._children: Final[dict[int, tuple[channels.MasterChannel, Row]]] = {}
        self._heir: tuple[int, channels.MasterChannel] | None = None
        self._oom: Final = OomCounter()
        self._wake_read = self._wake_write = -1
        self._wake_at: float | None = None
        self._status: int | None = None

    def run(self) -> int:
        """Supervise until the machine says ``Quit``."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._read_signals)
        if self._predecessor is not None:
            self._selector.register(self._predecessor.channel, selectors.EVENT_READ, self._predecessor_gone)
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
            if isinstance(key.data, int):
                self._read_channel(key.data)
            else:
                key.data()
        if self._wake_at is not None and time.monotonic() >= self._wake_at:
            self._dispatch(Beats(self._ages()))
            self._dispatch(Tick())
        for observer in self._observers:
            if observer.wake_at is not None and time.monotonic() >= observer.wake_at:
                observer.tick(time.monotonic())

    def _ages(self) -> tuple[tuple[int, float], ...]:
        """How long ago each child's loop has turned; those without a loop never beat."""
        now = time.monotonic_ns()
        beats = [(pid, row.cells[HEARTBEAT_NS]) for pid, (_, row) in self._children.items()]
        return tuple((pid, (now - beat) / 1e9) for pid, beat in beats if beat)

    # What arrives

    def _read_signals(self) -> None:
        caught = b""
        with suppress(BlockingIOError):
            caught = os.read(self._wake_read, 65536)
        for number in caught:
            if number == signal.SIGUSR1:
                self._reopen_logs()
            if number in _REQUESTS:
                self._dispatch(_REQUESTS[number])
        self._reap()

    def _read_channel(self, pid: int) -> None:
        if pid not in self._children:  # reaped earlier in this turn
            return
        channel, row = self._children[pid]
        messages, is_open = channel.receive()
        if not is_open:
            self._stop_listening(channel)
        for message in messages:
            self._hear(pid, message, row)

    def _hear(self, pid: int, message: channels.Message, row: Row) -> None:
        if isinstance(message, channels.ReadyMessage) and row.slot in self._worker_rows:
            self._acceptor.joined(row.slot - self._worker_rows.start)
        self._dispatch(_event(pid, message))

    def _read_heir(self) -> None:
        if self._heir is None:
            return
        _, channel = self._heir
        messages, is_open = channel.receive()
        if not is_open:
            self._stop_listening(channel)
        for message in messages:
            match message:
                case channels.ReadyMessage():
                    self._dispatch(HeirReady())
                case channels.FailedMessage():
                    self._dispatch(HeirFailed(message.message))

    def _stop_listening(self, channel: channels.MasterChannel) -> None:
        if channel.fileno() in self._selector.get_map():
            self._selector.unregister(channel)

    def _predecessor_gone(self) -> None:
        if self._predecessor is not None:
            self._selector.unregister(self._predecessor.channel)
            self._predecessor.channel.close()
            self._predecessor = None
            self._acceptor.alone()
            self._dispatch(PredecessorGone())

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
            elif self._heir is not None and pid == self._heir[0]:
                self._read_heir()
                self._stop_listening(self._heir[1])
                self._heir[1].close()
                self._heir = None
            out_of_memory = status == -signal.SIGKILL and self._oom.grown()
            self._dispatch(Exited(pid, status, _how(status), out_of_memory))

    def _bury(self, pid: int) -> None:
        """Hear the last words of a reaped child before its exit is told, and clear what was its own."""
        channel, row = self._children.pop(pid)
        messages, _ = channel.receive()
        self._stop_listening(channel)
        channel.close()
        row.clear()
        for message in messages:
            self._hear(pid, message, row)

    # What is to be done

    def _dispatch(self, event: Event) -> None:
        events = deque([event])
        while events:
            event = events.popleft()
            actions = self._machine.handle(event, time.monotonic())
            events.extend(answer for action in actions if (answer := self._act(action)) is not None)
            for observer in self._observers:
                observer.saw(event, actions, time.monotonic())

    def _act(self, action: Action) -> Event | None:
        """Carry it out; some actions have an answer."""
        match action:
            case Spawn():
                return self._spawn(action)
            case Kill():
                # Reaped a moment ago, while the machine hears its last words: the number may be another's.
                if action.pid in self._children:
                    os.kill(action.pid, signal.Signals[action.sig.value])
            case Prepare():
                return self._prepare(action.generation)
            case Grow():
                return self._grow(action.slot)
            case Steer():
                steer = self._acceptor.retire if action.away else self._acceptor.restore
                steer(action.slot)
            case Forget():
                self._acceptor.forget(action.slot)
            case Unlisten():
                self._acceptor.close(keep_files=self._heir is not None)
            case Upgrade():
                return self._upgrade()
            case Mark():
                if action.milestone is Milestone.SERVING and self._predecessor is not None:
                    self._predecessor.channel.ready()
            case WakeAt():
                self._wake_at = action.time
            case Say():
                self._log(action)
            case Quit():
                self._status = action.status
            case _:
                assert_never(action)
        return None

    def _prepare(self, number: int) -> Event:
        try:
            generation = self._renew()
        except ConfigError as error:
            for problem in error.problems:
                self._log(Say(Level.ERROR, problem))
            count = len(error.problems)
            return PrepareFailed(number, f"the configuration has {count} mistake{'' if count == 1 else 's'}")
        for unused in self._generations.keys() - self._machine.generations:
            del self._generations[unused]
        self._generations[number] = generation.child
        return Prepared(number, generation.workers, generation.policy)

    def _grow(self, slot: int) -> Event:
        try:
            self._acceptor.grow(slot)
        except BindError as error:
            return GrowFailed(slot, str(error))
        return Grown(slot)

    def _upgrade(self) -> Event:
        try:
            pid, channel = upgrade.launch(self._origin, self._acceptor.hand_over())
        except OSError as error:
            return HeirFailed(f"fork: {error.strerror}")
        self._heir = (pid, channel)
        self._selector.register(channel, selectors.EVENT_READ, self._read_heir)
        return HeirStarted(pid)

    def _spawn(self, spawn: Spawn) -> Event:
        row = self._scoreboard.row(self._first_row[spawn.role] + spawn.slot, spawn.seat)
        try:
            mine, theirs = channels.pair()
        except OSError as error:
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, f"socketpair: {error.strerror}")
        row.begin(generation=spawn.generation, started_ns=time.monotonic_ns())
        birth = channels.Birth(role=spawn.role, slot=spawn.slot, generation=spawn.generation, row=row, channel=theirs)

        def clear() -> None:
            mine.close()
            self._leave_to_child(birth)

        child = self._generations[spawn.generation]
        try:
            pid = forks.fork(lambda: child(birth), caught=_CAUGHT, clear=clear)
        except OSError as error:
            mine.close()
            row.clear()
            return SpawnFailed(spawn.role, spawn.slot, spawn.seat, f"fork: {error.strerror}")
        finally:
            theirs.close()
        row.cells[PID] = pid
        self._children[pid] = (mine, row)
        self._selector.register(mine, selectors.EVENT_READ, pid)
        return Spawned(spawn.role, spawn.slot, spawn.seat, pid)

    def _leave_to_child(self, birth: channels.Birth) -> None:
        """In a new process: close what is the master's."""
        # A copy of the master's end in a sibling would keep that sibling's brothers from seeing the master die.
        for sibling, _ in self._children.values():
            sibling.close()
        if self._heir is not None:
            self._heir[1].close()
        if self._predecessor is not None:
            self._predecessor.channel.close()
        self._close()
        birth.row.cells[PID] = os.getpid()
        self._acceptor.keep_only(birth.slot if birth.role is Role.WORKER else None)

    def _close(self) -> None:
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _nothing(_number: int, _frame: object) -> None:
    pass


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
