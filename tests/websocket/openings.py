"""Opening handshakes, good and bad, and the status that each is answered with (RFC 6455 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.websocket.frames import DEFLATE, handshake


@dataclass(frozen=True)
class Opening:
    name: str
    rfc: str
    sends: bytes
    statuses: tuple[int, ...]
    #: Fields that the answer has; "" is one that it must not have.
    fields: tuple[tuple[str, str], ...] = ()


def good(name: str, rfc: str, fields: tuple[tuple[str, str], ...] = (), path: str = "/echo", **headers: str) -> Opening:
    return Opening(name, rfc, handshake(path, **headers), (101,), fields)


def bad(name: str, rfc: str, *statuses: int, **headers: str | None) -> Opening:
    return Opening(name, rfc, handshake(**headers), statuses)


def served(name: str, rfc: str, raw: bytes, *statuses: int) -> Opening:
    """Not an opening at all: the application answers it as any request."""
    return Opening(name, rfc, raw, (200, *statuses))


NO_EXTENSION = (("sec-websocket-extensions", ""),)
NO_PROTOCOL = (("sec-websocket-protocol", ""),)
VERSION_13 = (("sec-websocket-version", "13"),)

OPENINGS = [
    # RFC 9110 6.4.1: a 101 has no content, and nothing that would frame one.
    good("plain", "6455 4.2.2", (("content-length", ""), ("transfer-encoding", ""), *NO_EXTENSION, *NO_PROTOCOL)),
    good("other capitals", "6455 4.2.1", upgrade="WebSocket", connection="upGrade"),
    good("among others in Connection", "6455 4.2.1", connection="keep-alive, Upgrade"),
    good("among others in Upgrade", "9110 7.8", upgrade="h2c, websocket"),
    good("with an Origin", "6455 4.2.1", origin="https://example.org"),
    good("subprotocols that nobody chooses", "6455 4.2.2", NO_PROTOCOL, sec_websocket_protocol="chat, chat.v2"),
    good(
        "a subprotocol that is chosen", "6455 4.2.2", (("sec-websocket-protocol", "chat.v2"),), "/echo/chosen",
        sec_websocket_protocol="chat, chat.v2",
    ),
    good("an extension that nobody knows", "6455 9.1", NO_EXTENSION, sec_websocket_extensions="x-turbo; level=9"),
    good("compression with a strange word", "7692 7.1", NO_EXTENSION, sec_websocket_extensions=f"{DEFLATE}; turbo"),
    good("compression with a parameter twice", "7692 7.1", NO_EXTENSION,
         sec_websocket_extensions=f"{DEFLATE}; server_no_context_takeover; server_no_context_takeover"),
    good("compression with a window too small", "7692 7.1.2.1", NO_EXTENSION,
         sec_websocket_extensions=f"{DEFLATE}; server_max_window_bits=7"),
    bad("no key", "6455 4.2.1", 400, sec_websocket_key=None),
    bad("an empty key", "6455 4.2.1", 400, sec_websocket_key=""),
    bad("a key of 15 bytes", "6455 4.2.1", 400, sec_websocket_key="AAAAAAAAAAAAAAAAAAAA"),
    bad("a key that is no base64", "6455 4.2.1", 400, sec_websocket_key="!!!!!!!!!!!!!!!!!!!!!!=="),
    Opening("two keys", "6455 11.3.1", handshake(x="1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="), (400,)),
    Opening("version 8", "6455 4.4", handshake(sec_websocket_version="8"), (426,), VERSION_13),
    Opening("version 14", "6455 4.4", handshake(sec_websocket_version="14"), (426,), VERSION_13),
    Opening("no version", "6455 4.4", handshake(sec_websocket_version=None), (400, 426)),
    bad("no Host", "6455 4.2.1", 400, host=None),
    bad("an extension that cannot be read", "6455 9.1", 400, sec_websocket_extensions="; ,=;"),
    bad("with content", "9110 7.8", 400, content_length="5"),
    Opening("refused by the application", "6455 4.2.2", handshake("/refused"), (403,)),
    served("POST", "6455 4.2.1", handshake("/page", content_length="0").replace(b"GET", b"POST", 1), 400, 405),
    served("HTTP/1.0", "6455 4.2.1", handshake("/page").replace(b"HTTP/1.1", b"HTTP/1.0", 1), 400),
    served("no Upgrade in Connection", "9110 7.8", handshake("/page", connection="keep-alive")),
    served("another protocol", "9110 7.8", handshake("/page", upgrade="h2c")),
    served("no Upgrade", "9110 7.8", handshake("/page", upgrade=None)),
]  # fmt: skip
