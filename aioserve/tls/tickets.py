"""Session ticket keys in processes that must not have them.

Terminators have the keys in common because they are forked from a process that has them, and so are workers. Whoever
has these keys can pass for the server to a client that comes back, until the next restart, so a worker overwrites them
before it imports anything. CPython has no call for that. OpenSSL has one, ``SSL_CTX_set_tlsext_ticket_keys``, and the
address that it wants is the first field of CPython's object, in 3.11 to 3.14 (Modules/_ssl.c, PySSLContext).

That is not promised to anybody. So it is tried first, in a process that may die of it; where it does not work the keys
are not shared, and each terminator resumes its own sessions.
"""

from __future__ import annotations

import ctypes
import os
import ssl
import sys
from typing import Any, Final

# <openssl/ssl.h> and <openssl/tls1.h>.
_GET_KEYS: Final = 58
_SET_KEYS: Final = 59

#: The name of the keys, the one that signs and the one that encrypts (ssl_local.h, since OpenSSL 1.1.1).
_SIZE: Final = 16 + 32 + 32


def can_be_forgotten() -> bool:
    """Whether ``forget`` works in this interpreter. It forks: to be asked before there are threads."""
    if sys.implementation.name != "cpython":
        return False
    pid = os.fork()
    if pid == 0:
        works = False
        try:
            works = _works()
        finally:
            os._exit(0 if works else 1)
    return os.waitpid(pid, 0)[1] == 0


def forget(front: ssl.SSLContext) -> None:
    """Overwrite the keys; sessions of before are never resumed with this context."""
    done = _ctrl()(_address(front), _SET_KEYS, _SIZE, bytes(_SIZE))
    assert done == 1, "it was tried before"


def _works() -> bool:
    """Two contexts have different keys, each its own again and again, and one of them none in the end."""
    one, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    keys = keys_of(one)
    different = keys == keys_of(one) != keys_of(other) and any(keys)
    forget(one)
    return different and not any(keys_of(one)) and any(keys_of(other))


def keys_of(front: ssl.SSLContext) -> bytes:
    """Empty if they cannot be had."""
    keys = ctypes.create_string_buffer(_SIZE)
    had = _ctrl()(_address(front), _GET_KEYS, _SIZE, keys) == 1
    return keys.raw if had else b""


def _ctrl() -> Any:
    import _ssl

    # Its own OpenSSL, which need not be the system's; a name is also looked for in what a library depends on.
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    call = library.SSL_CTX_ctrl
    call.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    call.restype = ctypes.c_long
    return call


def _address(front: ssl.SSLContext) -> int | None:
    return ctypes.c_void_p.from_address(id(front) + object.__basicsize__).value
