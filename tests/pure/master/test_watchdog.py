"""Workers whose loop stands still, and those who only seem to."""

from aioserve.master.events import BootFailed, Level, Ready, ResizeRequested, Role, Sig, Steer
from tests.pure.master.story import HUP, QUIT, TERM, Story

LIMIT = 30


def watched(workers=1, **policy):
    return Story(workers=workers, worker_limit=LIMIT, **policy).serving()


def until(story, seconds, **ages_of):
    """Look every second; ``hung`` are those whose last beat was at the beginning."""
    kills = []
    for second in range(1, seconds + 1):
        kills += story.beats(
            dict.fromkeys(ages_of["hung"], second) | dict.fromkeys(ages_of.get("well", ()), 0.1), after=1
        )
    return kills


def test_the_master_looks_every_second_while_somebody_serves():
    story = Story(worker_limit=LIMIT).started()
    assert story.wake_at == 60  # the boot's limit
    story.feed(Ready(101))
    assert story.wake_at == 1


def test_without_a_limit_it_sleeps():
    assert Story(worker_limit=0).serving().wake_at is None


def test_a_short_limit_is_looked_at_more_often():
    assert Story(worker_limit=1).serving().wake_at == 0.25


def test_a_late_one_is_a_warning_once_and_its_return_is_told():
    story = watched()
    assert until(story, 12, hung=[101]) == []
    assert [(say.level, "is late" in say.text) for say in story.said] == [(Level.WARNING, True)]
    story.beats({101: 0.2}, after=1)
    assert "is on time again, after more than 12.0 s" in story.said[-1].text
    until(story, 12, hung=[101])
    assert len(story.told("is late")) == 2


def test_no_application_is_blamed_where_there_is_none():
    story = Story(terminators=1, worker_limit=LIMIT).serving()
    until(story, 12, hung=[101, 102])
    assert ["application" in say.text for say in story.said] == [True, False]


def test_at_the_limit_it_writes_its_stacks_then_is_aborted_then_killed():
    story = watched(stacks_time=1, abort_time=2)
    assert until(story, LIMIT, hung=[101]) == [(101, Sig.USR2)]
    assert story.told("worker (pid 101) is stuck: its event loop has not turned for 30.0 s (timeout.worker is 30 s)")
    assert (story.wake_at, story.tick()) == (LIMIT + 1, [(101, Sig.ABRT)])
    assert (story.wake_at, story.tick()) == (LIMIT + 3, [(101, Sig.KILL)])
    story.dies(101, -9, "killed by SIGKILL")
    assert story.told("worker (pid 101) killed by SIGKILL, by aioserve, because it was stuck")


def test_one_that_ends_by_abrt_is_not_killed():
    story = watched()
    until(story, LIMIT, hung=[101])
    story.tick()
    story.dies(101, -6, "killed by SIGABRT")
    assert story.told("killed by SIGABRT, by aioserve")
    assert len(story.spawns) == 2


def test_its_successor_starts_at_once_and_clients_go_to_the_others_until_it_serves():
    story = watched(workers=2)
    until(story, LIMIT, hung=[102], well=[101])
    assert story.spawns[2:] == [(Role.WORKER, 1, 1, 1)]
    story.feed(Ready(103))
    assert story.did == [Steer(1, away=True), Steer(1, away=False)]


def test_clients_go_to_the_others_while_it_is_late():
    story = watched(workers=2)
    until(story, 12, hung=[102], well=[101])
    assert story.did == [Steer(1, away=True)]
    story.beats({101: 0.1, 102: 0.1}, after=1)
    assert story.did[1:] == [Steer(1, away=False)]


def test_clients_do_not_come_back_to_a_slot_that_goes_away():
    story = watched(workers=2, linger=100)
    until(story, 12, hung=[102], well=[101])
    story.feed(ResizeRequested(-1, "SIGTTOU"))
    story.beats({101: 0.1, 102: 0.1}, after=1)
    assert story.did == [Steer(1, away=True)]


def test_others_are_left_alone():
    story = watched(workers=3)
    kills = until(story, LIMIT, hung=[102], well=[101, 103])
    assert {pid for pid, _ in kills} == {102}


def test_a_machine_that_was_suspended_kills_nobody():
    story = watched(workers=2)
    until(story, 1, hung=[], well=[101, 102])
    assert story.beats({101: 500, 102: 500}, after=500) == []
    assert story.beats({101: 0.1, 102: 0.1}, after=1) == []
    assert story.said == []


def test_after_a_suspension_the_count_begins_anew():
    story = watched()
    until(story, 1, hung=[], well=[101])
    story.beats({101: 500}, after=500)
    assert until(story, LIMIT - 1, hung=[101]) == []
    assert story.beats({101: 530}, after=1) == [(101, Sig.USR2)]


def test_a_master_that_is_a_little_late_counts_on():
    story = watched()
    until(story, 24, hung=[101])
    assert story.beats({101: 31}, after=7) == [(101, Sig.USR2)]


def test_a_worker_that_drains_is_watched_too():
    story = watched(grace=300)
    story.feed(TERM)
    assert until(story, LIMIT, hung=[101]) == [(101, Sig.USR2)]
    story.tick()
    story.dies(101, -6, "killed by SIGABRT")
    assert (story.quit, len(story.spawns)) == (1, 1)


def test_a_predecessor_that_hangs_while_it_drains_ends_its_turn():
    story = watched(workers=2, grace=300)
    story.feed(HUP)
    story.feed(Ready(103))
    until(story, LIMIT, hung=[101], well=[102, 103])
    story.tick()
    story.dies(101, -6, "killed by SIGABRT")
    assert story.spawns[3:] == [(Role.WORKER, 1, 1, 2)]


def test_a_successor_that_hangs_cancels_the_reload():
    story = watched(grace=300)
    story.feed(HUP)
    story.feed(Ready(102))
    until(story, LIMIT, hung=[102], well=[101])
    story.tick()
    story.dies(102, -6)
    story.leaves(101)
    assert story.told("failed: the successor is stuck")


def test_a_stop_leaves_a_stuck_one_to_its_end():
    story = watched()
    until(story, LIMIT, hung=[101])
    assert story.feed(QUIT) == [(102, Sig.TERM)]
    assert story.tick() == [(101, Sig.ABRT)]


def test_a_boot_that_does_not_end_writes_its_stacks_and_is_killed_without_a_core():
    story = Story(boot_timeout=60, stacks_time=1, worker_limit=LIMIT).started()
    assert story.tick() == [(101, Sig.USR2)]
    assert story.tick() == [(101, Sig.KILL)]


def test_a_boot_that_fails_after_all_while_it_is_given_up_is_told_once():
    story = Story(boot_timeout=60).started()
    story.tick()
    story.feed(BootFailed(101, "no", ""))
    story.dies(101, 3)
    assert (story.quit, len(story.told("could not start: not ready after 60 s"))) == (3, 1)


def test_beats_of_strangers_and_of_those_who_boot_are_nothing():
    story = Story(workers=2, worker_limit=LIMIT).started()
    story.feed(Ready(101))
    assert story.beats({102: 500, 4711: 500, 101: 0.1}, after=1) == []


def test_beats_that_come_unasked_are_nothing():
    story = Story(worker_limit=0).serving()
    assert story.beats({101: 500}, after=1) == []
