"""The file watcher of ``--reload``: a process of its own that asks the master to reload when a source file changes.

A change goes through the ordinary rolling reload: the successor has to start before the running worker leaves, and a
syntax error leaves the old code serving.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.config.tree import Reload
    from aioserve.master.channel import Birth

#: Patterns of names, as uvicorn has them; the configuration adds to the first and the second.
INCLUDES: Final = ("*.py",)
EXCLUDES: Final = (".*", ".py[cod]", ".sw.*", "~*", "__pycache__")

#: How often the watcher looks whether its master is still there, in milliseconds.
MASTER_CHECK_MS: Final = 1000


@final
class NameFilter:
    """Which files matter: a name that an include pattern matches, with no excluded name on its way from the root."""

    def __init__(self, roots: Sequence[Path], includes: Sequence[str], excludes: Sequence[str]) -> None:
        self._roots: Final = tuple(roots)
        self._includes: Final = (*INCLUDES, *includes)
        self._excludes: Final = (*EXCLUDES, *excludes)

    def __call__(self, _change: object, path: str) -> bool:
        where = Path(path)
        if not any(_matches(where, pattern) for pattern in self._includes):
            return False
        names = next(
            (where.relative_to(root).parts for root in self._roots if where.is_relative_to(root)), (where.name,)
        )
        return not any(fnmatch.fnmatch(name, pattern) for name in names for pattern in self._excludes) and not any(
            _matches(where, pattern) for pattern in self._excludes
        )


def run_watcher(settings: Reload, app_dir: str, birth: Birth) -> int:
    """Watch until the master has gone. TERM ends it by its default action."""
    import watchfiles

    master = os.getppid()
    roots = [Path(name).resolve() for name in settings.dirs or (app_dir or ".",)]
    wanted = NameFilter(roots, settings.includes, settings.excludes)
    changes = watchfiles.watch(
        *roots,
        watch_filter=wanted,
        debounce=max(int(settings.delay * 1000), 1),
        rust_timeout=MASTER_CHECK_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    birth.channel.ready()
    for changed in changes:
        if os.getppid() != master:
            return 0
        if changed:
            names = sorted({_short(path) for _, path in changed})
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            birth.channel.reload(f"{', '.join(names[:3])}{more} changed")
    return 0


def _matches(path: Path, pattern: str) -> bool:
    return path.match(pattern) or str(path) == pattern or any(str(parent) == pattern for parent in path.parents)


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
