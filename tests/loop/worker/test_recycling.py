from __future__ import annotations

from types import SimpleNamespace

from aioserve.worker.recycling import MEMORY_INTERVAL, MEMORY_LOOKS, Recycling, resident_bytes


class Worker:
    """A recycling that is fed by hand."""

    def __init__(self, *, resident=None, jitter=0.0, **limits):
        names = ("limit_max_requests", "limit_max_requests_jitter", "limit_worker_age", "limit_worker_memory")
        settings = SimpleNamespace(**{name: limits.get(name.removeprefix("limit_"), 0) for name in names})
        self.server = SimpleNamespace(requests_total=0, draining=False)
        self.asked = []
        self.recycling = Recycling(
            settings, self.server, self.asked.append, now=100.0, resident=resident, jitter=lambda: jitter
        )

    def beat(self, now=100.0, requests=0):
        self.server.requests_total = requests
        self.recycling.beat(now, 0.0)
        return self.asked


def test_without_a_limit_it_never_asks():
    worker = Worker()
    assert worker.beat(1e9, 10**9) == []


def test_enough_requests_are_a_reason_and_it_is_said_once():
    worker = Worker(max_requests=10)
    assert worker.beat(requests=9) == []
    assert worker.beat(requests=12) == ["it has served 12 requests (limit.max_requests)"]
    assert len(worker.beat(requests=100)) == 1


def test_the_jitter_allows_some_requests_more():
    worker = Worker(max_requests=10, max_requests_jitter=4, jitter=0.5)
    assert worker.beat(requests=11) == []
    assert len(worker.beat(requests=12)) == 1


def test_jitter_alone_is_no_limit():
    assert Worker(max_requests_jitter=5).beat(requests=100) == []


def test_age_is_a_reason_a_little_later_for_some():
    assert Worker(worker_age=50.0).beat(150.0) == ["it has served for 50 s (limit.worker_age)"]
    worker = Worker(worker_age=50.0, jitter=1.0)
    assert worker.beat(154.9) == []
    assert worker.beat(155.1) == ["it has served for 55 s (limit.worker_age)"]


def test_memory_has_to_be_too_much_several_times_in_a_row():
    sizes = [300, 300, 100, 300, 300, 300]
    worker = Worker(worker_memory=200 << 20, resident=lambda: sizes.pop(0) << 20)
    now = 100.0
    for _ in range(3 + MEMORY_LOOKS - 1):
        assert worker.beat(now) == []
        assert worker.beat(now + 1) == []  # not looked at in between
        now += MEMORY_INTERVAL
    assert worker.beat(now) == ["it has 300 MiB of resident memory (limit.worker_memory)"]
    assert sizes == []


def test_memory_that_cannot_be_read_is_said_once(caplog):
    def resident():
        raise FileNotFoundError(2, "No such file or directory")

    worker = Worker(worker_memory=1, resident=resident)
    worker.beat(100.0)
    worker.beat(200.0)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("--limit-worker-memory has no effect")


def test_a_worker_that_drains_asks_for_nothing():
    worker = Worker(max_requests=1)
    worker.server.draining = True
    assert worker.beat(requests=5) == []


def test_resident_memory_is_read_from_the_kernel():
    assert 1 << 20 < resident_bytes() < 1 << 40
