"""The frames of one WebSocket, both ways, once its handshake is done (RFC 6455 5 to 7, RFC 7692).

Bytes go in by ``feed``; afterwards ``messages`` holds what the application is to receive, ``reply`` what is to be
written, and ``ended`` why no more will come. ``text``, ``binary``, ``ping`` and ``close`` return bytes to write.

Nearly every frame is a whole message, or a ping or a pong: these are taken apart right here. Whatever is left, messages
in fragments, the close of the peer and every frame that is wrong, is the business of the protocol object of
`websockets`, which is fed whole frames only, so that it stands between two of them whenever it is not needed; it is
made when such a frame comes and dropped behind it. With a frame that is wrong it gets all that comes, and it is the
one who says why. It is also the oracle of the tests: both have to see the same in every stream of bytes.

    open --the peer's close, or a mistake of the peer--> ended
    open --close()--> closing: messages are dropped --the peer's close--> ended

What waits to be received is bounded: ``feed`` stops at ``room`` messages or HELD_LIMIT bytes and keeps the rest unread.
"""

from __future__ import annotations

import codecs
import zlib
from typing import TYPE_CHECKING, Final, final

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiler and no wheel for this interpreter
    from websockets.utils import apply_mask

from aioserve.http.ws_wire import (
    BINARY_FRAME,
    CLOSE_FRAME,
    CONTROL_LIMIT,
    DEFLATED,
    FIN,
    MASKED,
    PING_FRAME,
    PONG_FRAME,
    TEXT_FRAME,
    close_frame,
    control_frame,
    long_frame,
)

if TYPE_CHECKING:
    from websockets.extensions.permessage_deflate import PerMessageDeflate

    from aioserve.http.ws_handshake import Compression
    from aioserve.types import Message

#: Bytes of messages that wait for ``receive`` before reading pauses, as for the body of a request.
HELD_LIMIT: Final = 64 * 1024

#: Frames without a message (fragments, pings) that one call of ``feed`` takes: 256 fragments take some milliseconds.
BURST_LIMIT: Final = 256

#: A frame that comes in several reads is kept in pieces of at least this many bytes. A piece of two bytes, as a client
#: may choose to send them, would take 44: a frame of 16 MiB more than 300.
PIECE_SIZE: Final = 1024

#: Messages below this are sent as they are, also where compression has been agreed on (RFC 7692 6 allows it): they fit
#: a packet anyway, and zlib takes longer for one than everything else together.
COMPRESS_FROM: Final = 256

#: The heads of the short frames that the server sends.
_TEXT_HEADS: Final = tuple(bytes((TEXT_FRAME, size)) for size in range(126))
_BINARY_HEADS: Final = tuple(bytes((BINARY_FRAME, size)) for size in range(126))

TEXT: Final = Opcode.TEXT
BINARY: Final = Opcode.BINARY
CONT: Final = Opcode.CONT

_UTF8: Final = codecs.getincrementaldecoder("utf-8")


@final
class Ended:
    """Why nothing more comes. ``by_peer``: the peer has sent a close; otherwise it has made a mistake."""

    __slots__ = ("by_peer", "code", "reason")

    def __init__(self, code: int, reason: str, *, by_peer: bool) -> None:
        self.code: int = code
        self.reason: str = reason
        self.by_peer: bool = by_peer


