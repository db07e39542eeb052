"""Connections from the processes of this server that speak TLS: who may, what they say, and what if they leave.

They come through the private listener, to which anybody on this machine could connect. So the kernel is asked for the
process id of whoever has (SO_PEERCRED, unix(7)), and it has to be that of a terminator on the scoreboard. What such a
one says of its client is believed to the letter: the application's scope is what it would be if TLS ended here.

A terminator that is replaced, or ends with the server, relays on until its connections have ended, and does not know
where a request begins. We do: once it accepts no more, each response on a connection through it is the last and says
so, and quiet ones are closed. Whoever is in the middle of something has the grace time for it, and is told to end when
half of that is over, as in a drain of our own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import time
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.http.introduction import IntroductionReader
from aioserve.observe.scoreboard import ACCEPTING, HEARTBEAT_NS, PHASE, PID, Phase
from aioserve.tls.extension import cipher_suites, extension
from aioserve.worker.connection import Connection
from aioserve.worker.peer import Peer
from aioserve.worker.preamble import STRANGERS_SECONDS, Introduction
from aioserve.worker.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioserve.accept.base import Listener
    from aioserve.http.introduction import Introduced
    from aioserve.worker.server import Server

log = logging.getLogger("aioserve")

#: All of a group that is told to end know it after so long; how often one looks how far the others are; and without a
#: beat for so long, ten times what is usual, a process is not waited for. Seconds.
SAME_TIME_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.02
DEAD_SECONDS: Final = 5.0

#: struct ucred: process, user, group.
_CREDENTIALS: Final = struct.Struct("3i")


@final
class Terminator:
    """One process that introduces clients: a ``Relay`` of its connections."""

    __slots__ = ("cells", "leaving", "pid", "since", "told")

    def __init__(self, pid: int, cells: memoryview) -> None:
        self.pid: Final = pid
        self.cells: Final = cells
        self.leaving: bool = False
        #: When that was seen, and whether those have been told to end that are in the middle of something.
        self.since: float = 0.0
        self.told: bool = False

    @property
    def accepts_no_more(self) -> bool:
        cells = self.cells
        return cells[PHASE] in {Phase.DRAINING, Phase.RELAYING} and not cells[ACCEPTING]


@final
class Trusted:
    """A ``Host``. ``rows`` are the cells of both seats of each terminator."""

    def __init__(self, server: Server, rows: Sequence[memoryview]) -> None:
        self.server: Server = server
        self._rows: Final = rows
        self._known: dict[int, Terminator] = {}
        self._said: float = -STRANGERS_SECONDS
        self._strangers: int = 0
        cipher_suites()  # some milliseconds now rather than within a client's first request

    def connect(self, listener: Listener) -> Introduction:
        """The protocol of a new connection."""
        return Introduction(self, listener)

    def reader(self) -> IntroductionReader:
        return IntroductionReader()

    def following(self, listener: Listener) -> Connection:
        return Connection(self.server, listener)

    def admits(self, peer: Peer, transport: asyncio.Transport) -> bool:
        """Whether it is a terminator of this server; ``peer`` learns which."""
        pid = _process_of(transport)
        peer.relay = self._find(pid)
        if peer.relay is not None:
            return True
        self._strangers += 1
        now = self.server.loop.time()
        if now >= self._said + STRANGERS_SECONDS:
            log.warning(
                "process %d has connected to the socket between terminators and workers, and is no terminator: closed "
                "(%d since the last line like this)",
                pid,
                self._strangers,
            )
            self._said, self._strangers = now, 0
        return False

    def client(self, header: Introduced, introducer: Peer) -> Peer:
        more = header.more or {}
        return Peer(
            header.client,
            header.server,
            "https",
            extensions={"tls": _tls(header), **_extensions(more.get("extensions", {}))},
            anonymous=bool(more.get("anonymous")),
            relay=introducer.relay,
        )

    def beat(self, now: float, _late: float) -> None:
        """See who leaves; to be called twice a second."""
        for pid, one in list(self._known.items()):
            if one.cells[PID] != pid:
                del self._known[pid]  # its connections have ended with it
            elif one.leaving:
                self._end_quiet(one, now)
            elif one.accepts_no_more:
                one.leaving, one.since = True, now

    def _end_quiet(self, one: Terminator, now: float) -> None:
        settings = self.server.settings
        # Since when a connection is quiet is known to within a tick: it may be later by as much.
        quiet_since = now - settings.drain_linger - self.server.deadlines.resolution
        tell = not one.told and now >= one.since + settings.graceful_shutdown / 2
        one.told = one.told or tell
        for speaker in self._through(one):
            if isinstance(speaker, Connection):
                speaker.close_if_quiet(quiet_since)
            if tell and speaker.cycle is not None:
                speaker.cycle.leave()

    def _through(self, one: Terminator) -> Iterator[Connection | WebSocket]:
        """Its connections."""
        for timed in self.server.deadlines:
            if isinstance(timed, (Connection, WebSocket)) and timed.peer is not None and timed.peer.relay is one:
                yield timed

    def _find(self, pid: int) -> Terminator | None:
        known = self._known.get(pid)
        # The master clears the row when it has reaped the process; its number may be somebody else's from then on.
        if known is not None and known.cells[PID] == pid:
            return known
        cells = next((cells for cells in self._rows if cells[PID] == pid), None) if pid else None
        if cells is None:
            return None
        found = self._known[pid] = Terminator(pid, cells)
        return found


async def all_passed_on(rows: Sequence[memoryview], hurry: asyncio.Event) -> None:
    """Wait for terminators that end with us: what they have accepted is still to come. If one stays, this is about us.

    The master tells terminators first. Whoever else says TERM (a terminal, systemd), and the kernel when the master
    dies, tells everybody at once.
    """
    phases = _phases(rows)
    if Phase.READY in phases:
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), SAME_TIME_SECONDS)
        phases = _phases(rows)
    while Phase.READY not in phases and Phase.DRAINING in phases and not hurry.is_set():
        await asyncio.sleep(LOOK_SECONDS)
        phases = _phases(rows)


def _phases(rows: Sequence[memoryview]) -> set[int]:
    """Of those that live: a row of one that has died is cleared by the master, which may be dead, too."""
    since = time.monotonic_ns() - int(DEAD_SECONDS * 1e9)
    return {cells[PHASE] for cells in rows if cells[HEARTBEAT_NS] > since}


def _process_of(transport: asyncio.Transport) -> int:
    """Who has connected: its process id at that moment."""
    sock = transport.get_extra_info("socket")
    pid: int = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
    return pid


def _tls(header: Introduced) -> dict[str, object]:
    """ASGI's ``tls`` extension."""
    found = extension(
        server_cert=_shared(header.own_certificate) if header.own_certificate else None,
        version=header.version,
        cipher=header.cipher,
        client_name=header.name,
        client_error=header.fault,
    )
    if header.certificates:
        found["client_cert_chain"] = tuple(_pem(certificate) for certificate in header.certificates)
    return found


def _extensions(said: dict[str, Any]) -> dict[str, dict[str, object]]:
    """What a load balancer in front has said, as the terminator would have shown it."""
    return {
        name: {
            key: value["bytes"].encode("latin-1") if isinstance(value, dict) else value for key, value in facts.items()
        }
        for name, facts in said.items()
    }


@lru_cache(maxsize=1024)
def _pem(certificate: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(certificate)


@lru_cache(maxsize=1024)
def _shared(pem: str) -> str:
    """The same text once for all connections."""
    return pem
