"""Reload, recycling and size: one slot at a time, the successor first."""

from aioserve.master.events import (
    BootFailed,
    Ready,
    Role,
    Sig,
)
from tests.pure.master.story import HUP, TERM, Story


class TestReload:
    def test_the_successor_starts_in_the_other_seat_while_the_old_one_serves(self):
        story = Story(workers=2).serving()
        assert (story.feed(HUP), story.spawns[2:]) == ([], [(Role.WORKER, 0, 1, 2)])

    def test_the_old_one_is_told_to_leave_when_the_successor_is_ready(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        assert story.feed(Ready(103)) == [(101, Sig.TERM)]

    def test_the_next_slot_waits_until_the_old_one_has_gone(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        assert len(story.spawns) == 3
        story.leaves(101)
        assert story.spawns[3:] == [(Role.WORKER, 1, 1, 2)]

    def test_the_end_is_told(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(Ready(102))
        story.leaves(101)
        assert story.told("reload to generation 2 finished: 1 replaced")

    def test_the_next_reload_takes_the_first_seat_again(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(Ready(102))
        story.leaves(101)
        story.feed(HUP)
        assert story.spawns[-1] == (Role.WORKER, 0, 0, 3)

    def test_a_watcher_is_not_replaced(self):
        story = Story(watchers=1).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        story.leaves(101)
        assert [role for role, *_ in story.spawns] == [Role.WORKER, Role.WATCHER, Role.WORKER]

    def test_an_old_one_that_does_not_leave_is_killed(self):
        story = Story(grace=30, margin=5).serving()
        story.feed(HUP)
        story.feed(Ready(102))
        assert (story.wake_at, story.tick()) == (35, [(101, Sig.KILL)])
        story.dies(101, -9)
        assert (story.quit, bool(story.told("finished: 1 replaced"))) == (None, True)

    def test_an_old_one_that_crashes_while_it_leaves_is_told_and_that_is_all(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(Ready(102))
        story.dies(101)
        assert (len(story.spawns), bool(story.told("killed by SIGSEGV while it was leaving"))) == (2, True)
        story.feed(TERM)
        story.leaves(102)
        assert story.quit == 0

    def test_a_successor_that_cannot_start_leaves_everything_as_it_was(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(BootFailed(103, "no module named shop", "Traceback"))
        assert story.dies(103, 3) == []
        assert (len(story.spawns), story.wake_at) == (3, None)
        assert story.told("reload to generation 2 failed: no module named shop; 0 of 2 replaced, the others serve on")

    def test_what_was_replaced_stays_when_a_later_slot_fails(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        story.leaves(101)
        story.dies(104, 3)
        assert story.told("1 of 2 replaced")
        story.dies(103)  # its slot is of the new generation
        story.dies(102)  # its slot is of the old one
        assert story.spawns[4:] == [(Role.WORKER, 0, 0, 2), (Role.WORKER, 1, 0, 1)]

    def test_a_generation_number_is_never_used_twice(self):
        story = Story().serving()
        story.feed(HUP)
        story.dies(102, 3)
        story.feed(HUP)
        assert story.spawns[-1] == (Role.WORKER, 0, 1, 3)

    def test_a_successor_that_does_not_get_ready_is_killed_and_the_old_one_stays(self):
        story = Story(boot_timeout=60).serving()
        story.feed(HUP)
        assert (story.tick(), story.tick()) == ([(102, Sig.USR2)], [(102, Sig.KILL)])
        assert story.dies(102, -9) == []
        assert story.told("failed: not ready after 60 s")

    def test_a_successor_that_cannot_be_forked_cancels_it(self):
        story = Story(workers=2).serving()
        story.forks = False
        story.feed(HUP)
        assert (len(story.spawns), story.wake_at) == (3, None)
        assert story.told("failed: no process could be started")

    def test_a_successor_that_crashes_in_its_turn_cancels_it(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        story.dies(103)
        assert story.spawns[3:] == [(Role.WORKER, 0, 1, 2)]  # at once, while the old one still drains
        story.leaves(101)
        assert (len(story.spawns), bool(story.told("failed: the successor killed by SIGSEGV"))) == (4, True)

    def test_an_old_one_that_crashes_while_its_successor_boots_is_succeeded(self):
        story = Story().serving()
        story.feed(HUP)
        story.dies(101)
        assert len(story.spawns) == 2
        story.feed(Ready(102))
        assert story.told("finished: 1 replaced")

    def test_when_both_are_lost_the_slot_is_filled_again(self):
        story = Story().serving()
        story.feed(HUP)
        story.dies(101)
        story.dies(102, 3)
        assert (story.spawns[2:], bool(story.told("failed"))) == ([(Role.WORKER, 0, 0, 1)], True)

    def test_a_slot_that_crashes_before_its_turn_gets_the_new_generation_and_loses_its_turn(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.dies(102)
        assert story.spawns[3:] == [(Role.WORKER, 1, 0, 2)]
        story.feed(Ready(104))
        story.feed(Ready(103))
        story.leaves(101)
        assert (len(story.spawns), bool(story.told("finished"))) == (4, True)

    def test_a_slot_that_is_empty_at_its_turn_is_passed_over(self):
        story = Story(workers=2).serving()
        story.dies(102)  # 103 at once
        story.feed(Ready(103))
        story.feed(HUP)  # 104 succeeds 101
        story.dies(103)  # now it has to wait
        story.feed(Ready(104))
        story.leaves(101)
        assert story.told("finished: 1 replaced")
        story.tick()
        assert story.spawns[-1] == (Role.WORKER, 1, 0, 2)

    def test_an_empty_slot_is_filled_at_once(self):
        story = Story(workers=2).serving()
        story.dies(101)
        story.dies(103)  # waits 0.5 s
        story.feed(HUP)
        assert story.spawns[3:] == [(Role.WORKER, 0, 0, 2), (Role.WORKER, 1, 1, 2)]

    def test_a_worker_that_still_boots_is_succeeded_like_any_other(self):
        story = Story().serving()
        story.dies(101)
        story.feed(HUP)
        assert story.spawns[-1] == (Role.WORKER, 0, 1, 2)
        assert story.feed(Ready(103)) == [(102, Sig.TERM)]
        assert story.feed(Ready(102)) == []
        story.dies(102, -15)
        assert story.told("finished: 1 replaced")

    def test_an_old_one_that_fails_to_boot_beside_its_successor_is_not_tried_again(self):
        story = Story().serving()
        story.dies(101)
        story.feed(HUP)
        story.dies(102, 3)
        assert (len(story.spawns), story.quit) == (3, None)

    def test_a_slot_whose_failed_child_lingers_waits_with_its_turn(self):
        story = Story().serving()
        story.dies(101)
        story.feed(BootFailed(102, "no", ""))
        story.feed(HUP)  # 103 takes the other seat
        story.feed(Ready(103))
        story.feed(HUP)
        assert len(story.spawns) == 3
        story.dies(102, 3)
        assert story.spawns[3:] == [(Role.WORKER, 0, 0, 3)]

    def test_a_second_one_follows_the_first_and_a_third_adds_nothing(self):
        story = Story().serving()
        for _ in range(3):
            story.feed(HUP)
        assert story.told("another reload follows")
        story.feed(Ready(102))
        story.leaves(101)
        assert story.spawns[2:] == [(Role.WORKER, 0, 0, 3)]
        story.feed(Ready(103))
        story.leaves(102)
        assert len(story.spawns) == 3

    def test_a_second_one_follows_a_failure_too(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(HUP)
        story.dies(102, 3)
        assert story.spawns[2:] == [(Role.WORKER, 0, 1, 3)]

    def test_a_server_that_cannot_reload_says_why(self):
        story = Story(no_reload="--preload keeps the application").serving()
        story.feed(HUP)
        assert (len(story.spawns), bool(story.told("no reload: --preload keeps"))) == (1, True)
