"""What the server adds to responses: its own fields, and whole responses of its own where no application answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aioserve.http.tables import REPLACES_SERVERS, RESPONSE_FIELDS, STATUS_LINES

if TYPE_CHECKING:
    from aioserve.types import Header

#: What some statuses cannot do without, and their Connection. 9110 15.5.22: a 426 names the protocol to upgrade to;
#: RFC 6455 4.4: and its version.
_NOTHING: Final = (b"", b"connection: close\r\n")
_ALONGSIDE: Final = {
    426: (b"upgrade: websocket\r\nsec-websocket-version: 13\r\n", b"connection: upgrade, close\r\n"),
    503: (b"retry-after: 1\r\n", b"connection: close\r\n"),
}

_HSTS: Final = b"strict-transport-security"


@final
class ServerFields:
    """What the server adds to each response: Date (9110 6.6.1), Server, the fields of ``--header``, a good-bye.

    On connections with TLS also ``hsts``, the value of Strict-Transport-Security (RFC 6797 7.1), which may be sent on
    no others: those have fields of their own, without it.

    Shared by all writers of a loop, with the tables that they look things up in: without the interpreter's lock loops
    would wait for one another at tables that they share (see ``Seen``).
    """

    __slots__ = ("_date", "_dated", "_extra", "_server", "block", "closing", "kinds", "status_lines")

    def __init__(self, *, server: bytes | None, extra: list[Header], hsts: bytes = b"") -> None:
        self.status_lines: dict[int, bytes] = STATUS_LINES.copy()
        #: What the server does about a field of the application's; names are added as they come.
        self.kinds: dict[bytes, int] = RESPONSE_FIELDS.copy()
        self._date: bytes | None = None
        # What the operator sets takes the place of what the server would say.
        names = {name.lower() for name, _ in extra}
        self._server: bytes | None = None if b"server" in names else server
        self._dated: bool = b"date" not in names
        self._extra: list[Header] = extra
        if hsts and _HSTS not in names:
            self._extra = [*extra, (_HSTS, hsts)]
            # What the application says itself counts.
            self.kinds[_HSTS] = REPLACES_SERVERS
        #: Every response is the last of its connection and says so.
        self.closing: bool = False
        #: All fields, in the form in which they stand in a head. The writer reads this.
        self.block: bytes = self.without(())

    def set_date(self, date: bytes | None) -> None:
        """Renew the Date, an IMF-fixdate (9110 5.6.7), at least once a second; None sends none."""
        self._date = date if self._dated else None
        self.block = self.without(())

    def without(self, given: tuple[bytes, ...]) -> bytes:
        """The block less the fields that the application has ``given`` itself."""
        fields = [(b"date", self._date), (b"server", self._server), *self._extra]
        return b"".join(
            name + b": " + value + b"\r\n" for name, value in fields if value is not None and name.lower() not in given
        )


def plain_response(
    status: int, text: str, fields: ServerFields, *, head_request: bool = False, extra: bytes = b""
) -> bytes:
    """A complete response of the server's own, in text, after which the connection closes.

    ``extra`` are fields of this one, each with its line end.
    """
    body = b"" if head_request else text.encode() + b"\n"
    alongside, connection = _ALONGSIDE.get(status, _NOTHING)
    return b"".join(
        (
            STATUS_LINES[status],
            b"content-type: text/plain; charset=utf-8\r\n",
            b"content-length: %d\r\n" % (len(text.encode()) + 1),
            alongside,
            extra,
            fields.block,
            connection,
            b"\r\n",
            body,
        )
    )
