"""How many workers, and loops in each, a configuration comes to."""

from __future__ import annotations

import os

import pytest

from aioserve.config.load import from_settings
from aioserve.surroundings import count_workers

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def counted(cpus: int, **settings: object) -> tuple[int, int]:
    """On a machine that has at least as many CPUs as its group allows."""
    files = {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": f"{cpus * 100000} 100000"}
    process = count_workers(from_settings(**settings), files.get).process
    return process.workers, process.threads


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1, 1)),
        ({"workers": 3}, (3, 1)),
        ({"workers": "auto", "accept": "single"}, (1, 1)),
        ({"accept": "threads", "threads": 3}, (1, 3)),
        ({"accept": "threads", "threads": 3, "workers": 2}, (2, 3)),
        # One CPU is not enough for what was asked for; there is one of each all the same.
        ({"accept": "threads", "workers": 2}, (2, 1)),
        ({"accept": "threads", "workers": "auto", "threads": 2}, (1, 2)),
    ],
)
def test_numbers_on_one_cpu(settings, expected):
    assert counted(1, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"workers": "auto"}, (CPUS, 1)),
        ({"accept": "threads"}, (1, CPUS)),
        ({"accept": "threads", "threads": 0}, (1, CPUS)),
        ({"accept": "threads", "workers": "auto"}, (1, CPUS)),
        ({"accept": "threads", "workers": "auto", "threads": 1}, (CPUS, 1)),
        ({"accept": "threads", "workers": CPUS}, (CPUS, 1)),
    ],
)
def test_all_workers_together_have_a_loop_for_each_cpu(settings, expected):
    assert counted(CPUS, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "running", "threads"),
    [({"accept": "threads", "threads": 4}, "shared", 1), ({"accept": "shared"}, "threads", CPUS)],
)
def test_a_server_that_runs_counts_by_its_own_pattern(settings, running, threads):
    assert count_workers(from_settings(**settings), {}.get, accept=running).process.threads == threads


def test_what_was_counted_is_said(caplog):
    with caplog.at_level("INFO", logger="aioserve"):
        counted(1, accept="threads")
    assert caplog.messages[0].startswith("--threads auto: 1 (")
