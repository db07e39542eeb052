"""Made-up tables: candidates by their label, and rows with only what a test is about."""

from __future__ import annotations

from aioserve.tune.plan import PATTERNS, Candidate
from aioserve.tune.report import Setup
from aioserve.tune.results import Row


def candidate(label):
    """``candidate("reuseport x 2")``, ``candidate("single")``."""
    name, _, count = label.partition(" x ")
    return Candidate(next(pattern for pattern in PATTERNS if pattern.accept == name), int(count or 1))


def row(label, rate, *, rounds=None, fresh_rate=None, p99=None, p99_rounds=None, **values):
    """Without ``rounds``, every round was alike."""
    return Row(
        candidate=candidate(label),
        rate=rate,
        rounds=tuple(rounds or (rate,) * 3),
        fresh_rate=fresh_rate,
        fresh_rounds=() if fresh_rate is None else (fresh_rate,) * 3,
        p99=p99,
        p99_rounds=p99_rounds or (() if p99 is None else (p99,) * 2),
        **{"answers": 1000.0, "fresh_answers": 1000.0, **values},
    )


SETUP = Setup(
    app="shop:app",
    command="aioserve shop:app",
    requests=("GET /<tea>: 200, 151 bytes",),
    client="wrk",
    connections=64,
    cpus=2,
    python="CPython 3.13.0",
    seconds=80.0,
    rounds=3,
    paced_rate=4000.0,
)

TABLE = [
    row("shared x 1", 10000.0, fresh_rate=4000.0, cpu=40e-6, p50=2e-4, p99=9e-4, p999=4e-3, memory=35 << 20),
    row(
        "shared x 2",
        15000.0,
        rounds=(14800.0, 15000.0, 15300.0),
        fresh_rate=6000.0,
        cpu=41e-6,
        fresh_cpu=90e-6,
        p50=2e-4,
        p99=8e-4,
        p999=2e-3,
        memory=44 << 20,
        share=0.56,
    ),
    row("reuseport x 2", 15100.0, fresh_rate=6100.0, cpu=42e-6, p50=2e-4, p99=45e-3, memory=44 << 20, share=0.7),
]
