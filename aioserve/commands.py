"""The entry point: which command a line is for. ``aioserve tune ...`` is tune's, everything else the server's."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from aioserve import cli

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    words = sys.argv[1:] if argv is None else argv
    if _asked_to_complete() == "tune":
        from aioserve.cli_tune import make_tune_command

        cli.complete(make_tune_command())
    if words[:1] == ["tune"]:
        from aioserve import cli_tune

        sys.exit(cli_tune.main(words[1:]))
    cli.main(words)


def _asked_to_complete() -> str:
    """The first word of the line that the shell wants to complete, if it does."""
    if "_AIOSERVE_COMPLETE" not in os.environ:
        return ""
    return next(iter(os.environ.get("COMP_WORDS", "").split()[1:]), "")
