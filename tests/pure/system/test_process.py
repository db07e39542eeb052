"""What a process asks of the kernel for itself, each in a process of its own."""

import os
import pwd
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aioserve.system.process import MOST_DESCRIPTORS, end_with_parent, name_process, raise_descriptor_limit


@pytest.fixture
def limits():
    """Limits as they are wanted, and back again."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def want(soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
        return min(before[1], MOST_DESCRIPTORS)

    yield want
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_one(limits):
    highest = limits(512)
    assert raise_descriptor_limit() == (512, highest)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == highest


def test_a_limit_that_is_high_enough_is_left_alone(limits):
    highest = limits(512)
    raise_descriptor_limit()
    assert raise_descriptor_limit() == (highest, highest)


def test_a_child_of_a_parent_that_has_gone_ends_at_once():
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent(1 if os.getppid() != 1 else 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


PARENT = """
import os, signal, sys
from aioserve.system.process import end_with_parent
parent = os.getpid()
if os.fork() == 0:
    end_with_parent(parent)
    os.write(1, b"ready\\n")
    signal.pause()
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_ends_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        # End-of-file comes when the last process that could write has gone.
        assert parent.stdout.read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_a_process_has_a_name_of_its_own():
    before = Path("/proc/self/comm").read_text().rstrip("\n")
    try:
        name_process("dispatcher")
        assert Path("/proc/self/comm").read_text() == "dispatcher\n"
    finally:
        name_process(before)


@pytest.mark.parametrize("calls, dumpable", [("", 1), ("hide()", 0), ("hide(); hide(False)", 1)])
def test_a_process_can_hide_from_others_of_its_user(calls, dumpable):
    code = f"import ctypes; from aioserve.system.process import hide; {calls}\nprint(ctypes.CDLL(None).prctl(3))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert int(found.stdout) == dumpable


#: The parent has something open, and its child, of the same user, opens it by its path.
NEIGHBOURS = """
import os
import pwd
from aioserve.system.process import hide
os.setgid({user}); os.setuid({user})
hide(False)  # as a process is that has not changed its user
secret = os.memfd_create("secret")
hide({hidden})
parent = os.getpid()
if os.fork() == 0:
    hide(False)
    try:
        os.close(secret)
        os.close(os.open(f"/proc/{{parent}}/fd/{{secret}}", os.O_RDONLY))
        print("opened", flush=True)
    except PermissionError:
        print("refused", flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who is not")
@pytest.mark.parametrize("hidden, answer", [(False, "opened"), (True, "refused")])
def test_what_a_hidden_process_has_open_is_closed_to_others_of_its_user(hidden, answer):
    code = NEIGHBOURS.format(user=pwd.getpwnam("nobody").pw_uid, hidden=hidden)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == f"{answer}\n", found
