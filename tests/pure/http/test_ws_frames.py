"""The frames of a WebSocket, byte by byte, with the protocol object of `websockets` as the oracle."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

from aioserve.http.ws_frames import BURST_LIMIT, COMPRESS_FROM, HELD_LIMIT, FrameStream
from aioserve.http.ws_handshake import agree
from aioserve.http.ws_wire import close_frame

CONT, TEXT, BINARY, CLOSE, PING, PONG = Opcode
MAX_SIZE = 1000
OFFER = b"permessage-deflate; client_max_window_bits"


def masked(opcode, data=b"", *, fin=True, rsv1=False):
    """A frame as a client sends it."""
    head = bytes((fin << 7 | rsv1 << 6 | opcode,))
    size = len(data)
    if size < 126:
        head += bytes((128 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    mask = b"\x01\x7f\x80\xff"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def closing(code=1000, reason=""):
    return masked(CLOSE, Close(code, reason).serialize())


def stream_of(*, compress=False, room=1 << 30, max_size=MAX_SIZE):
    stream = FrameStream(max_size, room)
    if compress:
        stream.compress(agree([OFFER]))
    return stream


def deflated(data, *, final=False):
    """The content of a compressed message (RFC 7692 7.2.1)."""
    packer = zlib.compressobj(wbits=-12)
    if final:
        return packer.compress(data) + packer.flush() + b"\0"
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Seen:
    """What came out of a stream of bytes: messages, what was answered, and how it ended."""

    def __init__(self):
        self.messages = []
        self.written = b""
        self.ended = None

    def feed(self, stream, pieces):
        for piece in pieces:
            attend = stream.feed(piece)
            while True:
                self.messages += [message.get("text", message.get("bytes")) for message in stream.messages]
                stream.messages.clear()
                self.written += stream.reply
                stream.reply = b""
                if not (attend and stream.stopped):
                    break
                attend = stream.feed(b"")
        if stream.ended is not None:
            self.ended = (stream.ended.code, stream.ended.reason, stream.ended.by_peer)
        return self


def by_library(data, *, compress=False):
    """The same from the library, which leaves it to its user to join fragments and to check their text."""
    seen = Seen()
    protocol = Protocol(SERVER, state=OPEN, max_size=MAX_SIZE)
    if compress:
        protocol.extensions = [agree([OFFER]).unpacker()]
    protocol.receive_data(data)
    parts, text = b"", False
    for frame in protocol.events_received():
        if frame.opcode not in {TEXT, BINARY, CONT}:
            continue
        if frame.opcode is not CONT:
            parts, text = b"", frame.opcode is TEXT
        parts += frame.data
        if text:
            try:
                parts.decode()
            except UnicodeDecodeError as error:
                if frame.fin or error.reason != "unexpected end of data":
                    seen.ended = 1007
                    return seen
        if frame.fin:
            seen.messages.append(parts.decode() if text else bytes(parts))
    seen.written = b"".join(protocol.data_to_send())
    if protocol.parser_exc is not None:
        seen.ended = (int(protocol.close_sent.code), protocol.close_sent.reason, False)
    elif protocol.close_rcvd is not None:
        seen.ended = (int(protocol.close_rcvd.code), protocol.close_rcvd.reason, True)
    return seen


def cuts(data, seed):
    """The same bytes whole, one by one, and cut at random."""
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    dice = random.Random(seed)
    marks = sorted(dice.randrange(len(data) + 1) for _ in range(5))
    yield [data[begin:end] for begin, end in zip([0, *marks], [*marks, len(data)], strict=True)]


def agree_on(data, *, compress=False, seed=0):
    oracle = by_library(data, compress=compress)
    for pieces in cuts(data, seed):
        ours = Seen().feed(stream_of(compress=compress), pieces)
        assert ours.messages == oracle.messages
        if oracle.ended == 1007:
            assert ours.ended[::2] == (1007, False)
        else:
            assert (ours.ended, ours.written) == (oracle.ended, oracle.written)
    return oracle


TEXTS = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=20),
    st.sampled_from([b"", b"x" * 125, b"x" * 126, b"x" * MAX_SIZE, b"x" * (MAX_SIZE + 1), "é".encode() * 60]),
)
GOOD = st.one_of(
    st.builds(masked, st.sampled_from([TEXT, BINARY]), TEXTS),
    st.builds(masked, st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    st.builds(
        lambda kind, parts: b"".join(
            masked(kind if index == 0 else CONT, part, fin=index == len(parts) - 1) for index, part in enumerate(parts)
        ),
        st.sampled_from([TEXT, BINARY]),
        st.lists(TEXTS, min_size=2, max_size=4),
    ),
)
ODD = st.one_of(
    st.builds(closing, st.sampled_from([1000, 1001, 3000, 4999]), st.text(max_size=10)),
    st.just(masked(CLOSE)),
    st.builds(masked, st.just(CLOSE), st.binary(max_size=6)),
    st.builds(masked, st.integers(0, 15), st.binary(max_size=130), fin=st.booleans(), rsv1=st.booleans()).filter(
        lambda frame: frame[0] & 15 != CLOSE
    ),
    st.binary(min_size=2, max_size=12),
)


@settings(deadline=None)  # a machine that is busy says nothing of frames
@given(st.lists(GOOD, max_size=4), st.lists(ODD, max_size=1), st.integers())
def test_the_library_sees_the_same(good, odd, seed):
    agree_on(b"".join([*good, *odd]), seed=seed)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), TEXTS, st.booleans()), max_size=4), st.integers())
def test_the_library_sees_the_same_in_compressed_messages(messages, seed):
    windows = agree([OFFER]).packer()
    data = b""
    for kind, payload, compressed in messages:
        frame = windows.encode(Frame(kind, payload)) if compressed else Frame(kind, payload)
        data += masked(kind, bytes(frame.data), rsv1=frame.rsv1)
    agree_on(data, compress=True, seed=seed)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is none
        (b"\x91\x80\0\0\0\0", 1002),  # RSV3
        (masked(TEXT, b"x", rsv1=True), 1002),
        (masked(PING, b"x", rsv1=True), 1002),
        (masked(PING, fin=False), 1002),
        (masked(PING, b"x" * 126), 1002),
        (masked(CONT, b"x"), 1002),
        (masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002),
        (masked(TEXT, b"x" * (MAX_SIZE + 1)), 1009),
        (masked(TEXT, b"x" * 600, fin=False) + masked(CONT, b"x" * 600), 1009),
        (masked(BINARY, b"x" * 70000)[:14], 1009),  # before any of it has come
        (masked(TEXT, b"\xff"), 1007),
        (masked(TEXT, b"x" * 200 + b"\xff"), 1007),
        (masked(TEXT, b"\xce", fin=False) + masked(CONT, b"x", fin=False), 1007),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, b"\x03\xed"), 1002),  # 1005
        (masked(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
def test_a_mistake_ends_it_with_a_code_that_says_which(data, code):
    oracle = agree_on(masked(TEXT, b"good") + data)

    assert oracle.messages == ["good"]
    assert oracle.ended == 1007 or oracle.ended[::2] == (code, False)


def test_nothing_counts_behind_a_mistake():
    seen = Seen().feed(stream_of(), [b"\x83\x80\0\0\0\0" + masked(TEXT, b"late"), masked(TEXT, b"later"), closing()])

    assert (seen.messages, seen.ended[0]) == ([], 1002)


@pytest.mark.parametrize("way", range(3))
def test_a_close_between_two_fragments_is_a_close(way):
    data = masked(TEXT, b"begun", fin=False) + closing(1001, "bye") + masked(CONT, b"late")

    seen = Seen().feed(stream_of(), list(cuts(data, 0))[way])

    assert seen.messages == []
    assert seen.ended == (1001, "bye", True)
    assert seen.written == close_frame(1001, "bye")


def test_a_close_without_a_code_is_1005():
    seen = Seen().feed(stream_of(), [masked(CLOSE)])

    assert (seen.ended, seen.written) == ((1005, "", True), b"\x88\0")


def test_pings_between_fragments_are_answered():
    data = masked(TEXT, b"a", fin=False) + masked(PING, b"1") + masked(PONG, b"?") + masked(CONT, b"b")

    seen = Seen().feed(stream_of(), [data])

    assert (seen.messages, seen.written) == (["ab"], b"\x8a\x011")


@pytest.mark.parametrize("parts", [1, 2])
def test_a_final_block_leaves_a_window_for_the_next_message(parts):
    """RFC 7692 7.2.3.4 and 7.2.3.5."""
    packed = deflated(b"Hello", final=True)
    if parts == 1:
        first = masked(TEXT, packed, rsv1=True)
    else:
        first = masked(TEXT, packed[:-1], rsv1=True, fin=False) + masked(CONT, packed[-1:])

    seen = Seen().feed(stream_of(compress=True), [first + masked(TEXT, deflated(b"again"), rsv1=True)])

    assert (seen.messages, seen.ended) == (["Hello", "again"], None)


@pytest.mark.parametrize("behind", [deflated(b"more", final=True), deflated(b"more"), b"\xff\xff"])
@pytest.mark.parametrize("parts", [1, 2])
def test_data_behind_a_final_block_are_refused_and_not_lost(behind, parts):
    packed = deflated(b"Hello", final=True)[:-1] + behind
    data = masked(TEXT, packed, rsv1=True, fin=parts == 1)

    seen = Seen().feed(stream_of(compress=True), [data])

    assert (seen.messages, seen.ended[::2]) == ([], (1002, False))


@pytest.mark.parametrize("payload", [bytes(1 << 20), b"\0" * (MAX_SIZE + 1)])
def test_a_message_that_grows_beyond_the_limit_is_not_unpacked(payload):
    seen = Seen().feed(stream_of(compress=True), [masked(BINARY, deflated(payload), rsv1=True)])

    assert (seen.messages, seen.ended[::2]) == ([], (1009, False))


def test_a_message_that_cannot_be_unpacked_is_refused():
    seen = Seen().feed(stream_of(compress=True), [masked(BINARY, b"\xff\xff\xff", rsv1=True)])

    assert seen.ended[::2] == (1002, False)


def test_compressed_text_is_checked_too():
    seen = Seen().feed(stream_of(compress=True), [masked(TEXT, deflated(b"\xff"), rsv1=True)])

    assert seen.ended[::2] == (1007, False)


def test_without_a_limit_a_message_may_be_of_any_size():
    seen = Seen().feed(
        stream_of(max_size=0, compress=True),
        [masked(BINARY, bytes(200_000)) + masked(TEXT, deflated(b"x" * 100_000), rsv1=True)],
    )

    assert [len(message) for message in seen.messages] == [200_000, 100_000]


# What waits is bounded.


def test_parsing_stops_when_enough_messages_wait():
    stream = stream_of(room=2)

    assert stream.feed(masked(TEXT, b"a") * 5)
    assert (len(stream.messages), stream.full, stream.stopped) == (2, True, True)

    stream.messages.clear()
    assert not stream.full
    assert stream.feed(b"")
    assert (len(stream.messages), stream.stopped) == (2, True)

    stream.messages.clear()
    assert not stream.feed(b"")
    assert (len(stream.messages), stream.stopped, stream.begun) == (1, False, False)


def test_parsing_stops_when_enough_bytes_wait():
    stream = stream_of(max_size=HELD_LIMIT)

    assert not stream.feed(masked(BINARY, bytes(HELD_LIMIT - 1)))
    assert stream.feed(masked(BINARY, b"x") * 2)
    assert (len(stream.messages), stream.full) == (2, True)

    stream.messages.clear()
    assert not stream.feed(b"")
    assert (len(stream.messages), stream.received_bytes) == (1, HELD_LIMIT + 1)


@pytest.mark.parametrize("frame", [masked(PING), masked(PONG), masked(CONT, b"x", fin=False)])
def test_parsing_stops_after_many_frames_without_a_message(frame):
    stream = stream_of(max_size=0)
    stream.feed(masked(TEXT, b"", fin=False))

    assert stream.feed(frame * (BURST_LIMIT + 1))
    assert stream.stopped
    stream.reply = b""
    stream.feed(b"")
    assert not stream.stopped


def test_what_comes_too_early_is_kept():
    stream = stream_of()

    assert stream.hold(masked(TEXT, b"early")) == 11
    assert (stream.messages, stream.stopped, stream.begun) == ([], True, False)
    stream.feed(b"")
    assert [message["text"] for message in stream.messages] == ["early"]


@pytest.mark.parametrize(
    ("data", "begun"),
    [
        (b"", False),
        (b"\x81", True),
        (masked(TEXT, b"whole"), False),
        (masked(TEXT, b"half")[:-1], True),
        (masked(TEXT, b"part", fin=False), True),
        (masked(TEXT, b"part", fin=False) + masked(CONT, b"end"), False),
    ],
)
def test_it_is_known_whether_a_message_has_begun(data, begun):
    stream = stream_of()
    stream.feed(data)

    assert stream.begun is begun


# What the server sends: the library's client reads it.


def read_by_client(data, *, compress=False):
    protocol = Protocol(CLIENT, state=OPEN, max_size=None)
    if compress:
        protocol.extensions = [agree([OFFER]).unpacker()]
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [(frame.opcode, bytes(frame.data)) for frame in protocol.events_received()]


SIZES = [0, 1, 125, 126, COMPRESS_FROM - 1, COMPRESS_FROM, 65535, 65536, 200_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compress", [False, True])
def test_messages_of_every_length_are_read_by_a_client(size, compress):
    stream = stream_of(compress=compress)
    payload = random.Random(size).randbytes(size)

    data = stream.binary(payload) + stream.text("x" * size) + stream.binary(payload)

    assert read_by_client(data, compress=compress) == [(BINARY, payload), (TEXT, b"x" * size), (BINARY, payload)]
    assert stream.sent_bytes == 3 * size


@pytest.mark.parametrize(("size", "packed"), [(COMPRESS_FROM - 1, False), (COMPRESS_FROM, True)])
def test_short_messages_are_not_worth_compressing(size, packed):
    stream = stream_of(compress=True)

    assert [bool(frame[0] & 0x40) for frame in (stream.text("x" * size), stream.binary(bytes(size)))] == [packed] * 2


def test_messages_are_dropped_behind_our_close_and_its_answer_ends_it():
    stream = stream_of(room=1)
    stream.feed(masked(TEXT, b"before") * 2)
    before = stream.messages

    frame = stream.close(1000, "done")
    stream.feed(
        masked(TEXT, b"after") + masked(PING) + masked(TEXT, b"a", fin=False) + masked(CONT, b"b") + closing(1000)
    )

    assert frame == close_frame(1000, "done")
    assert [message["text"] for message in before] == ["before"]
    assert (stream.messages, stream.reply, stream.begun) == ([], b"", False)
    assert (stream.ended.code, stream.ended.by_peer) == (1000, True)


def test_what_is_left_of_messages_behind_our_close_is_no_mistake():
    stream = stream_of(compress=True)
    stream.feed(masked(TEXT, b"first part", fin=False))
    stream.close(1000, "")

    # Neither is unpacked: without those before them, what they refer to is not there.
    cut = deflated(b"content" * 20)
    stream.feed(masked(CONT, b"\xff") + masked(TEXT, cut[:5], rsv1=True, fin=False) + masked(CONT, b"\xff\xff"))
    assert (stream.ended, stream.begun) == (None, False)
    stream.feed(closing())

    assert (stream.ended.by_peer, stream.messages, stream.reply) == (True, [], b"")


def test_a_mistake_that_our_close_interrupts_is_one_still():
    stream = stream_of()
    # A ping that is too long; how long is still to come, and would by itself be the head of an empty message.
    stream.feed(b"\x89\xfe")
    assert stream.ended is None
    stream.close(1000, "")
    stream.feed(b"\x82\x80\0\0\0\0")

    assert (stream.ended.code, stream.ended.by_peer, stream.reply) == (1009, False, b"")


def test_a_message_in_many_small_reads_takes_little_more_than_its_size():
    size = 50_000
    data = masked(BINARY, bytes(size))
    stream = stream_of(max_size=size)
    tracemalloc.start()
    try:
        for at in range(0, len(data) - 2, 2):
            stream.feed(data[at : at + 2])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    stream.feed(data[-2:])

    assert held < 1.5 * size
    assert stream.messages == [{"type": "websocket.receive", "bytes": bytes(size)}]


@pytest.mark.parametrize("data", [b"\x83\x80\0\0\0\0", masked(TEXT, bytes(MAX_SIZE + 1), fin=False)])
def test_a_mistake_behind_our_close_ends_it_without_another_one(data):
    stream = stream_of()
    stream.close(1000, "")

    stream.feed(data)

    assert (stream.ended.by_peer, stream.reply) == (False, b"")
