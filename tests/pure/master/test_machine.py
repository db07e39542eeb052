"""The supervisor's rules for the life of a child and the end of the server, one story each."""

import pytest

from aioserve.master.events import (
    BootFailed,
    Exited,
    Kill,
    Level,
    Milestone,
    PassedOn,
    Quit,
    Ready,
    ReopenRequested,
    ResizeRequested,
    Role,
    Say,
    Sig,
    Spawned,
    SpawnFailed,
    Started,
    Steer,
    Tick,
    Unlisten,
)
from tests.pure.master.story import HUP, QUIT, TERM, Story


class TestStart:
    def test_all_slots_are_filled_at_once(self):
        story = Story(workers=3).started()
        assert story.spawns == [(Role.WORKER, slot, 0, 1) for slot in range(3)]

    def test_readiness_is_announced_when_the_last_worker_is_ready(self):
        story = Story(workers=2).started()
        story.feed(Ready(102))
        assert not story.told("ready")
        story.feed(Ready(101))
        assert [say.text for say in story.said] == ["ready: 2 workers"]

    def test_nothing_is_waited_for_once_all_serve(self):
        assert Story(workers=2).serving().wake_at is None

    def test_a_watcher_is_not_waited_for(self):
        story = Story(workers=1, watchers=1).started()
        story.feed(Ready(101))
        assert story.told("ready: 1 worker")

    def test_ready_said_twice_counts_once(self):
        story = Story().serving()
        assert story.feed(Ready(101)) == []

    def test_an_unknown_process_is_ignored(self):
        story = Story().serving()
        story.dies(4711)
        story.feed(Ready(4711))
        story.feed(BootFailed(4711, "no", ""))
        assert (story.said, len(story.spawns)) == ([], 1)


class TestFirstGenerationFails:
    def test_the_others_are_stopped_and_the_status_is_three(self):
        story = Story(workers=3).started()
        story.feed(Ready(103))
        story.feed(BootFailed(101, "no module named shop", "Traceback"))
        # A child that boots may have no handler for QUIT: it is told TERM.
        assert story.dies(101, 3) == [(102, Sig.TERM), (103, Sig.QUIT)]
        story.dies(102, -15)
        story.leaves(103)
        assert story.quit == 3

    def test_the_reason_is_told_with_its_traceback(self):
        story = Story().started()
        story.feed(BootFailed(101, "no module named shop", "Traceback ..."))
        story.dies(101, 3)
        assert story.said[0] == Say(
            Level.ERROR, "worker (pid 101) could not start: no module named shop", "Traceback ..."
        )

    def test_workers_that_fail_alike_are_told_once(self):
        story = Story(workers=3).started()
        for pid in (101, 102, 103):
            story.feed(BootFailed(pid, "no module named shop", "Traceback ..."))
        for pid in (101, 102, 103):
            story.dies(pid, 3)
        assert (len(story.told("could not start")), story.quit) == (1, 3)

    def test_an_exit_without_a_word_counts_too(self):
        story = Story().started()
        story.dies(101, 1, "exited with status 1")
        assert (story.quit, len(story.told("exited with status 1 before it was ready"))) == (3, 1)

    def test_a_worker_that_does_not_get_ready_is_killed(self):
        story = Story(boot_timeout=60, stacks_time=1).started()
        assert (story.wake_at, story.tick()) == (60, [(101, Sig.USR2)])  # where does it hang?
        assert (story.wake_at, story.tick()) == (61, [(101, Sig.KILL)])
        story.dies(101, -9)
        assert (story.quit, len(story.told("not ready after 60 s"))) == (3, 1)

    def test_a_worker_that_has_failed_and_stays_is_killed(self):
        story = Story(quick_limit=5).started()
        story.feed(BootFailed(101, "no", ""))
        assert (story.wake_at, story.tick()) == (5, [(101, Sig.KILL)])
        story.dies(101, -9)
        assert story.quit == 3

    def test_a_fork_that_fails_counts_too(self):
        story = Story(forks=False).started()
        assert (story.quit, len(story.told("no process could be started: no memory"))) == (3, 1)

    def test_a_watcher_that_fails_ends_nothing(self):
        story = Story(watchers=1).started()
        story.dies(102, 1)
        assert (story.quit, len(story.spawns)) == (None, 3)

    def test_a_worker_that_was_ready_before_the_others_is_only_a_crash(self):
        story = Story(workers=2).started()
        story.feed(Ready(101))
        story.dies(101)
        story.dies(103)
        assert (story.quit, story.wake_at) == (None, 0.5)


