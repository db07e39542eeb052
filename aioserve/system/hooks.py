"""The user's own functions at turning points of the server's life, named in the configuration, told a ``Moment``.

Errors in them are logged with the hook's name and go no further. One that takes long holds up the process it runs in:
after a second that is a warning, and after ten it is interrupted (SIGALRM; a call that never returns to Python cannot
be). Hooks are plain functions; a coroutine has no loop to run in here.

In the master run on_master_start, on_worker_exit and on_reload, as whoever the master is and with the code that was
there at the start; in each worker on_worker_start, before the application is imported, and on_worker_ready.
"""

from __future__ import annotations

import inspect
import logging
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import BootError
from aioserve.importer import load_app, trim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioserve.config.tree import Config

log = logging.getLogger("aioserve")

#: The first is where a hook in the master begins to be felt (a crashed worker is not replaced meanwhile), the second is
#: far beyond what a short message to somebody takes. Seconds.
LONG: Final = 1.0
LONGEST: Final = 10.0

MASTER: Final = ("on_master_start", "on_worker_exit", "on_reload")
WORKER: Final = ("on_worker_start", "on_worker_ready")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a hook is told. ``slot`` and what follows are the worker's, where it is about one."""

    hook: str  # "on_worker_exit"
    pid: int  # of the worker that it is about, else of the master
    slot: int | None = None
    generation: int = 0  # of the application's code: 1, and one more with each reload
    status: int | None = None  # of on_worker_exit: the exit status, negative for a signal
    how: str = ""  # the same in words: "exited with status 0", "killed by SIGKILL"


class _TooLongError(BaseException):
    """Not an Exception, so that a hook does not take it for one of its own."""


@final
class Hook:
    """One function and its name. ``run`` raises nothing but the ``KeyboardInterrupt`` of a start."""

    def __init__(self, name: str, target: str, function: Callable[[Moment], object]) -> None:
        self.name: Final = name
        self._target: Final = target
        self._function: Final = function

    def run(self, moment: Moment, *, longest: float = LONGEST) -> None:
        started = time.monotonic()
        failure = self._call(moment, longest)
        taken = time.monotonic() - started
        if failure:
            log.error("the hook %s (%s) %s", self.name, self._target, failure)
        elif taken > LONG:
            log.warning(
                "the hook %s (%s) took %.1f s, in which this process did nothing else; do what takes long in a process "
                "of its own",
                self.name,
                self._target,
                taken,
            )

    def _call(self, moment: Moment, longest: float) -> str:
        """What went wrong."""
        try:
            with _limited(longest):
                self._function(moment)
        except _TooLongError:
            return f"was interrupted after {longest:g} s, in which this process did nothing else"
        except KeyboardInterrupt:  # before the master's handlers: somebody at a terminal does not want the server
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is (CancelledError, SystemExit), the server goes on
            return f"has failed:\n{trim(error)}"
        return ""


def load(config: Config, names: tuple[str, ...]) -> dict[str, Hook]:
    """Import those of these hooks that the configuration names. Raises ``BootError``."""
    hooks = {}
    for name in names:
        target = getattr(config.hooks, name)
        if target:
            flag = f"--{name.replace('_', '-')}"
            try:
                function = load_app(target, factory=False, app_dir=config.app.dir)
            except BootError as error:
                raise BootError(f"{flag}: {error}", error.detail) from None
            if inspect.iscoroutinefunction(function):
                raise BootError(f"{flag}: {target} is a coroutine function; a hook is a plain function")
            hooks[name] = Hook(name, target, function)  # type: ignore[arg-type]  # load_app answers a callable
    return hooks


def imported_too_early(config: Config) -> str:
    """The application's module, if it has been imported although the workers are to do that."""
    targets = [config.app.target, *(mount.partition("=")[2] for mount in config.app.mount)]
    modules = [target.partition(":")[0] for target in targets if target]
    return next((module for module in modules if module in sys.modules), "")


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    armed = True

    def interrupt(_number: int, _frame: object) -> None:
        if armed:
            raise _TooLongError

    before = signal.signal(signal.SIGALRM, interrupt)
    # Again and again, should the hook catch even this.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
