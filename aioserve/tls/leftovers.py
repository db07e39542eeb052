"""Errors that OpenSSL has left behind: what went wrong on one connection must not end another.

OpenSSL keeps a queue of errors for each thread. When a system call fails under an ``SSLSocket``, of ours or of a client
that the application uses in the thread of the loop, newer versions (from 3.4 on) leave it there. CPython tells it, does
not remove it (issue 148594), and tells it again of each read, on whatever connection and in memory, that finds nothing
to read. What succeeds, and handshakes, are not touched.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def are_told(error: OSError) -> bool:
    """Whether ``error`` may be one of those. They are forgotten, and another call says what there is to be said."""
    if isinstance(error, ssl.SSLError) and getattr(error, "library", None) != "SYS":
        return False
    forget()
    return True


def forget() -> None:
    """Empty the queue of this thread."""
    with suppress(ssl.SSLError):
        _refuse()("-")


@cache
def _refuse() -> Callable[[str], None]:
    # There is no call for it. This one fails, and CPython empties the queue behind it, as it does not elsewhere.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers
