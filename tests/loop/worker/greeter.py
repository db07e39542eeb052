"""An application as small as it can be: which listener a connection has come by."""

from __future__ import annotations

import asyncio
import socket


class Greeter(asyncio.Protocol):
    """Says the listener's address, and closes."""

    def __init__(self, listener):
        self.listener = listener

    def connection_made(self, transport):
        transport.write(self.listener.address.encode())
        transport.close()


async def greeting(sock, timeout=10.0):
    """What a client hears that connects to ``sock``."""
    if sock.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(sock.getsockname())
    else:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        return await asyncio.wait_for(reader.read(), timeout)
    finally:
        writer.close()
