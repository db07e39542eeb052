"""Who gets the next connection: loads, lateness and turns, in made-up cells and with a made-up clock."""

import pytest

from aioserve.accept.balance import FORGOTTEN, INEXCUSABLE, LATE, OVERSLEPT, Alarm, Choice, Lane
from aioserve.accept.passing import MOST
from aioserve.observe.scoreboard import (
    ACCEPTING,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    CONNECTIONS_TOTAL,
    PHASE,
    Phase,
    Scoreboard,
)


class Slot:
    """A lane and the rows that it reads; ``waiting`` is what the kernel would say."""

    def __init__(self, number=0, limit=0, seats=(0,)):
        board = Scoreboard(1)
        self.rows = [board.row(0, seat) for seat in range(2)]
        self.lane = Lane(number, [row.cells for row in self.rows])
        self.waiting = 0
        for seat in seats:
            self.serve(seat, limit=limit)

    def serve(self, seat, *, connections=0, limit=0, phase=Phase.READY, accepting=True):
        cells = self.rows[seat].cells
        cells[PHASE], cells[ACCEPTING] = phase, accepting
        cells[CONNECTIONS], cells[CONNECTIONS_TOTAL], cells[CONNECTIONS_LIMIT] = connections, connections, limit

    def look(self, now=0.0, avoided=False):
        self.lane.look(lambda: self.waiting, now, avoided=avoided)
        return self.lane

    def send(self, count, now=0.0):
        self.lane.sent(count, now)
        self.waiting += count

    def take(self, count):
        """The worker takes and does not open yet."""
        self.waiting -= count

    def open(self, count, seat=0):
        self.rows[seat].cells[CONNECTIONS] += count
        self.rows[seat].cells[CONNECTIONS_TOTAL] += count

    def close(self, count, seat=0):
        self.rows[seat].cells[CONNECTIONS] -= count


def test_a_load_is_what_is_open_and_what_is_under_way():
    slot = Slot()
    assert slot.look().load == 0
    slot.send(3)
    assert slot.look().load == 3
    slot.take(2)
    assert slot.look().load == 3
    slot.open(2)
    assert slot.look().load == 3
    slot.take(1)
    slot.open(1)
    slot.close(2)
    assert slot.look().load == 1


def test_what_is_taken_and_opens_as_the_feed_is_asked_is_counted_once():
    slot = Slot()
    slot.send(2)

    def ask():
        waiting = slot.waiting
        slot.take(2)
        slot.open(2)
        return waiting

    slot.lane.look(ask, 0.0, avoided=False)
    assert slot.look().load == 2
    slot.close(2)
    assert slot.look().load == 0


def test_what_another_dispatcher_has_sent_counts():
    slot = Slot()
    slot.waiting = 4
    assert slot.look().load == 4


def test_who_has_left_before_its_connection_opened_is_forgotten():
    slot = Slot()
    slot.look()
    slot.send(1)
    slot.take(1)
    assert slot.look(0.5).load == 1
    assert slot.look(0.5 + FORGOTTEN + 0.1).load == 0


def test_a_successor_begins_at_nothing():
    slot = Slot()
    slot.open(9)
    slot.look()
    slot.rows[0].clear()
    slot.serve(0, connections=2)
    assert slot.look().load == 2


def test_both_seats_count_while_both_take_and_then_only_the_successor():
    slot = Slot(seats=())
    slot.serve(0, connections=5)
    slot.serve(1, connections=1)
    assert slot.look().load == 6
    slot.serve(0, connections=5, phase=Phase.DRAINING, accepting=False)
    assert slot.look().load == 1


@pytest.mark.parametrize(
    ("worker", "avoided", "takes", "serves"),
    [
        ({}, False, True, True),
        ({}, True, False, True),
        ({"phase": Phase.DRAINING}, False, True, True),  # --drain-delay: readiness fails, and it serves on
        ({"accepting": False}, False, False, True),
        ({"phase": Phase.BOOTING, "accepting": False}, False, False, False),
    ],
)
def test_who_takes_and_who_serves(worker, avoided, takes, serves):
    slot = Slot(seats=())
    slot.serve(0, **worker)
    lane = slot.look(avoided=avoided)
    assert (lane.takes, lane.serves, lane.room > 0) == (takes, serves, takes)


