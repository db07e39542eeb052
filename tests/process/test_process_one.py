"""As process 1 of a container: a real pid namespace, in which the master is everybody's last parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.process.servers import Served, processes, wait_until

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def can_unshare() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_unshare(), reason="pid namespaces need root, Linux and the program unshare")

ORPHANS = """
import os, subprocess
from plain import app as plain

async def app(scope, receive, send):
    if scope["type"] == "http":
        # The shell ends at once, and what it has started belongs to process 1.
        subprocess.run(["sh", "-c", "cat fifo > /dev/null &"], cwd=os.path.dirname(__file__), check=True)
    await plain(scope, receive, send)
"""


class First(Served):
    def command(self):
        return [*UNSHARE, *super().command()]

    @property
    def master(self):
        """The number of process 1 of the namespace, as it is known outside."""
        [number] = wait_until(lambda: children(self.pid), "the master")
        return number


def children(pid):
    return {number for number, (parent, _) in processes().items() if parent == pid}


def test_orphans_of_the_application_are_reaped(tmp_path):
    (tmp_path / "orphans.py").write_text(ORPHANS)
    os.mkfifo(tmp_path / "fifo")
    with First("orphans:app", "--workers", "1", app_dir=tmp_path) as server:
        workers = children(server.master)
        server.get()
        [orphan] = wait_until(lambda: children(server.master) - workers, "an orphan")
        with open(tmp_path / "fifo", "w"):
            pass
        wait_until(lambda: not Path(f"/proc/{orphan}").exists(), "the end of the orphan, not even a zombie left")
        assert server.get().text == "Hello, World!"
        with open(tmp_path / "fifo", "w"):
            pass
        server.signal(signal.SIGTERM, server.master)
        assert server.wait() == 0


def test_process_one_stops_and_reloads_as_any_other():
    with First("plain:app", "--workers", "2") as server:
        server.wait_for(", pid 1, ")
        server.signal(signal.SIGHUP, server.master)
        server.wait_for("reload to generation 2 finished: 2 replaced")
        server.signal(signal.SIGTERM, server.master)
        assert server.wait() == 0


def test_a_worker_of_process_one_does_not_take_it_for_dead():
    # The parent of an orphan is 1 too: whoever asks "is my parent 1?" would end here at once.
    with First("plain:app") as server:
        assert server.get().text == "Hello, World!"
        assert len(children(server.master)) == 1
        server.signal(signal.SIGTERM, server.master)
        assert server.wait() == 0
