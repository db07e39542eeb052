"""The gate of one loop: its listeners, open, paused or closed.

The sockets belong to whoever bound them (the master, for its whole life); the gate only accepts from them, each time
through a duplicate that the loop may close.
"""

from __future__ import annotations

import functools
import inspect
import logging
import socket
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Listener

log = logging.getLogger("aioserve")


@final
class Gate:
    """Accepts for ``connect``, which makes the protocol of a new connection from its listener."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Listener],
        connect: Callable[[Listener], asyncio.BaseProtocol],
        *,
        backlog: int,
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._connect = connect
        self._backlog = backlog
        self._servers: list[asyncio.AbstractServer] = []
        self._wanted = False
        self._changing: asyncio.Task[None] | None = None

    @property
    def accepting(self) -> bool:
        return bool(self._servers)

    async def open(self) -> None:
        """Accept until ``pause`` or ``close``. Connections that came before wait in the kernel's queue."""
        self._wanted = True
        for listener in self._listeners:
            if not self._wanted:
                break
            self._servers.append(await self._serve(listener))

    def pause(self) -> None:
        """Accept no more; the kernel goes on queueing, up to the backlog."""
        self._wanted = False
        for server in self._servers:
            server.close()
        self._servers.clear()

    def resume(self) -> None:
        """Accept again after ``pause``."""
        if not self._wanted and (self._changing is None or self._changing.done()):
            self._wanted = True
            self._changing = self._loop.create_task(self.open())

    def close(self) -> None:
        """Accept no more, for good."""
        if self._changing is not None:
            self._changing.cancel()
        self.pause()

    async def _serve(self, listener: Listener) -> asyncio.AbstractServer:
        factory = functools.partial(self._connect, listener)
        sock = listener.sock.dup()
        sock.setblocking(False)  # the standard library's signature
        # Both calls listen() again, with a default of 100 that would shrink the queue for every worker that shares it.
        if sock.family == socket.AF_UNIX:
            options: dict[str, Any] = {}
            if "cleanup_socket" in inspect.signature(self._loop.create_unix_server).parameters:
                # asyncio 3.13 would remove the socket's file when the first of several workers stops.
                options["cleanup_socket"] = False
            return await self._loop.create_unix_server(factory, sock=sock, backlog=self._backlog, **options)
        return await self._loop.create_server(factory, sock=sock, backlog=self._backlog)
