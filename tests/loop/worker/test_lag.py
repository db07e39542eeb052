from __future__ import annotations

import asyncio
import time

import pytest

from aioserve.worker.lag import PERIOD, LagMeter, LagWatch
from aioserve.worker.stacks import Stacks


def test_the_worst_lag_is_kept_for_one_to_two_periods():
    meter = LagMeter(0.0)
    assert meter.add(1.0, 0.5) == 0.5
    assert meter.add(2.0, 0.1) == 0.5
    assert meter.add(PERIOD, 0.2) == 0.5
    assert meter.add(2 * PERIOD - 1, 0.1) == 0.5
    assert meter.add(2 * PERIOD, 0.1) == 0.2
    assert meter.add(3 * PERIOD, 0.1) == 0.1


@pytest.fixture
async def watch(connect):
    stacks = Stacks(asyncio.get_running_loop())
    watches = []

    def make(app, **settings):
        client = connect(app, header_timeout=0.1)
        stacks.server = client.server
        watches.append(LagWatch(stacks, **{"limit": 0.05, "interval": 0.01, **settings}))
        client.watch = watches[0]
        return client

    yield make
    for one in watches:
        one.close()


async def blocking(scope, receive, send):
    time.sleep(0.3)
    await asyncio.Event().wait()


async def test_a_late_beat_is_explained_by_the_place_and_the_request(watch, caplog):
    client = watch(blocking)
    client.watch.beat(100.0, 0.0)
    client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0)
    client.watch.beat(100.3, 0.3)
    message = caplog.messages[-1]
    assert message.startswith("the event loop stood still for at least 0.3 s in ")
    assert "GET '/x', at " in message
    assert "test_lag.py:" in message
    assert message.endswith("    time.sleep(0.3)")


async def test_a_late_beat_that_nobody_saw_coming_is_told_all_the_same(watch, caplog):
    client = watch(blocking)
    client.watch.beat(100.0, 0.3)
    assert caplog.messages[-1].endswith("0.3 s, it is not known where")


async def test_late_beats_in_quick_succession_are_one_line_and_a_count(watch, caplog):
    client = watch(blocking)
    for now in (100.0, 101.0, 102.0, 111.0):
        client.watch.beat(now, 0.3)
    assert len(caplog.messages) == 2
    assert "(2 times more since the last line)" in caplog.messages[1]


async def test_a_beat_in_time_says_nothing(watch, caplog):
    client = watch(blocking)
    client.watch.beat(100.0, 0.04)
    assert caplog.messages == []
