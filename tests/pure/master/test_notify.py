"""What the service manager is told, and when."""

import logging
import os
import socket

import pytest

from aioserve.master.events import (
    Exited,
    HeirReady,
    HeirStarted,
    Level,
    Mark,
    Milestone,
    PredecessorGone,
    Say,
    Started,
    Tick,
)
from aioserve.master.notify import Manager, NotifySocket, ServiceManager, any_turns
from aioserve.observe.scoreboard import HEARTBEAT_NS, PHASE, Phase, Scoreboard

SERVING = Mark(Milestone.SERVING, "serving: 2 workers")
RELOADING = Mark(Milestone.RELOADING, "reloading to generation 2")
STOPPING = Mark(Milestone.STOPPING, "stopping")


class Told:
    """A service manager that writes everything down."""

    def __init__(self, watchdog=None, *, guest=False):
        self.messages = []
        self.healthy = True
        self.observer = ServiceManager(
            self.messages.append, pid=7, watchdog=watchdog, healthy=lambda: self.healthy, guest=guest
        )

    def at(self, now, *actions, event=None):
        self.messages.clear()
        self.observer.saw(event or Tick(), actions, now)
        return [set(message.split("\n")) for message in self.messages]

    def tick(self):
        self.messages.clear()
        self.observer.tick(self.observer.wake_at)
        return self.messages


def test_a_start_asks_for_time_until_it_serves():
    told = Told()
    assert told.at(100.0, event=Started()) == [{"STATUS=starting", "EXTEND_TIMEOUT_USEC=15000000"}]
    assert (told.observer.wake_at, told.tick()) == (105.0, ["EXTEND_TIMEOUT_USEC=15000000"])
    assert told.observer.wake_at == 110.0
    assert told.at(111.0, SERVING) == [{"READY=1", "STATUS=serving: 2 workers", "MAINPID=7"}]
    assert told.observer.wake_at is None


def test_a_reload_says_when_it_began_and_when_it_is_over():
    told = Told()
    assert told.at(12.5, RELOADING) == [
        {
            "RELOADING=1",
            "STATUS=reloading to generation 2",
            "MONOTONIC_USEC=12500000",
            "EXTEND_TIMEOUT_USEC=15000000",
        }
    ]
    assert told.observer.wake_at == 17.5
    assert "READY=1" in told.at(13.0, SERVING)[0]


def test_a_stop_asks_for_time_until_the_end():
    told = Told()
    assert told.at(1.0, STOPPING) == [{"STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=15000000"}]
    assert [told.tick() for _ in range(2)] == [["EXTEND_TIMEOUT_USEC=15000000"]] * 2


def test_an_error_is_the_status_in_one_line():
    told = Told()
    assert told.at(1.0, Say(Level.ERROR, "worker 0 could not start: line\nREADY=1")) == [
        {"STATUS=worker 0 could not start: line READY=1"}
    ]
    assert told.at(1.0, Say(Level.INFO, "worker 0 is ready")) == []


def test_the_watchdog_is_fed_at_half_of_its_interval():
    told = Told(watchdog=30.0)
    told.at(100.0, event=Started())
    told.at(100.0, SERVING)
    assert (told.observer.wake_at, told.tick(), told.observer.wake_at) == (115.0, ["WATCHDOG=1"], 130.0)


def test_the_watchdog_goes_hungry_while_no_loop_turns(caplog):
    told = Told(watchdog=30.0)
    told.at(100.0, SERVING)
    told.healthy = False
    assert (told.tick(), told.tick()) == ([], [])
    told.healthy = True
    assert told.tick() == ["WATCHDOG=1"]
    assert [record.message for record in caplog.records] == [
        "no worker's loop turns: the service manager's watchdog is not fed any more"
    ]


def test_a_second_reload_does_not_put_the_watchdog_off():
    told = Told(watchdog=30.0)
    told.at(100.0, SERVING)
    told.at(110.0, RELOADING)
    told.at(112.0, SERVING)
    assert told.observer.wake_at == 115.0


