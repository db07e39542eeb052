"""Workers that have lived long enough are replaced, successor first, and no request is lost."""

from __future__ import annotations

import pytest

from tests.process.clients import Load
from tests.process.servers import Served, wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "mode",
    [
        ("--workers", "1"),
        ("--workers", "2", "--reuseport"),
        ("--workers", "2", "--accept", "dispatch"),
        ("--accept", "threads", "--threads", "2"),
    ],
)
def test_workers_are_replaced_after_so_many_requests_without_a_loss(mode):
    with Served("plain:app", *mode, "--limit-max-requests", "50", "--no-access-log") as server:
        before = server.workers()
        with Load(server) as load:
            wait_until(lambda: not server.workers() & before, "every worker is replaced")
            load.progress()
        assert load.failures == []
        assert "(limit.max_requests)" in server.log()


def test_worker_of_some_age_is_replaced():
    with Served("plain:app", "--limit-worker-age", "500ms", "--no-access-log") as server:
        before = server.workers()
        wait_until(lambda: not server.workers() & before, "the worker is replaced")
        assert "(limit.worker_age)" in server.log()
