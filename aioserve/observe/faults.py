"""Stacks that are written from C, whatever a process is stuck in, also when it dies of a fatal signal."""

from __future__ import annotations

import faulthandler
import signal

from aioserve.observe.log import open_stream


def watch_for_faults(*, usr2: bool = False) -> None:
    """Let a fatal signal write the stacks of all threads to the log's stream, and USR2 too. Again after it was opened.

    USR2 then goes on to the handler that was there before.
    """
    stream = open_stream()
    if stream is None:
        return
    faulthandler.enable(stream)
    if usr2:
        faulthandler.register(signal.SIGUSR2, file=stream, all_threads=True, chain=True)
