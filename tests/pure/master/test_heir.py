"""A new master on the same sockets: the old one's side, and the new one's."""

from aioserve.master.events import (
    DrainRequested,
    Exited,
    HeirFailed,
    HeirReady,
    PredecessorGone,
    Ready,
    ResizeRequested,
    Role,
    Sig,
    Started,
    Steer,
    UpgradeRequested,
)
from aioserve.master.machine import Machine
from tests.pure.master.story import HUP, QUIT, TERM, Story

USR2, WINCH = UpgradeRequested("SIGUSR2"), DrainRequested("SIGWINCH")


def upgraded(**options):
    """Its heir, 900, serves."""
    story = Story(**options).serving()
    story.feed(USR2)
    story.feed(HeirReady())
    return story


def heir_exits(story):
    return story.feed(Exited(900, 1, "exited with status 1"))


def test_the_new_master_is_told_of_when_it_serves():
    story = upgraded()
    assert [say.text.split(".")[0] for say in story.said] == [
        "SIGUSR2: a new master starts and takes over the sockets",
        "the new master, pid 900, serves",
    ]


def test_saying_that_it_serves_again_changes_nothing():
    story = upgraded()
    story.feed(HeirReady())
    assert len(story.told("serves")) == 1


def test_only_a_server_that_has_started_is_upgraded():
    story = Story().started()
    story.feed(USR2)
    assert story.told("no upgrade, the server has not started yet")


def test_a_stopping_server_is_not_upgraded():
    story = Story().serving()
    story.feed(TERM)
    story.feed(USR2)
    assert story.told("no upgrade, the server is stopping")


def test_there_is_one_new_master_at_a_time():
    story = upgraded()
    story.feed(USR2)
    assert story.told("no upgrade, there is a new master already, pid 900")


def test_a_new_master_that_cannot_boot_leaves_everything_as_it_was():
    story = Story().serving()
    story.feed(USR2)
    heir_exits(story)
    assert story.told("the upgrade failed, this master serves on: exited with status 1")
    story.feed(USR2)
    assert len(story.told("a new master starts")) == 2


def test_a_new_master_says_why_it_cannot_boot():
    story = Story().serving()
    story.feed(USR2)
    story.feed(HeirFailed("/opt/python: No such file"))
    heir_exits(story)
    assert story.told("serves on: /opt/python: No such file")


def test_a_new_master_that_cannot_be_forked_is_no_process():
    machine = Story().serving().machine
    machine.handle(USR2, 0.0)
    actions = machine.handle(HeirFailed("fork: no memory"), 0.0)
    assert "it could not be started" in actions[0].text or "no memory" in actions[0].text


def test_winch_drains_the_workers_and_the_master_stays():
    story = upgraded(workers=2)
    assert story.feed(WINCH) == [(101, Sig.TERM), (102, Sig.TERM)]
    story.leaves(101)
    story.leaves(102)
    assert (story.quit, len(story.spawns), story.wake_at) == (None, 2, None)


def test_winch_without_a_new_master_that_serves_is_a_window_that_changed():
    story = Story().serving()
    assert story.feed(WINCH) == []
    story.feed(USR2)
    assert story.feed(WINCH) == []
    assert len(story.told("nothing is drained")) == 2


def test_winch_again_changes_nothing():
    story = upgraded()
    story.feed(WINCH)
    assert story.feed(WINCH) == []


def test_winch_gives_a_reload_up():
    story = upgraded(workers=2)
    story.feed(HUP)
    assert story.feed(WINCH) == [(101, Sig.TERM), (103, Sig.TERM), (102, Sig.TERM)]
    for pid in (101, 102, 103):
        story.leaves(pid)
    assert (story.quit, len(story.spawns)) == (None, 3)


def test_hup_takes_the_workers_back_with_what_they_were():
    story = upgraded(workers=2)
    story.feed(WINCH)
    story.leaves(101)
    story.mistakes = "nobody reads the configuration"
    story.feed(HUP)
    assert story.spawns[2:] == [(Role.WORKER, 0, 0, 1), (Role.WORKER, 1, 1, 1)]
    story.feed(Ready(103))
    assert story.told("this master takes its workers back")


def test_a_dormant_master_takes_its_workers_back_when_the_new_one_dies():
    story = upgraded()
    story.feed(WINCH)
    story.leaves(101)
    heir_exits(story)
    assert (story.told("the new master has gone")[0].text, len(story.spawns)) == (
        "the new master has gone: exited with status 1",
        2,
    )


def test_the_old_one_leaves_on_quit_gracefully():
    story = upgraded()
    assert story.feed(QUIT) == [(101, Sig.TERM)]
    assert story.after(1).feed(QUIT) == [(101, Sig.QUIT)]


def test_a_dormant_one_leaves_at_once():
    story = upgraded()
    story.feed(WINCH)
    story.leaves(101)
    story.feed(QUIT)
    assert story.quit == 0


def test_a_new_master_that_ends_while_the_old_one_stops_is_nothing_to_write_about():
    story = upgraded()
    story.feed(TERM)
    heir_exits(story)
    assert not story.told("gone")


def test_winch_at_a_stop_changes_nothing():
    story = upgraded()
    story.feed(TERM)
    assert story.feed(WINCH) == []


def test_a_crash_beside_a_new_master_steers_nobody():
    story = upgraded(workers=2)
    story.dies(101)
    assert story.did == []


def test_the_size_stays_while_there_are_two():
    story = upgraded()
    story.feed(ResizeRequested(1, "SIGTTIN"))
    assert (len(story.spawns), bool(story.told("nothing changes while there are two masters"))) == (1, True)


def test_an_upgrade_waits_for_a_slot_that_goes_away():
    story = Story(workers=2, linger=1).serving()
    story.feed(ResizeRequested(-1, "SIGTTOU"))
    story.feed(USR2)
    assert not story.told("a new master starts")
    story.tick()
    story.leaves(102)
    assert story.told("a new master starts")


def test_a_new_master_is_not_upgraded_before_the_old_one_has_gone():
    story = Story()
    story.machine = Machine(story.machine.specs, story.policy, shared=True)
    story.feed(Started())
    story.feed(Ready(101))
    story.feed(USR2)
    assert story.told("no upgrade, the old master is still there")
    story.feed(PredecessorGone())
    story.feed(USR2)
    assert story.told("a new master starts")


def test_a_ready_word_from_nowhere_is_nothing():
    story = Story().serving()
    story.feed(HeirReady())
    assert story.said == []


def test_steering_is_a_matter_of_one_master():
    story = Story(workers=2).serving()
    story.dies(101)
    assert story.did == [Steer(0, away=True)]
