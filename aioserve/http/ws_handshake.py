"""The opening handshake of a WebSocket (RFC 6455 4.2): whether a head asks for one, what it offers, and the 101.

The head has been through the reader, so its Host, line and framing are what they must be. What is agreed on is told by
the application (subprotocol) and by the settings (compression); the Origin is the application's to judge.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from aioserve.errors import AppError, RequestError
from aioserve.http.tables import TOKEN
from aioserve.http.writer import block_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioserve.http.head import Head
    from aioserve.http.server_fields import ServerFields
    from aioserve.types import Header

#: RFC 6455 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: What the server itself says in a 101, and what would frame a content that a 101 has not (9110 6.4.1).
_THEIRS_NOT: Final = frozenset((
    b"connection", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol",
    b"sec-websocket-version", b"content-length", b"transfer-encoding",
))  # fmt: skip

#: A window of 4 KiB and level 5 of memory: some 45 KiB for a connection that compresses both ways, where zlib's
#: defaults take 300; `websockets` and uvicorn have the same two numbers.
WINDOW_BITS: Final = 12
MEMORY_LEVEL: Final = 5

_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_max_window_bits=WINDOW_BITS,
    client_max_window_bits=WINDOW_BITS,
    compress_settings={"memLevel": MEMORY_LEVEL},
)


@final
class Compression:
    """What has been agreed on about permessage-deflate (RFC 7692).

    Each direction is made when it is needed: the compressor alone is 32 KiB, and short messages need none.
    """

    __slots__ = ("_bits", "_no_takeover", "answer")

    def __init__(self, answer: str, agreed: PerMessageDeflate) -> None:
        #: The field value for the 101.
        self.answer: str = answer
        self._no_takeover: tuple[bool, bool] = agreed.remote_no_context_takeover, agreed.local_no_context_takeover
        self._bits: tuple[int, int] = agreed.remote_max_window_bits, agreed.local_max_window_bits

    def unpacker(self) -> PerMessageDeflate:
        """What decodes messages of the client; without a window that is kept it has no compressor."""
        return PerMessageDeflate(self._no_takeover[0], True, *self._bits)

    def packer(self) -> PerMessageDeflate:
        """What encodes messages of the server."""
        return PerMessageDeflate(True, self._no_takeover[1], *self._bits, {"memLevel": MEMORY_LEVEL})


@final
class Offer:
    """What a client asks for in its handshake."""

    __slots__ = ("accept", "compression", "subprotocols")

    def __init__(self, accept: bytes, subprotocols: list[str], compression: Compression | None) -> None:
        #: The answer to its key.
        self.accept: bytes = accept
        self.subprotocols: list[str] = subprotocols
        self.compression: Compression | None = compression


def asks_for_websocket(head: Head) -> bool:
    """Whether a head asks for a WebSocket; if not, its Upgrade counts for nothing and the request is served.

    9110 7.8: an Upgrade counts only if Connection lists it, and never in HTTP/1.0. RFC 6455 4.1: the method is GET; an
    upgrade of any other request is not an opening handshake.
    """
    line = head.line
    return (
        line.method == "GET"
        and line.http_version == "1.1"
        and "upgrade" in _elements(head, b"connection")
        and "websocket" in _elements(head, b"upgrade")
    )


def read_offer(head: Head, *, compress: bool) -> Offer:
    """What a head that asks for a WebSocket offers. Raises ``RequestError``: 426 for another version, or 400."""
    fields = _fields(head)
    versions = fields.get(b"sec-websocket-version", [])
    if versions != [b"13"]:
        # RFC 6455 4.4: the answer says which version would be taken.
        raise RequestError(426, "the only version of WebSockets that is served is 13")
    if head.length:
        # 9110 7.8: its content would come first, and a handshake has none.
        raise RequestError(400, "a WebSocket handshake with content")
    keys = fields.get(b"sec-websocket-key", [])
    if len(keys) != 1:
        raise RequestError(400, "a WebSocket handshake has one Sec-WebSocket-Key")
    offered = _list(fields.get(b"sec-websocket-protocol", []))
    if not all(TOKEN.fullmatch(name) for name in offered):
        raise RequestError(400, "a Sec-WebSocket-Protocol that is no list of tokens")
    extensions = fields.get(b"sec-websocket-extensions", [])
    compression = agree(extensions) if compress else None
    return Offer(_answer_to(keys[0]), [name.decode("ascii") for name in offered], compression)


def agree(extensions: Iterable[bytes]) -> Compression | None:
    """The first offer of permessage-deflate that can be taken (RFC 7692 5.1); others are declined by silence."""
    try:
        offers = [offer for value in extensions for offer in parse_extension(value.decode("latin-1"))]
    except InvalidHeader:
        raise RequestError(400, "Sec-WebSocket-Extensions is no list of extensions") from None
    for name, parameters in offers:
        if name == _DEFLATE.name:
            try:
                agreed, extension = _DEFLATE.process_request_params(parameters, [])
            except NegotiationError:
                continue
            return Compression(build_extension([(name, agreed)]), extension)
    return None


def accepted(offer: Offer, subprotocol: Any, headers: Iterable[Header], fields: ServerFields) -> bytes:
    """The 101, from a websocket.accept. Raises ``AppError`` for what cannot stand in it."""
    headers = list(headers)
    chosen = [value for name, value in headers if name.lower() == b"sec-websocket-protocol"]
    if chosen and subprotocol is None and len(chosen) == 1:
        # Not where ASGI has it, but what it means is clear.
        subprotocol = chosen[0].decode("latin-1")
        headers = [field for field in headers if field[0].lower() != b"sec-websocket-protocol"]
    if subprotocol is not None and subprotocol not in offer.subprotocols:
        # RFC 6455 4.1: the client would have to fail the connection, and nobody would know why.
        asked = ", ".join(offer.subprotocols) or "none"
        raise AppError(f"websocket.accept has the subprotocol {subprotocol!r}; the client offers {asked}")
    parts = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
        offer.accept,
        b"\r\n",
    ]
    if subprotocol is not None:
        parts.append(b"sec-websocket-protocol: %b\r\n" % subprotocol.encode("ascii"))
    if offer.compression is not None:
        parts.append(b"sec-websocket-extensions: %b\r\n" % offer.compression.answer.encode("ascii"))
    parts.append(block_of("websocket.accept", headers, _THEIRS_NOT))
    parts.append(fields.without(tuple(name.lower() for name, _ in headers)) if headers else fields.block)
    parts.append(b"\r\n")
    return b"".join(parts)


def _answer_to(key: bytes) -> bytes:
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            _refuse_key()
    except binascii.Error:
        _refuse_key()
    return base64.b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def _refuse_key() -> NoReturn:
    raise RequestError(400, "Sec-WebSocket-Key is not 16 bytes in base64")


def _fields(head: Head) -> dict[bytes, list[bytes]]:
    """The fields of a handshake by name."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        if name.startswith(b"sec-websocket-"):
            found.setdefault(name, []).append(value)
    return found


def _elements(head: Head, field: bytes) -> set[str]:
    """The elements of a list, in lower case, from as many lines as it has."""
    values = [value for name, value in head.headers if name == field]
    return {element.decode("latin-1").lower() for element in _list(values)}


def _list(values: Iterable[bytes]) -> list[bytes]:
    """9110 5.6.1: empty elements are nothing."""
    return [element for value in values for element in map(bytes.strip, value.split(b",")) if element]
