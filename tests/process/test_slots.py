"""Slots of SO_REUSEPORT sockets that are replaced, added and taken away under load lose no connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.process.clients import PATIENCE
from tests.process.servers import REPO, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT spreads connections on Linux alone")

CLIENTS = 16


class Program:
    def __init__(self, slots):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.slots_program", str(slots)],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0
        self._process.stdout.close()

    def do(self, operation, slot):
        self._process.stdin.write(f"{operation} {slot}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


class Connections:
    """One connection after another from each of many clients; what became of each, and who has answered."""

    def __init__(self, port):
        self._port = port
        self._stopping = threading.Event()
        self._counts = [Counter() for _ in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._run, args=(count,)) for count in self._counts]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self):
        return sum(self._counts, Counter())

    def wait_for_answers_of(self, slot):
        before = self.total[slot]
        wait_until(lambda: self.total[slot] > before, f"an answer of slot {slot}")

    def _run(self, count):
        while not self._stopping.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
                    sock.sendall(b"?")
                    answer = sock.recv(8)
            except OSError as error:
                count[type(error).__name__] += 1
            else:
                count[answer.decode() or "closed"] += 1


def failures(total):
    return {what: count for what, count in total.items() if not what.isdigit()}


def test_replacing_processes_loses_no_connection():
    with Program(2) as program, Connections(program.port) as load:
        for _ in range(10):
            for slot in (0, 1):
                program.do("replace", slot)
                load.wait_for_answers_of(str(slot))
    assert failures(load.total) == {}


def test_growing_and_shrinking_loses_no_connection():
    with Program(1) as program, Connections(program.port) as load:
        for slot in (1, 2):
            program.do("grow", slot)
            load.wait_for_answers_of(str(slot))
        # First one in the middle, whose place in the kernel's order the last one takes.
        for slot in (1, 2):
            program.do("shrink", slot)
            before = load.total[str(slot)]
            load.wait_for_answers_of("0")
            assert load.total[str(slot)] == before
    assert failures(load.total) == {}
