"""What goes over an open WebSocket to an application that echoes, and what must come of it.

Each case is written from RFC 6455 and RFC 7692, never from what the code does: ``sends`` are the client's bytes,
``gets`` the messages and pongs that come back, in order; also those that arrive together with a mistake behind them,
which RFC 6455 7.1.7 would let a server drop. Then the connection is open (``code`` None), or the server has
sent a close with one of the codes and has ended the connection without another byte.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial

from tests.websocket.frames import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    deflated,
    fragment,
    frame,
    last,
    more,
)

#: What the server is told: small, so that cases at the limit stay small. The message that is just within it is 70,000.
MAX_SIZE = 70_000

#: A close without a code (RFC 6455 7.1.5).
NO_CODE = 1005


@dataclass(frozen=True)
class Case:
    name: str
    rfc: str
    sends: bytes
    gets: tuple[Frame, ...] = ()
    code: int | tuple[int, ...] | None = None
    #: What is offered in the handshake; None offers nothing.
    offer: str | None = None

    @property
    def codes(self) -> tuple[int, ...]:
        return self.code if isinstance(self.code, tuple) else (self.code,) if self.code else ()


def case(name: str, rfc: str, *sends: bytes, gets: tuple[Frame, ...] = (), code=None, offer=None) -> Case:
    return Case(name, rfc, b"".join(sends), gets, code, offer)


def said(*texts: str) -> tuple[Frame, ...]:
    return tuple(Frame(TEXT, text.encode()) for text in texts)


def pong(payload: bytes = b"") -> Frame:
    return Frame(PONG, payload)


HELLO = frame(TEXT, "hello")


def lengths():
    """Messages whose length is written in each way, and at the borders between these."""
    for size in (0, 1, 125, 126, 127, 65_535, 65_536, MAX_SIZE):
        payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        yield case(f"text of {size} bytes", "6455 5.2", frame(TEXT, payload), gets=(Frame(TEXT, payload),))
        yield case(f"binary of {size} bytes", "6455 5.2", frame(BINARY, payload), gets=(Frame(BINARY, payload),))
    for size in (1, 125):
        payload = bytes(range(256))[-size:]
        yield case(f"ping of {size} bytes", "6455 5.5.2", frame(PING, payload), gets=(pong(payload),))


def frames():
    yield case("mask of zeros", "6455 5.3", frame(TEXT, "hello", mask=bytes(4)), gets=said("hello"))
    yield case("no mask", "6455 5.1", frame(TEXT, "hello", mask=None), code=1002)
    yield case("ping without a mask", "6455 5.1", frame(PING, "hello", mask=None), code=1002)
    yield case("close without a mask", "6455 5.1", frame(CLOSE, b"\x03\xe8", mask=None), code=1002)
    # RFC 6455 5.2: the most significant bit is 0. Too big (1009) is as true as wrong (1002).
    huge = b"\xff" + b"\xff" * 8
    yield case("length with its highest bit", "6455 5.2", frame(TEXT, "hello", length=huge), code=(1002, 1009))
    for bits in range(1, 8):
        yield case(f"reserved bits {bits:03b}", "6455 5.2", frame(TEXT, "hello", rsv=bits), code=1002)
    yield case("reserved bit in a ping", "6455 5.2", frame(PING, rsv=4), code=1002)
    yield case("reserved bit in a close", "6455 5.2", frame(CLOSE, b"\x03\xe8", rsv=1), code=1002)
    yield case("reserved bit in a fragment", "6455 5.2", fragment(TEXT, "hel"), last("lo", rsv=2), code=1002)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield case(f"opcode {opcode}", "6455 5.2", frame(opcode, "hello"), code=1002)
    yield case("good, then opcode 3", "6455 5.2", HELLO, frame(3), gets=said("hello"), code=1002)
    yield case("good, then opcode 11, then good", "6455 5.2", HELLO, frame(11), HELLO, gets=said("hello"), code=1002)


def control():
    yield case("empty ping", "6455 5.5.2", frame(PING), gets=(pong(),))
    # RFC 6455 5.5.3 lets a server answer the last alone; each is simpler to count on.
    ten = [b"%d" % number for number in range(10)]
    yield case("ten pings", "6455 5.5.3", *(frame(PING, one) for one in ten), gets=tuple(map(pong, ten)))
    yield case("ping of 126 bytes", "6455 5.5", frame(PING, bytes(126)), code=1002)
    yield case("ping in fragments", "6455 5.5", fragment(PING, "a"), last("b"), code=1002)
    yield case("pong that nobody asked for", "6455 5.5.3", frame(PONG, "a"), HELLO, gets=said("hello"))
    yield case("pong of 126 bytes", "6455 5.5", frame(PONG, bytes(126)), code=1002)
    yield case(
        "ping between fragments", "6455 5.4", fragment(TEXT, "hel"), frame(PING, "p"), last("lo"),
        gets=(pong(b"p"), *said("hello")),
    )  # fmt: skip
    yield case(
        "pong between fragments", "6455 5.4", fragment(TEXT, "hel"), frame(PONG, "p"), last("lo"), gets=said("hello")
    )


def fragments():
    yield case("two fragments", "6455 5.4", fragment(TEXT, "hel"), last("lo"), gets=said("hello"))
    yield case(
        "five bytes in five fragments", "6455 5.4",
        fragment(BINARY, b"\0"), more(b"\xff"), more(b"\x80"), more(b"\1"), last(b"\2"),
        gets=(Frame(BINARY, b"\0\xff\x80\1\2"),),
    )  # fmt: skip
    yield case("empty fragments", "6455 5.4", fragment(TEXT), more(), last(), gets=said(""))
    yield case("empty fragments about", "6455 5.4", fragment(TEXT), more("hello"), last(), gets=said("hello"))
    yield case("400 fragments", "6455 5.4", fragment(TEXT), *[more("ab")] * 400, last(), gets=said("ab" * 400))
    yield case("continuation of nothing", "6455 5.4", last("hello"), code=1002)
    yield case("continuation after a message", "6455 5.4", HELLO, last("hello"), gets=said("hello"), code=1002)
    yield case(
        "continuation after fragments", "6455 5.4", fragment(TEXT, "hel"), last("lo"), last("!"),
        gets=said("hello"), code=1002,
    )  # fmt: skip
    yield case("text within text", "6455 5.4", fragment(TEXT, "hel"), frame(TEXT, "lo"), code=1002)
    yield case("binary within text", "6455 5.4", fragment(TEXT, "hel"), fragment(BINARY, "lo"), code=1002)
    yield case(
        "two messages in fragments", "6455 5.4",
        fragment(TEXT, "hel"), last("lo"), fragment(TEXT, "wor"), last("ld"), gets=said("hello", "world"),
    )  # fmt: skip
    yield case("a hundred messages", "6455 5.4", *[HELLO] * 100, gets=said(*["hello"] * 100))


WRONG_UTF8 = {
    "continuation byte": b"\x80",
    "lone start": b"\xc3",
    "start and ASCII": b"\xc3a",
    "overlong slash": b"\xc0\xaf",
    "overlong euro": b"\xf0\x82\x82\xac",
    "surrogate": b"\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\x81\xed\xb0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "FE": b"\xfe",
}

RIGHT_UTF8 = {
    "two bytes": "Käse",
    "three bytes": "κόσμε €",
    "four bytes": "\U0001d11e \U0010ffff",
    "not characters": "\ufffe\uffff\U0001fffe",
    "NUL": "\0",
    "byte order mark": "\ufeff",
}


def utf8():
    for name, text in RIGHT_UTF8.items():
        data = text.encode()
        yield case(f"UTF-8, {name}", "6455 8.1", frame(TEXT, data), gets=said(text))
        cut = [fragment(TEXT), *(more(data[at : at + 1]) for at in range(len(data))), last()]
        yield case(f"UTF-8, {name}, cut", "6455 5.6", *cut, gets=said(text))
    for name, data in WRONG_UTF8.items():
        yield case(f"wrong UTF-8, {name}", "6455 8.1", frame(TEXT, b"ok " + data), code=1007)
        yield case(f"wrong UTF-8, {name}, cut", "6455 8.1", fragment(TEXT, data[:1]), last(data[1:]), code=1007)
        yield case(f"wrong UTF-8, {name}, as bytes", "6455 5.6", frame(BINARY, data), gets=(Frame(BINARY, data),))
    # RFC 6455 8.1 fails the connection: what comes behind need not be waited for.
    yield case("wrong UTF-8 in a first fragment", "6455 8.1", fragment(TEXT, b"ok \xff"), last("."), code=1007)
    yield case("good, then wrong UTF-8", "6455 8.1", HELLO, frame(TEXT, b"\xff"), gets=said("hello"), code=1007)


def closes():
    yield case("close without a code", "6455 5.5.1", close(None), code=(NO_CODE, 1000))
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        yield case(f"close {code}", "6455 7.4", close(code), code=code)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield case(f"close {code} that nobody may send", "6455 7.4", close(code), code=1002)
    yield case("close with a reason", "6455 5.5.1", close(1000, "Käse"), code=1000)
    yield case("close with the longest reason", "6455 5.5", close(1000, "r" * 123), code=1000)
    yield case("close with a reason too long", "6455 5.5", close(1000, "r" * 124), code=1002)
    yield case("close of one byte", "6455 5.5.1", frame(CLOSE, b"\x03"), code=1002)
    # RFC 6455 8.1 or 5.5.1: neither is wrong.
    yield case("close with wrong UTF-8", "6455 5.5.1", close(1000, b"\xff"), code=(1002, 1007))
    yield case("close in fragments", "6455 5.5", fragment(CLOSE, b"\x03\xe8"), code=1002)
    yield case("text behind a close", "6455 5.5.1", close(), HELLO, code=1000)
    yield case("ping behind a close", "6455 5.5.1", close(), frame(PING), code=1000)
    yield case("two closes", "6455 5.5.1", close(), close(1001), code=1000)
    yield case("mistake behind a close", "6455 5.5.1", close(), frame(3), code=1000)
    yield case("text, then close", "6455 1.4", frame(PING, "p"), close(), gets=(pong(b"p"),), code=1000)
    yield case("close between fragments", "6455 5.4", fragment(TEXT, "hel"), close(), last("lo"), code=1000)


def limits():
    big = bytes(MAX_SIZE + 1)
    yield case("message too big", "6455 7.4.1", frame(BINARY, big), code=1009)
    parts = (fragment(BINARY, big[:40_000]), last(big[40_000:]))
    yield case("message too big in fragments", "6455 7.4.1", *parts, code=1009)
    yield case("good, then too big", "6455 7.4.1", HELLO, frame(BINARY, big), gets=said("hello"), code=1009)


def compression():
    small, text = deflated("hello"), "hello " * 200
    deflate = partial(case, offer=DEFLATE)
    compressed = partial(frame, TEXT, rsv=4)
    yield deflate("compressed", "7692 6", compressed(small), gets=said("hello"))
    yield deflate("compressed well", "7692 6", compressed(deflated(text)), gets=said(text))
    yield deflate(
        "compressed bytes", "7692 6", frame(BINARY, deflated(bytes(999)), rsv=4), gets=(Frame(BINARY, bytes(999)),)
    )
    yield deflate("not compressed after all", "7692 6", HELLO, gets=said("hello"))
    yield deflate(
        "now and then compressed",
        "7692 6",
        HELLO,
        compressed(small),
        HELLO,
        compressed(small),
        gets=said(*["hello"] * 4),
    )
    yield deflate("compressed to the limit", "7692 6", compressed(deflated("a" * MAX_SIZE)), gets=said("a" * MAX_SIZE))
    yield deflate("stored, not compressed", "7692 7.2.3.3", compressed(deflated(text, level=0)), gets=said(text))
    yield deflate("empty and compressed", "7692 7.2.3.6", compressed(b"\0"), gets=said(""))
    # The bytes of the RFC's examples.
    hello = said("Hello")
    yield deflate("one block", "7692 7.2.3.1", compressed(bytes.fromhex("f248cdc9c90700")), gets=hello)
    yield deflate(
        "one block in two fragments", "7692 7.2.3.1",
        fragment(TEXT, bytes.fromhex("f248cd"), rsv=4), last(bytes.fromhex("c9c90700")), gets=hello,
    )  # fmt: skip
    yield deflate(
        "shared window", "7692 7.2.3.2",
        compressed(bytes.fromhex("f248cdc9c90700")), compressed(bytes.fromhex("f200110000")), gets=hello * 2,
    )  # fmt: skip
    yield deflate("no compression", "7692 7.2.3.3", compressed(bytes.fromhex("000500faff48656c6c6f00")), gets=hello)
    yield deflate("last block", "7692 7.2.3.4", compressed(bytes.fromhex("f348cdc9c9070000")), gets=hello)
    yield deflate(
        "last block, twice", "7692 7.2.3.4", *[compressed(bytes.fromhex("f348cdc9c9070000"))] * 2, gets=hello * 2
    )
    yield deflate("two blocks", "7692 7.2.3.5", compressed(bytes.fromhex("f248050000 00ffffcac9c90700")), gets=hello)
    data = deflated(text)
    parts = (fragment(TEXT, data[:5], rsv=4), frame(PING, "p"), more(data[5:9]), last(data[9:]))
    yield deflate("compressed in fragments", "7692 6.1", *parts, gets=(pong(b"p"), *said(text)))
    yield deflate("wrong UTF-8, compressed", "6455 8.1", compressed(deflated(b"ok \xff")), code=1007)
    # RFC 7692 names no code.
    yield deflate("what cannot be inflated", "7692 6.2", compressed(b"\xff\xff\xff\xff"), code=(1002, 1007))
    yield deflate(
        "RSV1 in a continuation", "7692 6.1", fragment(TEXT, small[:2], rsv=4), last(small[2:], rsv=4), code=1002
    )
    yield deflate("RSV1 in a ping", "7692 6.1", frame(PING, small, rsv=4), code=1002)
    yield deflate("RSV2 with compression", "6455 5.2", compressed(small, rsv=6), code=1002)
    bomb = deflated(bytes(10_000_000))
    assert len(bomb) < MAX_SIZE
    yield deflate("bomb", "6455 7.4.1", frame(BINARY, bomb, rsv=4), code=1009)
    yield deflate("bomb in fragments", "6455 7.4.1", fragment(BINARY, bomb[:99], rsv=4), last(bomb[99:]), code=1009)
    shared = zlib.compressobj(wbits=-15)
    window = [(shared.compress(text.encode()) + shared.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(3)]
    yield deflate("three messages with one window", "7692 7.1.1", *map(compressed, window), gets=said(*[text] * 3))
    for offer in (
        f"{DEFLATE}; client_no_context_takeover",
        f"{DEFLATE}; server_no_context_takeover",
        f"{DEFLATE}; server_max_window_bits=9",
        f"{DEFLATE}; client_max_window_bits",
        f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
        f"{DEFLATE}; server_max_window_bits=99, {DEFLATE}",
    ):
        sends = [compressed(deflated(text)) for _ in range(2)]
        yield case(offer, "7692 7.1", *sends, gets=said(text, text), offer=offer)


CASES = [
    case for section in (lengths, frames, control, fragments, utf8, closes, limits, compression) for case in section()
]
