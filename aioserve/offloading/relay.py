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
from aioserve.offloading.foreign import shown

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("aioserve")

#: A message longer than this is cut, and a record that is larger than that comes without what "extra" brought.
LONGEST: Final = 64 * 1024
LARGEST: Final = 512 * 1024

#: Types that can be read anywhere.
_PLAIN: Final = frozenset((str, int, float, bool, type(None)))


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
        plain = {name: value for name, value in state.items() if type(value) in _PLAIN}
        # What "extra" brought, by itself: it may be such that it cannot be pickled here, or not unpickled at home.
        others = {name: value for name, value in state.items() if name not in plain}
        try:
            extra = pickle.dumps(others, 5) if others else b""
        except Exception:  # noqa: BLE001  # whatever a foreign __reduce__ raises
            extra = b""
        packed = pickle.dumps((plain, extra), 5)
        if len(packed) > LARGEST:
            packed = pickle.dumps(({name: _cut(v) if isinstance(v, str) else v for name, v in plain.items()}, b""), 5)
        return packed


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


def hand_over(data: bytes) -> None:
    """In the worker: give a child's record to whoever would have it if it had been logged here."""
    plain, extra = pickle.loads(data)  # noqa: S301  # from a child of ours
    record = logging.makeLogRecord(plain)
    try:
        record.__dict__.update(pickle.loads(extra) if extra else {})  # noqa: S301  # as above
    except BaseException as error:  # noqa: BLE001  # an exception in "extra", say, whose __init__ wants more arguments
        log.debug("offload: what goes with a log record of a child cannot be read here: %s", shown(error))
    try:
        _handle(record)
    except Exception:  # a filter's: it would be the caller's, who is elsewhere
        log.exception("offload: a log record of a child could not be logged here: %s", record.msg)


def _handle(record: logging.LogRecord) -> None:
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
