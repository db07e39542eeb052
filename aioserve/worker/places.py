"""Where a task waits: from its coroutine along what each awaits, down to the innermost frame.

The chain of a task that is running right now has one link, the outermost: what it runs is on the thread's own stack.
A task that waits for other tasks (a task group, ``gather``) ends there; those have places of their own.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

#: Code that says nothing to the author of an application.
_NOT_THEIRS: Final = (
    sysconfig.get_path("stdlib") + os.sep,
    f"{Path(__file__).parents[1]}{os.sep}",
)
#: Within the standard library, but not of it.
_PACKAGES: Final = (sysconfig.get_path("purelib") + os.sep, sysconfig.get_path("platlib") + os.sep)


def frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames in which ``task`` waits, outermost first."""
    found = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            frame = getattr(waiting, "ag_frame", None)
        if frame is not None:
            found.append(frame)
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return found


def place(task: asyncio.Task[Any]) -> str:
    """Where ``task`` waits, in one line: the innermost place in the application, and what it has called there."""
    chain = frames(task)
    if not chain:
        return "nowhere"
    theirs = next((frame for frame in reversed(chain) if is_theirs(frame)), None)
    inner = spell(chain[-1])
    return inner if theirs is None or theirs is chain[-1] else f"{spell(theirs)}, there in {inner}"


def is_theirs(frame: FrameType) -> bool:
    """Whether the frame belongs to the application or a library of its, not to us or the standard library."""
    name = frame.f_code.co_filename
    return name.startswith(_PACKAGES) or not name.startswith((*_NOT_THEIRS, "<frozen"))


def spell(frame: FrameType) -> str:
    """``file:line function``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}()"
