"""The parts of a worker that a setting chooses and a package provides: the loop and the parser.

The master imports them before it forks. A worker that has become another user may not be able to read them any more,
and ``auto`` would then quietly choose the slower one; besides, all workers share the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioserve.errors import BootError
from aioserve.worker.loops import import_loop

if TYPE_CHECKING:
    from aioserve.config.tree import Config
    from aioserve.http.parser import Parser


def import_parts(config: Config) -> None:
    """Import what workers of ``config`` will ask for. Raises ``BootError`` for a package that is not there."""
    import_loop(config.process.loop)
    find_parser(config.http.parser)
    if config.proxy.protocol != "off":
        from aioserve.worker import preamble  # noqa: F401


def find_parser(kind: str) -> type[Parser]:
    """The parser of that name; ``auto`` is httptools wherever it can be imported."""
    if kind != "h11":
        try:
            from aioserve.http.parser_httptools import LlhttpParser
        except ImportError as error:
            if kind != "auto":
                raise BootError(
                    f"--http httptools: it cannot be imported ({error}); install httptools or pass --http h11"
                ) from None
        else:
            return LlhttpParser
    from aioserve.http.parser_h11 import H11Parser

    return H11Parser
