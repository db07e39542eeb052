"""One loop that serves, and what attends to it: its stacks, the watch over its lag, its access log.

The same for the one loop of a worker, for each of several in threads, and for a process without a master. It knows
nothing of signals; whoever made it has those.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, final

from aioserve.observe.access import open_access_log
from aioserve.worker.lag import LagWatch
from aioserve.worker.serving import serve_until_stopped
from aioserve.worker.stacks import Stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.accept.base import Source
    from aioserve.config.tree import Config
    from aioserve.observe.scoreboard import Row
    from aioserve.worker.applications import Applications
    from aioserve.worker.server import Server
    from aioserve.worker.serving import Stop
    from aioserve.worker.settings import Settings


@final
class Station:
    """Make it within the loop. Raises ``BootError`` if the access log cannot be opened.

    ``name`` is what the log calls the loop.
    """

    def __init__(self, config: Config, *, name: str = "the event loop") -> None:
        loop = asyncio.get_running_loop()
        self.stacks: Final = Stacks(loop)
        self._backlog: Final = config.listen.backlog
        self._name: Final = name
        self._access: Final = open_access_log(config.log, loop)

    def reopen(self) -> None:
        """Open the access log again by its name."""
        if self._access is not None:
            self._access.reopen()

    async def serve(
        self,
        settings: Settings,
        applications: Applications,
        listeners: Sequence[Source],
        *,
        row: Row | None,
        stop: Stop,
        on_ready: Callable[[], None],
        on_server: Callable[[Server], None],
    ) -> None:
        """As ``serve_until_stopped``; afterwards the access log has been written."""
        lag = LagWatch(self.stacks, name=self._name)

        def begin(server: Server) -> None:
            self.stacks.server = server
            server.at_beats.append(lag.beat)
            on_server(server)

        try:
            await serve_until_stopped(
                settings,
                applications,
                listeners,
                backlog=self._backlog,
                access=self._access,
                row=row,
                stop=stop,
                on_ready=on_ready,
                on_server=begin,
            )
        finally:
            lag.close()
            if self._access is not None:
                self._access.close()
