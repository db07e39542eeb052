"""Format, lint, types and import contracts, so that one command says whether a change may be merged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "ruff", "check", "."),
        ("-m", "mypy"),
        (str(SCRIPTS / "lint-imports"),),
    ],
    ids=["format", "lint", "types", "imports"],
)
# The tools are told for which versions the tree is meant; which one runs them makes no difference.
@pytest.mark.once
# mypy without a cache reads the whole standard library.
@pytest.mark.timeout(300)
def test_the_tree_passes(command):
    done = subprocess.run([sys.executable, *command], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
