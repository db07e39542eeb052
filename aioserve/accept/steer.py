"""Steering new connections within a group of SO_REUSEPORT sockets: away from a slot that is about to go.

The kernel picks the socket of a new connection by a hash, or by a classic BPF program that is attached through any
socket of the group (socket(7), SO_ATTACH_REUSEPORT_CBPF; it takes no privileges). The program answers an index:
sockets are numbered in the order of their ``listen()``, and when one goes the last takes its number. The kernel tells
nobody these numbers, so ``Group`` keeps them. An index that does not exist makes the kernel fall back on the hash.

A choice at random out of n sockets is ``ld random; mod n; jeq ...; ret ...``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, final

from aioserve.accept import bpf

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# <asm-generic/socket.h>; the socket module does not name them.
SO_ATTACH_REUSEPORT_CBPF: Final = 51
SO_DETACH_REUSEPORT_BPF: Final = 68


@final
class Group:
    """Which slot's socket has which index in the kernel's group of one address.

    Of several sockets that began to listen unseen, the order is not known: ``places`` holds for each index the slots
    that it may belong to. Doubt is harmless, because only an index that is certainly no slot to be avoided is used.
    """

    def __init__(self, places: Iterable[Iterable[int]] = ()) -> None:
        self.places: Final[list[frozenset[int]]] = [frozenset(place) for place in places]

    def __contains__(self, slot: int) -> bool:
        return any(slot in place for place in self.places)

    def join(self, slots: Iterable[int]) -> None:
        """These have begun to listen since the last look, in an unknown order."""
        new = frozenset(slots)
        self.places.extend([new] * len(new))

    def leave(self, slot: int) -> None:
        """This one has gone: the last socket takes its index."""
        holes = self.indices(slot)
        if not holes:
            return
        last = len(self.places) - 1
        for hole in holes:
            if hole != last:
                self.places[hole] = (self.places[hole] | self.places[last]) - {slot}
        del self.places[last]

    def indices(self, slot: int) -> list[int]:
        """Where this slot's socket may be."""
        return [index for index, place in enumerate(self.places) if slot in place]

    def without(self, slots: Iterable[int]) -> list[int]:
        """Where none of these slots' sockets can be."""
        avoided = frozenset(slots)
        return [index for index, place in enumerate(self.places) if not place & avoided]


def program(indices: Sequence[int]) -> bytes:
    """Choose one of these indices at random. At least one; the kernel takes 4,096 instructions, two per index."""
    *others, last = indices
    code: list[bpf.Instruction] = []
    if others:
        code += [(bpf.LOAD_WORD, 0, 0, bpf.RANDOM), (bpf.MODULO, 0, 0, len(indices))]
    for number, index in enumerate(others):
        code += [(bpf.JUMP_IF_EQUAL, 0, 1, number), (bpf.RETURN, 0, 0, index)]
    code.append((bpf.RETURN, 0, 0, last))
    return bpf.pack(code)


def attach(sock: socket.socket, code: bytes) -> None:
    """Let the program choose for the whole group of ``sock``, those that join later included."""
    bpf.attach(sock, SO_ATTACH_REUSEPORT_CBPF, code)


def detach(sock: socket.socket) -> None:
    """Let the kernel's hash choose again."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
