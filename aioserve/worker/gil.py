"""Whether threads of this interpreter run side by side, and what to say where they do not."""

from __future__ import annotations

import logging
import sys
import sysconfig
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("aioserve")

#: Whether this Python was built without the global interpreter lock (PEP 703).
FREE_THREADED: Final = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def has_gil() -> bool:
    """Whether one thread at a time runs Python code. The import of an extension may have changed it."""
    ask: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # from 3.13 on
    return ask is None or ask()


#: ``has_gil`` before any application was imported.
AT_FIRST: Final = has_gil()


def say_shortfall(threads: int) -> None:
    """Warn of what ``threads`` loops cannot give here; to be called once the application was imported."""
    text = shortfall(threads, free_threaded=FREE_THREADED, before=AT_FIRST, after=has_gil())
    if text:
        log.warning("%s", text)


def shortfall(threads: int, *, free_threaded: bool, before: bool, after: bool) -> str:
    """What ``threads`` loops cannot give here; empty if nothing.

    ``before`` and ``after`` are ``has_gil()`` before and after the application was imported.
    """
    if threads < 2 or not after:
        return ""
    if not free_threaded:
        cause = "this Python has a global interpreter lock"
        advice = "use --workers for more, or a free-threaded Python"
    elif before:
        cause = "the global interpreter lock is on (PYTHON_GIL, -X gil, or an extension that is not made for threads)"
        advice = "use --workers for more, or PYTHON_GIL=0 if all extensions are known to be safe"
    else:
        cause = (
            "the application imports an extension that is not made for threads, and Python has switched the global "
            "interpreter lock on (its RuntimeWarning names the module)"
        )
        advice = "use --workers for more, or do without the extension"
    return (
        f"--accept threads: {threads} loops share one core, because {cause}. They only keep one another from waiting "
        f"while code blocks outside of Python; {advice}"
    )
