"""The attacks of ``python -m tests.load.slow``, short: a client beside them sees no error, and nothing is left over."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from tests.load.attack import MODES, PROGRAM
from tests.load.slow import MIB, attack, raise_descriptor_limit
from tests.process.servers import Served

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.xdist_group("load"),
    pytest.mark.skipif(PROGRAM is None, reason="slowhttptest is not installed"),
]

CONNECTIONS = 300

#: What the worker may grow by. The pieces of 64 KiB of a response that nobody reads are the most: two and what they
#: were made from for each connection, and an allocator that keeps as much again.
GROWTH_LIMIT = {"header": 16 * MIB, "body": 32 * MIB, "read": 128 * MIB}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    try:
        # Limits that strike while the attack goes on.
        with Served("plain:app", "--timeout-header", "2", "--timeout-body", "3", "--timeout-write", "2") as server:
            yield server
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("mode", MODES)
def test_healthy_client_beside_slow_ones_sees_no_error(served, mode):
    outcome = attack(served, mode, connections=CONNECTIONS, seconds=5)

    assert outcome.attack is not None
    assert outcome.attack.opened >= CONNECTIONS
    assert outcome.seen.errors == []
    assert outcome.after.descriptors <= outcome.before.descriptors
    assert outcome.peak.rss - outcome.before.rss < GROWTH_LIMIT[mode]
