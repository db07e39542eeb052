"""Every case of the battery over a real socket, after both parsers of the handshake: whole and in pieces.

The pieces of a case are kept apart by a ping on another WebSocket between any two of them: the one worker, whose loop
has then read what came before, gets each alone.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.conformance.wire import pieces
from tests.process.servers import Served
from tests.websocket.battery import CASES, HELLO, MAX_SIZE, NO_CODE, Case
from tests.websocket.frames import APPS, CLOSE, TEXT, Frame, WebSocket, close, frame, handshake
from tests.websocket.openings import OPENINGS, Opening

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.once]

#: The parser of the handshake, and how cases arrive.
CHOICES = {
    "httptools, whole": ("httptools", "whole"),
    "httptools, byte by byte": ("httptools", "byte by byte"),
    "httptools, in pieces": ("httptools", "pieces 0"),
    "h11, in pieces": ("h11", "pieces 1"),
}

#: Of longer cases only this much goes byte by byte, and the rest at once: it has the heads of the frames.
HEADS = 300


@pytest.fixture(
    scope="module",
    params=[pytest.param(choice, marks=pytest.mark.xdist_group(f"battery {choice}")) for choice in CHOICES],
)
def choice(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(choice: str) -> Iterator[Served]:
    options = ("--no-access-log", "--ws-max-size", str(MAX_SIZE), "--http", CHOICES[choice][0])
    with Served("sockets:app", *options, cwd=APPS) as server:
        yield server


@pytest.fixture(scope="module")
def canary(server: Served) -> Iterator[WebSocket]:
    with WebSocket(server.port) as canary:
        yield canary


def cut(raw: bytes, way: str) -> list[bytes]:
    if way == "byte by byte":
        return [*pieces(raw[:HEADS], way), *filter(None, [raw[HEADS:]])]
    return pieces(raw, way)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_messages_and_close_are_as_expected(server: Served, canary: WebSocket, choice: str, case: Case):
    offer = {"sec_websocket_extensions": case.offer} if case.offer else {}
    with WebSocket(server.port, **offer) as client:
        for piece in cut(case.sends, CHOICES[choice][1]):
            try:
                client.send(piece)
            except ConnectionError:
                assert case.codes, "the server has broken the connection"
                break
            if "whole" not in choice:
                canary.alive()

        if case.codes:
            *got, ended = client.messages()
            assert (ended.code or NO_CODE) in case.codes, ended
            assert tuple(got) == case.gets, ended
        else:
            assert tuple(client.message() for _ in case.gets) == case.gets
            client.send(frame(TEXT, "still here"))
            assert client.message() == Frame(TEXT, b"still here")
            client.send(close(1000, "enough"))
            assert client.message() == Frame(CLOSE, b"\x03\xe8enough")
        # RFC 6455 7.1.1: the server closes first.
        assert client.rest() == b""


@pytest.mark.parametrize("opening", OPENINGS, ids=lambda opening: opening.name)
def test_a_handshake_is_answered_as_it_must_be(server: Served, canary: WebSocket, choice: str, opening: Opening):
    with server.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces(opening.sends, CHOICES[choice][1]):
            client.send(piece)
            if "whole" not in choice:
                canary.alive()

        response = client.head()

        assert response.status in opening.statuses, response
        assert {name: response.headers.get(name, "") for name, _ in opening.fields} == dict(opening.fields)
        if response.status == 101:
            client.send(HELLO)
            assert client.peek(7) == b"\x81\x05hello"


def test_frames_behind_the_handshake_in_one_packet_are_not_lost(server: Served):
    with server.connect() as raw:
        raw.send(handshake() + HELLO)
        assert raw.head().status == 101
        assert raw.peek(7) == b"\x81\x05hello"