class TestBootFailureThatDoesNotEnd:
    """Under --reload."""

    def fails(self):
        story = Story(boot_failure_ends=False, watchers=1).started()
        story.feed(BootFailed(101, "invalid syntax", "line 3"))
        story.dies(101, 3)
        return story

    def test_the_slot_stays_empty(self):
        story = self.fails()
        story.feed(Ready(102))
        assert (len(story.spawns), story.wake_at, story.quit) == (2, None, None)

    def test_a_reload_fills_it(self):
        story = self.fails()
        story.feed(HUP)
        assert story.spawns[-1] == (Role.WORKER, 0, 0, 2)
        story.feed(Ready(103))
        assert story.told("ready: 1 worker")

    def test_a_second_failure_is_told_again(self):
        story = self.fails()
        story.feed(HUP)
        story.feed(BootFailed(103, "invalid syntax", "line 4"))
        story.dies(103, 3)
        assert [say.detail for say in story.told("could not start")] == ["line 3", "line 4"]

    def test_a_reload_asked_for_while_it_boots_comes_after_it(self):
        story = Story(boot_failure_ends=False).started()
        story.feed(HUP)
        assert len(story.spawns) == 1
        story.dies(101, 3)
        assert story.spawns[-1] == (Role.WORKER, 0, 0, 2)

    def test_a_failed_child_that_lingers_does_not_keep_the_slot(self):
        story = Story(boot_failure_ends=False, workers=2).started()
        story.feed(Ready(102))
        story.dies(101, 3)
        story.feed(HUP)  # 103 boots in slot 0, 104 succeeds 102
        story.feed(BootFailed(103, "no", ""))
        story.feed(Ready(104))
        story.leaves(102)
        story.feed(HUP)  # 103 has not gone yet
        assert story.spawns[-2] == (Role.WORKER, 0, 1, 3)

    def test_a_slot_with_both_seats_taken_waits_for_an_exit(self):
        story = Story(boot_failure_ends=False, workers=2).started()
        story.feed(Ready(102))
        story.dies(101, 3)
        for pid in (103, 106):
            story.feed(HUP)  # 103, then 105 in slot 0
            story.feed(BootFailed(pid if pid == 103 else 105, "no", ""))
            story.feed(Ready(104 if pid == 103 else 106))
            story.leaves(102 if pid == 103 else 104)
        spawned = len(story.spawns)
        story.feed(HUP)
        assert [spawn[1] for spawn in story.spawns[spawned:]] == [1]
        story.dies(103, 3)
        assert story.spawns[-1] == (Role.WORKER, 0, 0, 4)


