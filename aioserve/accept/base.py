"""The seam between listening sockets and everybody else.

An accept pattern is one class that implements ``Acceptor``; boot chooses it once and nobody else asks which it is.
The calls come in this order:

1. ``open()`` in the parent, before any fork. Sockets are bound and listening from here on: a client that connects
   now waits in the queue until a worker is ready, it is not refused.
2. ``keep_only(slot)`` in each child, right after the fork.
3. ``listeners(slot)`` in the child: what its loop shall listen on. Pass the backlog on to ``create_server``, because
   that calls ``listen()`` again and a default of 100 would shrink the queue for everybody who shares the socket.
4. ``close()`` in the parent, when the last child has gone.

The parent holds every socket for its whole life. The queue of waiting connections belongs to the socket, so a worker
that leaves or dies loses none of them: its successor inherits the same socket of the same slot. A copy of a socket
left open in a process that does not accept is harmless as long as the slot has a worker, and a trap as soon as it has
none, which is why a child drops the sockets of other slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    import socket


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listener:
    """One listening socket, and what there is to say about it."""

    sock: socket.socket
    address: str  # for people: "http://127.0.0.1:8000", "unix:/run/x.sock"
    server: tuple[str, int | None] | None  # the ASGI `server` value; None: a wildcard is bound, ask each connection
    scheme: str = "http"


class Acceptor(Protocol):
    """An accept pattern."""

    def open(self) -> None:
        """Bind and listen on everything, or raise BindError and leave nothing open."""

    def listeners(self, slot: int) -> list[Listener]:
        """What the worker of this slot accepts from. The same answer for every generation of the slot."""

    def keep_only(self, slot: int | None) -> None:
        """In a child: close what belongs to other slots. None: this process accepts nothing at all."""

    def addresses(self) -> list[str]:
        """Each bound address once, printable, with the ports that the kernel chose."""

    def close(self) -> None:
        """In the parent: close everything and remove the unix sockets that are still ours."""
