"""The child that inspects certificates: whatever becomes of it, there is an answer, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.servers import PATIENCE, REPO, wait_until
from tests.tls import Authority

PROGRAM = Path(__file__).with_name("inspector_program.py")


@pytest.mark.parametrize(
    "kind, answer",
    [
        ("real", "[] [('localhost', '127.0.0.1', '::1')]"),
        ("good", "[] []"),
        ("hanging", "could not be inspected within 0.35 s'] []"),
        ("dying", "could not be inspected: the process that was to do so has died'] []"),
        ("wordy", "wordword'] []"),
        ("hidden", "['dumpable 0'] []"),
    ],
)
def test_an_inspection_has_an_end(tmp_path, kind, answer):
    Authority(intermediates=1).server().write(tmp_path)
    ended = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, kind],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said, children = ended.stdout.splitlines()
    assert said.endswith(answer), ended
    assert children == "children: "
    assert ended.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an alarm ends it, later")
def test_an_inspection_ends_with_its_master(tmp_path):
    Authority().server().write(tmp_path)
    environ = {**os.environ, "PYTHONPATH": str(REPO)}
    said = subprocess.check_output([sys.executable, PROGRAM, tmp_path, "left"], env=environ, text=True)

    def has_ended():
        try:
            return Path(f"/proc/{int(said)}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(has_ended, "the end of the inspection")
