"""Which event loop serves. Making one is all that happens here: running and closing it is the caller's."""

from __future__ import annotations

import asyncio
from typing import Literal

from aioserve.errors import BootError


def new_loop(kind: Literal["auto", "uvloop", "asyncio"]) -> asyncio.AbstractEventLoop:
    """A loop that is not set as anybody's current one. ``auto`` is uvloop wherever it can be imported."""
    if kind == "asyncio":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError as error:
        if kind == "auto":
            return asyncio.new_event_loop()
        raise BootError(
            f"--loop uvloop: it cannot be imported ({error}); install uvloop or pass --loop asyncio"
        ) from None
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """The package that the loop comes from: "uvloop" or "asyncio"."""
    return type(loop).__module__.partition(".")[0]
