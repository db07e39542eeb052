"""TTIN and TTOU: one worker more, one less, while clients are being served."""

from __future__ import annotations

import signal

import pytest

from tests.process.clients import Load
from tests.process.servers import Served, wait_until

#: The master does the same on every Python.
pytestmark = pytest.mark.once

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "late": ("--workers", "2", "--reuseport"),
    "always": ("--workers", "2", "--reuseport", "--steal", "always"),
    "shared": ("--workers", "2"),
    "threads": ("--accept", "threads", "--threads", "2", "--workers", "2"),
}


@pytest.mark.parametrize("mode", MODES)
def test_workers_come_and_go_under_load_and_no_request_fails(mode):
    with Served("plain:app", *MODES[mode], "--no-access-log") as server:
        first = server.workers()
        with Load(server) as load:
            load.progress()
            for _ in range(2):
                mark = server.mark()
                server.signal(signal.SIGTTIN)
                server.wait_for("worker 2 (pid ", since=mark)
                load.progress()
                server.signal(signal.SIGTTOU)
                server.wait_for("worker 2 has gone", since=mark)
                load.progress()

        assert load.failures == []
        assert server.workers() == first


@pytest.mark.parametrize("mode", MODES)
def test_a_further_worker_serves(mode):
    with Served("plain:app", *MODES[mode], "--no-access-log") as server:
        first = server.workers()
        server.signal(signal.SIGTTIN)
        server.wait_for("worker 2 (pid ")
        [more] = server.workers() - first
        wait_until(lambda: server.get("/pid").text == str(more), "the further worker answers")


def test_one_worker_stays_whatever_is_asked_for():
    with Served("plain:app") as server:
        server.signal(signal.SIGTTOU)
        server.wait_for("SIGTTOU: one worker has to stay")
        assert server.get("/").status == 200
