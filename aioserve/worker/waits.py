"""What a connection may wait for, for how long, and what happens then.

    FIRST      the first byte of a new connection           header_timeout      close
    IDLE       the next request                             keep_alive_timeout  close
    HEAD       the rest of a head                           header_timeout      408
    BODY       more of a body that is wanted                body_timeout        408, or reset within a response
    NOTHING    the application                              -
    LINGER     the client to read its answer and leave      LINGER_SECONDS      abort, unless it still reads
    CLOSING    the kernel to take the last bytes            write_timeout       reset

BODY is also the rest of a body whose response is complete: all of it has to come within body_timeout, else abort.

Besides, while the client does not read (``write_resumed`` is set), write_timeout without progress resets.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aioserve.worker.settings import Settings

#: How long a client has to read its last answer and to close, in seconds (RFC 9112 9.6: a server that closes at once
#: may have its last response destroyed by a reset).
LINGER_SECONDS: Final = 2.0


class Wait(IntEnum):
    """What a connection is waiting for; an index into ``Server.waits``."""

    NOTHING = 0
    FIRST = 1
    IDLE = 2
    HEAD = 3
    BODY = 4
    LINGER = 5
    CLOSING = 6


def limits_of(settings: Settings) -> list[float]:
    """The limit of each wait in seconds, by its number."""
    limits = [math.inf] * len(Wait)
    limits[Wait.FIRST] = limits[Wait.HEAD] = settings.header_timeout
    limits[Wait.IDLE] = settings.keep_alive_timeout
    limits[Wait.BODY] = settings.body_timeout
    limits[Wait.LINGER] = LINGER_SECONDS
    limits[Wait.CLOSING] = settings.write_timeout
    return limits
