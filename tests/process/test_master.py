"""The master for real: forks, signals, exits. The children are tiny (see master_program.py), the rest is ours."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("master_program.py")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(20),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


class Program:
    """The running program, and what it has said so far."""

    def __init__(self, kinds, **environ):
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", str(PROGRAM), *kinds],
            stdin=subprocess.PIPE if "BUSY" in environ else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        )
        self.pid = self.process.pid
        self.lines = []

    def expect(self, pattern):
        """Read until a line matches, and answer its groups."""
        while line := self.process.stdout.readline():
            self.lines.append(line.rstrip("\n"))
            if found := re.search(pattern, line):
                return found.groups()
        raise AssertionError(f"never said {pattern!r}, but: {self.lines}\n{self.process.stderr.read()}")

    def expect_ready(self, count):
        """The process ids of the next children that are ready, by slot."""
        pids = {}
        while len(pids) < count:
            slot, pid = self.expect(r"^ready (\d+) (\d+)")
            pids[int(slot)] = int(pid)
        return pids

    def send(self, number):
        os.kill(self.pid, number)

    def ends(self):
        """The exit status, after all that was still said. Standard output ends when the last child has gone."""
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait()

    def count(self, pattern):
        return sum(bool(re.search(pattern, line)) for line in self.lines)

    def children(self):
        return {int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@pytest.fixture
def run():
    programs = []

    def start(*kinds, **environ):
        programs.append(Program(kinds, **environ))
        return programs[-1]

    yield start
    for program in programs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.process.communicate()


@pytest.fixture
def serving(run):
    """Starts a program and waits until the master has said that all are ready."""

    def start(*kinds, **environ):
        program = run(*kinds, **environ)
        pids = program.expect_ready(len(kinds))
        program.expect(r"^say info ready: \d worker")
        return program, pids

    return start


def test_term_ends_all_children_and_the_status_is_zero(serving):
    program, pids = serving("serve", "serve")
    assert program.children() == set(pids.values())
    program.send(signal.SIGTERM)
    assert program.ends() == 0
    assert program.count("^told . SIGTERM") == 2


def test_a_worker_is_replaced_although_a_process_that_it_forked_has_a_copy_of_its_channel(serving):
    program, pids = serving("forks")
    os.kill(pids[0], signal.SIGKILL)
    assert program.expect_ready(1)[0] != pids[0]
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_a_time_that_is_longer_than_the_kernel_can_wait_is_waited_for_in_parts(serving):
    program, _ = serving("serve", BOOT_TIMEOUT=str(365 * 86400))
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_interrupt_from_a_terminal_reaches_the_master_only(serving):
    program, _ = serving("serve", "serve")
    os.killpg(program.pid, signal.SIGINT)
    assert program.ends() == 0
    assert program.count("^told . SIGTERM") == 2


def test_a_second_term_makes_it_quick(serving):
    program, _ = serving("stubborn", "stubborn")
    program.send(signal.SIGTERM)
    program.expect("^told . SIGTERM")
    program.expect("^told . SIGTERM")
    program.send(signal.SIGTERM)
    assert program.ends() == 0
    assert program.count("^told . SIGQUIT") == 2


def test_quit_is_quick_at_once(serving):
    program, _ = serving("stubborn")
    program.send(signal.SIGQUIT)
    assert program.ends() == 0
    assert program.count("^told . SIGTERM") == 0


def test_hang_up_replaces_every_child_and_the_successor_is_first(serving):
    program, old = serving("serve", "serve")
    program.send(signal.SIGHUP)
    program.expect(r"^say info reload to generation 2 finished: 2 replaced")
    story = [line for line in program.lines if re.search(r"^(ready . \d+ 2|told)", line)]
    assert [re.sub(r" \d{2,}", "", line) for line in story] == [
        "ready 0 2",
        "told 0 SIGTERM",
        "ready 1 2",
        "told 1 SIGTERM",
    ]
    new = program.children()
    assert (len(new), new & set(old.values())) == (2, set())
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_hang_up_of_the_terminal_is_one_reload(serving):
    program, _ = serving("serve")
    os.killpg(program.pid, signal.SIGHUP)
    program.expect("finished: 1 replaced")
    program.send(signal.SIGTERM)
    assert program.ends() == 0
    assert program.count("reload to generation") == 2  # its beginning and its end


def test_a_reload_that_fails_leaves_the_old_child_serving(serving):
    program, old = serving("replaceable")
    program.send(signal.SIGHUP)
    program.expect("could not start: no module named shop Traceback: line 3")
    program.expect("reload to generation 2 failed")
    assert program.children() == set(old.values())
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_a_killed_child_is_replaced(serving):
    program, pids = serving("serve", "serve")
    os.kill(pids[1], signal.SIGKILL)
    program.expect(rf"^say error worker 1 \(pid {pids[1]}\) killed by SIGKILL \(not by aioserve")
    [again] = program.expect_ready(1).values()
    assert program.children() == {pids[0], again}
    program.send(signal.SIGTERM)
    assert program.ends() == 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cannot_boot", "no module named shop Traceback: line 3"),
        ("leaves_early", "exited with status 7 before it was ready"),
        ("raises", "exited with status 1 before it was ready"),
        ("exits", "exited with status 5 before it was ready"),
    ],
)
def test_a_first_child_that_cannot_start_ends_the_server(run, kind, reason):
    program = run("serve", kind)
    assert program.ends() == 3
    assert program.count(f"could not start: {reason}") == 1


def test_an_exception_in_a_child_is_printed(run):
    program = run("raises")
    program.ends()
    assert "RuntimeError: a bug in the child" in program.process.stderr.read()


def test_a_child_without_descriptors_cannot_be_started(run):
    program = run("serve", FEW_DESCRIPTORS="yes")
    assert program.ends() == 3
    assert program.count("could not start: no process could be started: socketpair: Too many open files") == 1


def test_a_child_that_has_no_handlers_yet_can_be_stopped(run):
    program = run("boots_for_ever", "boots_for_ever")
    program.expect("^booting")
    program.expect("^booting")
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_a_stop_at_any_moment_of_the_start_is_obeyed(run):
    program = run("serve", "serve", "boots_for_ever", "serve")
    program.expect("^(ready|booting)")
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_children_leave_when_the_master_is_killed(serving):
    program, _ = serving("serve", "serve", "serve")
    program.send(signal.SIGKILL)
    assert program.ends() == -signal.SIGKILL
    assert program.count("^orphaned") == 3


def test_no_zombies_and_no_descriptors_are_left_behind(serving):
    program, _ = serving("serve", "serve")
    before = program.descriptors()
    for _ in range(3):
        program.send(signal.SIGHUP)
        program.expect("finished: 2 replaced")
    os.kill(program.children().pop(), signal.SIGKILL)
    program.expect("killed by SIGKILL")
    program.expect_ready(1)
    program.expect("is ready")
    assert (len(program.children()), program.descriptors()) == (2, before)
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_a_child_holds_its_own_channel_and_listener_and_nothing_else(run):
    program = run(*["lists_descriptors"] * 3)
    for _ in range(3):
        _, names = program.expect(r"^descriptors (\d) (.*)")
        assert names.split().count("socket") == 2, names
        assert "anon_inode" not in names, "the master's selector"
        assert names.split().count("pipe") == 2, f"only the standard streams: {names}"


def test_a_successor_holds_nothing_more_than_its_predecessor(run):
    program = run("lists_descriptors", "lists_descriptors")
    first = {program.expect(r"^descriptors \d (.*)") for _ in range(2)}
    program.expect("^say info ready")
    program.send(signal.SIGHUP)
    again = {program.expect(r"^descriptors \d (.*)") for _ in range(2)}
    assert first == again


def test_what_was_printed_before_the_fork_is_printed_once(serving):
    program, _ = serving("serve", "prints_without_newline")
    program.send(signal.SIGTERM)
    program.ends()
    assert (program.count("^not yet flushed"), program.count("^buffered 1")) == (1, 1)


def test_log_files_are_reopened_by_the_master_and_the_children(serving):
    program, _ = serving("serve", "serve")
    program.send(signal.SIGUSR1)
    program.expect("^told . SIGUSR1")
    program.expect("^told . SIGUSR1")
    assert program.count("^rows") == 1


def test_the_scoreboard_knows_who_sits_where(serving):
    program, _ = serving("serve", "serve")
    program.send(signal.SIGHUP)
    program.expect("finished: 2 replaced")
    program.send(signal.SIGUSR1)
    rows = program.expect("^rows (.*)")[0].split()
    assert [re.sub(r"\d{2,}", "PID", row) for row in rows] == [
        *["0/EMPTY/0", "2/READY/PID"] * 2,
        "0/EMPTY/0",
        "0/EMPTY/0",
    ]
    assert {int(row.rpartition("/")[2]) for row in rows} == {0, *program.children()}


def test_a_slot_that_cannot_be_held_ends_the_server_with_status_one(run):
    program = run("dies_soon", BREAKER="3")
    assert program.ends() == 1
    assert program.count("worker has failed 3 times in a row, and no other worker serves well") == 1
    assert program.count("exited with status 9 after") == 3


def test_one_worker_more_and_one_less(serving):
    program, pids = serving("serve", "serve")
    program.send(signal.SIGTTIN)
    [more] = program.expect_ready(1).values()
    assert program.children() == {*pids.values(), more}
    program.send(signal.SIGTTOU)
    program.expect(r"^say info worker 2 has gone")
    assert program.children() == set(pids.values())
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_a_master_without_a_successor_does_not_drain_for_a_window_that_changes(serving):
    program, pids = serving("serve")
    program.send(signal.SIGWINCH)
    program.expect("^say info SIGWINCH: no new master serves")
    assert program.children() == set(pids.values())
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_a_child_that_is_reaped_before_its_last_words_are_heard_is_not_signalled(run):
    """It says ready and dies while the master is busy; the machine's answer to "ready" would be USR1."""
    program = run("speaks_and_dies", "serve", BUSY="yes")
    [pid] = map(int, program.expect(r"^booting 0 (\d+)"))
    program.send(signal.SIGUSR1)
    program.expect("^rows")  # the master waits in its log's reopening until it is told to go on
    watched = os.pidfd_open(pid)
    os.kill(pid, signal.SIGALRM)
    select.select([watched], [], [])
    os.close(watched)
    program.process.stdin.write("go on\n")
    program.process.stdin.flush()
    program.expect(rf"^say error worker 0 \(pid {pid}\) exited with status 0 after")
    program.send(signal.SIGTERM)
    assert program.ends() == 0


def test_orphans_are_reaped(serving):
    program, pids = serving("has_a_child")
    [grandchild] = [int(line.split()[1]) for line in program.lines if line.startswith("grandchild")]
    watched = os.pidfd_open(grandchild)
    os.kill(pids[0], signal.SIGKILL)  # closes the pipe, which ends the grandchild, which is the master's by now
    select.select([watched], [], [])
    os.close(watched)
    # It has ended, but is the master's only when its parent is quite dead; each answer is one more turn of the master.
    for _ in range(1000):
        program.send(signal.SIGUSR1)
        program.expect("^rows")
        if not Path(f"/proc/{grandchild}").exists():
            break
    else:
        pytest.fail("the orphan was not reaped within 1,000 turns of the master")


def test_the_master_closes_what_it_has_opened(serving):
    program, _ = serving("serve")
    program.send(signal.SIGTERM)
    program.ends()
    assert program.count(r"^over 3$") == 1  # the standard streams
