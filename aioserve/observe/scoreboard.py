"""The scoreboard: what every slot is doing, in memory that all processes share.

One anonymous shared map, made by the master before the first fork. Every slot has two rows (seats): one for the
worker that holds it and one for its successor while a reload goes on. A row has one writer at a time: the master
before the fork and after the child has been reaped, the child itself in between. Readers take no lock.

Why plain stores are enough: a cell is eight bytes at an address that is a multiple of eight (the map begins on a
page, a row is a multiple of 64 bytes), and CPython stores a "Q" item with one eight-byte copy, which is a single
store on every 64-bit machine. So a reader sees the old or the new value of a cell, never half of each. Cells are
*not* consistent with one another: a snapshot may have counted a request in one cell and not yet in the next. And
``cells[i] += 1`` is a load and a store, which is why only one process may write a row.

It knows nothing of asyncio, signals or processes, and makes no file: it works on a read-only root and survives the
crash of a worker.
"""

from __future__ import annotations

import enum
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator


@final
class Phase(enum.IntEnum):
    """Where the process of a row is in its life. EMPTY is zero, so that a cleared row is an empty one."""

    EMPTY = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3
    RELAYING = 4  # a terminator, after that: it goes on with what workers have, and passes on nothing new


# Indices of cells. The first three are the master's word before the fork; the child keeps them up from then on.
PID: Final = 0
GENERATION: Final = 1
PHASE: Final = 2
STARTED_NS: Final = 3  # time.monotonic_ns(), one clock for all processes of the machine
HEARTBEAT_NS: Final = 4  # time.monotonic_ns() of the loop's last beat
LAG_NS: Final = 5  # how late that beat was
CONNECTIONS: Final = 6  # open now
CONNECTIONS_TOTAL: Final = 7
REQUESTS: Final = 8  # in flight now
REQUESTS_TOTAL: Final = 9
LAG_WORST_NS: Final = 10  # the worst LAG_NS of the last 15 to 30 s
WEBSOCKETS: Final = 11  # open now
WEBSOCKETS_TOTAL: Final = 12
MESSAGES_RECEIVED: Final = 13  # of WebSockets, by applications
MESSAGES_SENT: Final = 14
ACCEPTING: Final = 15  # 1 while new connections are taken; 0 while they are not, for want of room or at the end
CONNECTIONS_LIMIT: Final = 16  # with so many open, no more are taken
# Of a dispatcher, whose CONNECTIONS are those that it has accepted and not passed on yet. The last two also of a worker
# with several loops, about these.
PASSED_TOTAL: Final = 17  # connections passed on to workers
LATE_TOTAL: Final = 18  # how often a worker was passed over, because it had not taken what waited for it
RETAKEN_TOTAL: Final = 19  # connections that were taken back from a worker that was late or gone, for another one
# Under --steal late the master writes two cells of a worker: LATE_TOTAL counts how often siblings were told to accept
# what waited for it, and QUEUE, to which nobody adds, is what whoever looked last has seen.
STOLEN: Final = 20  # connections accepted from siblings' sockets; CONNECTIONS_TOTAL has them, too
QUEUE: Final = 21  # connections that waited to be accepted, of the slot's sockets or of those that all slots share
# Of whoever speaks TLS: workers, or processes of their own.
HANDSHAKES: Final = 22  # under way now
HANDSHAKES_TOTAL: Final = 23  # completed
HANDSHAKES_RESUMED: Final = 24  # of these, with a session of before
HANDSHAKES_FAILED: Final = 25  # refused, timed out, given up for want of room, or left by the client
CERTIFICATE_UNTIL: Final = 26  # when the first of the certificates expires, in seconds since 1970; 0: there is none
KTLS_TOTAL: Final = 27  # connections whose sending the kernel encrypts

# Of the offload pool, from the end of the row downwards; what a process has counted so far, but the first three.
OFFLOAD_WAITING: Final = 63  # calls in the queue now
OFFLOAD_RUNNING: Final = 62  # calls that run now
OFFLOAD_CHILDREN: Final = 61  # children that are there now
OFFLOAD_CALLS: Final = 60  # that were begun and are over
OFFLOAD_FULL: Final = 59  # refused, the queue was full
OFFLOAD_TIMEOUTS: Final = 58
OFFLOAD_CANCELLED: Final = 57  # nobody waited any more
OFFLOAD_CRASHES: Final = 56  # children that died of a call
OFFLOAD_KILLS: Final = 55  # children that were killed for a timeout or a cancellation
OFFLOAD_WAIT_NS: Final = 54  # in the queue, all calls together
OFFLOAD_RUN_NS: Final = 53  # running, all calls together

# What a worker of several loops adds up: of those that turn, and of all that ever have.
NOW: Final = (REQUESTS, WEBSOCKETS, HANDSHAKES)
EVER: Final = (
    REQUESTS_TOTAL, WEBSOCKETS_TOTAL, MESSAGES_RECEIVED, MESSAGES_SENT,
    HANDSHAKES_TOTAL, HANDSHAKES_RESUMED, HANDSHAKES_FAILED, KTLS_TOTAL,
)  # fmt: skip