class TestCrash:
    def test_the_first_one_is_followed_by_a_spawn_at_once(self):
        story = Story(workers=2).serving()
        story.dies(101)
        assert story.spawns[2:] == [(Role.WORKER, 0, 0, 1)]

    def test_it_is_told_who_died_of_what_and_how_old(self):
        story = Story(workers=2).serving().after(12)
        story.dies(102)
        assert story.said == [Say(Level.ERROR, "worker 1 (pid 102) killed by SIGSEGV after 12.0 s of serving")]

    def test_a_kill_that_was_not_ours_is_said_to_be_somebody_elses(self):
        story = Story().serving()
        story.dies(101, -9, "killed by SIGKILL")
        assert story.told("not by aioserve")

    def test_leaving_unasked_is_a_crash_too(self):
        story = Story().serving()
        story.leaves(101)
        assert len(story.spawns) == 2

    def test_the_pauses_double_up_to_the_longest(self):
        story = Story(backoff_initial=0.5, backoff_max=4).serving()
        pauses = []
        for pid in range(101, 108):
            story.dies(pid)
            pauses.append((story.wake_at or story.now) - story.now if story.pids == pid else 0)
            if story.pids == pid:
                story.tick()
            story.feed(Ready(story.pids))
        assert pauses == [0, 0.5, 1, 2, 4, 4, 4]

    def test_a_thousand_failures_do_not_overflow_the_pause(self):
        story = Story().serving()
        for pid in range(101, 1300):
            story.dies(pid)
            if story.pids == pid:
                story.tick()
        assert story.wake_at is not None

    def test_a_worker_that_served_long_enough_clears_the_count(self):
        story = Story(stable_after=10).serving()
        story.dies(101)
        story.feed(Ready(102))
        story.after(10).dies(102)
        assert len(story.spawns) == 3

    def test_a_restart_that_cannot_boot_is_tried_again(self):
        story = Story().serving()
        story.dies(101)
        story.dies(102, 3)
        assert (story.quit, story.wake_at) == (None, 0.5)
        story.tick()
        assert len(story.spawns) == 3

    def test_a_restart_that_cannot_be_forked_is_tried_again(self):
        story = Story().serving()
        story.forks = False
        story.dies(101)
        assert (story.quit, story.wake_at) == (None, 0.5)

    def test_the_return_is_told(self):
        story = Story().serving()
        story.dies(101)
        story.feed(Ready(102))
        assert story.told("worker (pid 102) is ready")


class TestBreaker:
    """A slot that cannot be held."""

    def test_the_server_ends_with_status_one(self):
        story = Story(breaker_failures=3).serving()
        story.dies(101)
        story.dies(102, 3)
        story.tick()
        story.dies(103)
        assert (story.quit, len(story.spawns)) == (1, 3)
        assert story.told("worker has failed 3 times in a row, and no other worker serves well: the server gives up")

    def test_others_may_finish_their_requests(self):
        story = Story(workers=2, breaker_failures=2).serving()
        story.dies(101)
        assert story.dies(103) == [(102, Sig.TERM)]
        story.leaves(102)
        assert story.quit == 1

    def test_another_worker_that_serves_well_keeps_the_server(self):
        story = Story(workers=2, breaker_failures=2, stable_after=10).serving().after(10)
        story.dies(101)
        story.dies(103)
        assert (story.quit, bool(story.told("starts again in"))) == (None, True)

    def test_time_that_it_served_well_is_a_new_beginning(self):
        story = Story(breaker_failures=2, stable_after=10).serving()
        story.dies(101)
        story.feed(Ready(102))
        story.after(10).dies(102)
        assert story.quit is None

    def test_a_watcher_ends_nothing(self):
        story = Story(watchers=1, breaker_failures=2).serving()
        story.dies(102)
        story.dies(103)
        assert story.quit is None

    def test_it_can_be_switched_off(self):
        story = Story(breaker_failures=0).serving()
        for _ in range(50):
            story.dies(story.pids)
            story.tick()
        assert story.quit is None

    def test_under_reload_the_next_edit_is_waited_for(self):
        story = Story(breaker_failures=2, boot_failure_ends=False).serving()
        story.dies(101)
        story.feed(Ready(102))
        story.dies(102)
        assert story.quit is None


