"""Signals to stop that come before there is a loop or a master's handlers, while the application is imported.

The default action would end the process with the signal's status, which is no clean end, and a process 1 would not
even see the signal: the kernel delivers to it only what it has a handler for (pid_namespaces(7)).
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final, Self, final

if TYPE_CHECKING:
    from types import FrameType

#: Those that stop a server; one that runs has handlers of its own for them.
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

#: What a server installs while it runs, and whoever has called it gets back.
_CHANGED: Final = (
    *_STOPPING,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGALRM,
)


#: Python drops an exception that a signal handler raises within a weak reference's callback, which importlib has, and
#: an application may catch it: until it has arrived it is raised again, every so many seconds.
_AGAIN: Final = 0.5


class StoppedEarly(KeyboardInterrupt):
    """Raised in the middle of the import. An application has no reason to catch it, and some do."""


@final
class Early:
    """A signal to stop raises ``StoppedEarly`` within this context, until ``settle``. ``came``: the first one.

    Afterwards the handlers that were there before are there again.
    """

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _CHANGED}
        for number in _STOPPING:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        for number, handler in self._before.items():
            if handler is not None:  # it was not installed by Python
                signal.signal(number, handler)

    @property
    def why(self) -> str:
        """What the log says of it."""
        return f"{self.came.name if self.came else 'a signal'}: stopped before the application was imported"

    def settle(self) -> bool:
        """Raise no more: the loop has handlers of its own. Whether a signal came in vain before."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self.came is not None

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.came is None:
            self.came = signal.Signals(number)
            signal.signal(signal.SIGALRM, self._stop)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        raise StoppedEarly
