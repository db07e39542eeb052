"""Which losses are excused, and where they stand in the table."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import Ledger, Loss, Victim

VICTIM = Victim(pid=7, ports=frozenset({4000}), at=100.0)


def loss(*, pid=0, port=0, opened=99.0, race=False, at=101.0):
    return Loss("keep", "head", "reset", 100.0, at, opened, port, pid, 0.0, race)


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        pytest.param(loss(pid=7), 0, id="answered by the victim before"),
        pytest.param(loss(port=4000), 0, id="held by the victim"),
        pytest.param(loss(port=4000, opened=100.5), 1, id="the same port, opened later"),
        pytest.param(loss(port=4001), 1, id="somebody else's"),
        pytest.param(loss(port=4001, race=True), 0, id="a race is counted apart"),
    ],
)
def test_only_what_the_victim_had_is_excused(found, lost):
    ledger = Ledger()
    ledger.excuse(VICTIM.had)
    ledger.lose(found)
    assert len(ledger.lost()) == lost


def test_loss_stands_in_the_row_of_its_time():
    ledger = Ledger()
    with ledger.operation("first") as first:
        pass
    with ledger.operation("second") as second:
        pass
    first.began, second.began = 50.0, 100.0
    ledger.lose(loss(at=101.0))
    rows = [line.split() for line in ledger.table().splitlines()]
    assert [row[6] for row in rows[1:3]] == ["0", "1"]