class TestSockets:
    def test_new_clients_go_elsewhere_until_the_slot_is_held_again(self):
        story = Story(workers=2).serving()
        story.dies(101)
        story.feed(Ready(103))
        assert story.did == [Steer(0, away=True), Steer(0, away=False)]

    def test_a_successor_that_serves_is_not_avoided(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(Ready(102))
        story.dies(101)
        assert story.did == []

    def test_they_are_closed_when_the_workers_stop_accepting(self):
        story = Story(drain_delay=5, grace=30, margin=5).serving()
        story.feed(TERM)
        assert (story.did, story.wake_at) == ([], 5)
        story.tick()
        assert (story.did, story.wake_at) == ([Unlisten()], 40)

    def test_they_are_closed_before_the_workers_are_told(self):
        story = Story().serving()
        actions = story.machine.handle(TERM, 0.0)
        assert [action for action in actions if isinstance(action, (Unlisten, Kill))] == [
            Unlisten(),
            Kill(101, Sig.TERM),
        ]

    def test_they_are_closed_at_once_when_there_is_no_time(self):
        story = Story(drain_delay=5).serving()
        story.feed(QUIT)
        assert story.did == [Unlisten()]

    def test_a_kill_for_want_of_memory_is_told(self):
        story = Story().serving()
        story.feed(Exited(101, -9, "killed by SIGKILL", out_of_memory=True))
        assert story.told("killed by SIGKILL by the kernel, for want of memory")


class TestStop:
    def test_everybody_is_told_term_and_the_server_ends_with_the_last(self):
        story = Story(workers=2, watchers=1).serving()
        assert story.feed(TERM) == [(101, Sig.TERM), (102, Sig.TERM), (103, Sig.TERM)]
        story.leaves(101)
        story.leaves(103)
        assert story.quit is None
        story.leaves(102)
        assert story.quit == 0

    def test_children_that_boot_are_told_too(self):
        story = Story().started()
        assert story.feed(TERM) == [(101, Sig.TERM)]
        story.dies(101, -15)
        assert story.quit == 0

    def test_a_failure_to_boot_no_longer_matters(self):
        story = Story().started()
        story.feed(BootFailed(101, "no", ""))
        assert story.feed(TERM) == []
        story.dies(101, 3)
        assert (story.quit, story.told("could not start")) == (0, [])

    def test_an_empty_server_ends_at_once(self):
        story = Story(boot_failure_ends=False).started()
        story.dies(101, 3)
        story.feed(TERM)
        assert story.quit == 0

    def test_a_slot_that_waits_is_not_filled_any_more(self):
        story = Story(workers=2).serving()
        story.dies(101)
        story.dies(103)
        story.feed(TERM)
        story.after(100).feed(Tick())
        assert len(story.spawns) == 3

    def test_who_stays_is_killed_and_the_status_is_one(self):
        story = Story(grace=30, margin=5).serving()
        story.feed(TERM)
        assert (story.wake_at, story.tick()) == (35, [(101, Sig.KILL)])
        story.dies(101, -9)
        assert (story.quit, bool(story.told("did not leave in time"))) == (1, True)

    def test_a_crash_on_the_way_out_makes_the_status_one(self):
        story = Story().serving()
        story.feed(TERM)
        story.dies(101)
        assert (story.quit, bool(story.told("while it was leaving"))) == (1, True)

    def test_a_watcher_that_has_to_be_killed_spoils_nothing(self):
        story = Story(watchers=1).serving()
        story.feed(TERM)
        story.leaves(101)
        story.tick()
        story.dies(102, -9)
        assert story.quit == 0

    def test_a_second_request_makes_it_quick(self):
        story = Story(workers=2, quick_limit=5).serving()
        story.feed(TERM)
        assert story.after(1).feed(TERM) == [(101, Sig.QUIT), (102, Sig.QUIT)]
        assert (story.wake_at, story.tick()) == (6, [(101, Sig.KILL), (102, Sig.KILL)])

    def test_a_request_that_comes_twice_at_once_is_one(self):
        story = Story().serving()
        story.feed(TERM)
        assert story.after(0.1).feed(TERM) == []
        assert story.after(0.2).feed(TERM) == [(101, Sig.QUIT)]

    def test_a_third_request_changes_nothing(self):
        story = Story().serving()
        story.feed(QUIT)
        assert (story.after(3).feed(TERM), story.wake_at) == ([], 5)

    def test_quick_is_quit_to_those_who_serve_and_term_to_those_who_boot(self):
        story = Story(workers=2).started()
        story.feed(Ready(101))
        assert story.feed(QUIT) == [(101, Sig.QUIT), (102, Sig.TERM)]

    def test_a_child_that_became_ready_meanwhile_is_told_quit_after_all(self):
        story = Story().started()
        story.feed(QUIT)
        assert story.feed(Ready(101)) == [(101, Sig.QUIT)]

    def test_a_reload_is_given_up(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        assert story.feed(TERM) == [(103, Sig.TERM), (102, Sig.TERM)]
        for pid in (101, 102, 103):
            story.leaves(pid)
        assert (story.quit, len(story.spawns)) == (0, 3)

    def test_a_reload_is_refused(self):
        story = Story().serving()
        story.feed(TERM)
        story.feed(HUP)
        assert story.told("no reload, the server is stopping")

    def test_a_child_that_was_being_forked_is_told_as_soon_as_it_exists(self):
        machine = Story().machine
        machine.handle(Started(), 0.0)
        machine.handle(TERM, 0.0)
        actions = machine.handle(Spawned(Role.WORKER, 0, 0, 101), 0.0)
        assert actions[0] == Kill(101, Sig.TERM)

    def test_a_child_that_could_not_be_forked_is_not_waited_for(self):
        machine = Story().machine
        machine.handle(Started(), 0.0)
        machine.handle(TERM, 0.0)
        actions = machine.handle(SpawnFailed(Role.WORKER, 0, 0, "no memory"), 0.0)
        assert actions[-1] == Quit(0)

    def test_nothing_happens_after_the_end(self):
        story = Story().serving()
        story.feed(TERM)
        story.leaves(101)
        assert story.machine.handle(HUP, 1.0) == []


class TestReopen:
    def test_those_who_serve_or_drain_are_told(self):
        story = Story(workers=2).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        assert story.feed(ReopenRequested()) == [(101, Sig.USR1), (102, Sig.USR1), (103, Sig.USR1)]

    def test_a_child_that_boots_is_told_when_it_is_ready(self):
        story = Story().started()
        assert story.feed(ReopenRequested()) == []
        assert story.feed(Ready(101)) == [(101, Sig.USR1)]


def test_an_illegal_move_is_a_bug():
    story = Story().started()
    with pytest.raises(AssertionError, match="STARTING -> "):
        story.feed(Started())


class TestMilestones:
    def test_the_server_serves_when_every_first_worker_is_ready(self):
        story = Story(workers=2).started()
        story.feed(Ready(101))
        assert story.marks == []
        story.feed(Ready(102))
        assert story.marks == [(Milestone.SERVING, "serving: 2 workers")]

    def test_a_reload_is_over_when_the_last_predecessor_has_left(self):
        story = Story().serving()
        story.feed(HUP)
        assert story.marks[1:] == [(Milestone.RELOADING, "reloading to generation 2")]
        story.feed(Ready(102))
        story.leaves(101)
        assert story.marks[2:] == [(Milestone.SERVING, "serving, generation 2")]

    def test_a_reload_that_fails_says_why(self):
        story = Story().serving()
        story.feed(HUP)
        story.feed(BootFailed(102, "no module named shop", ""))
        story.dies(102, 3)
        assert story.marks[2:] == [
            (Milestone.SERVING, "serving; the reload to generation 2 failed: no module named shop")
        ]

    def test_each_way_to_stop_is_told(self):
        story = Story().serving()
        story.feed(TERM)
        story.feed(QUIT)
        assert story.marks[1:] == [(Milestone.STOPPING, "stopping"), (Milestone.STOPPING, "stopping at once")]


class TestDispatcher:
    """It leads: the workers have their connections from it."""

    def test_it_is_waited_for_and_not_counted_among_the_workers(self):
        story = Story(workers=2, dispatchers=1).started()
        story.feed(Ready(101))
        story.feed(Ready(102))
        assert not story.told("ready: ")
        story.feed(Ready(103))
        assert story.told("ready: 2 workers")

    def test_a_stop_lets_it_leave_before_the_workers(self):
        story = Story(workers=2, dispatchers=1).serving()
        assert story.feed(TERM) == [(103, Sig.TERM)]
        assert story.leaves(103) == [(101, Sig.TERM), (102, Sig.TERM)]
        story.leaves(101)
        story.leaves(102)
        assert story.quit == 0

    def test_workers_do_not_wait_for_one_that_does_not_leave(self):
        story = Story(workers=1, dispatchers=1, quick_limit=5.0).serving()
        story.feed(TERM)
        assert story.tick() == [(102, Sig.KILL)]
        assert story.now == 5.0
        assert story.dies(102, -9, "killed by SIGKILL") == [(101, Sig.TERM)]

    def test_it_accepts_during_the_drain_delay_while_workers_fail_readiness(self):
        story = Story(workers=1, dispatchers=1, drain_delay=3.0).serving()
        assert story.feed(TERM) == [(101, Sig.TERM)]
        assert story.tick() == [(102, Sig.TERM)]
        assert story.now == 3.0

    def test_a_worker_that_boots_has_nothing_to_wait_for(self):
        story = Story(workers=1, dispatchers=1).serving()
        story.dies(101)
        assert story.feed(TERM) == [(103, Sig.TERM), (102, Sig.TERM)]

    def test_a_reload_replaces_it_too_and_counts_workers(self):
        story = Story(workers=2, dispatchers=1).serving()
        story.feed(HUP)
        assert story.feed(Ready(104)) == [(101, Sig.TERM)]
        story.leaves(101)
        assert story.feed(Ready(105)) == [(102, Sig.TERM)]
        story.leaves(102)
        assert story.feed(Ready(106)) == [(103, Sig.TERM)]
        story.leaves(103)
        assert story.told("reload to generation 2 finished: 2 replaced")

    def test_it_is_replaced_at_once_when_it_dies(self):
        story = Story(workers=1, dispatchers=1).serving()
        story.dies(102)
        assert story.spawns[-1] == (Role.DISPATCHER, 0, 0, 1)
        assert Steer(0, away=True) not in story.did

    def test_one_that_cannot_be_held_ends_the_server_however_well_the_workers_serve(self):
        story = Story(workers=1, dispatchers=1, breaker_failures=3).serving().after(60)
        story.dies(102)
        story.feed(Ready(103))
        story.dies(103)
        story.tick()
        story.feed(Ready(104))
        story.dies(104)
        assert story.told("dispatcher has failed 3 times in a row, and no other dispatcher serves well")

    def test_one_that_stands_still_is_replaced(self):
        story = Story(workers=1, dispatchers=1, worker_limit=8.0).serving()
        kills = [story.beats({101: 0.1, 102: second}, after=1) for second in range(9)]
        assert kills == [*[[]] * 8, [(102, Sig.USR2)]]
        assert story.spawns[-1] == (Role.DISPATCHER, 0, 1, 1)


class TestTerminators:
    """They lead while they have something to pass on, and leave last: all of it goes through them."""

    def test_workers_are_told_when_each_has_said_that_it_passes_on_nothing_new(self):
        story = Story(workers=2, terminators=2).serving()
        assert story.feed(TERM) == [(103, Sig.TERM), (104, Sig.TERM)]
        assert story.feed(PassedOn(103)) == []
        assert story.feed(PassedOn(104)) == [(101, Sig.TERM), (102, Sig.TERM)]
        for pid in (101, 102, 104, 103):
            assert story.quit is None
            story.leaves(pid)
        assert story.quit == 0

    def test_one_that_has_gone_passes_on_nothing(self):
        story = Story(workers=1, terminators=2).serving()
        story.feed(TERM)
        story.feed(PassedOn(102))
        assert story.dies(103, -9, "killed by SIGKILL") == [(101, Sig.TERM)]

    def test_a_dispatcher_comes_between_them_and_the_workers(self):
        story = Story(workers=1, dispatchers=1, terminators=1).serving()
        assert story.feed(TERM) == [(103, Sig.TERM)]
        assert story.feed(PassedOn(103)) == [(102, Sig.TERM)]
        assert story.leaves(102) == [(101, Sig.TERM)]

    def test_the_others_do_not_wait_for_ever(self):
        story = Story(workers=1, terminators=1, pass_on_limit=5.0).serving()
        story.feed(TERM)
        assert story.tick() == [(101, Sig.TERM)]
        assert story.now == 5.0
        assert story.told("terminator (pid 102) may still pass something on")
        assert story.feed(PassedOn(102)) == []

    def test_a_drain_delay_is_theirs(self):
        story = Story(workers=1, dispatchers=1, terminators=1, drain_delay=3.0, pass_on_limit=5.0).serving()
        assert story.feed(TERM) == [(103, Sig.TERM)]
        assert story.did == []
        assert story.tick() == []
        assert story.now == 3.0
        assert story.did == [Unlisten()]
        assert story.tick() == [(102, Sig.TERM)]
        assert story.now == 8.0

    def test_they_have_time_to_relay_until_the_workers_have_drained(self):
        story = Story(workers=1, terminators=1, grace=30.0, margin=5.0, pass_on_limit=5.0, quick_limit=5.0).serving()
        story.feed(TERM)
        story.tick()
        assert story.tick() == [(101, Sig.KILL)]
        assert story.now == 40.0
        story.dies(101, -9, "killed by SIGKILL")
        assert story.tick() == [(102, Sig.KILL)]
        assert story.now == 45.0

    def test_one_that_was_replaced_and_still_relays_is_not_waited_for(self):
        story = Story(workers=1, terminators=1).serving()
        story.feed(HUP)
        story.feed(Ready(103))
        story.leaves(101)
        assert story.feed(Ready(104)) == [(102, Sig.TERM)]
        story.feed(PassedOn(102))
        assert story.feed(TERM) == [(104, Sig.TERM)]
        assert story.feed(PassedOn(104)) == [(103, Sig.TERM)]

    def test_a_reload_replaces_each_of_them_with_the_successor_first(self):
        story = Story(workers=1, terminators=2).serving()
        story.feed(HUP)
        assert story.feed(Ready(104)) == [(101, Sig.TERM)]
        story.leaves(101)
        assert story.feed(Ready(105)) == [(102, Sig.TERM)]
        story.leaves(102)
        assert story.feed(Ready(106)) == [(103, Sig.TERM)]
        story.leaves(103)
        assert story.told("reload to generation 2 finished: 1 replaced")

    def test_more_or_fewer_workers_change_nothing_for_them(self):
        story = Story(workers=1, terminators=1).serving()
        story.feed(ResizeRequested(1, "TTIN"))
        assert story.spawns[-1] == (Role.WORKER, 1, 0, 1)
        story.feed(Ready(103))
        assert story.feed(ResizeRequested(-1, "TTOU")) == [(103, Sig.TERM)]

    def test_a_word_of_somebody_who_has_been_reaped_is_nothing(self):
        story = Story(workers=1, terminators=1).serving()
        assert story.feed(PassedOn(999)) == []


@pytest.mark.parametrize("leaders", ["dispatchers", "terminators"])
class TestLeaders:
    """Both are told to leave before the workers."""

    def test_a_quick_stop_waits_for_nobody(self, leaders):
        story = Story(workers=1, **{leaders: 1}).serving()
        assert story.feed(QUIT) == [(101, Sig.QUIT), (102, Sig.QUIT)]

    def test_a_second_signal_hurries_them_and_the_workers_that_wait(self, leaders):
        story = Story(workers=1, **{leaders: 1}).serving()
        story.feed(TERM)
        story.after(1)
        assert story.feed(TERM) == [(101, Sig.QUIT), (102, Sig.QUIT)]
