import os
from dataclasses import fields

import pytest

from aioserve.observe import scoreboard
from aioserve.observe.scoreboard import (
    CELL_BYTES,
    CONNECTIONS,
    GENERATION,
    HEARTBEAT_NS,
    KTLS_TOTAL,
    PHASE,
    PID,
    REQUESTS_TOTAL,
    ROW_CELLS,
    SEATS,
    Phase,
    Scoreboard,
    Snapshot,
)

#: What a snapshot says that is in a cell of the same name.
WORDS = sorted({field.name for field in fields(Snapshot)} - {"slot", "seat"})


def test_every_row_begins_empty():
    assert [row.snapshot().phase for row in Scoreboard(3)] == [Phase.EMPTY] * 3 * SEATS


def test_rows_do_not_overlap():
    board = Scoreboard(2)
    for number, row in enumerate(board):
        row.cells[:] = memoryview(number.to_bytes(CELL_BYTES, "little") * ROW_CELLS).cast("Q")
    assert [list(row.cells) for row in board] == [[number] * ROW_CELLS for number in range(2 * SEATS)]


def test_a_row_knows_its_place():
    row = Scoreboard(4).row(3, 1)
    assert (row.slot, row.seat) == (3, 1)


def test_rows_do_not_share_cache_lines():
    assert ROW_CELLS * CELL_BYTES % 64 == 0


def test_a_booked_row_forgets_its_last_holder():
    row = Scoreboard(1).row(0, 0)
    row.cells[CONNECTIONS] = 7
    row.begin(generation=2, started_ns=99)
    snapshot = row.snapshot()
    assert (snapshot.generation, snapshot.started_ns, snapshot.phase, snapshot.connections) == (2, 99, Phase.BOOTING, 0)


def test_a_cleared_row_is_empty():
    row = Scoreboard(1).row(0, 1)
    row.begin(generation=2, started_ns=99)
    row.clear()
    assert not any(row.cells)


def test_a_snapshot_is_not_changed_by_later_writes():
    row = Scoreboard(1).row(0, 0)
    snapshot = row.snapshot()
    row.cells[REQUESTS_TOTAL] = 5
    assert snapshot.requests_total == 0


@pytest.mark.parametrize("word", WORDS)
def test_a_snapshot_has_the_value_of_the_cell_of_that_name(word):
    row = Scoreboard(1).row(0, 0)
    row.cells[getattr(scoreboard, word.upper())] = 1
    snapshot = row.snapshot()
    assert [name for name in WORDS if getattr(snapshot, name)] == [word]


def test_a_snapshot_leaves_out_no_cell_but_those_of_the_pool():
    assert {getattr(scoreboard, word.upper()) for word in WORDS} == set(range(KTLS_TOTAL + 1))


@pytest.mark.parametrize("value", [0, 1, 2**63, 2**64 - 1])
def test_a_cell_holds_an_unsigned_word(value):
    row = Scoreboard(1).row(0, 0)
    row.cells[HEARTBEAT_NS] = value
    assert row.snapshot().heartbeat_ns == value


def test_the_parent_reads_what_a_child_has_written():
    row = Scoreboard(2).row(1, 0)
    pid = os.fork()
    if pid == 0:
        row.cells[PID] = os.getpid()
        row.cells[PHASE] = Phase.READY
        row.cells[GENERATION] = 4
        os._exit(0)
    os.waitpid(pid, 0)
    snapshot = row.snapshot()
    assert (snapshot.pid, snapshot.phase, snapshot.generation) == (pid, Phase.READY, 4)
