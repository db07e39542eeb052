"""A server without HTTP: the real master with tiny children, for tests/process/test_master.py.

``python master_program.py KIND...``: the children of slot i are of the i-th kind, the last kind is for the rest of
their lives too. Everything that happens is a line on standard output.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys

from aioserve.accept.reuseport import ReusePort
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import TcpAddress
from aioserve.master.events import Role
from aioserve.master.machine import Machine, Policy, RoleSpec
from aioserve.master.shell import Master
from aioserve.observe.scoreboard import PHASE, Phase, Scoreboard

PR_SET_CHILD_SUBREAPER = 36


def tell(*words):
    # One write, so that lines of several processes do not mix.
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


class Left(BaseException):
    pass


def serve(birth, *, stubborn=False):
    """Say ready; leave when told to, or when the master has gone."""

    def leave(number, _frame):
        tell("told", birth.slot, signal.Signals(number).name)
        if number == signal.SIGQUIT or not stubborn:
            raise Left

    try:
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGQUIT, leave)
        signal.signal(signal.SIGUSR1, lambda *_: tell("told", birth.slot, "SIGUSR1"))
        tell("ready", birth.slot, os.getpid(), birth.generation)
        birth.row.cells[PHASE] = Phase.READY
        birth.channel.ready()
        select.select([birth.channel], [], [])
        tell("orphaned", birth.slot)
    except Left:
        pass
    return 0


def stubborn(birth):
    return serve(birth, stubborn=True)


def boots_for_ever(birth):
    tell("booting", birth.slot, os.getpid())
    signal.pause()


def speaks_and_dies(birth):
    """Boots until it is told; then says ready and is no more."""

    def speak(_number, _frame):
        birth.channel.ready()
        os._exit(0)

    signal.signal(signal.SIGALRM, speak)
    tell("booting", birth.slot, os.getpid())
    signal.pause()


def cannot_boot(birth):
    birth.channel.failed("no module named shop", "Traceback: line 3")
    return 3


def leaves_early(birth):
    return 7


def dies_soon(birth):
    birth.channel.ready()
    return 9


def raises(birth):
    raise RuntimeError("a bug in the child")


def exits(birth):
    sys.exit(5)


def open_descriptors():
    """What they are, without numbers."""
    names = []
    for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        with contextlib.suppress(FileNotFoundError):  # the directory that was being listed
            names.append(os.readlink(f"/proc/self/fd/{number}").partition(":")[0])
    # libffi, which this program's use of ctypes brings along, may keep its own file open.
    return [name for name in names if not name.startswith("/usr/lib/")]


def lists_descriptors(birth):
    tell("descriptors", birth.slot, *open_descriptors())
    return serve(birth)


def has_a_child(birth):
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0)
    tell("grandchild", child.pid)
    return serve(birth)


def forks(birth):
    """As an application's pool of processes: each has a copy of everything, and outlives a worker that is killed."""
    if os.fork() == 0:
        os.close(1)
        os.close(2)
        signal.pause()
    return serve(birth)


def prints_without_newline(birth):
    # One write: with PYTHONUNBUFFERED the line feed would be another, and a sibling's line could come between the two.
    print(f"buffered {birth.slot}\n", end="")
    return serve(birth)


def replaceable(birth):
    """The first generation serves, a later one cannot boot."""
    return serve(birth) if birth.generation == 1 else cannot_boot(birth)


def main(kinds):
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    acceptor = ReusePort([TcpAddress("127.0.0.1", 0)], len(kinds), SocketOptions())
    acceptor.open()
    scoreboard = Scoreboard(len(kinds) + 1)
    if os.environ.get("FEW_DESCRIPTORS"):
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, used + 3))

    def child(birth):
        return globals()[kinds[min(birth.slot, len(kinds) - 1)]](birth)

    def reopen_logs():
        tell("rows", *(f"{row.generation}/{row.phase.name}/{row.pid}" for row in (r.snapshot() for r in scoreboard)))
        if os.environ.get("BUSY"):
            sys.stdin.readline()

    before = signal.getsignal(signal.SIGTERM)
    status = Master(
        machine=Machine(
            [RoleSpec(role=Role.WORKER, slots=len(kinds), reloads=True, required=True, most=len(kinds) + 1)],
            Policy(
                boot_timeout=float(os.environ.get("BOOT_TIMEOUT", "20")),
                grace=20,
                margin=1,
                same_wish=0.0,
                linger=acceptor.linger,
                breaker_failures=int(os.environ.get("BREAKER", "0")),
                backoff_initial=0.01,
            ),
        ),
        child=child,
        acceptor=acceptor,
        scoreboard=scoreboard,
        log=lambda say: tell("say", say.level, say.text, say.detail),
        reopen_logs=reopen_logs,
    ).run()
    assert signal.getsignal(signal.SIGTERM) is before
    acceptor.close()
    tell("over", len(open_descriptors()))
    return status


if __name__ == "__main__":
    sys.stdout.write("not yet flushed when the first child is forked\n")
    sys.exit(main(sys.argv[1:]))