@final
class FrameStream:
    """Both directions of one WebSocket. ``max_size`` 0 is no limit on a message."""

    __slots__ = (
        "_closing",
        "_compression",
        "_doomed",
        "_fragments",
        "_library",
        "_missing",
        "_packer",
        "_pieces",
        "_plain",
        "_rest",
        "_short",
        "_taken",
        "_unpacker",
        "_utf8",
        "ended",
        "held",
        "max_size",
        "messages",
        "reply",
        "room",
        "sent_bytes",
        "stopped",
    )

    def __init__(self, max_size: int, room: int) -> None:
        #: What the application is to receive, as ASGI has it; whoever hands it over takes it away.
        self.messages: list[Message] = []
        #: Payload of messages that have come since ``messages`` was last empty.
        self.held: int = 0
        #: To be written and then emptied by the caller.
        self.reply: bytes = b""
        self.ended: Ended | None = None
        #: Bytes wait that may be whole frames: call ``feed`` with none.
        self.stopped: bool = False
        self.max_size: int = max_size
        self.room: int = room
        self.sent_bytes: int = 0
        # Payload that has been taken by the application.
        self._taken: int = 0
        # The longest payload that needs no second look.
        self._short: int = min(CONTROL_LIMIT, max_size or CONTROL_LIMIT)
        # Neither in the middle of a message nor past its end.
        self._plain: bool = True
        self._closing: bool = False
        # Bytes from the beginning of a frame on: part of its head, or what had to wait.
        self._rest: bytes = b""
        # A frame that comes in several reads, and how much of it is still to come.
        self._pieces: list[bytes] | None = None
        self._missing: int = 0
        # A message that comes in fragments. None: there is none. The decoder checks the UTF-8 of one that is text.
        self._fragments: bytearray | None = None
        self._utf8: codecs.IncrementalDecoder | None = None
        self._library: Protocol | None = None
        # The library has been given something that is wrong, and gets whatever comes.
        self._doomed: bool = False
        self._compression: Compression | None = None
        self._unpacker: PerMessageDeflate | None = None
        self._packer: PerMessageDeflate | None = None

    def compress(self, compression: Compression) -> None:
        """Compress from now on, as it was agreed on."""
        self._compression = compression

    @property
    def received_bytes(self) -> int:
        """Payload of all messages so far."""
        return self._taken + self.held

    @property
    def full(self) -> bool:
        """Whether as much waits to be received as may."""
        return bool(self.messages) and (len(self.messages) >= self.room or self.held >= HELD_LIMIT)

    @property
    def begun(self) -> bool:
        """Whether a part of a frame or of a message has come and the remainder has not."""
        return self._pieces is not None or self._fragments is not None or (self._rest != b"" and not self.stopped)

    # What the peer sends.

    def hold(self, data: bytes) -> int:
        """Keep bytes that came too early, and how many there are: a client waits for the 101 (RFC 6455 4.1)."""
        self._rest += data
        self.stopped = True
        return len(self._rest)

    def feed(self, data: bytes) -> bool:
        """Take bytes from the peer; True if there is something to do besides handing over ``messages``.

        That is to write ``reply``, to act on ``ended``, or to pause: call it with no bytes once there is room again.
        """
        if self._missing:
            data = self._collect(data)
            if not data:
                return False
        elif self._rest:
            data = self._rest + data
            self._rest = b""
            self.stopped = False
        messages = self.messages
        if not messages:
            self._taken += self.held
            self.held = 0
        short, room = self._short, self.room
        at, size = 0, len(data)
        turns = 0
        while at < size:
            if len(messages) >= room or self.held >= HELD_LIMIT or turns == BURST_LIMIT:
                self._rest = data[at:]
                self.stopped = True
                return True
            # perf: a short message in one frame is read straight down; bench/micro::websocket
            body = at + 6
            if body <= size and self._plain:
                kind = data[at]
                length = data[at + 1] - MASKED
                end = body + length
                if FIN < kind <= BINARY_FRAME and 0 <= length <= short and end <= size:
                    payload = apply_mask(data[body:end], data[at + 2 : body])
                    if kind == TEXT_FRAME:
                        try:
                            messages.append({"type": "websocket.receive", "text": payload.decode()})
                        except UnicodeDecodeError as error:
                            self._refuse_text(error)
                            return True
                    else:
                        messages.append({"type": "websocket.receive", "bytes": payload})
                    self.held += length
                    at = end
                    continue
            at = self._take(data, at, size)
            if self.ended is not None:
                return True
            turns += 1
        return len(messages) >= room or self.held >= HELD_LIMIT or self.reply != b""

    def _collect(self, data: bytes) -> bytes:
        """More of a frame that comes in several reads; empty until it is complete."""
        pieces = self._pieces
        assert pieces is not None
        if len(pieces[-1]) < PIECE_SIZE:
            pieces[-1] += data
        else:
            pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return b""
        self._missing = 0
        self._pieces = None
        return b"".join(pieces)

    def _take(self, data: bytes, at: int, size: int) -> int:
        """Take a frame of any kind; return where it ends, which is ``size`` when all of ``data`` has been kept."""
        if self.ended is not None:
            return size
        if self._doomed:
            self._ask_library(data[at:])
            return size
        if size - at < 2:
            self._rest = data[at:]
            return size
        length = data[at + 1] & 0x7F
        body = at + 6
        if length >= 126:
            wide = 2 if length == 126 else 8
            body += wide
            length = int.from_bytes(data[at + 2 : at + 2 + wide], "big") if size >= at + 2 + wide else 0
        end = body + length
        if not self._is_sound(data[at], data[at + 1], length):
            self._doomed = True
            self._ask_library(data[at:])
            return size
        if size < body:
            self._rest = data[at:]
            return size
        if size < end:
            # A copy of what has come, once; what is to come is joined when all of it is there.
            self._pieces = [data[at:]]
            self._missing = end - size
            return size
        self._take_whole(data, at, body, end)
        return end

    def _is_sound(self, first: int, second: int, length: int) -> bool:
        """Whether a frame can be right, as far as its head tells."""
        if not second & MASKED or first & 0x30:
            return False
        kind = first & 0x0F
        if kind >= 8:
            # RFC 6455 5.5: control frames are short and whole.
            return kind <= 10 and first & 0xC0 == FIN and second & 0x7F <= CONTROL_LIMIT
        if self.max_size and length > self.max_size - len(self._fragments or ()):
            return False
        if first & DEFLATED and (self._compression is None or kind == 0):
            return False
        # Behind our close nobody keeps account of messages.
        return kind <= 2 and (self._closing or (kind == 0) == (self._fragments is not None))

    def _take_whole(self, data: bytes, at: int, body: int, end: int) -> None:
        """Take a frame that is complete and may be right."""
        first = data[at]
        kind = first & 0x0F
        # In order of frequency.
        if first & FIN and kind in {1, 2}:
            if not self._closing:
                self._take_message(first, apply_mask(memoryview(data)[body:end], data[body - 4 : body]))
        elif first == PING_FRAME:
            if not self._closing:
                self.reply += control_frame(PONG_FRAME, apply_mask(data[body:end], data[body - 4 : body]))
        elif first == CLOSE_FRAME:
            # RFC 6455 5.5.1: it may come between two fragments. The rest of that message will not.
            self._library = None
            self._ask_library(data[at:end])
        elif first != PONG_FRAME and not self._closing:
            self._ask_library(data[at:end])

    def _take_message(self, first: int, payload: bytes) -> None:
        """Take a whole message of any length, compressed or not."""
        text = first & 0x0F == 1
        if first & DEFLATED:
            frame = Frame(TEXT if text else BINARY, payload, rsv1=True)
            try:
                payload = bytes(self._unpacking().decode(frame, max_size=self.max_size or None).data)
                self._renew_window()
            except PayloadTooBig as error:
                self._fail(1009, str(error))
                return
            except ProtocolError as error:
                self._fail(1002, str(error))
                return
        if text:
            try:
                self.messages.append({"type": "websocket.receive", "text": payload.decode()})
            except UnicodeDecodeError as error:
                self._refuse_text(error)
                return
        else:
            self.messages.append({"type": "websocket.receive", "bytes": payload})
        self.held += len(payload)

    def _ask_library(self, data: bytes) -> None:
        """Let the library's protocol take bytes, and see what it makes of them."""
        library = self._library
        if library is None:
            library = self._library = Protocol(SERVER, state=OPEN, max_size=self.max_size or None)
            if self._compression is not None:
                library.extensions = [self._unpacking()]
        library.receive_data(data)
        for frame in library.events_received():
            # It takes the side of a server whose handshake is done: there are no other events than frames.
            assert isinstance(frame, Frame)
            if frame.opcode in DATA_OPCODES:
                try:
                    self._renew_window()
                except ProtocolError as error:
                    self._fail(1002, str(error))
                else:
                    self._take_fragment(frame)
        # Its end of the stream is an empty piece.
        written = b"".join(library.data_to_send())
        if self.ended is not None:
            return
        if not self._closing:
            self.reply += written
        if library.parser_exc is not None:
            verdict = library.close_sent
            assert verdict is not None
            self._end(Ended(int(verdict.code), verdict.reason, by_peer=False))
        elif library.close_rcvd is not None:
            self._end(Ended(int(library.close_rcvd.code), library.close_rcvd.reason, by_peer=True))

    def _take_fragment(self, frame: Frame) -> None:
        if frame.opcode is not CONT:
            self._plain = False
            self._fragments = bytearray()
            self._utf8 = _UTF8() if frame.opcode is TEXT else None
        fragments = self._fragments
        assert fragments is not None
        if self._utf8 is not None:
            try:
                self._utf8.decode(frame.data, frame.fin)
            except UnicodeDecodeError as error:
                self._refuse_text(error)
                return
        fragments += frame.data
        if not frame.fin:
            return
        self._fragments = self._library = None
        self._plain = True
        self.held += len(fragments)
        if self._utf8 is not None:
            self.messages.append({"type": "websocket.receive", "text": fragments.decode()})
        else:
            self.messages.append({"type": "websocket.receive", "bytes": bytes(fragments)})

    def _refuse_text(self, error: UnicodeDecodeError) -> None:
        """RFC 6455 8.1: text that is no UTF-8 fails the connection."""
        self._fail(1007, f"{error.reason} at position {error.start}")

    def _fail(self, code: int, reason: str) -> None:
        """Refuse a message. Behind our close there is none that could be refused: they are dropped unseen."""
        self.reply += close_frame(code, reason)
        self._end(Ended(code, reason, by_peer=False))

    def _end(self, ended: Ended) -> None:
        """Nothing more is taken, and nothing kept."""
        self.ended = ended
        self._plain = False
        self._rest = b""
        self._pieces = self._fragments = self._utf8 = self._library = self._unpacker = None

    def _unpacking(self) -> PerMessageDeflate:
        if self._unpacker is None:
            assert self._compression is not None
            self._unpacker = self._compression.unpacker()
        return self._unpacker

    def _renew_window(self) -> None:
        """Begin a new window behind a final block, which a message may end in (RFC 7692 7.2.3.4).

        The library would have nothing but empty messages from then on. Data behind a final block, which nobody sends,
        are refused rather than lost. Raises ``ProtocolError``.
        """
        unpacker = self._unpacker
        # It has none between two messages of a client that keeps no window.
        decoder = getattr(unpacker, "decoder", None)
        if unpacker is None or decoder is None or not decoder.eof:
            return
        fresh = unpacker.decoder = zlib.decompressobj(wbits=-unpacker.remote_max_window_bits)
        try:
            behind = fresh.decompress(decoder.unused_data, 1)
        except zlib.error as error:
            raise ProtocolError("decompression failed") from error
        if behind or fresh.eof:
            raise ProtocolError("data behind a final block")

    # What the server sends.

    def text(self, text: str) -> bytes:
        """A message of text."""
        payload = text.encode()
        size = len(payload)
        self.sent_bytes += size
        # In order of frequency.
        if size < 126:
            return _TEXT_HEADS[size] + payload
        if self._compression is not None and size >= COMPRESS_FROM:
            return self._pack(TEXT, payload)
        return long_frame(TEXT_FRAME, payload)

    def binary(self, payload: bytes) -> bytes:
        """A binary message."""
        size = len(payload)
        self.sent_bytes += size
        if size < 126:
            return _BINARY_HEADS[size] + payload
        if self._compression is not None and size >= COMPRESS_FROM:
            return self._pack(BINARY, payload)
        return long_frame(BINARY_FRAME, payload)

    def close(self, code: int, reason: str) -> bytes:
        """A close: from now on messages of the peer are dropped, and nothing but its close counts.

        ``messages`` is another list then: what was in it is still whoever's it was.
        """
        frame = close_frame(code, reason)
        self._closing = True
        self._plain = False
        self.messages = []
        self._taken += self.held
        self.held = 0
        # Messages are not unpacked any more, so that the window of the client's is not ours: no part of one can be.
        self._fragments = self._utf8 = self._unpacker = None
        if not self._doomed:
            self._library = None
        return frame

    def _pack(self, kind: Opcode, payload: bytes) -> bytes:
        if self._packer is None:
            assert self._compression is not None
            self._packer = self._compression.packer()
        return long_frame(FIN | DEFLATED | kind, self._packer.encode(Frame(kind, payload)).data)
