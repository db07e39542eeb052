"""A worker without descriptors: open connections are served on, new ones wait, nothing spins."""

from __future__ import annotations

import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.servers import Served

pytestmark = pytest.mark.slow


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_connections_wait_while_descriptors_are_short_and_open_ones_are_served(loop):
    with ExitStack() as stack:
        server = stack.enter_context(
            Served("hoarding:app", "--accept", "single", "--loop", loop, "--limit-connections", "100")
        )
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (256, 256))
        client = stack.enter_context(server.connect())
        assert client.get("/take").text == "ok"
        server.wait_for("descriptors are free: accepting pauses")

        waiting = [stack.enter_context(server.connect()) for _ in range(8)]
        for one in waiting:
            one.request("/")
        before = processor_seconds(server.pid)
        for _ in range(20):
            assert client.get("/").text == "ok"
        assert processor_seconds(server.pid) - before < 1

        assert client.get("/give").text == "ok"
        assert [one.response().text for one in waiting] == ["ok"] * 8