# 64 cells are 512 bytes, eight cache lines: two workers never write the same line, and there is room for more counters.
ROW_CELLS: Final = 64
CELL_BYTES: Final = 8
SEATS: Final = 2

_ZEROS: Final = memoryview(bytes(ROW_CELLS * CELL_BYTES)).cast("Q")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The values of one row, read cell by cell."""

    slot: int
    seat: int
    pid: int
    generation: int
    phase: Phase
    started_ns: int
    heartbeat_ns: int
    lag_ns: int
    connections: int
    connections_total: int
    requests: int
    requests_total: int
    lag_worst_ns: int
    websockets: int
    websockets_total: int
    messages_received: int
    messages_sent: int
    accepting: bool
    connections_limit: int
    passed_total: int
    late_total: int
    retaken_total: int
    stolen: int
    queue: int
    handshakes: int
    handshakes_total: int
    handshakes_resumed: int
    handshakes_failed: int
    certificate_until: int
    ktls_total: int


@final
class Row:
    """One seat of one slot. The hot path writes ``cells`` by index; everybody else takes a ``snapshot``.

    ``beside`` is the cells of the slot's other seat, for reading.
    """

    __slots__ = ("beside", "cells", "seat", "slot")

    def __init__(self, slot: int, seat: int, cells: memoryview, beside: memoryview) -> None:
        self.slot: Final = slot
        self.seat: Final = seat
        self.cells: Final = cells
        self.beside: Final = beside

    def begin(self, *, generation: int, started_ns: int) -> None:
        """Book the row for a child about to be forked; the process id is written once there is one."""
        self.clear()
        self.cells[GENERATION] = generation
        self.cells[STARTED_NS] = started_ns
        self.cells[PHASE] = Phase.BOOTING

    def is_relieved(self) -> bool:
        """Whether the slot's other seat is held by a worker that serves."""
        return self.beside[PHASE] == Phase.READY

    def clear(self) -> None:
        """Forget the process that held the row. Only for the master, after it has been reaped."""
        self.cells[:] = _ZEROS

    def snapshot(self) -> Snapshot:
        cells = self.cells
        return Snapshot(
            slot=self.slot,
            seat=self.seat,
            pid=cells[PID],
            generation=cells[GENERATION],
            phase=Phase(cells[PHASE]),
            started_ns=cells[STARTED_NS],
            heartbeat_ns=cells[HEARTBEAT_NS],
            lag_ns=cells[LAG_NS],
            connections=cells[CONNECTIONS],
            connections_total=cells[CONNECTIONS_TOTAL],
            requests=cells[REQUESTS],
            requests_total=cells[REQUESTS_TOTAL],
            lag_worst_ns=cells[LAG_WORST_NS],
            websockets=cells[WEBSOCKETS],
            websockets_total=cells[WEBSOCKETS_TOTAL],
            messages_received=cells[MESSAGES_RECEIVED],
            messages_sent=cells[MESSAGES_SENT],
            accepting=bool(cells[ACCEPTING]),
            connections_limit=cells[CONNECTIONS_LIMIT],
            passed_total=cells[PASSED_TOTAL],
            late_total=cells[LATE_TOTAL],
            retaken_total=cells[RETAKEN_TOTAL],
            stolen=cells[STOLEN],
            queue=cells[QUEUE],
            handshakes=cells[HANDSHAKES],
            handshakes_total=cells[HANDSHAKES_TOTAL],
            handshakes_resumed=cells[HANDSHAKES_RESUMED],
            handshakes_failed=cells[HANDSHAKES_FAILED],
            certificate_until=cells[CERTIFICATE_UNTIL],
            ktls_total=cells[KTLS_TOTAL],
        )


@final
class Scoreboard:
    """All rows. Make it before the first fork and keep it: the map lives as long as somebody refers to a row."""

    def __init__(self, slots: int) -> None:
        # -1 and the default flags: anonymous and MAP_SHARED, so children write where the master reads (mmap(2)).
        # The kernel hands it out filled with zeros: every row begins EMPTY.
        cells = memoryview(mmap.mmap(-1, slots * SEATS * ROW_CELLS * CELL_BYTES)).cast("Q")
        self.slots: Final = slots
        self._rows: Final = tuple(tuple(_row(cells, slot, seat) for seat in range(SEATS)) for slot in range(slots))

    def row(self, slot: int, seat: int) -> Row:
        return self._rows[slot][seat]

    def __iter__(self) -> Iterator[Row]:
        """Every row, the slots in order, both seats of each."""
        for seats in self._rows:
            yield from seats


def _row(cells: memoryview, slot: int, seat: int) -> Row:
    first = slot * SEATS * ROW_CELLS
    seats = [cells[start : start + ROW_CELLS] for start in range(first, first + SEATS * ROW_CELLS, ROW_CELLS)]
    return Row(slot, seat, seats[seat], seats[1 - seat])
