"""Log records of children on their way to the worker's handlers.

A child has one handler, on the root logger, that sends records home with their message made and their traceback
written, as ``logging.handlers.QueueHandler`` does. At home each goes to the logger of its name, whose handlers and
filters then have it as if it had been logged there; the process id and name stay the child's, ``request_id`` is that of
the request. A logger without handlers would drop it or print it bare: its records go to the server's log instead.
"""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.offloading.carried import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("aioserve")

#: A message longer than this is cut: it has to fit a frame.
LONGEST: Final = 64 * 1024


@final
class SendingHandler(logging.Handler):
    """``send`` takes a record in bytes."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send
        self._formatter: Final = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(self._pack(record))
        except Exception:  # noqa: BLE001  # as every handler does: logging must not break what it logs
            self.handleError(record)

    def _pack(self, record: logging.LogRecord) -> bytes:
        state: dict[str, Any] = dict(record.__dict__)
        message = record.getMessage()
        state.update(msg=_cut(message), args=None, exc_info=None, stack_info=record.stack_info)
        if record.exc_info and not record.exc_text:
            state["exc_text"] = self._formatter.formatException(record.exc_info)
        state["exc_text"] = _cut(state.get("exc_text"))
        state.setdefault("request_id", REQUEST_ID.get())
        state.pop("message", None)
        try:
            return pickle.dumps(state, 5)
        except Exception:  # noqa: BLE001  # something in "extra" that cannot be pickled
            plain = {name: value for name, value in state.items() if type(value) in {str, int, float, type(None)}}
            return pickle.dumps(plain, 5)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


def hand_over(data: bytes) -> None:
    """In the worker: give a child's record to whoever would have it if it had been logged here."""
    record = logging.makeLogRecord(pickle.loads(data))  # noqa: S301  # from a child of ours
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.levelno):
        return
    if not logger.hasHandlers() and log.hasHandlers():
        request_id = getattr(record, "request_id", "")
        whose = f" [{request_id}]" if request_id else ""
        record.msg = f"{record.name}{whose}: {record.msg}"
        logger = log
    logger.handle(record)


def levels() -> dict[str, int]:
    """The levels that loggers were given here, for a child to have the same; the root logger's under ""."""
    found = {
        name: logger.level
        for name, logger in list(logging.Logger.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET
    }
    return {**found, "": logging.root.level}


def set_levels(wanted: dict[str, int]) -> None:
    for name, level in wanted.items():
        logging.getLogger(name or None).setLevel(level)
