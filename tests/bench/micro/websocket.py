"""http/ws_frames: short messages from the bytes of a frame to the application, and back, beside the library's way."""

from __future__ import annotations

from websockets.protocol import OPEN, SERVER, Protocol

from aioserve.http.ws_frames import FrameStream

#: A line of chat, and its frame as a client sends it, which is masked.
LINE = "hello, everybody"
MASK = b"\x01\x02\x03\x04"
FRAME = (
    bytes((0x81, 0x80 | len(LINE))) + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(LINE.encode()))
)


def receive(number):
    stream = FrameStream(1 << 24, 32)
    for _ in range(number):
        stream.feed(FRAME)
        assert stream.messages.pop(0)["text"] is not None


def send(number):
    stream = FrameStream(1 << 24, 32)
    for _ in range(number):
        assert stream.text(LINE)


def receive_by_library(number):
    protocol = Protocol(SERVER, state=OPEN)
    for _ in range(number):
        protocol.receive_data(FRAME)
        (frame,) = protocol.events_received()
        assert frame.data.decode() is not None


def send_by_library(number):
    protocol = Protocol(SERVER, state=OPEN)
    for _ in range(number):
        protocol.send_text(LINE.encode())
        assert protocol.data_to_send()


CASES = {
    "receive": receive,
    "send": send,
    "receive_by_library": receive_by_library,
    "send_by_library": send_by_library,
}
