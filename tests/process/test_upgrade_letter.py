"""The letter from an old master to a new one, and what happens when there is no program to read it."""

import dataclasses
import json
import os
import select
import socket
import sys
from pathlib import Path

import pytest

from aioserve.accept.base import Inherited
from aioserve.master.channel import FailedMessage, ReadyMessage
from aioserve.master.upgrade import VARIABLE, Origin, inherit, launch

# What a new master does with its letter: says what it found, and that it serves.
PROGRAM = """
import os, sys
from aioserve.master.upgrade import inherit
predecessor = inherit(os.environ)
found = [f"{one.address} {os.fstat(one.fd).st_ino} {one.slot} {one.indices} {one.file}" for one in predecessor.sockets]
facts = [sys.prefix, os.getcwd(), str(predecessor.pid), *found, str("_AIOSERVE_UPGRADE" in os.environ)]
open("found", "w").write("\\n".join(facts))
predecessor.channel.ready()
"""


@pytest.fixture
def origin(tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LISTEN_FDS": "1"}
    # As a shell starts it: found in PATH, which may have another Python by now.
    return Origin(sys.executable, ("python", "-c", PROGRAM), environ, str(tmp_path))


def finished(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_an_old_master_there_is_no_letter():
    assert inherit({}) is None


def test_sockets_come_over_with_what_is_to_be_known_of_them(origin, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        passed = [
            Inherited(fd=first.fileno(), address="127.0.0.1:0", slot=1, indices=(0, 2)),
            Inherited(fd=second.fileno(), address="unix:/run/s", slot=None, file="/run/s"),
        ]
        inodes = [os.fstat(one.fileno()).st_ino for one in (first, second)]
        pid, channel = launch(origin, passed)
        assert finished(pid) == 0
        assert not os.get_inheritable(first.fileno()), "what a worker executes would have it"
    assert channel.receive() == ([ReadyMessage()], False)
    channel.close()
    assert (tmp_path / "found").read_text().splitlines() == [
        sys.prefix,
        str(tmp_path),
        str(os.getpid()),
        f"127.0.0.1:0 {inodes[0]} 1 (0, 2) ",
        f"unix:/run/s {inodes[1]} None () /run/s",
        "False",
    ]


def test_a_program_that_is_not_there_is_said_to_be_missing(origin):
    pid, channel = launch(dataclasses.replace(origin, executable="/no/such/python"), [])
    assert finished(pid) == 127
    [message], _ = channel.receive()
    channel.close()
    assert isinstance(message, FailedMessage)
    assert message.message.startswith("/no/such/python: ")
    assert "No such file" in message.message


def test_the_variable_is_removed_and_the_channel_not_passed_on():
    ours, theirs = socket.socketpair()
    letter = {"pid": 7, "channel": theirs.detach(), "sockets": []}
    environ = {VARIABLE: json.dumps(letter), "HOME": "/"}
    predecessor = inherit(environ)
    assert (environ, predecessor.pid, predecessor.sockets) == ({"HOME": "/"}, 7, ())
    assert not os.get_inheritable(predecessor.channel.fileno())
    ours.close()
    assert select.select([predecessor.channel], [], [], 5)[0], "the old master's end is not seen"
    predecessor.channel.close()


def test_this_program_knows_how_it_was_started():
    origin = Origin.now()
    assert (origin.executable, origin.directory) == (sys.executable, str(Path.cwd()))
    assert origin.environ == dict(os.environ)