@pytest.mark.parametrize(
    ("environ", "manager"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": ""}, None),
        ({"NOTIFY_SOCKET": "/run/n"}, Manager("/run/n", None)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000"}, Manager("@n", 30.0)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, Manager("@n", 30.0)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, Manager("@n", None)),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, Manager("@n", None)),
    ],
    ids=str,
)
def test_what_the_environment_says(environ, manager):
    assert Manager.of(environ, 7) == manager


@pytest.fixture(params=["path", "abstract"])
def bound(request, tmp_path):
    path = f"{tmp_path}/notify" if request.param == "path" else f"@aioserve-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path.replace("@", "\0", 1))
        sock.settimeout(5)
        yield path, sock


def test_a_message_is_one_datagram(bound):
    path, sock = bound
    NotifySocket(path).send("READY=1\nSTATUS=up")
    assert sock.recv(4096) == b"READY=1\nSTATUS=up"


def test_a_file_name_that_is_no_text_can_be_told(bound):
    path, sock = bound
    NotifySocket(path).send("STATUS=no module in /srv/caf\udce9")
    assert sock.recv(4096) == b"STATUS=no module in /srv/caf?"


@pytest.mark.parametrize(
    ("address", "why"), [("/nowhere/at/all", "No such file"), ("vsock:2:1234", "neither a path nor")]
)
def test_a_manager_that_cannot_be_reached_is_one_line(caplog, address, why):
    unreachable = NotifySocket(address)
    unreachable.send("READY=1")
    unreachable.send("STOPPING=1")
    [record] = caplog.records
    assert (record.levelno, why in record.message) == (logging.WARNING, True)


@pytest.mark.parametrize(
    ("phase", "beat", "turns"),
    [
        (Phase.READY, 90.0, True),
        (Phase.READY, 60.0, False),
        (Phase.DRAINING, 90.0, True),
        (Phase.BOOTING, 90.0, False),
    ],
)
def test_a_loop_turns_whose_heart_has_beaten(phase, beat, turns):
    scoreboard = Scoreboard(2)
    cells = scoreboard.row(1, 0).cells
    cells[PHASE], cells[HEARTBEAT_NS] = phase, int(beat * 1e9)
    assert any_turns((row.snapshot() for row in scoreboard), int(100e9), 30.0) is turns


def test_beside_a_new_master_that_serves_the_old_one_is_silent():
    told = Told(watchdog=30.0)
    told.at(100.0, SERVING)
    told.at(101.0, event=HeirStarted(8))
    told.at(102.0, event=HeirReady())
    assert (told.at(103.0, STOPPING), told.tick()) == ([], [])


def test_when_the_new_master_ends_the_old_one_is_the_main_process_again():
    told = Told()
    told.at(101.0, event=HeirStarted(8))
    told.at(102.0, event=HeirReady())
    assert told.at(103.0, event=Exited(8, 1, "exited with status 1")) == [
        {"READY=1", "MAINPID=7", "STATUS=serving; the new master has gone"}
    ]
    assert told.at(104.0, STOPPING)


def test_a_new_master_that_leaves_beside_the_old_one_does_not_end_the_service():
    told = Told(guest=True)
    assert {"READY=1", "MAINPID=7"} <= told.at(100.0, SERVING)[0]
    assert (told.at(101.0, STOPPING), told.observer.wake_at) == ([], None)


def test_a_new_master_that_is_alone_is_one_like_any_other():
    told = Told(guest=True)
    told.at(100.0, SERVING)
    told.at(101.0, event=PredecessorGone())
    assert "STOPPING=1" in told.at(102.0, STOPPING)[0]


def test_a_new_master_that_never_served_changes_nothing():
    told = Told()
    told.at(101.0, event=HeirStarted(8))
    assert told.at(103.0, event=Exited(8, 1, "exited with status 1")) == []
    assert told.at(104.0, STOPPING)
