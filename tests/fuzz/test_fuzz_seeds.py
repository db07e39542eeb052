"""Every seed through its target, as fuzzing would run it but without atheris; and a short run of the fuzzer itself."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import seeds

REPO = Path(__file__).resolve().parents[2]

#: Where the extra ``test`` brings atheris along: the condition is the one in pyproject.
HAS_WHEELS = (
    sys.platform == "linux"
    and platform.machine() == "x86_64"
    and platform.python_implementation() == "CPython"
    and sys.version_info < (3, 14)
)


@pytest.mark.parametrize("target", seeds.TARGETS)
def test_seeds_pass(target):
    run = importlib.import_module(f"tests.fuzz.{target}").run
    for data in seeds.load(target):
        try:
            run(data)
        except BaseException as failure:
            failure.add_note(f"input: {data!r}")
            raise


@pytest.mark.parametrize("data", [b"", b"'\\\"\t\r\n\x00\x7f\xff", b"b'x'"])
def test_seeds_are_kept_as_text(data):
    assert seeds.read(seeds.write(data)) == data


@pytest.mark.slow
@pytest.mark.once
# Instrumented code is several times slower, and atheris instruments it anew in each process.
@pytest.mark.timeout(180)
@pytest.mark.skipif(not HAS_WHEELS, reason="there are no wheels of atheris for this interpreter or machine")
@pytest.mark.parametrize("target", seeds.TARGETS)
def test_the_fuzzer_runs(target, tmp_path):
    # The seeds, and a few mutations that are the same each time.
    runs = len(seeds.load(target)) + 500
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "--runs", str(runs), "--random", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Done {runs} runs" in done.stderr
