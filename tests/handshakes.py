"""Clients that begin to connect, and whether the kernel has let them in."""

from __future__ import annotations

import select
import socket


def begin(port: int) -> socket.socket:
    """On loopback. A handshake is over there when connect(2) returns, unless its first packet was dropped."""
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", port))
    return client


def is_over(client: socket.socket, within: float = 0.0) -> bool:
    """Whether it has come to an end, good or bad."""
    return bool(select.select([], [client], [], within)[1])


def error_of(client: socket.socket) -> int:
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
