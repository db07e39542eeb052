"""What /proc says, from a made-up /proc; that the real one is read is shown by tests/process/test_tune.py."""

from __future__ import annotations

import os

import pytest

from aioserve.tune.processes import machine, memory, of_session, others

TICKS = os.sysconf("SC_CLK_TCK")


def process(root, pid, *, parent, session, cpu, rollup=""):
    place = root / str(pid)
    place.mkdir()
    fields = ["S", str(parent), "0", str(session), *["0"] * 7, str(cpu * TICKS), "0", *["0"] * 30]
    (place / "stat").write_text(f"{pid} (a ) b) {' '.join(fields)}\n")
    if rollup:
        (place / "smaps_rollup").write_text(rollup)


def test_a_server_is_its_session_and_what_descends_from_it(tmp_path):
    process(tmp_path, 10, parent=1, session=10, cpu=1)
    process(tmp_path, 11, parent=10, session=10, cpu=2)
    process(tmp_path, 12, parent=11, session=12, cpu=3)  # a session of its own
    process(tmp_path, 13, parent=1, session=10, cpu=4)  # its parent has died
    process(tmp_path, 20, parent=1, session=20, cpu=9)
    (tmp_path / "30").mkdir()  # has ended since it was listed
    (tmp_path / "self").mkdir()
    assert of_session(10, tmp_path) == {10: 1.0, 11: 2.0, 12: 3.0, 13: 4.0}


def test_memory_counts_what_the_forking_process_still_shares(tmp_path):
    process(tmp_path, 1, parent=0, session=1, cpu=0, rollup="Pss: 30 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 6 kB\n")
    process(tmp_path, 10, parent=1, session=10, cpu=0, rollup="Rss: 900 kB\nPss: 100 kB\nPss_Dirty: 7 kB\n")
    process(tmp_path, 11, parent=10, session=10, cpu=0, rollup="Pss: 50 kB\n")
    assert memory([10, 11, 12], 1, tmp_path) == (100 + 50 + 20) * 1024


def test_the_machine_is_all_its_cpus(tmp_path):
    (tmp_path / "stat").write_text("cpu  100 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3\n")
    assert machine(tmp_path) == pytest.approx((158 / TICKS, 621 / TICKS))
    assert machine(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("began", "ended", "ours", "part"),
    [
        ((10.0, 100.0), (14.0, 110.0), 3.0, 0.1),
        ((10.0, 100.0), (14.0, 110.0), 5.0, 0.0),
        ((10.0, 100.0), (10.0, 100.0), 0.0, None),
        (None, (10.0, 100.0), 0.0, None),
    ],
)
def test_others_have_what_is_not_ours(began, ended, ours, part):
    assert others(began, ended, ours) == part
