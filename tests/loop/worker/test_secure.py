"""TLS between transport and connection: what goes in and comes out, however it is cut, and how each direction ends."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioserve.http.ws_wire import close_frame
from aioserve.worker.secure import PIECE, RECORDS, SLICE, TURN, Secure
from tests.fakes import FakeTransport
from tests.loop.worker.conftest import settle
from tests.loop.worker.tls import AUTHORITY, Caller, speak_tls, terms
from tests.tls import TlsClient, leave_an_error, meet

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
START = {"type": "http.response.start", "status": 200, "headers": []}
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


async def hello(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def call(connect):
    """Call it with an application: a client whose handshake is complete."""

    async def open_one(app, *, version=V13, transport=None, sizes=(), context=None, **settings):
        ordinary = connect(app, **settings)
        server = speak_tls(ordinary.server, context)
        ordinary.transport.abort()
        client = AUTHORITY.client_context(maximum_version=version)
        return await Caller(server, ordinary.listener, client, **(transport or {})).shake_hands(sizes)

    return open_one


class Recorder(asyncio.Protocol):
    """Whoever speaks on a Secure: remembers what it was told."""

    def __init__(self, *, keep_open=False):
        self.told = []
        self.data = b""
        self.keep_open = keep_open
        self.at_data = None

    def data_received(self, data):
        self.data += data
        if self.at_data is not None:
            self.at_data()

    def eof_received(self):
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")

    def connection_lost(self, exc):
        self.told.append("lost")


class Deadlines:
    """As far as a Secure uses them."""

    now = 0.0
    resolution = 0.5

    def __init__(self):
        self.filed = {}

    def file(self, timed, deadline):
        self.filed[timed] = deadline

    def forget(self, timed):
        self.filed.pop(timed, None)


class Settings:
    write_timeout = 30.0


class Line:
    """A Secure between a fake transport and a Recorder, and the client at the other end."""

    def __init__(self, *, version=V13, keep_open=False, **transport):
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines()
        self.settings = Settings()
        self.client = TlsClient(AUTHORITY.client_context(maximum_version=version))
        engine, incoming, outgoing = meet(terms(), self.client)
        self.transport = FakeTransport(**transport)
        self.secure = Secure(self, self.transport, engine, incoming, outgoing)
        self.top = Recorder(keep_open=keep_open)
        self.secure.set_protocol(self.top)

    def send(self, data):
        self.secure.data_received(data)

    def hear(self):
        self.client.feed(self.transport.take())
        return self.client.read()


# Requests and responses.


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_request_is_answered_over_tls(call, version):
    client = await call(hello, version=version)
    assert await client.ask(GET) == OK
    assert await client.ask(GET + GET) == OK + OK
    assert client.state == "open"


@pytest.mark.parametrize("version", [V12, V13])
async def test_everything_may_come_byte_by_byte(call, version):
    client = await call(hello, version=version, sizes=[1] * 4096)
    client.send(client.tls.write(GET), [1] * 4096)
    await client.settle()
    assert client.hear() == OK


@given(
    st.lists(st.integers(1, 700), max_size=30), st.lists(st.integers(1, 20), max_size=10), st.sampled_from([V12, V13])
)
def test_records_may_be_cut_anywhere(cuts, pieces, version):
    """What was sent in any pieces, and came in any others, is what is read."""

    async def check():
        line = Line(version=version)
        sent = b"".join(b"%d," % number for number in range(1000))
        stream, at = b"", 0
        for piece in pieces:
            stream += line.client.write(sent[at : at + piece * 50]) if sent[at : at + piece * 50] else b""
            at += piece * 50
        stream += line.client.write(sent[at:]) if sent[at:] else b""
        for size in cuts:
            if stream:
                line.send(stream[:size])
                stream = stream[size:]
        if stream:
            line.send(stream)
        assert line.top.data == sent

    asyncio.run(check())


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_read(call, connect):
    ordinary = connect(hello)
    server = speak_tls(ordinary.server)
    client = Caller(server, ordinary.listener)
    while not client.tls.shake_hands():
        client.send(client.tls.take())
        client.tls.feed(client.transport.take())
    client.send(client.tls.take() + client.tls.write(GET))
    await settle()
    assert client.hear() == OK


@pytest.mark.parametrize("records", [1, 2, 3, 20])
async def test_full_records_in_one_read_are_all_passed_on(records):
    line = Line()
    sent = bytes(range(256)) * 64 * records
    line.send(line.client.write(sent))
    assert line.top.data == sent


async def test_many_small_records_leave_time_for_others():
    line = Line()
    line.send(b"".join(line.client.write(b"x") for _ in range(100 * RECORDS)))
    assert (len(line.top.data), line.transport.reading) == (RECORDS, False)
    await asyncio.sleep(0)
    assert (len(line.top.data), line.transport.reading) == (2 * RECORDS, False)
    for _ in range(6):
        await settle()
    assert (len(line.top.data), line.transport.reading) == (100 * RECORDS, True)


async def test_a_pause_and_its_end_do_not_hurry_what_has_to_wait():
    line = Line()
    line.send(b"".join(line.client.write(b"x") for _ in range(10 * RECORDS)))
    for _ in range(3):
        line.secure.pause_reading()
        line.secure.resume_reading()
    assert not line.transport.reading
    await asyncio.sleep(0)
    assert len(line.top.data) <= 2 * RECORDS + 1


async def test_messages_without_data_leave_time_for_others():
    """A KeyUpdate is one, and `ssl` can send none: something that takes what has come stands for the engine."""
    line, taken = Line(), []

    def swallow(size):
        taken.append(len(line.secure._incoming.read()))
        raise ssl.SSLWantReadError

    line.secure._decrypt = swallow
    line.send(bytes(3 * SLICE + 1))
    assert (taken, line.transport.reading) == ([SLICE], False)
    await settle()
    assert (taken, line.transport.reading) == ([SLICE, SLICE, SLICE, 1], True)


async def test_what_came_with_the_end_of_the_handshake_leaves_time_for_others():
    line = Line()
    line.secure._incoming.write(b"".join(line.client.write(b"x") for _ in range(2000)))
    late = Secure(line, line.transport, line.secure._engine, line.secure._incoming, line.secure._outgoing)
    late.set_protocol(line.top)
    late.read_on()
    assert (len(line.top.data), line.transport.reading) == (RECORDS, False)
    for _ in range(4):
        await settle()
    assert (len(line.top.data), line.transport.reading) == (2000, True)


async def test_what_has_to_wait_ends_with_its_connection():
    line = Line()
    line.send(b"".join(line.client.write(b"x") for _ in range(10 * RECORDS)))
    line.secure.abort()
    await settle()
    assert (len(line.top.data) <= RECORDS + 1, line.top.told) == (True, ["lost"])


# Writing.


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 5 * PIECE + 7])
async def test_anything_that_is_bytes_can_be_written(kind, size):
    line = Line()
    body = b"x" * size
    line.secure.write(kind(body))
    await settle()
    assert line.hear() == body


async def test_several_are_written_at_once():
    line = Line()
    line.secure.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
    assert line.hear() == b"abc"


async def test_a_large_body_is_encrypted_as_the_client_takes_it():
    line = Line(accept=100_000)
    body = bytes(range(256)) * 40_000
    line.secure.write(body)
    assert len(line.transport.written) < 3 * PIECE
    assert line.secure.get_write_buffer_size() > len(body) - 3 * PIECE
    assert line.top.told == ["pause"]
    line.secure.write(b"behind it")
    heard = line.hear()
    while len(heard) < len(body) + 9:
        assert line.top.told == ["pause"]
        line.transport.peer_reads()
        heard += line.hear()
    assert heard == body + b"behind it"
    line.transport.peer_reads()
    assert line.top.told == ["pause", "resume"]
    assert line.secure.get_write_buffer_size() == 0


async def test_a_large_body_leaves_time_for_others_though_the_client_takes_everything():
    line = Line()
    line.secure.write(bytes(3 * TURN + 1))
    assert len(line.transport.written) < TURN + 2 * PIECE
    assert line.top.told == ["pause"]
    await settle()
    assert len(line.hear()) == 3 * TURN + 1
    assert line.top.told == ["pause", "resume"]


async def test_a_large_body_ends_with_its_connection():
    line = Line()
    line.secure.write(bytes(3 * TURN))
    line.secure.abort()
    written = len(line.transport.written)
    await settle()
    assert len(line.transport.written) == written
    assert line.top.told == ["pause", "lost"]


async def test_what_may_be_changed_later_is_copied_while_it_waits():
    line = Line(accept=10)
    body = bytearray(b"a" * (3 * PIECE))
    line.secure.write(body)
    body[:] = b"b" * len(body)
    heard = line.hear()
    for _ in range(5):
        line.transport.peer_reads()
        heard += line.hear()
    assert heard == b"a" * (3 * PIECE)


async def test_who_takes_no_answers_is_not_read():
    """OpenSSL answers each KeyUpdate at once, and `ssl` can send none: something else stands for the answer."""
    line = Line(accept=10)
    line.secure.write(b"x" * 100)
    assert line.top.told == ["pause"]
    record = line.client.write(b"later")
    line.secure._outgoing.write(b"an answer")
    line.send(record[:7])
    assert line.transport.written.endswith(b"an answer")
    assert not line.transport.reading
    line.transport.peer_reads()
    assert line.transport.reading
    line.send(record[7:])
    assert line.top.data == b"later"


async def test_nothing_that_has_come_already_is_read_of_who_takes_no_answers():
    line = Line(accept=10)
    line.secure.write(b"x" * 100)
    line.secure._outgoing.write(b"an answer")
    line.send(line.client.write(b"a") + line.client.write(b"b") + line.client.write(b"c"))
    line.secure.pause_reading()
    line.secure.resume_reading()
    await settle()
    assert (line.top.data, line.transport.reading) == (b"ab", False)
    line.transport.peer_reads()
    assert (line.top.data, line.transport.reading) == (b"abc", True)


@pytest.mark.parametrize("size", [10, 3 * SLICE])
async def test_what_another_connection_has_left_behind_in_openssl_is_not_told_of_this_one(size):
    line = Line(keep_open=True)
    records = line.client.write(b"a" * size)
    leave_an_error()
    line.send(records[:-1])
    assert "eof" not in line.top.told
    line.send(records[-1:])
    assert line.top.data == b"a" * size
    leave_an_error()
    line.secure.close()
    line.hear()
    assert line.client.ended


async def test_garbage_is_told_also_behind_what_another_connection_has_left():
    line = Line()
    leave_an_error()
    line.send(line.client.write(b"a" * 10)[:-1] + b"?")
    assert line.transport.is_closing()
    assert line.top.data == b""


@pytest.mark.parametrize("records", [1, 2])
async def test_an_answer_does_not_wait_for_a_response(records):
    line = Line()
    data = b"".join(line.client.write(b"a") for _ in range(records))
    line.secure._outgoing.write(b"an answer")
    line.send(data)
    assert (line.top.data, line.transport.written) == (b"a" * records, b"an answer")


async def test_who_takes_answers_is_read_on():
    line = Line()
    record = line.client.write(b"now")
    line.secure._outgoing.write(b"an answer")
    line.send(record[:7])
    assert line.transport.written == b"an answer"
    line.send(record[7:])
    assert line.top.data == b"now"


# Pausing.


async def test_what_has_come_before_a_pause_waits_in_order():
    line = Line()
    line.top.at_data = line.secure.pause_reading
    line.send(line.client.write(b"a") + line.client.write(b"b") + line.client.write(b"c"))
    assert (line.top.data, line.transport.reading) == (b"a", False)
    line.secure.resume_reading()
    assert line.top.data == b"a"
    await settle()
    assert line.top.data == b"ab"
    assert not line.transport.reading
    line.top.at_data = None
    line.secure.resume_reading()
    await settle()
    assert line.top.data == b"abc"
    assert line.transport.reading


async def test_a_pause_within_a_large_read_holds_the_rest_of_it():
    line = Line()
    sent = bytes(6 * PIECE)
    line.top.at_data = line.secure.pause_reading
    line.send(line.client.write(sent))
    assert 0 < len(line.top.data) <= 16384
    line.top.at_data = None
    line.secure.resume_reading()
    await settle()
    assert line.top.data == sent
    assert line.secure.is_reading()


async def test_a_pause_that_ends_within_the_same_read_changes_nothing():
    def pause_and_resume():
        line.secure.pause_reading()
        line.secure.pause_reading()
        line.secure.resume_reading()
        line.secure.resume_reading()

    line = Line()
    line.top.at_data = pause_and_resume
    line.send(line.client.write(b"a") + line.client.write(b"b"))
    assert line.top.data == b"ab"
    await settle()
    assert line.transport.reading


async def test_an_end_that_came_during_a_pause_is_told_after_it():
    line = Line()
    line.top.at_data = line.secure.pause_reading
    line.send(line.client.write(b"a") + line.client.close())
    assert line.top.told == []
    line.secure.resume_reading()
    await settle()
    assert line.top.told == ["eof", "lost"]


async def test_nothing_is_read_any_more_by_who_was_closed_during_a_pause():
    line = Line()
    line.top.at_data = line.secure.pause_reading
    line.send(line.client.write(b"a") + line.client.write(b"b"))
    line.secure.resume_reading()
    line.secure.close()
    await settle()
    assert line.top.data == b"a"


async def test_a_body_that_the_application_does_not_take_is_held(call):
    """More than a connection buffers comes in one read."""
    received, go = [], asyncio.Event()

    async def slow(scope, receive, send):
        await go.wait()
        while (message := await receive())["more_body"]:
            received.append(message["body"])
        received.append(message["body"])
        await hello(scope, receive, send)

    client = await call(slow)
    body = bytes(range(256)) * 2000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.send(client.tls.write(head + body))
    await settle()
    assert not client.transport.reading
    go.set()
    for _ in range(20):
        await settle()
    assert client.hear() == OK
    assert b"".join(received) == body


# Ends.


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_client_that_has_half_closed_gets_its_response(call, version):
    go = asyncio.Event()

    async def later(scope, receive, send):
        await go.wait()
        await hello(scope, receive, send)

    client = await call(later, version=version)
    client.send(client.tls.write(GET) + client.tls.close())
    await settle()
    assert client.state == "open"
    go.set()
    await settle()
    heard = client.hear()
    assert heard.startswith(b"HTTP/1.1 200 OK") and heard.endswith(b"ok")
    assert client.tls.ended
    assert client.state == "closed"
    assert client.server.connections == 0


async def test_a_client_that_just_sends_a_fin_gets_its_response_too(call):
    go = asyncio.Event()

    async def later(scope, receive, send):
        await go.wait()
        await hello(scope, receive, send)

    client = await call(later)
    client.send(client.tls.write(GET))
    client.leave()
    await settle()
    assert client.state == "open"
    go.set()
    await settle()
    assert client.hear().endswith(b"ok")
    assert (client.tls.ended, client.state) == (True, "closed")


async def test_a_fin_within_a_body_ends_the_connection(call):
    seen = []

    async def app(scope, receive, send):
        while (message := await receive())["type"] != "http.disconnect":
            pass
        seen.append(message)

    client = await call(app)
    client.send(client.tls.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"))
    await settle()
    client.leave()
    await settle()
    assert seen == [{"type": "http.disconnect"}]
    assert client.state == "closed"


async def test_what_comes_behind_the_clients_end_is_ignored():
    line = Line(keep_open=True)
    line.send(line.client.write(b"a") + line.client.close() + b"whatever it is")
    assert (line.top.data, line.top.told) == (b"a", ["eof"])
    assert not line.transport.reading
    line.secure.pause_reading()
    line.secure.resume_reading()
    await settle()
    assert not line.transport.reading
    assert line.secure.eof_received()
    assert line.top.told == ["eof"]
    line.secure.write(b"still")
    assert line.hear() == b"still"


async def test_close_says_so_once_and_does_not_wait_for_the_client():
    line = Line()
    line.secure.write(b"last")
    line.secure.close()
    line.secure.close()
    line.secure.write(b"late")
    assert line.secure.is_closing()
    assert line.transport.state == "closed"
    assert line.hear() == b"last"
    assert line.client.ended
    assert line.top.told == ["lost"]


async def test_close_waits_for_what_was_written():
    line = Line(accept=10)
    body = bytes(range(256)) * 1000
    line.secure.write(body)
    line.secure.close()
    assert (line.transport.state, line.secure.is_closing(), line.transport.reading) == ("open", True, False)
    line.secure.write(b"late")
    heard = line.hear()
    while not line.client.ended:
        line.transport.peer_reads()
        heard += line.hear()
    assert heard == body
    assert line.transport.state == "closed"


async def test_close_waits_for_what_was_written_to_a_client_that_has_said_its_end():
    line = Line(accept=10, keep_open=True)
    body = bytes(3 * PIECE)
    line.secure.write(body)
    line.send(line.client.close())
    line.secure.close()
    heard = line.hear()
    while not line.client.ended:
        line.transport.peer_reads()
        heard += line.hear()
    assert (heard, line.transport.state) == (body, "closed")


async def test_an_end_that_comes_while_the_transport_breaks_ends_it():
    line = Line()
    end = line.client.close()
    line.transport.state = "closed"
    line.transport.pause_reading = None  # a transport that is closed has no descriptor any more
    line.send(end)
    assert line.top.told == ["eof"]


async def test_our_end_can_be_said_first():
    line = Line()
    line.secure.write(b"last")
    assert line.secure.can_write_eof()
    line.secure.write_eof()
    line.secure.write_eof()
    line.secure.write(b"late")
    assert line.hear() == b"last"
    assert (line.client.ended, line.transport.state) == (True, "half-closed")
    line.send(line.client.write(b"from the client"))
    assert line.top.data == b"from the client"
    line.send(line.client.close())
    assert line.top.told == ["eof", "lost"]


async def test_our_end_comes_behind_what_was_written():
    line = Line(accept=10)
    body = bytes(3 * PIECE)
    line.secure.write(body)
    line.secure.write_eof()
    assert line.transport.state == "open"
    heard = line.hear()
    while not line.client.ended:
        line.transport.peer_reads()
        heard += line.hear()
    assert (heard, line.transport.state) == (body, "half-closed")
    assert not line.secure.is_closing()


async def test_a_client_that_is_gone_when_we_say_our_end_ends_the_connection():
    class Reset(FakeTransport):
        def write_eof(self):
            raise OSError(107, "Transport endpoint is not connected")

    line = Line()
    line.transport.__class__ = Reset
    line.secure.write_eof()
    assert line.transport.state == "aborted"


async def test_a_request_that_is_refused_leaves_time_to_read_the_answer(call):
    client = await call(hello)
    client.send(client.tls.write(b"NONSENSE\r\n\r\n"))
    await settle()
    assert b"400" in client.hear()
    assert (client.tls.ended, client.state) == (True, "half-closed")
    client.send(client.tls.write(b"more"))
    client.send(client.tls.close())
    assert client.state == "closed"


async def test_abort_ends_it_at_once():
    line = Line(accept=10)
    line.secure.write(bytes(10 * PIECE))
    line.secure.abort()
    line.secure.abort()
    line.secure.write(b"late")
    line.secure.close()
    line.secure.write_eof()
    line.secure.pause_reading()
    assert line.transport.state == "aborted"
    assert line.top.told == ["pause", "lost"]
    assert (line.secure.get_write_buffer_size(), line.secure.can_write_eof()) == (0, False)


async def test_a_client_that_only_says_its_end_is_parted_with(call):
    client = await call(hello)
    client.send(client.tls.close())
    assert client.hear() == b""
    assert (client.tls.ended, client.state) == (True, "closed")


async def test_the_limits_of_the_buffer_are_the_transports():
    line = Line()
    limits = []
    line.transport.set_write_buffer_limits = lambda *given: limits.append(given)
    line.transport.get_write_buffer_limits = lambda: (1, 2)
    line.secure.set_write_buffer_limits(high=0)
    assert (limits, line.secure.get_write_buffer_limits()) == ([(0, None)], (1, 2))
    line.secure.abort()
    line.secure.set_write_buffer_limits(high=0)
    assert (len(limits), line.secure.get_write_buffer_limits()) == (1, (0, 0))


async def test_a_client_that_is_lost_is_told_once_and_nothing_is_written_to_it():
    line = Line()
    error = ConnectionResetError(104, "reset")
    line.transport.state = "closed"
    line.secure.connection_lost(error)
    line.secure.write(b"late")
    line.secure.resume_reading()
    assert line.top.told == ["lost"]
    assert line.secure.is_closing()
    assert line.secure.get_extra_info("peername", "nobody") == "nobody"


# What cannot be.


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_broken_record_is_answered_with_an_alert(version, caplog):
    caplog.set_level(logging.DEBUG, "aioserve")
    line = Line(version=version)
    record = bytearray(line.client.write(b"hello"))
    record[-1] ^= 1
    line.send(bytes(record))
    assert line.transport.state == "closed"
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        line.hear()
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert not any(record.exc_info for record in caplog.records)
    line.secure.write(b"late")
    line.secure.close()


@pytest.mark.parametrize("size", [1, 3 * PIECE])
async def test_an_engine_that_encrypts_no_more_ends_the_connection(size):
    line = Line()
    with pytest.raises(ssl.SSLWantReadError):
        line.secure.get_extra_info("ssl_object").unwrap()
    line.secure.write(bytes(size))
    await settle()
    assert line.transport.state == "closed"
    assert line.top.told == ["lost"]


async def test_who_does_not_take_the_alert_is_not_waited_for_for_ever():
    line = Line()
    line.transport.close = lambda: None
    line.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert line.deadlines.filed == {line.secure: 30.5}
    line.secure.look(31.0)
    assert line.transport.state == "aborted"
    assert line.deadlines.filed == {}


async def test_a_clients_alert_ends_the_connection():
    line = Line(version=V12)
    # A fatal alert in the clear is no record of this connection; one that is encrypted cannot be had from `ssl`.
    line.send(b"\x15\x03\x03\x00\x02\x02\x28")
    line.secure.write(b"late")
    assert line.transport.state == "closed"
    assert line.top.told == ["lost"]


async def test_the_application_learns_that_its_client_has_broken_the_connection(call):
    seen = []

    async def app(scope, receive, send):
        await receive()
        seen.append((await receive())["type"])

    client = await call(app)
    client.send(client.tls.write(GET))
    await settle()
    client.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    await settle()
    assert seen == ["http.disconnect"]
    assert client.server.connections == 0


# WebSockets.

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(frame):
    """A client's frame of a server's short one: masked with zeros."""
    return frame[:1] + bytes((frame[1] | 0x80,)) + bytes(4) + frame[2:]


async def test_a_websocket_takes_over_in_the_middle_of_a_read(call):
    scopes = []

    async def echo(scope, receive, send):
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    client = await call(echo)
    text = masked(b"\x81\x05hello")
    # In one read: a record with the request and a frame behind it, another with a frame, and the close.
    client.send(
        client.tls.write(UPGRADE + text) + client.tls.write(text) + client.tls.write(masked(close_frame(1000, "")))
    )
    await settle()
    heard = client.hear()
    assert heard.startswith(b"HTTP/1.1 101")
    assert heard.endswith(b"\x81\x05hello" * 2 + close_frame(1000, ""))
    assert (client.tls.ended, client.state) == (True, "closed")
    assert scopes[0]["scheme"] == "wss"
    assert scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304


# What it says of itself.


async def test_it_answers_for_its_engine_and_for_the_transport():
    line = Line()
    ask = line.secure.get_extra_info
    assert ask("peername") == ("192.0.2.7", 50000)
    assert ask("ssl_object").version() == "TLSv1.3"
    assert ask("sslcontext") is ask("ssl_object").context
    assert ask("cipher")[1] == "TLSv1.3"
    assert ask("peercert") is None
    assert ask("compression") is None
    assert ask("none-such", 7) == 7
    assert line.secure.get_protocol() is line.top
