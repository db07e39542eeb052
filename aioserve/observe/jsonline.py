"""A document as one line of JSON: orjson where it can be had, else the standard library.

orjson has no free-threaded builds, and refuses strings that are not text (lone surrogates, as in file names).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

Encode = Callable[[object], bytes]

try:
    from orjson import dumps as _orjson
except ImportError:
    FAST: Encode | None = None
else:
    FAST = _orjson


def dump(document: Mapping[str, object], *, fast: Encode | None = FAST) -> str:
    """``document`` without a line break in it or at its end."""
    if fast is not None:
        try:
            return fast(document).decode()
        except TypeError:
            pass
    return json.dumps(document, separators=(",", ":"), default=str)
