"""The master process: turns signals, exits and messages into events, and gives the actions to its hands.

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
from typing import TYPE_CHECKING, Final, assert_never, final

from aioserve.master import channel as channels
from aioserve.master import upgrade
from aioserve.master.events import (
    Beats,
    BootFailed,
    DrainRequested,
    Exited,
    HeirFailed,
    HeirReady,
    PassedOn,
    PredecessorGone,
    Quit,
    Ready,
    RecycleRequested,
    ReloadRequested,
    ReopenRequested,
    ResizeRequested,
    Say,
    Started,
    StopRequested,
    Tick,
    UpgradeRequested,
    WakeAt,
)
from aioserve.master.hands import Generation, Hands
from aioserve.observe.scoreboard import HEARTBEAT_NS
from aioserve.system.oom import OomCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Acceptor
    from aioserve.master.certificates import Certificates
    from aioserve.master.events import Event
    from aioserve.master.hands import Kin
    from aioserve.master.lender import Lender
    from aioserve.master.lookout import Lookout
    from aioserve.master.machine import Machine
    from aioserve.master.observer import Observer
    from aioserve.observe.scoreboard import Scoreboard

__all__ = ["Generation", "Master"]

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

#: epoll_wait(2) counts milliseconds in an int, which is less than a configuration can say (25 days). Seconds.
_LONGEST_WAIT: Final = 3600.0


@final
class Master:
    """Runs the server: ``run()`` returns its exit status when no child is left.

    The acceptor is open when ``run`` is called. ``child`` is what runs in the processes of the first generation;
    ``renew`` reads the configuration for a later one, or raises ``ConfigError`` (without it, nothing changes). ``log``
    writes a line; ``reopen_logs`` opens the master's own log files again. Observers are told of everything and change
    nothing. ``origin`` is how to start a new master, ``predecessor`` the old one, if there is one. ``lender`` and
    ``lookout`` are observers, too, that know the kin: they let workers accept what waits for others. So is
    ``certificates``, which tells them of new ones.
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
        lender: Lender | None = None,
        lookout: Lookout | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._machine: Final = machine
        self._log: Final = log
        self._reopen_logs: Final = reopen_logs
        self._lender: Final = lender
        self._lookout: Final = lookout
        self._certificates: Final = certificates
        own = (lender, lookout, certificates)
        self._observers: Final = tuple(one for one in (*own, *observers) if one is not None)
        self._selector: Final = selectors.DefaultSelector()
        self._kin: Final[dict[int, Kin]] = {}
        self._hands: Final = Hands(
            machine,
            child=child,
            renew=renew,
            acceptor=acceptor,
            scoreboard=scoreboard,
            log=log,
            origin=origin or upgrade.Origin.now(),
            predecessor=predecessor,
            kin=self._kin,
            caught=_CAUGHT,
            listen=self._listen,
            close=self._close,
        )
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
        if self._hands.predecessor is not None:
            self._selector.register(self._hands.predecessor.channel, selectors.EVENT_READ, self._predecessor_gone)
        # A full pipe loses nothing that matters: there is something to read, and exits are looked for every time.
        old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        # The handler itself has nothing to do; it has to exist for the byte to be written.
        old_handlers = {caught: signal.signal(caught, _nothing) for caught in _CAUGHT}
        if self._lender is not None:
            self._lender.join(self._kin)
        if self._lookout is not None:
            self._lookout.join(self._selector, self._kin)
        if self._certificates is not None:
            self._certificates.join(self._kin)
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
        timeout = None if wake_at is None else min(max(0.0, wake_at - time.monotonic()), _LONGEST_WAIT)
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
        beats = [(pid, kin.row.cells[HEARTBEAT_NS]) for pid, kin in self._kin.items() if kin.row is not None]
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
        if pid in self._kin:  # not reaped earlier in this turn
            self._hear(pid, self._kin[pid])

    def _hear(self, pid: int, kin: Kin) -> None:
        messages, is_open = kin.channel.receive()
        if not is_open:
            self._ignore(kin.channel)
        for message in messages:
            if isinstance(message, channels.ReadyMessage):
                self._hands.joined(kin)
            event = _event(pid, message) if kin.row is not None else _heirs_event(message)
            if event is not None:
                self._dispatch(event)

    def _predecessor_gone(self) -> None:
        """Its channel has reached its end; nothing is ever said on it."""
        if self._hands.predecessor is not None:
            self._selector.unregister(self._hands.predecessor.channel)
            self._hands.be_alone()
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
            if pid in self._kin:
                self._bury(pid)
            out_of_memory = status == -signal.SIGKILL and self._oom.grown()
            self._dispatch(Exited(pid, status, _how(status), out_of_memory))

    def _bury(self, pid: int) -> None:
        """Hear the last words of a reaped process before its exit is told, and clear what was its own."""
        kin = self._kin.pop(pid)
        self._hands.left(kin)
        self._hear(pid, kin)
        # It need not have come to its end: what the application has forked has a copy of the other one.
        self._ignore(kin.channel)
        kin.channel.close()

    # What follows

    def _dispatch(self, event: Event) -> None:
        events = deque([event])
        while events:
            event = events.popleft()
            actions = self._machine.handle(event, time.monotonic())
            for action in actions:
                match action:
                    case WakeAt():
                        self._wake_at = action.time
                    case Say():
                        self._log(action)
                    case Quit():
                        self._status = action.status
                    case _:
                        answer = self._hands.act(action)
                        if answer is not None:
                            events.append(answer)
            for observer in self._observers:
                observer.saw(event, actions, time.monotonic())

    def _listen(self, channel: channels.MasterChannel, pid: int) -> None:
        self._selector.register(channel, selectors.EVENT_READ, pid)

    def _ignore(self, channel: channels.MasterChannel) -> None:
        if channel.fileno() in self._selector.get_map():
            self._selector.unregister(channel)

    def _close(self) -> None:
        if self._lookout is not None:
            self._lookout.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _nothing(_number: int, _frame: object) -> None:
    pass


def _heirs_event(message: channels.Message) -> Event | None:
    match message:
        case channels.ReadyMessage():
            return HeirReady()
        case channels.FailedMessage():
            return HeirFailed(message.message)
        case _:
            return None


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
        case channels.PassedOnMessage():
            return PassedOn(pid)
        case _:
            assert_never(message)


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
