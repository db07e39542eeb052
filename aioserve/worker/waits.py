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

#: A WebSocket is looked at so many times within the shortest of its limits, and at least this often, in seconds.
LOOKS: Final = 4
LONGEST_BEAT: Final = 5.0

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


def resolution_of(settings: Settings) -> float:
    """Seconds between two looks at who waits: a fifth of the shortest limit, so that each is kept to within 20 %."""
    shortest = min(
        settings.header_timeout,
        settings.body_timeout,
        settings.write_timeout,
        settings.keep_alive_timeout,
        settings.handshake_timeout,
        2.5,
    )
    return max(min(shortest, *_ws_limits(settings)) / 5, 0.02)


def ws_beat_of(settings: Settings) -> float:
    """Seconds between two looks at a WebSocket: each limit is kept to within a quarter."""
    return min(min(_ws_limits(settings)) / LOOKS, LONGEST_BEAT)


def _ws_limits(settings: Settings) -> list[float]:
    """The time limits of a WebSocket that are on."""
    limits = (
        settings.ws_ping_interval,
        settings.ws_ping_timeout,
        settings.ws_idle_timeout,
        settings.ws_handshake_timeout,
        settings.body_timeout,
        settings.write_timeout,
    )
    return [limit for limit in limits if limit]
