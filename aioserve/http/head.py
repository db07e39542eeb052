"""What a request head means, once a parser has cut it into a line and fields.

llhttp and h11 check the grammar; this module checks what they let through and turns the head into the few facts that
the connection needs: target, framing, persistence, expectation. Both readers use it, so that they cannot disagree.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final, NoReturn, final
from urllib.parse import unquote

from aioserve.errors import RequestError
from aioserve.http.tables import (
    AUTHORITY,
    FORBIDDEN_IN_TRAILERS,
    LINE,
    LINE_BEGUN,
    METHODS,
    REQUEST_FIELDS,
    VERSION,
)

if TYPE_CHECKING:
    from aioserve.types import Header

#: ``Head.length`` of a chunked body.
CHUNKED: Final = -1

#: What a Connection field nearly always says.
_KEEP_ALIVE_SPELLINGS: Final = (b"keep-alive", b"Keep-Alive")
_CLOSE_SPELLINGS: Final = frozenset((b"close", b"Close"))

#: 9110 9.3.8: a client MUST NOT send content in a TRACE request, which would come back to whoever reads the answer.
_TRACE_WITH_CONTENT: Final = "a TRACE request with content"

_FATAL_TRAILERS: Final = frozenset((b"content-length", b"transfer-encoding", b"host"))


@final
class Seen:
    """What one loop has seen and found good: clients of one server send the same few lines and hosts again and again.

    Each table is emptied when full, and long lines stay out, so that a flood of invented ones costs 128 KiB at most.
    Not one table for all loops of a process: without the interpreter's lock every look-up of bytes takes the table's
    own (CPython 3.13), and two loops that both look up spend most of their time waiting for it.
    """

    __slots__ = ("hosts", "lines")

    LINES: Final = 512
    LINE_BYTES: Final = 256
    HOSTS: Final = 256

    def __init__(self) -> None:
        # perf: one look-up instead of splitting, decoding and checking; bench/micro::head
        self.lines: dict[bytes, RequestLine] = {}
        self.hosts: set[bytes] = set()

    def add_line(self, raw_line: bytes, line: RequestLine) -> None:
        if len(raw_line) <= self.LINE_BYTES:
            if len(self.lines) >= self.LINES:
                self.lines.clear()
            self.lines[raw_line] = line

    def add_host(self, value: bytes) -> None:
        if len(self.hosts) >= self.HOSTS:
            self.hosts.clear()
        self.hosts.add(value)


@final
class RequestLine:
    """What a request line says. Shared by all requests with the same line: nobody changes one.

    ``path`` is percent-decoded UTF-8, ``raw_path`` as it came, without the query (ASGI, HTTP connection scope).
    """

    __slots__ = ("authority", "http_version", "keep_alive", "method", "path", "query", "raw_path", "secure")

    def __init__(self, method: str, http_version: str, target: bytes, authority: bytes | None) -> None:
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        self.method: str = method
        self.http_version: str = http_version
        #: What the client gets if it does not say otherwise (RFC 9112 9.3).
        self.keep_alive: bool = http_version == "1.1"
        self.path: str = unquote(path) if "%" in path else path
        self.raw_path: bytes = raw_path
        self.query: bytes = query
        #: The host of a target in absolute form, which replaces the Host field.
        self.authority: bytes | None = authority
        #: The target names https, which a connection without TLS may not serve (RFC 9110 7.4).
        self.secure: bool = False


@final
class Head:
    """One request head. ``length`` is the body's in bytes, 0 without one, ``CHUNKED`` when chunks tell."""

    __slots__ = (
        "closing",
        "expects_continue",
        "forwarded",
        "framed",
        "headers",
        "keep_alive",
        "length",
        "line",
        "plain",
        "upgrade",
    )

    def __init__(self, line: RequestLine, headers: list[Header]) -> None:
        self.line: RequestLine = line
        self.headers: list[Header] = headers
        self.keep_alive: bool = line.keep_alive
        self.length: int = 0
        self.expects_continue: bool = False
        #: A field that speaks for a client behind a proxy is among the headers, or the target names https.
        self.forwarded: bool = False
        #: Nothing in this head can have put the parser into another state than the one it started from.
        self.plain: bool = True
        #: There is an Upgrade field. Whether it counts is not judged here.
        self.upgrade: bool = False
        # Content-Length or Transfer-Encoding has been seen; Connection: close has been seen.
        self.framed: bool = False
        self.closing: bool = False


