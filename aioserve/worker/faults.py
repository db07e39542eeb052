"""What the log says when an application ends in an error or breaks the ASGI contract: one line for each mistake."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from typing import Final

from aioserve.errors import AppError
from aioserve.worker.places import is_theirs

log: Final = logging.getLogger("aioserve")


def report(whose: object, error: BaseException) -> None:
    """Log ``error`` of the application under the name ``str(whose)``.

    A wrong message when it is sent, since the application may catch the error; once, however far it travels.
    """
    if isinstance(error, AppError):
        if not error.reported:
            error.reported = True
            log.error("%s: %s%s", whose, error, _sent_from() if error.__traceback__ else "")
    elif isinstance(error, asyncio.CancelledError):
        log.error("%s: the application was cancelled before its response was complete", whose)
    elif not (isinstance(error, BaseExceptionGroup) and error.split(AppError)[1] is None):
        log.error("%s: the application failed", whose, exc_info=error)


def report_overload(whose: object, answer: str) -> None:
    """Log that ``whose`` was answered so because the offload queue is full: nobody's mistake, and no traceback."""
    log.warning("%s: %s, the offload queue is full", whose, answer)


def _sent_from() -> str:
    """Where the application stands, its innermost frame last."""
    frames = [(frame, line) for frame, line in traceback.walk_stack(inspect.currentframe()) if is_theirs(frame)]
    lines = "".join(traceback.StackSummary.extract(reversed(frames)).format()).rstrip()
    return f"\n  sent from (most recent call last):\n{lines}" if frames else ""
