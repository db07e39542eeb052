"""Where a task waits, from its coroutine along what each awaits, and which frames are the application's.

The chain of a task that is running right now has one link, the outermost: what it runs is on the thread's own stack.
A task that waits for other tasks (a task group, ``gather``) ends there; those have places of their own.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

_OURS: Final = f"{Path(__file__).parents[1]}{os.sep}"
#: The one module of ours that is somebody's application.
_EXAMPLE: Final = f"{_OURS}example.py"
#: Code that says nothing to the author of an application.
_NOT_THEIRS: Final = (
    sysconfig.get_path("stdlib") + os.sep,
    _OURS,
    "<frozen",
)
#: Within these directories, but not of them.
_THEIRS: Final = (
    sysconfig.get_path("purelib") + os.sep,
    sysconfig.get_path("platlib") + os.sep,
    _EXAMPLE,
)


def frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames in which ``task`` waits, outermost first."""
    found = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
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
    # Packages may be installed within the standard library's directory, and we among them.
    return (name.startswith(_THEIRS) and not _is_ours(name)) or not name.startswith(_NOT_THEIRS)


def in_application(innermost: FrameType | None) -> list[FrameType]:
    """The part of a thread's stack that the application has begun, outermost first; empty if it is not running."""
    chain = [frame for frame, _ in traceback.walk_stack(innermost)][::-1]
    # The script that has started the server is nobody's application.
    ours = next((index for index, frame in enumerate(chain) if _is_ours(frame.f_code.co_filename)), 0)
    first = next((index for index, frame in enumerate(chain) if index >= ours and is_theirs(frame)), len(chain))
    return chain[first:]


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS) and not name.startswith(_EXAMPLE)


def spell(frame: FrameType) -> str:
    """``file:line function``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}()"