def interpret(raw_line: bytes, headers: list[Header], noticed: list[Header], seen: Seen) -> Head:
    """Check a request head and return what it means.

    ``raw_line`` is the request line without its CRLF, ``headers`` all fields with lower-case names and ``noticed``
    those of them whose names are in ``REQUEST_FIELDS``. Raises ``RequestError`` with the status the mistake deserves.
    """
    line = seen.lines.get(raw_line)
    if line is None:
        line = read_line(raw_line)
        seen.add_line(raw_line, line)
    head = Head(line, headers)
    hosts = 0
    for name, value in noticed:
        if name == b"host":
            hosts += 1
            if value not in seen.hosts:
                check_host(value)
                seen.add_host(value)
        elif name == b"connection":
            if value not in _KEEP_ALIVE_SPELLINGS or line.http_version == "1.0":
                read_connection(head, value)
        elif b"forwarded" in name:
            head.forwarded = True
        else:
            read_framing(head, name, value)
    if hosts != 1 and (hosts or line.http_version == "1.1"):
        # 9112 3.2: a request without Host, or with two, MUST be answered with 400.
        raise RequestError(400, "more than one Host field" if hosts else "no Host field")
    if line.authority is not None:
        # 9112 3.2.2: the target's host replaces whatever Host says.
        headers[:] = [(b"host", line.authority), *(field for field in headers if field[0] != b"host")]
        head.forwarded = head.forwarded or line.secure
    return head


def read_line(raw_line: bytes) -> RequestLine:
    """Check a request line that has not been seen before."""
    parts = LINE.fullmatch(raw_line)
    if parts is None:
        # 9112 3: exactly one SP each. llhttp lets more of them pass, and two servers that disagree about where a
        # target ends can be played against each other. It also takes a line of HTTP/0.9, which a bare line feed may
        # end: the field behind it would become a part of the target.
        raise RequestError(400, "the request line is not METHOD SP TARGET SP VERSION")
    raw_method, target, version = parts.groups()
    if version == b"HTTP/1.1":
        http_version = "1.1"
    elif version == b"HTTP/1.0":
        http_version = "1.0"
    else:
        refuse_version(version)
    method = raw_method.decode("ascii")
    if method not in METHODS:
        raise RequestError(501, "the method is not one that this server knows")
    authority = None
    secure = False
    if 35 in target:  # "#"; an int, because b"#" in bytes is ten times as slow
        raise RequestError(400, "the request target has a fragment")
    if target[0] != 47:  # "/"
        secure = target[:6].lower() == b"https:"
        authority, target = read_odd_target(method, target)
    line = RequestLine(method, http_version, target, authority)
    line.secure = secure
    return line


def check_host(value: bytes) -> None:
    """Refuse a Host value that is no ``host [":" port]`` (9112 3.2)."""
    if not is_authority(value):
        raise RequestError(400, "the Host field is not a host with an optional port")


def is_authority(value: bytes) -> bool:
    """Whether ``value`` is a ``host [":" port]`` that can be."""
    found = AUTHORITY.fullmatch(value)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    if found["address"] is not None:
        try:
            IPv6Address(found["address"].decode("ascii"))
        except ValueError:
            return False
    return True


def read_connection(head: Head, value: bytes) -> None:
    """Apply the options of a Connection field (9112 9.3): ``close`` wins over ``keep-alive``, whatever their order."""
    head.plain = False
    if value in _CLOSE_SPELLINGS:
        head.keep_alive = False
        head.closing = True
        return
    options = {option.strip(b" \t").lower() for option in value.split(b",")}
    if b"close" in options:
        head.keep_alive = False
        head.closing = True
    elif b"keep-alive" in options and not head.closing:
        head.keep_alive = True


