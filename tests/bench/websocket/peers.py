"""The servers, as in ``tests.bench.servers``, with what WebSockets add: the same limits, and nobody pings a crowd.

``floor`` is no server: a uvloop protocol that answers the handshake and then says the same frame to whatever comes. It
shows what the client can do at most: a server that comes near to it is not what was measured.
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.servers import PEERS, Peer

#: Longer than idle connections are kept here, in seconds: a ping to each would be measured, too.
QUIET = 600


def _with(name, *options, called=None, without=()):
    peer = PEERS[name]
    return replace(
        peer,
        name=called or name,
        options=lambda port: [*(option for option in peer.options(port) if option not in without), *options],
    )


_PATIENT = ("--ws-ping-interval", str(QUIET), "--ws-ping-timeout", str(QUIET))

SOCKET_PEERS = {
    peer.name: peer
    for peer in (
        _with("aioserve", *_PATIENT),
        # What its --ws auto takes where `websockets` is installed.
        _with("uvicorn", "--ws", "websockets-sansio", *_PATIENT),
        _with("uvicorn", "--ws", "wsproto", *_PATIENT, called="uvicorn-wsproto"),
        _with("granian", "--ws", without=("--no-ws",)),
        _with("hypercorn"),
        _with("gunicorn"),
        _with("weft", *_PATIENT),
        # Its periods are milliseconds.
        _with("peregrine", "--ws-ping-interval", f"{QUIET}000", "--ws-ping-timeout", f"{QUIET}000"),
        Peer("floor", "uvloop", "uvloop", lambda port: ["-m", "tests.bench.websocket.floor", port]),
    )
}

#: Those whose memory is compared; the others cannot be told to leave idle ones alone, or are not ours to explain.
WEIGHED = ("aioserve", "uvicorn", "uvicorn-wsproto")
