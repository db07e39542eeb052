"""The access log: one line per request, when it has ended.

The functions that make lines are pure: an exchange and a moment in, a line out. Everything that comes from the client
is escaped, so that a line is always one line of printable ASCII. ``Sink`` carries lines away.

Lines are made at once and not by the writing thread. Measured on 3.13: the line form costs 1.3 us, keeping a tuple for
later 0.11 us, and then the line costs the same in the thread, where it holds the interpreter's lock for as long as a
batch takes (a thousand lines, more than 1 ms) while requests wait for it.
"""

from __future__ import annotations

import functools
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, final

from aioserve.observe.jsonline import dump
from aioserve.observe.log import ACCESS_LOGGER
from aioserve.observe.sink import Sink

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aioserve.config.tree import Log
    from aioserve.types import Scope

    Fields = dict[str, str | int | float | None]

#: How long closing waits for a reader that does not read, in seconds.
CLOSE_SECONDS: Final = 2.0

STDOUT: Final = 1

_STATUSES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PRINTABLE: Final = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
_ESCAPES: Final = [chr(code) if code in _PRINTABLE else f"\\x{code:02x}" for code in range(256)]
_ESCAPES[ord('"')], _ESCAPES[ord("\\")] = '\\"', "\\\\"


class Exchange(Protocol):
    """A request and its response. ``first_byte`` is 0.0 when nothing was sent.

    Times are seconds of a monotonic clock, ``time.perf_counter`` for one. ``loop.time()`` is too coarse: uvloop's moves
    in milliseconds, and not at all while a callback runs, so that an application that blocks would have taken 0.0 ms.
    """

    @property
    def scope(self) -> Scope: ...
    @property
    def status(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def started(self) -> float: ...
    @property
    def first_byte(self) -> float: ...
    @property
    def ended(self) -> float: ...


class Session(Exchange, Protocol):
    """A WebSocket: bytes are payload of messages, both ways. ``close_code`` is None if the handshake was refused."""

    @property
    def received_bytes(self) -> int: ...
    @property
    def close_code(self) -> int | None: ...


@final
class AccessLog:
    """Writes a line for each exchange to a sink."""

    def __init__(
        self,
        format: str,  # noqa: A002  # the setting's name
        sink: Sink,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._write = sink.write
        self._render: Callable[[Exchange], str] = {
            "line": line,
            "combined": lambda x: combined(x, self._received(x)),
            "json": lambda x: dump(fields(x, self._received(x))) + "\n",
        }[format]
        self._render_session: Callable[[Session], str] = {
            "line": session_line,
            "combined": lambda x: session_combined(x, self._received(x)),
            "json": lambda x: dump(session_fields(x, self._received(x))) + "\n",
        }[format]

    def record(self, exchange: Exchange, /) -> None:
        """Call when the exchange has ended."""
        self._write(self._render(exchange))

    def record_session(self, session: Session, /) -> None:
        """Call when the WebSocket has ended, or its handshake was refused."""
        self._write(self._render_session(session))

    def reopen(self) -> None:
        self._sink.reopen()

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Write out what is left; whether all of it was written. Blocks for at most ``timeout`` seconds."""
        return self._sink.flush_and_close(timeout)

    def _received(self, exchange: Exchange) -> float:
        """The time of day at which the request had come in."""
        return self._clock() - (exchange.ended - exchange.started)


@final
class LoggingAccessLog:
    """Hands each exchange to the logger "aioserve.access", for a --log-config that wants it.

    Message and arguments are those of uvicorn's access logger, so that formatters written for it go on working; each
    of ``fields`` is an attribute of the record, for ``%(duration_ms)s`` and for formatters that make JSON.
    """

    def __init__(self, logger: logging.Logger, *, clock: Callable[[], float] = time.time) -> None:
        self._logger = logger
        self._clock = clock

    def record(self, exchange: Exchange, /) -> None:
        """Call when the exchange has ended."""
        if self._logger.isEnabledFor(logging.INFO):
            self._log(exchange, fields(exchange, self._clock() - (exchange.ended - exchange.started)))

    def record_session(self, session: Session, /) -> None:
        """Call when the WebSocket has ended, or its handshake was refused."""
        if self._logger.isEnabledFor(logging.INFO):
            self._log(_Handshake(session), session_fields(session, self._clock() - (session.ended - session.started)))

    def _log(self, exchange: Exchange, known: Fields) -> None:
        scope = exchange.scope
        arguments = (_client(scope), scope["method"], _target(scope), scope["http_version"], exchange.status)
        self._logger.info('%s - "%s %s HTTP/%s" %d', *arguments, extra=known)

    def reopen(self) -> None:
        """The files are the handlers', which ``log.reopen`` looks after."""

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:  # noqa: ARG002  # an AccessLog has to wait
        return True


def open_access_log(log: Log, loop: asyncio.AbstractEventLoop) -> AccessLog | LoggingAccessLog | None:
    """The access log that the configuration asks for. Raises ``BootError`` when its file cannot be opened."""
    if not log.access:
        return None
    logger = logging.getLogger(ACCESS_LOGGER)
    if log.config and logger.hasHandlers():
        return LoggingAccessLog(logger)
    return AccessLog(log.access_format, Sink(log.access_file or STDOUT, loop))


def line(x: Exchange) -> str:
    """As uvicorn's, with bytes of body and duration: ``127.0.0.1:54321 - "GET /a?b HTTP/1.1" 200 OK 13B 1.2ms``."""
    scope = x.scope
    status = _STATUSES.get(x.status) or x.status
    return (
        f'{_client(scope)} - "{scope["method"]} {_target(scope)} HTTP/{scope["http_version"]}" '
        f"{status} {x.sent_bytes}B {(x.ended - x.started) * 1000:.1f}ms\n"
    )


def combined(x: Exchange, received: float) -> str:
    """Apache's combined format, and the duration in microseconds at the end.

    That is Apache's own ``%D``, at the place where most who add it have it, so that log analysers know it.
    """
    scope = x.scope
    client = scope["client"]
    headers = dict(scope["headers"])
    return (
        f"{client[0] if client else '-'} - - [{_apache_time(int(received))}] "
        f'"{scope["method"]} {_target(scope)} HTTP/{scope["http_version"]}" {x.status} {x.sent_bytes or "-"} '
        f'"{escape(headers.get(b"referer", b"-"))}" "{escape(headers.get(b"user-agent", b"-"))}" '
        f"{round((x.ended - x.started) * 1e6)}\n"
    )


def fields(x: Exchange, received: float) -> Fields:
    """What is known of an exchange, by the names of the JSON form. ``path`` is as it came, percent-encoded."""
    scope = x.scope
    headers = dict(scope["headers"])
    return {
        "time": f"{_iso_time(int(received))}.{int(received % 1 * 1000):03d}Z",
        "client": _client(scope) if scope["client"] else None,
        "method": scope["method"],
        "path": _plain(scope["raw_path"]),
        "query": _plain(scope["query_string"]),
        "http_version": scope["http_version"],
        "status": x.status,
        "bytes": x.sent_bytes,
        "duration_ms": round((x.ended - x.started) * 1000, 3),
        "first_byte_ms": round((x.first_byte - x.started) * 1000, 3) if x.first_byte else None,
        "referer": _optional(headers.get(b"referer")),
        "user_agent": _optional(headers.get(b"user-agent")),
        "host": _optional(headers.get(b"host")),
    }


@final
class _Handshake:
    """A WebSocket as the request that it began with, which is a GET though its scope does not say so."""

    def __init__(self, session: Session) -> None:
        self.scope: Scope = {**session.scope, "method": "GET"}
        self.status: int = session.status
        self.sent_bytes: int = session.sent_bytes
        self.started: float = session.started
        self.first_byte: float = session.first_byte
        self.ended: float = session.ended


def session_line(x: Session) -> str:
    """As for a request, with how it ended: ``... 101 Switching Protocols 13B 9ms, closed with 1000, 42B received``."""
    begun = line(_Handshake(x))
    return (
        begun if x.close_code is None else f"{begun[:-1]}, closed with {x.close_code}, {x.received_bytes}B received\n"
    )


def session_combined(x: Session, received: float) -> str:
    """As for a request, and at the very end the close code and the bytes that were received."""
    begun = combined(_Handshake(x), received)
    return begun if x.close_code is None else f"{begun[:-1]} {x.close_code} {x.received_bytes}\n"


def session_fields(x: Session, received: float) -> Fields:
    """As for a request, with ``close_code`` and ``received_bytes``."""
    return {**fields(_Handshake(x), received), "close_code": x.close_code, "received_bytes": x.received_bytes}


def escape(raw: bytes) -> str:
    """``raw`` as printable ASCII that can stand between quotes."""
    # perf: translate is 1.3 to 8 times as fast as searching with a regular expression; timeit, 6 and 100 bytes
    if not raw.translate(None, _PRINTABLE):
        return raw.decode("ascii")
    return "".join([_ESCAPES[code] for code in raw])


def _plain(raw: bytes) -> str:
    """``raw`` as ASCII for JSON, which escapes quotes, backslashes and control characters (but DEL) itself."""
    return raw.decode("ascii", "backslashreplace").replace("\x7f", "\\x7f")


def _optional(raw: bytes | None) -> str | None:
    return None if raw is None else _plain(raw)


def _client(scope: Scope) -> str:
    client = scope["client"]
    if not client:
        return "unix:"
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _target(scope: Scope) -> str:
    query = scope["query_string"]
    return escape(scope["raw_path"] + b"?" + query if query else scope["raw_path"])


# Lines of one second share its text; a long response may bring back an earlier one.
@functools.lru_cache(maxsize=64)
def _apache_time(second: int) -> str:
    local = time.localtime(second)
    minutes = local.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
    # Not strftime: its month is in the language of the locale.
    day = f"{local.tm_mday:02d}/{_MONTHS[local.tm_mon - 1]}/{local.tm_year}"
    return f"{day}:{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d} {zone}"


@functools.lru_cache(maxsize=64)
def _iso_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
