"""aioserve tune as a user has it: short runs with real servers and real load, and nothing left of them."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.process.servers import APPS, PATIENCE, REPO, processes, wait_until

#: The shortest load that can be asked for, and one worker count: two candidates or three, some seconds in all.
SHORT = ("--seconds", "600ms", "--connections", "4")


def environment(**further):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIOSERVE_")}
    kept.pop("WEB_CONCURRENCY", None)
    return {**kept, "PYTHONPATH": f"{REPO}{os.pathsep}{APPS}", "COLUMNS": "100", **further}


def without_wrk(directory):
    """A PATH on which there is no wrk."""
    return {"PATH": str(directory)}


def tune(*arguments, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "aioserve", "tune", *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def started(*arguments, cwd, stderr=subprocess.PIPE):
    """A run that has begun; at the end of the block it is over, or the test has failed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aioserve", "tune", *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def descendants(root):
    """Its children and theirs, with what each is: pid -> command line."""
    tree, found, pending = processes(), {}, [root]
    while pending:
        parent = pending.pop()
        for pid, (its_parent, _) in tree.items():
            if its_parent == parent:
                pending.append(pid)
                try:
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:  # it has ended
                    continue
    return found


def alive(pids):
    return set(pids) & processes().keys()


@pytest.mark.once
def test_a_run_ends_with_a_table_files_and_a_recommendation(tmp_path):
    done = tune(
        *(
            "plain:app",
            *SHORT,
            "--workers",
            "2",
            "--plot",
            "x.svg",
            "--json",
            "x.json",
            "--path",
            "/",
            "--path",
            "/pid",
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "x.json").read_text())
    labels = [one["label"] for one in found["candidates"]]
    assert {"shared x 2", "reuseport x 2"} <= set(labels)
    assert found["recommendation"]["label"] in labels
    assert f"Recommended: {found['recommendation']['flags']}" in done.stdout
    assert f"Next:  aioserve plain:app {found['recommendation']['flags']}" in done.stdout
    assert all(label in done.stdout for label in labels)
    texts = [element.text for element in ET.parse(tmp_path / "x.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert set(labels) <= set(texts)
    for one in found["candidates"]:
        assert one["errors"] == []
        assert len(one["rounds"]) == 3
        assert one["rate"] > 0
        assert one["fresh_rate"] > 0
        assert 0 < one["cpu"] < 0.1
        assert one["memory"] > 8 << 20
        assert 0.5 <= one["share"] <= 1
    visited = [(one["round"], one["label"]) for one in found["visits"]]
    assert visited == [(number, label) for number in (1, 2, 3) for label in labels]
    assert set(os.listdir(tmp_path)) == {"x.json", "x.svg"}


@pytest.mark.once
def test_without_wrk_the_built_in_client_measures_all_of_it(tmp_path):
    done = tune("plain:app", *SHORT, "--accept", "single", "--json", "-", cwd=tmp_path, env=without_wrk(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # the report is not in between
    assert found["setup"]["client"] == "the built-in client"
    assert "Recommended: --accept single" in done.stderr
    (one,) = found["candidates"]
    assert one["errors"] == []
    assert min(one["rate"], one["fresh_rate"]) > 0
    # The rate for the paced load is known from the second round on.
    paced = [visit["paced"] for visit in found["visits"]]
    assert paced[0] is None
    assert min(run["requests"] for run in paced[1:]) > 0
    assert one["share"] is None


def test_settings_of_the_user_count(tmp_path):
    long = "/" + "a" * 100
    done = tune("plain:app", *SHORT, "--path", long, "--limit-request-line", "64", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert f"GET {long} is answered with 414; name a path" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("nowhere:app",), 3, "there is no module 'nowhere'"),
        (("plain:nothing",), 3, "has no attribute 'nothing'"),
        (("aioserve.example:app", "--path", "/nope"), 1, "GET /nope is answered with 404; name a path"),
    ],
)
def test_what_cannot_be_measured_is_said_once_and_at_once(arguments, status, said, tmp_path):
    done = tune(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.count(said) == 1
    assert done.stdout == ""


@pytest.mark.once
def test_files_that_cannot_be_written_are_named_after_the_report(tmp_path):
    done = tune("plain:app", *SHORT, "--accept", "single", "--plot", "/dev/full", cwd=tmp_path)
    assert done.returncode == 1
    assert "Recommended: --accept single" in done.stdout
    assert "/dev/full: No space left on device" in done.stderr


MOMENTS = {
    # What is there when the signal comes: a server that starts, its workers, a client at work.
    "at its start": (lambda run: descendants(run.pid), signal.SIGINT),
    "while a server serves": (lambda run: len(descendants(run.pid)) >= 3, signal.SIGTERM),
    "under load": (lambda run: any(b"wrk" in line for line in descendants(run.pid).values()), signal.SIGINT),
}


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interruption_leaves_no_process(moment, tmp_path):
    has_come, number = MOMENTS[moment]
    with started("plain:app", "--workers", "2", cwd=tmp_path) as run:
        wait_until(lambda: has_come(run), moment)
        there = descendants(run.pid)
        run.send_signal(number)
        _, said = run.communicate(timeout=PATIENCE)
        assert run.returncode == 130
        assert said.endswith("aioserve tune: interrupted; every process has been stopped\n")
        assert not alive(there)


@pytest.mark.once
def test_an_interruption_shows_what_was_measured(tmp_path):
    with started("plain:app", *SHORT, "--workers", "2", "--json", "x.json", cwd=tmp_path) as run:
        for line in run.stderr:
            if line.startswith("round 1, shared"):
                break
        there = descendants(run.pid)
        run.send_signal(signal.SIGINT)
        table, _ = run.communicate(timeout=PATIENCE)
        assert run.returncode == 130
        assert re.search(r"^  shared x 2 .*\d", table, re.MULTILINE)
        assert "Recommended" not in table
        assert json.loads((tmp_path / "x.json").read_text())["setup"]["interrupted"]
        assert not alive(there)


def test_when_tune_is_killed_its_servers_end(tmp_path):
    with started("plain:app", "--workers", "2", cwd=tmp_path) as run:
        wait_until(lambda: len(descendants(run.pid)) >= 3, "a server with its workers")
        there = descendants(run.pid)
        run.kill()
        run.wait()
        wait_until(lambda: not alive(there), f"{there} have ended")


@pytest.mark.once
def test_a_terminal_sees_a_bar_and_then_a_clean_line(tmp_path):
    mine, theirs = pty.openpty()
    with started("plain:app", *SHORT, "--accept", "single", cwd=tmp_path, stderr=theirs) as run:
        os.close(theirs)
        screen = b""
        while True:
            try:
                data = os.read(mine, 65536)
            except OSError:  # the other end is closed
                break
            screen += data
        os.close(mine)
        report = run.stdout.read()
        assert run.wait(PATIENCE) == 0
    assert re.search(rb"#.*s left  round 3 of 3: single", screen)
    # The bar's line is erased, and the cursor is there again.
    assert screen.endswith(b"\x1b[?25h\r\n\x1b[1A\r\x1b[2K")
    assert "Recommended: --accept single" in report
