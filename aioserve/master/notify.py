"""What the service manager is told: sd_notify(3), one datagram of ``NAME=value`` lines at a time.

``READY=1`` when the first workers serve and not when the sockets are bound, ``RELOADING=1`` and ``READY=1`` around a
reload, ``STOPPING=1``, a ``STATUS=`` for ``systemctl status``. While the server starts, reloads or stops it asks again
and again for a little more time: the master's own limits end each of these, so they need not be repeated in the unit.
``WATCHDOG=1`` goes out at half of the interval as long as the loop of some worker turns; when none does, the silence
makes the service manager restart the server.

``ServiceManager`` is an observer: it sees the milestones and decides nothing.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.master.events import Exited, HeirReady, HeirStarted, Level, Mark, Milestone, PredecessorGone, Say, Started
from aioserve.observe.scoreboard import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aioserve.master.events import Action, Event
    from aioserve.observe.scoreboard import Snapshot

log = logging.getLogger("aioserve")

#: What a worker and the programs that it starts must not find: they would speak for the server.
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: How often more time is asked for, and how much: three times that, so that one late message costs nothing. Seconds.
PULSE: Final = 5.0
EXTENSION: Final = 15.0
EXTEND: Final = f"EXTEND_TIMEOUT_USEC={int(EXTENSION * 1e6)}"

#: A full queue of the service manager's socket holds the master up for so long at most, in seconds.
_SEND_TIMEOUT: Final = 1.0

_ASSIGNMENTS: Final = {
    Milestone.SERVING: "READY=1",
    Milestone.RELOADING: "RELOADING=1",
    Milestone.STOPPING: "STOPPING=1",
}


@final
@dataclass(frozen=True, slots=True)
class Manager:
    """What the environment says of the service manager: where it listens, and how often it wants a sign of life."""

    address: str
    watchdog: float | None

    @staticmethod
    def of(environ: Mapping[str, str], pid: int) -> Manager | None:
        """None when nobody wants to be told. ``pid`` is ours: a watchdog may be meant for another process."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address:
            return None
        text = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        usec = int(text) if text.isascii() and text.isdecimal() else 0
        return Manager(address, usec / 1e6 if usec and ours else None)


@final
class NotifySocket:
    """Sends messages; a service manager that cannot be reached is one line in the log, until it can be again."""

    def __init__(self, address: str) -> None:
        # systemd writes an abstract address (unix(7)) with an @ for its first byte.
        self._address: Final = f"\0{address[1:]}" if address.startswith("@") else address
        self._failed = False

    def send(self, message: str) -> None:
        failure = self._try(message)
        if failure and not self._failed:
            log.warning("NOTIFY_SOCKET: the service manager cannot be told (%s)", failure)
        self._failed = bool(failure)

    def _try(self, message: str) -> str:
        if self._address[:1] not in {"/", "\0"}:
            return "it is neither a path nor an abstract address"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_TIMEOUT)
                # A status may quote a path, and a path need not be text.
                sock.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            return error.strerror or str(error)
        return ""


@final
class ServiceManager:
    """An ``Observer`` that tells the service manager. ``healthy`` says whether the loop of any worker turns."""

    def __init__(
        self,
        send: Callable[[str], None],
        *,
        pid: int,
        watchdog: float | None,
        healthy: Callable[[], bool],
        guest: bool = False,
    ) -> None:
        self._tell: Final = send
        self._pid: Final = pid
        self._interval: Final = watchdog / 2 if watchdog is not None else None
        self._healthy: Final = healthy
        self._was_healthy = True
        self._heir = 0  # the process of a new master
        self._silent = False  # the new master speaks
        self._guest = guest  # we are the new one, and the old one is still there
        self._pulse_at: float | None = None
        self._watchdog_at: float | None = None

    @property
    def wake_at(self) -> float | None:
        return min((time for time in (self._pulse_at, self._watchdog_at) if time is not None), default=None)

    def saw(self, event: Event, actions: Sequence[Action], now: float) -> None:
        if isinstance(event, Started):
            self._send(f"STATUS=starting\n{EXTEND}")
            self._pulse_at = now + PULSE
        self._succession(event)
        for action in actions:
            if isinstance(action, Mark):
                self._reached(action, now)
            elif isinstance(action, Say) and action.level is Level.ERROR:
                self._send(f"STATUS={_line(action.text)}")

    def tick(self, now: float) -> None:
        if self._pulse_at is not None and self._pulse_at <= now:
            self._pulse_at = now + PULSE
            self._send(EXTEND)
        if self._watchdog_at is not None and self._interval is not None and self._watchdog_at <= now:
            self._watchdog_at = now + self._interval
            self._feed_watchdog()

    def _succession(self, event: Event) -> None:
        """While there are two masters, the end of one is not the service's: STOPPING=1 would make systemd kill both."""
        match event:
            case PredecessorGone():
                self._guest = False
            case HeirStarted():
                self._heir = event.pid
            case HeirReady():
                self._silent = True
            case Exited() if event.pid == self._heir:
                self._heir = 0
                if self._silent:
                    self._silent = False
                    self._send(f"READY=1\nMAINPID={self._pid}\nSTATUS=serving; the new master has gone")
            case _:
                pass

    def _send(self, message: str) -> None:
        if not self._silent:
            self._tell(message)

    def _reached(self, mark: Mark, now: float) -> None:
        if self._guest and mark.milestone is Milestone.STOPPING:
            return
        lines = [_ASSIGNMENTS[mark.milestone], f"STATUS={_line(mark.text)}"]
        if mark.milestone is Milestone.SERVING:
            self._pulse_at = None
            # After a new master program has taken over, this is how its service manager learns whom to signal.
            lines.append(f"MAINPID={self._pid}")
            if self._interval is not None and self._watchdog_at is None:
                self._watchdog_at = now + self._interval
        else:
            self._pulse_at = now + PULSE
            lines.append(EXTEND)
        if mark.milestone is Milestone.RELOADING:
            # Type=notify-reload takes only what is younger than the signal that it has sent.
            lines.append(f"MONOTONIC_USEC={int(now * 1e6)}")
        self._send("\n".join(lines))

    def _feed_watchdog(self) -> None:
        healthy = self._healthy()
        if healthy:
            self._send("WATCHDOG=1")
        elif self._was_healthy:
            log.error("no worker's loop turns: the service manager's watchdog is not fed any more")
        self._was_healthy = healthy


def any_turns(rows: Iterable[Snapshot], now_ns: int, within: float) -> bool:
    """Whether the loop of a worker that serves has beaten within so many seconds."""
    return any(row.phase in {Phase.READY, Phase.DRAINING} and now_ns - row.heartbeat_ns <= within * 1e9 for row in rows)


def _line(text: str) -> str:
    """A value must not contain a line break: it would begin another assignment."""
    return " ".join(text.split())
