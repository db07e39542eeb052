"""Who is late, who helps, and until when: numbers in, decisions out."""

import random

import pytest

from aioserve.master.lateness import (
    FIRST_HOLD,
    HELPERS,
    LONG_PATIENCE,
    LONGEST_HOLD,
    PATIENCE,
    RELAPSE_HOLDS,
    SATURATED,
    Lateness,
)

LOOK = 0.002


class Story:
    """Looks one after another, at a pace of 2 ms; workers accept what ``accepts`` says."""

    def __init__(self, slots=3):
        self.now = 100.0
        self.lateness = Lateness()
        self.opened = dict.fromkeys(range(slots), 0)
        self.serving = list(range(slots))

    def look(self, *waiting, accepts=(), after=LOOK, **how):
        self.now += after
        for slot in accepts:
            self.opened[slot] += 1
        total = sum(self.opened.values())
        return self.lateness.look(self.now, set(waiting), total, self.opened.__getitem__, lambda: self.serving, **how)

    def be_late(self, slot):
        self.look(slot)
        return self.look(slot)

    @property
    def watched(self):
        return {slot: set(helpers) for slot, helpers in self.lateness.watched.items()}


def test_a_queue_that_was_seen_once_means_nothing():
    story = Story()
    assert (story.look(0), story.watched) == ([], {})


def test_who_lets_connections_wait_for_two_looks_is_late_and_watched_by_the_others():
    story = Story()
    story.look(0)
    assert (story.look(0), story.watched) == ([0], {0: {1, 2}})


def test_after_a_look_that_comes_too_late_there_is_one_more_before_anybody_is_late():
    story = Story()
    story.look(0)
    assert story.look(0, after=5 * LOOK, overslept=True) == []
    assert story.look(0, after=5 * LOOK, overslept=True) == [0]


def test_each_that_waits_is_excused_anew():
    story = Story()
    story.look(0)
    story.look(0, overslept=True)
    story.look(accepts=[0])
    story.look(0, overslept=True)
    assert story.look(0, overslept=True) == []
    assert story.look(0) == [0]


def test_who_accepts_is_not_late_however_much_waits():
    story = Story()
    for _ in range(10):
        assert story.look(0, accepts=[0]) == []
    assert story.watched == {}


def test_a_queue_that_was_empty_in_between_begins_anew():
    story = Story()
    story.look(0)
    story.look()
    assert (story.look(0), story.watched) == ([], {})


def test_two_looks_at_the_same_moment_are_one():
    story = Story()
    story.look(0)
    assert (story.look(0, after=PATIENCE / 2), story.watched) == ([], {})


def test_what_siblings_accept_is_no_sign_of_life():
    story = Story()
    story.look(0, accepts=[1])
    assert story.look(0, accepts=[1, 2]) == [0]


def test_nobody_is_told_when_nobody_is_on_time():
    story = Story(2)
    story.look(0, 1)
    assert (story.look(0, 1), story.watched) == ([], {})


def test_as_soon_as_somebody_is_on_time_he_is_told():
    story = Story(2)
    story.look(0, 1)
    story.look(0, 1)
    assert (story.look(0, accepts=[1]), story.watched) == ([0], {0: {1}})


def test_who_has_something_in_his_own_queue_is_told_only_when_it_takes_long():
    story = Story(2)
    story.look(0, accepts=[1])
    began = story.now
    while not story.look(0, 1, accepts=[1]):
        assert story.watched == {}
    assert (story.watched, story.now - began) == ({0: {1}}, pytest.approx(LONG_PATIENCE, abs=LOOK))


def test_who_accepts_as_fast_as_he_can_is_told_only_when_it_takes_long():
    story = Story(2)
    fast = round(1.5 * SATURATED * LOOK)
    story.look(0, accepts=[1] * fast)
    began = story.now
    while not story.look(0, accepts=[1] * fast):
        assert story.watched == {}
    assert (story.watched, story.now - began) == ({0: {1}}, pytest.approx(LONG_PATIENCE, abs=LOOK))


