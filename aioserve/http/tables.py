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

#: A response with one of these statuses has no content (9110 6.4.1; 9112 6.3, rule 1).
BODILESS: Final = frozenset((204, 304))

#: token (9110 5.6.2): methods and field names.
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

#: The beginning of a request line (9112 3), as far as it has come; the CR may be its last byte.
LINE_BEGUN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: [!-~]*(?: [!-~]*\r?)?)?")

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

#: host [":" port] of RFC 3986 3.2.2, as Host (9110 7.2) and the authority of an absolute target carry it:
#: an IP literal in brackets, or a reg-name or IPv4 address. No userinfo: 9110 4.2.4 makes it an error.
AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+(?:%25[0-9A-Za-z._~\-]+)?\]|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)"
    rb"(?::[0-9]{0,5})?"
)

# What the server does about a field that the application sends. Names that need nothing map to 0, so that one look-up
# tells both that a name is a lower-case token and that it goes out as it is.
ORDINARY: Final = 0
CONTENT_LENGTH: Final = 1
TRANSFER_ENCODING: Final = 2
CONNECTION: Final = 3
REPLACES_SERVERS: Final = 4  # it goes out instead of the server's own
UNSEEN: Final = 5

#: By lower-case name; names that applications send are added as they come, up to a limit.
RESPONSE_FIELDS: Final[dict[bytes, int]] = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"date": REPLACES_SERVERS,
    b"server": REPLACES_SERVERS,
    **dict.fromkeys((b"content-type", b"cache-control", b"etag", b"location", b"set-cookie", b"vary"), ORDINARY),
}

#: Request fields that the server itself reads; all others only pass through to the application.
REQUEST_FIELDS: Final = frozenset((
    b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade",
    b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
))  # fmt: skip

#: Those of them that only matter when the peer is a trusted proxy.
FORWARDING_FIELDS: Final = frozenset(name for name in REQUEST_FIELDS if b"forwarded" in name)


def reason_phrase(status: int) -> str:
    """The reason phrase of ``status``, empty for one that is not registered."""
    return STATUS_LINES[status][13:-2].decode() if status in STATUS_LINES else ""