@pytest.mark.parametrize(
    ("limit", "connections", "waiting", "room"),
    [
        (0, 0, 0, MOST),
        (0, 10_000, 0, MOST),
        (0, 0, 60, MOST - 60),
        (0, 0, MOST + 3, 0),
        (1000, 0, 0, MOST),
        (1000, 990, 0, 10),
        (1000, 1000, 0, 0),
        (1000, 1001, 0, 0),
        (64, 0, 0, 16),  # so few descriptors that a message of 64 might not find room
        (2, 0, 0, 1),
    ],
)
def test_room_is_what_limit_and_feed_leave(limit, connections, waiting, room):
    slot = Slot(seats=())
    slot.serve(0, connections=connections, limit=limit)
    slot.waiting = waiting
    assert slot.look().room == room


def test_a_worker_is_late_once_when_something_has_waited_too_long():
    slot = Slot()
    slot.look()
    slot.send(1, now=1.0)
    assert not slot.look(1.0 + LATE / 2).lags(1.0 + LATE / 2)
    lane = slot.look(1.0 + LATE)
    assert lane.due() == 1.0 + LATE
    assert (lane.lags(1.0 + LATE), lane.lags(1.0 + LATE), lane.room) == (True, False, 0)
    assert slot.look(2.0).room == 0


def test_a_worker_that_takes_something_is_not_late():
    slot = Slot()
    slot.look()
    slot.send(2)
    slot.take(1)
    slot.look(LATE)
    assert not slot.lane.lags(LATE + LATE / 2)


def test_an_excused_worker_has_its_time_once_more():
    slot = Slot()
    slot.look()
    slot.send(1, now=1.0)
    lane = slot.look(1.0 + LATE)
    lane.excuse(1.0 + LATE)
    assert lane.due() == 1.0 + LATE + LATE
    assert (lane.lags(1.0 + LATE), lane.lags(1.0 + 2 * LATE)) == (False, True)


def test_a_worker_is_not_excused_for_ever():
    slot = Slot()
    slot.look()
    slot.send(1, now=1.0)
    looks = [1.0 + number * LATE for number in range(1, 20)]

    def is_late(now):
        slot.look(now).excuse(now)
        return slot.lane.lags(now)

    assert next(now for now in looks if is_late(now)) == pytest.approx(1.0 + INEXCUSABLE)


def test_an_alarm_tells_once_that_it_was_overslept():
    alarm = Alarm()
    assert not alarm.overslept(99.0)
    alarm.set(100.0)
    assert not alarm.overslept(100.0 + OVERSLEPT / 2)
    assert [alarm.overslept(101.0), alarm.overslept(102.0)] == [True, False]


def test_a_late_worker_gets_nothing_until_it_has_taken_all():
    slot = Slot()
    slot.look()
    slot.send(2)
    slot.look(LATE).lags(LATE)
    slot.take(1)
    assert slot.look(1.0).room == 0
    slot.take(1)
    assert slot.look(1.1).room > 0


def test_what_was_taken_back_is_no_load_and_a_probe_shows_that_the_worker_is_back():
    slot = Slot()
    slot.look()
    slot.send(3)
    lane = slot.look(LATE)
    lane.lags(LATE)
    slot.take(3)
    lane.retaken(3)
    slot.waiting = 1
    lane.probe()
    lane = slot.look(1.0)
    assert (lane.load, lane.room, lane.late, lane.idle) == (0, 0, True, False)
    slot.take(1)
    lane = slot.look(1.1)
    assert (lane.load, lane.late, lane.idle) == (0, False, True)


def lanes(*loads):
    found = []
    for number, load in enumerate(loads):
        slot = Slot(number, seats=())
        slot.serve(0, connections=load)
        found.append(slot.look())
    return found


def chosen(choice, found, count):
    return [lane.number for _ in range(count) if (lane := choice.among(found)) is not None]


def test_the_smallest_load_is_chosen_until_all_are_equal():
    assert chosen(Choice(), lanes(3, 1, 2), 6) == [1, 2, 1, 2, 0, 1]


def test_equals_take_turns_across_calls():
    choice = Choice()
    assert [chosen(choice, lanes(0, 0, 0), 1) for _ in range(4)] == [[0], [1], [2], [0]]


def test_who_has_no_room_is_passed_over():
    found = lanes(0, 5)
    found[0].room = 1
    assert chosen(Choice(), found, 3) == [0, 1, 1]


def test_nobody_is_chosen_when_nobody_has_room():
    found = lanes(0)
    found[0].room = 0
    assert Choice().among(found) is None
