"""The entry point: which command a line is for. ``aioserve tune ...`` is tune's, everything else the server's.

It imports nothing before it knows, so that Ctrl-C during the imports of tune ends it as it does later.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The exit status of a command that was interrupted.
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    words = sys.argv[1:] if argv is None else argv
    # What is imported stays: looking for garbage in it again and again took a fifth of a start. cli, or tune below,
    # enables it before the work begins.
    gc.disable()
    try:
        if words[:1] == ["tune"] or _asked_to_complete() == "tune":
            _tune(words[1:])
        from aioserve import cli

        cli.main(words)
    finally:
        gc.enable()


def _tune(words: Sequence[str]) -> NoReturn:
    try:
        from aioserve import cli, cli_tune

        gc.enable()
        with cli.printing():
            cli.complete(cli_tune.make_tune_command())
            sys.exit(cli_tune.main(words))
    except KeyboardInterrupt:  # before anything was started; later it is a signal that is waited for
        sys.stderr.write("aioserve tune: interrupted\n")
        sys.exit(INTERRUPTED)


def _asked_to_complete() -> str:
    """The first word of the line that the shell wants to complete, if it does."""
    if "_AIOSERVE_COMPLETE" not in os.environ:
        return ""
    return next(iter(os.environ.get("COMP_WORDS", "").split()[1:]), "")
