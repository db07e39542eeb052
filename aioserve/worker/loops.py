"""Which event loop serves. Making one is all that happens here: running and closing it is the caller's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from aioserve.errors import BootError

if TYPE_CHECKING:
    from types import ModuleType


def new_loop(kind: Literal["auto", "uvloop", "asyncio"]) -> asyncio.AbstractEventLoop:
    """A loop that is not set as anybody's current one. ``auto`` is uvloop wherever it can be imported."""
    loop: asyncio.AbstractEventLoop = import_loop(kind).new_event_loop()
    return loop


def import_loop(kind: Literal["auto", "uvloop", "asyncio"]) -> ModuleType:
    """The package whose loop that is. Raises ``BootError`` if uvloop was asked for and is not there."""
    if kind == "asyncio":
        return asyncio
    try:
        import uvloop
    except ImportError as error:
        if kind == "auto":
            return asyncio
        raise BootError(
            f"--loop uvloop: it cannot be imported ({error}); install uvloop or pass --loop asyncio"
        ) from None
    return uvloop


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """The package that the loop comes from: "uvloop" or "asyncio"."""
    return type(loop).__module__.partition(".")[0]
