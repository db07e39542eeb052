"""A loop in a thread of its own, with its own server, its own lifespans, its own access log.

The main thread makes it, tells it to stop, and awaits two futures of the main loop: ``ready`` when it serves, ``ended``
when it is over. Everything else belongs to the loop's thread; what crosses over does so by ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar, final

from aioserve.offloading.api import attached
from aioserve.worker.loops import new_loop
from aioserve.worker.serving import Stop
from aioserve.worker.station import Station

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.config.tree import Config
    from aioserve.observe.scoreboard import Row
    from aioserve.offloading.pool import Pool
    from aioserve.tls.credentials import Credentials
    from aioserve.worker.applications import Applications
    from aioserve.worker.server import Server
    from aioserve.worker.settings import Settings

T = TypeVar("T")


@final
class LoopThread:
    """Make it in the main loop, then ``start``. ``row`` is nobody else's to write."""

    def __init__(
        self,
        name: str,
        config: Config,
        settings: Settings,
        applications: Applications,
        row: Row,
        pool: Pool,
        credentials: Credentials | None = None,
        terminators: Sequence[memoryview] = (),
    ) -> None:
        self.name: Final = name
        self.row: Final = row
        self._config: Final = config
        self._settings: Final = settings
        self._applications: Final = applications
        self._pool: Final = pool
        self._credentials: Final = credentials
        self._terminators: Final = terminators
        self._main: Final = asyncio.get_running_loop()
        #: Resolved with the server once it serves; never if it ends before.
        self.ready: Final[asyncio.Future[Server]] = self._main.create_future()
        #: Resolved when the loop is over, with what has ended it: None if it was told to stop.
        self.ended: Final[asyncio.Future[BaseException | None]] = self._main.create_future()
        self._stop: Final = Stop()
        self._begun: Final[concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, Station]]] = (
            concurrent.futures.Future()
        )
        self._server: Server | None = None
        # A daemon: a loop that stands still must not keep the process from ending.
        self._thread: Final = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; return when its loop turns. Raises ``BootError``."""
        self._thread.start()
        self.loop, self.station = self._begun.result()

    def stop(self, *, quick: bool = False) -> None:
        """Let it drain and end; ``quick``: without waiting for requests in flight."""
        self._call(self._stop.quickly if quick else self._stop.gracefully)

    def reopen(self) -> None:
        """Open the access log again."""
        self._call(self.station.reopen)

    def _call(self, act: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # its loop is closed
            self.loop.call_soon_threadsafe(act)

    # In the thread.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: new_loop(self._config.process.loop)) as runner:
                runner.run(self._serve())
        except BaseException as caught:  # noqa: BLE001  # whatever it was, somebody has to hear of it
            error = caught
            if not self._begun.done():
                self._begun.set_exception(error)
        self._tell(self.ended, error)

    async def _serve(self) -> None:
        station = Station(self._config, name=self.name)
        self._begun.set_result((asyncio.get_running_loop(), station))
        with attached(self._pool):
            await station.serve(
                self._settings,
                self._applications,
                (),
                row=self.row,
                stop=self._stop,
                on_ready=self._is_ready,
                on_server=self._has_server,
            )

    def _has_server(self, server: Server) -> None:
        server.credentials, server.terminators = self._credentials, self._terminators
        self._server = server

    def _is_ready(self) -> None:
        assert self._server is not None, "on_server comes first"
        self._tell(self.ready, self._server)

    def _tell(self, future: asyncio.Future[T], result: T) -> None:
        with suppress(RuntimeError):  # the main loop is closed
            self._main.call_soon_threadsafe(_resolve, future, result)


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