def read_framing(head: Head, name: bytes, value: bytes) -> None:
    """Apply a field that says how long the body is or what the client waits for (9112 6, 9110 10.1.1)."""
    if name == b"content-length":
        # The parsers have refused lists, signs and a second one; what is left is digits (9112 6.3, rule 5).
        if not value.isdigit():
            raise RequestError(400, "Content-Length is not a number of bytes")
        if len(value) > 19:
            raise RequestError(400, "Content-Length is beyond what any server can take")
        if head.framed:
            raise RequestError(400, "Content-Length twice or together with Transfer-Encoding")
        head.framed = True
        head.length = int(value)
        if head.length and head.line.method == "TRACE":
            raise RequestError(400, _TRACE_WITH_CONTENT)
    elif name == b"transfer-encoding":
        read_transfer_encoding(head, value)
    elif name == b"expect":
        # 9110 5.6.1.2: empty elements of a list are nothing.
        if {element.strip(b" \t") for element in value.lower().split(b",")} - {b""} != {b"100-continue"}:
            raise RequestError(417, "the only expectation that can be met is 100-continue")
        # 9110 10.1.1: an HTTP/1.0 client cannot have meant it.
        head.expects_continue = head.line.http_version == "1.1"
    else:
        # llhttp stops at an upgrade, whether it is taken or not (9110 7.8), and takes no more behind a Proxy-Connection
        # that says close.
        head.plain = False
        head.upgrade = head.upgrade or name == b"upgrade"


def read_transfer_encoding(head: Head, value: bytes) -> None:
    """Accept exactly one ``chunked`` (9112 6.1); everything else could be read differently by somebody in front."""
    if head.line.http_version == "1.0":
        raise RequestError(400, "Transfer-Encoding in an HTTP/1.0 request")
    if head.framed:
        raise RequestError(400, "Transfer-Encoding twice or together with Content-Length")
    head.framed = True
    if value.lower() != b"chunked":
        refuse_codings(value)
    if head.line.method == "TRACE":
        raise RequestError(400, _TRACE_WITH_CONTENT)
    head.length = CHUNKED


def refuse_codings(value: bytes) -> NoReturn:
    """Answer a Transfer-Encoding that is not chunked alone: 501 when it is a list of others with chunked at its end."""
    *others, final_coding = (coding.strip(b" \t") for coding in value.lower().split(b","))
    if others and final_coding == b"chunked" and final_coding not in others and all(others):
        raise RequestError(501, "the only transfer coding that is implemented is chunked")
    raise RequestError(400, "Transfer-Encoding does not end in one chunked")


def read_trailers(fields: list[Header], limit: int) -> list[Header]:
    """The trailers that the application may see, of those that have come."""
    if len(fields) > limit:
        raise RequestError(431, "too many trailer fields")
    for name, _ in fields:
        if name in _FATAL_TRAILERS:
            # 9110 6.5.1: framing and routing are over; whoever sends them here wants somebody to believe them.
            raise RequestError(400, f"the trailers have a field {name.decode('ascii')}")
    return [
        field
        for field in fields
        if field[0] not in FORBIDDEN_IN_TRAILERS and field[0] not in REQUEST_FIELDS and not field[0].startswith(b"if-")
    ]


def read_odd_target(method: str, target: bytes) -> tuple[bytes | None, bytes]:
    """The authority and the rest of a target that is no plain path (9112 3.2.2 to 3.2.4)."""
    if target == b"*":
        if method != "OPTIONS":
            raise RequestError(400, "the target * is for OPTIONS only")
        return None, target
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in {b"http", b"https"}:
        raise RequestError(400, "the request target is neither a path nor an http URL")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not is_authority(authority):
        raise RequestError(400, "the authority of the request target is not a host with an optional port")
    if not path:
        # 9112 3.2.4: an OPTIONS for the whole server, as a proxy was given it.
        path = b"*" if method == "OPTIONS" else b"/"
    return authority, path if path[:1] in {b"/", b"*"} else b"/" + path


def refuse_version(version: bytes) -> NoReturn:
    """Answer a version that is none of ours: 505 when it is one at all (9110 15.6.6), else 400."""
    if VERSION.fullmatch(version):
        raise RequestError(505, "only HTTP/1.0 and HTTP/1.1 are served here")
    raise RequestError(400, "the request line ends in no HTTP version")


def check_line(raw: bytes) -> None:
    """Refuse a head by as much of its request line as ``raw`` has, before any parser sees it."""
    line, end, _ = raw.partition(b"\r\n")
    if end:
        read_line(line)
    elif LINE_BEGUN.fullmatch(line) is None:
        raise RequestError(400, "the request line does not begin with METHOD SP TARGET SP VERSION")


def explain(raw: bytes, error: RequestError) -> RequestError:
    """Why a parser refused the head ``raw`` with ``error``.

    The request line decides first and as a whole, so that the answer depends neither on the parser nor on how far it
    had come: 505 for a version (9110 15.6.6) and 501 for a method (9110 9.1) that is not served, whatever follows.
    """
    try:
        check_line(raw)
    except RequestError as of_line:
        return of_line
    return error
