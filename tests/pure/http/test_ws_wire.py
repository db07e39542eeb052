"""Single frames as a server sends them: closes that can be and those that cannot. Lengths: test_ws_frames."""

from __future__ import annotations

import pytest
from websockets.frames import Close, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from aioserve.errors import AppError
from aioserve.http.ws_wire import PING_FRAME, TEXT_FRAME, close_frame, control_frame, long_frame


def read_by_client(data):
    protocol = Protocol(CLIENT, state=OPEN, max_size=None)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [(frame.opcode, bytes(frame.data)) for frame in protocol.events_received()]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_client_reads_frames_of_every_length(size):
    assert read_by_client(long_frame(TEXT_FRAME, memoryview(b"x" * size))) == [(Opcode.TEXT, b"x" * size)]


@pytest.mark.parametrize("size", [0, 125])
def test_a_client_reads_a_ping(size):
    assert read_by_client(control_frame(PING_FRAME, b"x" * size)) == [(Opcode.PING, b"x" * size)]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1012, 1014, 3000, 4999])
def test_codes_that_may_be_sent(code):
    assert read_by_client(close_frame(code, "é")) == [(Opcode.CLOSE, Close(code, "é").serialize())]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536, -1, "1000", None])
def test_codes_that_may_not(code):
    with pytest.raises(AppError, match="has the code"):
        close_frame(code, "")


@pytest.mark.parametrize("reason", [b"bytes", 3, "\ud800"])
def test_reasons_that_are_no_text(reason):
    with pytest.raises(AppError, match="a reason is text"):
        close_frame(1000, reason)


def test_a_reason_has_to_fit_its_frame():
    assert len(close_frame(1000, "x" * 123)) == 127
    with pytest.raises(AppError, match="a reason of 124 bytes"):
        close_frame(1000, "x" * 124)
