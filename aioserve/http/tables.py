"""Constant tables of HTTP: status lines, the names the server acts on, characters that may appear where.

Everything here is made once, at import. RFC 9110 is cited as "9110", RFC 9112 as "9112".
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

#: "HTTP/1.1 200 OK\r\n" by status. A server answers with its own version, also to HTTP/1.0 (9110 2.5 and 6.2).
#: Final statuses only: 1xx are written by the server itself, and anything above 599 is no status (9110 15).
STATUS_LINES: Final[dict[int, bytes]] = {
    **{status: b"HTTP/1.1 %d \r\n" % status for status in range(200, 600)},
    **{s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus if s.value >= 200},
}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: The status line of a 103 (RFC 8297); its fields and an empty line follow.
EARLY_HINTS: Final = b"HTTP/1.1 103 Early Hints\r\n"

#: Fields that a sender must not put into trailers, since a recipient needs them before the body (9110 6.5.1): framing,
#: routing, request modifiers and controls, authentication, and those that say how the body is to be read.
FORBIDDEN_IN_TRAILERS: Final = frozenset((
    b"content-length", b"transfer-encoding", b"connection", b"trailer", b"te", b"upgrade", b"host", b"expect",
    b"cache-control", b"max-forwards", b"pragma", b"range", b"age", b"date", b"expires", b"location", b"retry-after",
    b"vary", b"warning", b"authorization", b"proxy-authorization", b"www-authenticate", b"proxy-authenticate",
    b"cookie", b"set-cookie", b"content-encoding", b"content-type", b"content-range",
))  # fmt: skip

#: A response with one of these statuses has no content (9110 6.4.1; 9112 6.3, rule 1).
BODILESS: Final = frozenset((204, 304))

#: token (9110 5.6.2): methods and field names.
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

#: A request line (9112 3), and the beginning of one as far as it has come; the CR may be its last byte.
LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) ([!-~]+)")
LINE_BEGUN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: (?:[!-~]+(?: (?:[!-~]+\r?)?)?)?)?")

#: Methods that are served: those llhttp knows for HTTP/1, whichever parser runs. All others get 501 (9110 9.1), and so
#: does CONNECT, which is for proxies.
METHODS: Final = frozenset((
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY", "PURGE", "SOURCE", "LINK", "UNLINK",
    # WebDAV (RFC 4918, 3253, 3744, 5323, 5842) and CalDAV (RFC 4791).
    "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "CHECKOUT", "MERGE", "MKACTIVITY",
    "ACL", "SEARCH", "BIND", "REBIND", "UNBIND", "MKCALENDAR",
    # UPnP.
    "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE",
))  # fmt: skip

#: HTTP-version (9112 2.3).
VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")

#: host [":" port] of RFC 3986 3.2.2, as Host (9110 7.2) and the authority of an absolute target carry it: an IPv6
#: address in brackets, with a zone (RFC 6874), or a reg-name or IPv4 address. No userinfo: 9110 4.2.4 makes it an
#: error. No comma either, though a reg-name may have one: it is what two Host fields become when somebody joins them.
AUTHORITY: Final = re.compile(
    rb"(?:\[(?P<address>[0-9A-Fa-f:.]+)(?:%25[0-9A-Za-z._~\-]+)?\]|(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)

# What the server does about a field that the application sends. Names that need nothing map to 0, so that one look-up
# tells both that a name is a lower-case token and that it goes out as it is.
ORDINARY: Final = 0
CONTENT_LENGTH: Final = 1
TRANSFER_ENCODING: Final = 2
CONNECTION: Final = 3
REPLACES_SERVERS: Final = 4  # it goes out instead of the server's own
UNSEEN: Final = 5

#: By lower-case name. Each loop has a copy, to which names that applications send are added as they come.
RESPONSE_FIELDS: Final[dict[bytes, int]] = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"date": REPLACES_SERVERS,
    b"server": REPLACES_SERVERS,
    **dict.fromkeys((b"content-type", b"cache-control", b"etag", b"location", b"set-cookie", b"vary"), ORDINARY),
}

#: Request fields that the server itself reads; all others only pass through to the application. Proxy-Connection is one
#: because llhttp heeds it, though no RFC knows it.
REQUEST_FIELDS: Final = frozenset((
    b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade",
    b"proxy-connection",
    # Those that only matter when the peer is a trusted proxy: all have "forwarded" in their names.
    b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
))  # fmt: skip


def reason_phrase(status: int) -> str:
    """The reason phrase of ``status``, empty for one that is not registered."""
    return STATUS_LINES[status][13:-2].decode() if status in STATUS_LINES else ""
