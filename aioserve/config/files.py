"""Which TOML file configures the server, and the table in it. Reading the bytes is the caller's, through ``Read``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from aioserve.config.given import Mistakes

# Gives a file's bytes; raises FileNotFoundError or another OSError.
Read: TypeAlias = Callable[[str], bytes]

FILE = "aioserve.toml"
PROJECT = "pyproject.toml"


def find_table(path: str, read: Read, found: Mistakes) -> tuple[str, dict[str, Any]]:
    """The file's name and its settings: ``path``, else ./aioserve.toml, else [tool.aioserve] of ./pyproject.toml."""
    if path:
        return _table(path, read, found, missing=f"{path}: no such file; -c names a TOML file")
    # Files that nobody named need not be there.
    name, table = _table(FILE, read, found, missing="")
    return (name, table) if name else _table(PROJECT, read, found, missing="")


def _table(path: str, read: Read, found: Mistakes, *, missing: str) -> tuple[str, dict[str, Any]]:
    """Name and table; an empty name if there is no such file or, in pyproject.toml, no such table."""
    if path.endswith(".py"):
        found.lines.append(f"{path}: is a Python file; write the settings in TOML (see conf/aioserve.toml)")
        return path, {}
    try:
        table = tomllib.loads(read(path).decode())
    except FileNotFoundError:
        if missing:
            found.lines.append(missing)
        return "", {}
    except OSError as error:
        found.lines.append(f"{path}: cannot be read: {error.strerror or error}")
        return path, {}
    except UnicodeDecodeError:
        found.lines.append(f"{path}: is not UTF-8; TOML has to be")
        return path, {}
    except tomllib.TOMLDecodeError as error:
        found.lines.append(f"{path}: is not TOML: {error}")
        return path, {}
    if path.rpartition("/")[2] != PROJECT:
        return path, table
    tool = table.get("tool", {})
    inner = tool.get("aioserve") if isinstance(tool, dict) else None
    if inner is None:
        if missing:
            found.lines.append(f"{path}: has no [tool.aioserve]; add it, or name another file")
        return "", {}
    if not isinstance(inner, dict):
        found.add(f"{path}: tool.aioserve", inner, "is not a table; write [tool.aioserve.listen] and so on")
        return path, {}
    return path, inner
