"""Reload, recycling and size: one slot at a time, the successor first."""

import dataclasses

import pytest

from aioserve.master.events import (
    BootFailed,
    Forget,
    Grow,
    Prepared,
    PrepareFailed,
    Ready,
    RecycleRequested,
    ResizeRequested,
    Role,
    Sig,
    Steer,
    WakeAt,
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

    def test_a_broken_configuration_starts_nobody(self):
        story = Story(workers=2).serving()
        story.mistakes = "the configuration has 2 mistakes"
        story.feed(HUP)
        assert (len(story.spawns), story.wake_at) == (2, None)
        assert story.told("reload to generation 2 failed: the configuration has 2 mistakes; 0 of 2 replaced")

    def test_a_mended_configuration_is_a_generation_of_its_own(self):
        story = Story().serving()
        story.mistakes = "the configuration has a mistake"
        story.feed(HUP)
        story.mistakes = ""
        story.feed(HUP)
        assert story.spawns[1:] == [(Role.WORKER, 0, 1, 3)]

    def test_what_was_never_replaced_keeps_its_generation_after_a_failure(self):
        story = Story(workers=2).serving()
        story.feed(HUP)  # 103 succeeds 101
        story.dies(102)  # 104, of the new generation
        story.dies(103, 3)
        assert story.told("failed")
        story.dies(104, 3)
        story.tick()
        assert story.spawns[-1] == (Role.WORKER, 1, 0, 1)

    def test_generations_that_nobody_belongs_to_are_forgotten(self):
        story = Story().serving()
        story.feed(HUP)
        assert story.machine.generations == {1, 2}
        story.feed(Ready(102))
        story.leaves(101)
        assert story.machine.generations == {2}

    @pytest.mark.parametrize("answer", [PrepareFailed(2, "broken"), Prepared(2, 5, Story().policy)])
    def test_an_answer_that_comes_after_a_stop_was_asked_for_is_nothing(self, answer):
        machine = Story().serving().machine
        machine.handle(HUP, 0.0)
        machine.handle(TERM, 0.0)
        assert [type(action) for action in machine.handle(answer, 0.0)] == [WakeAt]

    def test_the_policy_is_that_of_the_newest_configuration(self):
        story = Story().serving()
        story.policy = dataclasses.replace(story.policy, grace=7)
        story.workers = 2
        story.feed(HUP)
        assert (story.machine.policy.grace, story.machine.workers) == (7, 2)

    def test_a_worker_has_the_time_to_drain_that_its_own_configuration_gives_it(self):
        story = Story().serving()
        story.policy = dataclasses.replace(story.policy, grace=7)
        story.feed(HUP)
        assert story.feed(Ready(102)) == [(101, Sig.TERM)]
        assert story.wake_at == story.now + 30 + 5
        story.leaves(101)
        assert story.feed(TERM) == [(102, Sig.TERM)]
        assert story.wake_at == story.now + 7 + 5

    def test_a_reload_that_replaced_nobody_leaves_the_policy_as_it_was(self):
        story = Story().serving()
        story.policy = dataclasses.replace(story.policy, grace=7)
        story.feed(HUP)
        story.feed(BootFailed(102, "no such module", ""))
        story.dies(102, 3)
        assert story.machine.policy.grace == 30


class TestRecycling:
    def test_the_successor_is_first(self):
        story = Story().serving()
        assert story.feed(RecycleRequested(101, "10000 requests")) == []
        assert story.spawns[1:] == [(Role.WORKER, 0, 1, 1)]
        assert story.feed(Ready(102)) == [(101, Sig.TERM)]
        assert [say.text for say in story.said] == [
            "worker (pid 101) has reached a limit (10000 requests): a successor starts",
            "worker (pid 102) is ready and takes over from pid 101",
        ]

    def test_it_is_one_slot_at_a_time(self):
        story = Story(workers=2).serving()
        story.feed(RecycleRequested(102, "age 3600 s"))
        story.after(1).feed(RecycleRequested(101, "age 3600 s"))
        story.feed(Ready(103))
        assert len(story.spawns) == 3
        story.leaves(102)
        assert story.spawns[3:] == [(Role.WORKER, 0, 1, 1)]

    def test_saying_it_again_changes_nothing(self):
        story = Story().serving()
        for _ in range(3):
            story.feed(RecycleRequested(101, "512 MiB"))
        story.feed(Ready(102))
        story.leaves(101)
        assert (len(story.spawns), story.wake_at) == (2, None)

    def test_a_reload_under_way_fulfils_it(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(RecycleRequested(102, "10000 requests"))
        story.feed(Ready(103))
        story.leaves(101)
        story.feed(Ready(104))
        story.leaves(102)
        assert len(story.spawns) == 4

    def test_a_reload_that_was_asked_for_meanwhile_comes_after_the_step(self):
        story = Story().serving()
        story.feed(RecycleRequested(101, "10000 requests"))
        story.feed(HUP)
        assert len(story.spawns) == 2
        story.feed(Ready(102))
        story.leaves(101)
        assert story.spawns[2:] == [(Role.WORKER, 0, 0, 2)]

    def test_a_reload_that_fails_leaves_it_to_be_done(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(RecycleRequested(101, "10000 requests"))
        story.dies(102, 3)
        assert story.spawns[2:] == [(Role.WORKER, 0, 1, 1)]

    def test_a_successor_that_cannot_start_leaves_the_old_one_and_is_tried_again_later(self):
        story = Story(recycle_retry=30).serving()
        story.feed(RecycleRequested(101, "512 MiB"))
        story.dies(102, 3)
        assert story.told("worker (pid 101) is not recycled: exited with status 3") or story.told("is not recycled")
        assert (len(story.spawns), story.wake_at) == (2, 30)
        story.tick()
        assert story.spawns[2:] == [(Role.WORKER, 0, 1, 1)]

    def test_a_worker_that_dies_before_its_successor_is_ready_is_succeeded(self):
        story = Story().serving()
        story.feed(RecycleRequested(101, "512 MiB"))
        story.dies(101)
        story.feed(Ready(102))
        assert (len(story.spawns), story.wake_at) == (2, None)

    def test_it_is_forgotten_at_a_stop(self):
        story = Story().serving()
        story.feed(TERM)
        story.feed(RecycleRequested(101, "512 MiB"))
        assert len(story.spawns) == 1

    def test_a_watcher_and_a_stranger_are_not_recycled(self):
        story = Story(watchers=1).serving()
        story.feed(RecycleRequested(102, "x"))
        story.feed(RecycleRequested(4711, "x"))
        assert len(story.spawns) == 2


class TestSize:
    MORE, LESS = ResizeRequested(1, "SIGTTIN"), ResizeRequested(-1, "SIGTTOU")

    def test_one_more_has_its_sockets_made_and_is_started(self):
        story = Story().serving()
        story.feed(self.MORE)
        assert (story.did, story.spawns[1:]) == ([Grow(1)], [(Role.WORKER, 1, 0, 1)])
        story.feed(Ready(102))
        assert [say.text for say in story.said] == ["SIGTTIN: 2 workers from now on", "worker 1 (pid 102) is ready"]

    def test_the_highest_is_steered_away_from_then_told_then_forgotten(self):
        story = Story(workers=2, linger=1).serving()
        assert story.feed(self.LESS) == []
        assert (story.did, story.wake_at) == ([Steer(1, away=True)], 1)
        assert story.tick() == [(102, Sig.TERM)]
        story.leaves(102)
        assert (story.did[1:], len(story.spawns), story.quit) == ([Forget(1)], 2, None)

    def test_one_has_to_stay(self):
        story = Story().serving()
        assert story.feed(self.LESS) == []
        assert story.told("one worker has to stay")

    def test_there_is_room_for_so_many(self):
        story = Story(most=2).serving()
        story.feed(self.MORE)
        story.feed(self.MORE)
        assert (len(story.spawns), bool(story.told("no room for more than 2 workers"))) == (2, True)

    def test_a_slot_that_is_wanted_again_stays(self):
        story = Story(workers=2, linger=1).serving()
        story.feed(self.LESS)
        assert story.feed(self.MORE) == []
        assert story.did == [Steer(1, away=True), Steer(1, away=False)]
        assert story.wake_at is None

    def test_a_slot_that_is_wanted_again_before_its_worker_was_ready_is_not_told_of(self):
        story = Story(workers=2, linger=1).serving()
        story.dies(102)
        story.feed(self.LESS)
        story.feed(self.MORE)
        assert story.did == [Steer(1, away=True)]
        story.feed(Ready(103))
        assert story.did[1:] == [Steer(1, away=False)]

    def test_a_slot_that_lost_its_worker_meanwhile_and_is_wanted_again_is_filled(self):
        story = Story(workers=2, linger=1).serving()
        story.feed(self.LESS)
        story.feed(BootFailed(102, "not booting", ""))
        story.dies(102)
        assert story.did == [Steer(1, away=True), Forget(1)]
        story.feed(self.MORE)
        assert story.spawns[-1] == (Role.WORKER, 1, 0, 1)

    def test_a_stuck_worker_in_a_slot_that_is_wanted_again_is_replaced(self):
        story = Story(workers=2, linger=100, worker_limit=4).serving()
        story.feed(self.LESS)
        for second in range(1, 5):
            story.beats({101: 0.1, 102: second}, after=1)
        story.feed(self.MORE)
        assert story.spawns[-1] == (Role.WORKER, 1, 1, 1)

    def test_without_sockets_there_is_no_further_worker(self):
        story = Story().serving()
        story.sockets = False
        story.feed(self.MORE)
        assert (len(story.spawns), bool(story.told("no further worker: no port"))) == (1, True)
        assert story.wake_at is None

    def test_a_further_worker_that_cannot_start_is_tried_again_and_ends_nothing(self):
        story = Story().serving()
        story.feed(self.MORE)
        story.dies(102, 3)
        assert (story.quit, len(story.spawns)) == (None, 3)

    def test_a_reload_with_another_number_of_workers_reaches_it(self):
        story = Story(workers=2).serving()
        story.workers = 1
        story.feed(HUP)
        for new, old in ((103, 101), (104, 102)):
            story.feed(Ready(new))
            story.leaves(old)
        assert story.did == [Steer(1, away=True)]
        story.leaves(104)
        assert story.did[1:] == [Forget(1)]

    def test_a_reload_with_the_same_number_keeps_what_was_wished_for_since(self):
        story = Story().serving()
        story.feed(self.MORE)
        story.feed(Ready(102))
        story.feed(HUP)
        story.feed(Ready(103))
        story.leaves(101)
        story.feed(Ready(104))
        story.leaves(102)
        assert story.did == [Grow(1)]

    def test_a_configuration_with_more_workers_than_rows_is_told_so(self):
        story = Story(most=2).serving()
        story.workers = 5
        story.feed(HUP)
        assert story.told("no room for more than 2 workers before a restart")

    def test_a_stopping_server_keeps_its_size(self):
        story = Story().serving()
        story.feed(TERM)
        story.feed(self.MORE)
        assert (len(story.spawns), bool(story.told("nothing changes, the server is stopping"))) == (1, True)
