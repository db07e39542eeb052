"""Starting a new master program on the sockets of this one, and being one.

The old master forks and executes the command that it was started with itself, in the directory and with the variables
that it had then: new code, new dependencies, even a new interpreter at the same path. A variable tells the new one
which descriptors it has and what they are, and a channel says when its workers serve. The channel reads end-of-file in
the new master when the old one has gone, and the other way round.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self, final

from aioserve.accept.base import Inherited
from aioserve.master import channel as channels

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

#: Not AIOSERVE_UPGRADE: variables of that form are settings, and it is nobody's to set.
VARIABLE: Final = "_AIOSERVE_UPGRADE"

#: What was said to this process by its number: sockets that it has taken already, and a watchdog that the new master
#: takes over (sd_listen_fds(3), sd_watchdog_enabled(3)).
_OURS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")

_NOT_EXECUTABLE: Final = 127


@final
@dataclass(frozen=True, slots=True)
class Origin:
    """How this program was started. Take it before anything changes the environment or the directory."""

    executable: str
    argv: tuple[str, ...]
    environ: dict[str, str]
    directory: str

    @classmethod
    def now(cls) -> Self:
        return cls(sys.executable, tuple(sys.orig_argv), dict(os.environ), str(Path.cwd()))


@final
@dataclass(frozen=True, slots=True)
class Predecessor:
    """The old master, as the new one sees it."""

    pid: int
    channel: channels.ChildChannel
    sockets: tuple[Inherited, ...]


def launch(origin: Origin, sockets: Sequence[Inherited]) -> tuple[int, channels.MasterChannel]:
    """Start the new master: its process id, and the channel on which it says that it serves. Raises OSError."""
    mine, theirs = channels.pair()
    try:
        passed = [theirs.fileno(), *(one.fd for one in sockets)]
        letter = {"pid": os.getpid(), "channel": theirs.fileno(), "sockets": [asdict(one) for one in sockets]}
        environ = {**origin.environ, VARIABLE: json.dumps(letter)}
        for name in _OURS:
            environ.pop(name, None)
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _become(origin, environ, passed, theirs, old_mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    except OSError:
        mine.close()
        raise
    finally:
        theirs.close()
    return pid, mine


def inherit(environ: MutableMapping[str, str]) -> Predecessor | None:
    """What an old master has left us, if there is one. The variable is removed: workers have no use for it."""
    letter = environ.pop(VARIABLE, "")
    if not letter:
        return None
    said = json.loads(letter)
    channel = socket.socket(fileno=said["channel"])
    channel.set_inheritable(False)
    sockets = tuple(Inherited(**{**one, "indices": tuple(one["indices"])}) for one in said["sockets"])
    return Predecessor(said["pid"], channels.ChildChannel(channel), sockets)


def _become(
    origin: Origin,
    environ: dict[str, str],
    passed: Sequence[int],
    channel: channels.ChildChannel,
    mask: set[signal.Signals] | set[int],
) -> NoReturn:
    """In the forked process: execute the program. Handlers end with the old image, what is blocked would stay."""
    try:
        signal.set_wakeup_fd(-1)
        for descriptor in passed:
            os.set_inheritable(descriptor, True)
        os.chdir(origin.directory)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and ignoring is inherited
            signal.signal(number, signal.SIG_DFL)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Python looks for its own place by argv[0] (a virtual environment, say), and "python" is searched for in PATH.
        argv = (origin.executable, *origin.argv[1:])
        os.execve(origin.executable, argv, environ)  # noqa: S606 - the command that we were started with
    except BaseException as error:  # noqa: BLE001 - nothing may unwind into the master's frames
        channel.failed(f"{origin.executable}: {error}")
    finally:
        os._exit(_NOT_EXECUTABLE)
