"""Stacks that are written from C, whatever a process is stuck in, also when it dies of a fatal signal."""

from __future__ import annotations

import faulthandler
import signal
import sys
from typing import Final

from aioserve.observe.log import open_stream

#: Whether a process that is well may be asked: until 3.12.8 and 3.13.1 the question can end it with SIGSEGV, if it
#: comes within the call of a function (CPython issue 123967).
ASKED_SAFELY: Final = (
    sys.version_info < (3, 12) or (3, 12, 8) <= sys.version_info < (3, 13) or sys.version_info >= (3, 13, 1)
)


def watch_for_faults(*, usr2: bool = False) -> None:
    """Let a fatal signal write the stacks of all threads to the log's stream, and USR2 too. Again after it was opened.

    USR2 then goes on to the handler that was there before; where Python cannot be asked safely, to that alone.
    """
    stream = open_stream()
    if stream is None:
        return
    faulthandler.enable(stream)
    if usr2 and ASKED_SAFELY:
        faulthandler.register(signal.SIGUSR2, file=stream, all_threads=True, chain=True)