def test_who_accepts_half_as_fast_is_told_at_once():
    story = Story(2)
    story.look(0)
    assert story.look(0, accepts=[1] * round(0.5 * SATURATED * LOOK)) == [0]


def test_who_is_late_himself_does_not_help():
    story = Story(3)
    story.look(0, 1)
    assert (story.look(0, 1), story.watched) == ([0, 1], {0: {2}, 1: {2}})


def test_a_slot_without_a_worker_is_helped_and_does_not_help():
    story = Story(3)
    story.serving = [1]
    story.be_late(0)
    assert story.watched == {0: {1}}


def test_the_idlest_help_first_and_more_of_them_when_they_are_not_enough():
    story = Story(9)
    story.serving = [8, 7, 6, 5, 4, 3, 2, 1, 0]
    story.be_late(0)
    assert story.watched == {0: {8, 7, 6}}
    story.look(0, after=PATIENCE / 2)
    assert story.watched == {0: {8, 7, 6}}
    story.look(0)
    assert len(story.watched[0]) == 2 * HELPERS
    for _ in range(3):
        story.look(0)
    assert story.watched == {0: set(range(1, 9))}


def test_being_late_on_is_told_once():
    story = Story()
    story.be_late(0)
    assert [story.look(0) for _ in range(5)] == [[]] * 5


def test_who_is_back_is_left_alone_after_a_while():
    story = Story()
    story.be_late(0)
    story.look(accepts=[0])
    assert story.watched == {0: {1, 2}}
    story.look(accepts=[0], after=FIRST_HOLD)
    assert story.watched == {}


def test_who_has_accepted_nothing_since_is_watched_on():
    story = Story()
    story.be_late(0)
    story.look(after=60)
    assert story.watched == {0: {1, 2}}
    story.look(accepts=[0])
    assert story.watched == {}


def holds(story, gap):
    """For how long the slot is watched each time, if it is late again ``gap`` holds after the end of the last one."""
    found = []
    for _ in range(9):
        story.be_late(0)
        began = story.now
        story.look(accepts=[0])
        while story.watched:
            story.look()
        found.append(story.now - began)
        story.look(after=gap * found[-1])
    return found


def test_who_is_late_again_and_again_is_watched_for_longer_up_to_a_limit():
    found = holds(Story(), gap=1)
    expected = [min(FIRST_HOLD * 2**time, LONGEST_HOLD) for time in range(9)]
    assert found == pytest.approx(expected, abs=2 * LOOK)


def test_who_is_late_now_and_then_is_watched_briefly():
    assert holds(Story(), gap=RELAPSE_HOLDS + 0.5) == pytest.approx([FIRST_HOLD] * 9, abs=2 * LOOK)


def test_a_slot_that_has_gone_is_forgotten():
    story = Story()
    story.be_late(2)
    story.lateness.keep({0, 1})
    assert story.watched == {}


@pytest.mark.parametrize("seed", range(50))
def test_any_history_keeps_its_promises(seed):
    """Nobody helps himself, and all are left alone in the end."""
    chance = random.Random(seed)
    story = Story(chance.randint(1, 6))
    for _ in range(300):
        slots = list(story.opened)
        waiting = chance.sample(slots, chance.randint(0, len(slots)))
        accepts = chance.sample(slots, chance.randint(0, len(slots)))
        story.serving = chance.sample(slots, chance.randint(0, len(slots)))
        new = story.look(*waiting, accepts=accepts, after=chance.choice([0.0, LOOK, LOOK, 0.3]))
        assert set(new) <= set(waiting) & story.watched.keys()
        assert all(slot not in helpers for slot, helpers in story.watched.items())
    story.look(accepts=story.opened, after=LONGEST_HOLD)
    assert story.watched == {}, f"seed {seed}"
