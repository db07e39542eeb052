from __future__ import annotations

import gc
import weakref

from aioserve.worker.deadlines import TURN_LIMIT, Deadlines


class Waiting:
    """Remembers when it was looked at; ``again`` is filed anew each time."""

    def __init__(self, deadlines=None, again=None):
        self.bucket = None
        self.looks = []
        self.deadlines = deadlines
        self.again = again

    def look(self, now):
        self.looks.append(now)
        if self.again is not None:
            self.deadlines.file(self, now + self.again)


def run(deadlines, seconds):
    until = deadlines.now + seconds
    while deadlines.now < until:
        deadlines.advance(deadlines.now + deadlines.resolution)


def test_nothing_is_looked_at_before_its_time():
    deadlines = Deadlines(0.5, 100.0)
    one = Waiting()
    deadlines.file(one, 103.0)
    run(deadlines, 2.9)
    assert one.looks == []
    run(deadlines, 1.2)
    assert len(one.looks) == 1
    assert 103.0 <= one.looks[0] <= 104.0


def test_filing_again_replaces_the_time():
    deadlines = Deadlines(0.5, 0.0)
    one = Waiting()
    deadlines.file(one, 1.0)
    deadlines.file(one, 5.0)
    run(deadlines, 4.0)
    assert one.looks == []


def test_what_is_forgotten_is_not_kept_alive():
    deadlines = Deadlines(0.5, 0.0)
    one = Waiting()
    deadlines.file(one, 75.0)
    deadlines.forget(one)
    deadlines.forget(one)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_a_deadline_in_the_past_comes_with_the_next_tick():
    deadlines = Deadlines(0.5, 100.0)
    one = Waiting()
    deadlines.file(one, 1.0)
    run(deadlines, 0.5)
    assert len(one.looks) == 1


def test_one_that_files_itself_again_is_looked_at_again():
    deadlines = Deadlines(0.5, 0.0)
    one = Waiting(deadlines, again=1.0)
    deadlines.file(one, 1.0)
    run(deadlines, 10.0)
    assert 5 <= len(one.looks) <= 10


def test_a_late_tick_catches_up():
    deadlines = Deadlines(0.5, 0.0)
    waiting = [Waiting() for _ in range(10)]
    for number, one in enumerate(waiting):
        deadlines.file(one, float(number))
    deadlines.advance(60.0)
    assert all(len(one.looks) == 1 for one in waiting)


def test_all_that_wait_can_be_visited_and_filed_meanwhile():
    deadlines = Deadlines(0.5, 0.0)
    waiting = [Waiting() for _ in range(10)]
    for one in waiting:
        deadlines.file(one, 5.0)
    for one in deadlines:
        deadlines.file(one, 1.0)
    run(deadlines, 2.0)
    assert all(len(one.looks) == 1 for one in waiting)


def crowd(deadlines, number):
    all_of_them = [Waiting() for _ in range(number)]
    for one in all_of_them:
        deadlines.file(one, 1.0)
    return all_of_them


def test_a_crowd_that_is_due_at_once_is_looked_at_a_few_at_a_time():
    deadlines = Deadlines(0.5, 0.0)
    all_of_them = crowd(deadlines, 2 * TURN_LIMIT + 1)

    turns = [deadlines.advance(2.0), deadlines.go_on(), deadlines.go_on()]

    assert turns == [True, True, False]
    assert [one.looks for one in all_of_them] == [[2.0]] * len(all_of_them)


def test_those_that_are_due_and_were_not_looked_at_can_be_visited_filed_and_forgotten():
    deadlines = Deadlines(0.5, 0.0)
    all_of_them = crowd(deadlines, TURN_LIMIT + 3)
    deadlines.advance(2.0)
    waiting, forgotten, filed = (one for one in all_of_them if not one.looks)

    deadlines.forget(forgotten)
    deadlines.file(filed, 9.0)
    assert set(deadlines) == {waiting, filed}
    assert not deadlines.go_on()

    assert (waiting.looks, forgotten.looks, filed.looks) == ([2.0], [], [])
