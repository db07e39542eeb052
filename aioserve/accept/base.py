"""The seam between listening sockets and everybody else.

An accept pattern is one class that implements ``Acceptor``; boot chooses it once and nobody else asks which it is.
The calls come in this order:

1. ``open()`` in the parent, before any fork. Sockets are bound and listening from here on: a client that connects
   now waits in the queue until a worker is ready, it is not refused.
2. ``keep_only(slot)`` in each child, right after the fork.
3. ``listeners(slot)`` in the child: what its loop shall listen on. Pass the backlog on to ``create_server``, because
   that calls ``listen()`` again and a default of 100 would shrink the queue for everybody who shares the socket.
4. ``refuse()`` in the parent, when the server stops, and then ``close()``. The workers have copies, which they close
   after they have taken what waits.

A slot that is added while the server runs: ``grow(slot)`` in the parent before its first fork, which binds and does
not listen. A bound socket that does not listen gets nothing, so nobody waits for the new worker to import the
application; ``create_server`` in the worker calls ``listen()``. ``joined(slot)`` when it has said that it is ready.

A slot that is taken away: ``retire(slot)`` steers new connections to the others; the worker goes on accepting for
``linger`` seconds, because clients whose handshake is under way belong to its socket already; then it is told TERM
and takes what is left in the queue; ``forget(slot)`` when it has exited. ``restore(slot)`` takes ``retire`` back.

A new master program that takes over (``hand_over`` in the old one, ``open(inherited)`` in the new) has the very same
sockets, so their queues belong to both; ``alone()`` tells it that the old one has gone.

Where terminators speak TLS, the sockets of clients are theirs (``front``), and what they have decrypted comes through
a listener that is like any other to the pattern behind (``aioserve.accept.fronted``).

The parent holds every socket for its whole life. The queue of waiting connections belongs to the socket, so a worker
that leaves or dies loses none of them: its successor inherits the same socket of the same slot. A copy of a socket
left open in a process that does not accept is harmless as long as the slot has a worker, and a trap as soon as it has
none, which is why a child drops the sockets of other slots, unless it is to accept from them (``queues``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, final

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from aioserve.config.addresses import Speaks
    from aioserve.observe.scoreboard import Row


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listener:
    """One listening socket, and what there is to say about it."""

    sock: socket.socket
    address: str  # for people: "http://127.0.0.1:8000", "unix:/run/x.sock"
    server: tuple[str, int | None] | None  # the ASGI `server` value; None: a wildcard is bound, ask each connection
    port: int | None = None  # of TCP
    scheme: Literal["http", "https"] = "http"  # https: clients speak TLS
    redirect: bool = False  # whatever is asked for here is to be asked for again over TLS
    private: bool = False  # for processes of this server, which introduce their clients

    @property
    def speaks(self) -> Speaks:
        """As an address says it."""
        return "redirect" if self.redirect else self.scheme


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feed:
    """Where connections come from that a dispatcher has accepted (``aioserve.accept.passing``)."""

    sock: socket.socket
    listeners: Sequence[Listener]  # whose connections they are: each comes with its index here


Source: TypeAlias = Listener | Feed


@final
class Keeper(enum.Enum):
    """A process that keeps sockets and is no worker."""

    DISPATCHER = enum.auto()
    TERMINATOR = enum.auto()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Front:
    """Where clients connect that speak TLS with processes of their own, and the name under which these find workers."""

    listeners: Sequence[Listener]
    workers: bytes
    port: int | None  # the first one of TCP, also where the listeners have been closed


class Reporter(Protocol):
    """Where a child says how far it is. Its descriptor reads end-of-file when the master has gone."""

    def ready(self) -> None: ...
    def fileno(self) -> int: ...


class Dispatcher(Protocol):
    """What accepts for all workers, in a process of its own."""

    def run(self, workers: Sequence[Sequence[Row]], row: Row, reporter: Reporter) -> int:
        """Until it is told to leave; the exit status. ``workers`` are both rows of each slot."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """One socket that a master passes on to the program that succeeds it: plain values, to be sent as JSON."""

    fd: int
    address: str  # as the configuration spells it
    slot: int | None  # None: shared by all slots
    indices: tuple[int, ...] = ()  # where it may be in the kernel's SO_REUSEPORT group
    file: str = ""  # the unix socket's file, when whoever holds the socket is to remove it


class Acceptor(Protocol):
    """An accept pattern."""

    #: Seconds between ``retire`` and TERM.
    linger: float

    @property
    def dispatcher(self) -> Dispatcher | None:
        """What a process of its own runs; None: every worker accepts by itself."""

    @property
    def front(self) -> Front | None:
        """What terminators accept from; None: there are none."""

    def open(self, inherited: Sequence[Inherited] = ()) -> None:
        """Bind and listen on everything, or raise BindError and leave nothing open.

        What was inherited for an address that is still wanted is used as it is; the rest of it is closed.
        """

    def listeners(self, slot: int) -> Sequence[Source]:
        """What the worker of this slot accepts from. The same answer for every generation of the slot."""

    def queues(self) -> Mapping[int, Sequence[Listener]]:
        """The sockets of each slot that workers of other slots may accept from, too; none in most patterns."""

    def keep_only(self, who: int | Keeper | None) -> None:
        """In a child, a worker by its slot: close what it will not accept from. None: it accepts nothing at all."""

    def grow(self, slot: int) -> None:
        """In the parent, before the first fork of a new slot: bind its sockets. Raises BindError."""

    def joined(self, slot: int) -> None:
        """In the parent: the worker of this slot serves. Saying it again changes nothing."""

    def retire(self, slot: int) -> None:
        """In the parent: let new connections go to other slots, as far as there are any."""

    def restore(self, slot: int) -> None:
        """In the parent: let new connections go to this slot again."""

    def forget(self, slot: int) -> None:
        """In the parent: the slot's last worker has gone; close its sockets in whatever process has a copy."""

    def hand_over(self) -> list[Inherited]:
        """In the parent: every socket, for a successor. Nothing is changed."""

    def alone(self) -> None:
        """In the parent: nobody else uses what was inherited. Until then ``close`` leaves the files of unix sockets."""

    def refuse(self) -> None:
        """In the parent, before the last worker leaves and nobody succeeds it: let nobody begin to connect any more.

        What waits is still accepted (``aioserve.accept.refusing``); the files of unix sockets are removed. Sockets
        that somebody else uses, too, are left as they are: a predecessor, or whoever has passed them in.
        """

    def reclaim(self) -> None:
        """In the parent: the successor has come to nothing, and who gets connections is ours to say again."""

    def addresses(self) -> list[str]:
        """Each bound address once, printable, with the ports that the kernel chose."""

    def close(self, *, keep_files: bool = False) -> None:
        """In the parent: close everything and remove the unix sockets that are still ours, unless a successor has them.

        A second call closes nothing and removes nothing.
        """
