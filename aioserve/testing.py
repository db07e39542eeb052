"""A real server for tests: a thread with a loop of its own, a free port, the application in this process.

With pytest installed the fixture ``aioserve_server`` does the same (``aioserve.pytest_plugin``).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aioserve.embed import Running, serve
from aioserve.worker.loops import new_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How long a test waits for its server to start or to leave, in seconds.
PATIENCE = 30.0


@contextlib.contextmanager
def serving(app: object, **settings: Any) -> Iterator[Running]:
    """Serve ``app`` while the ``with`` block runs; ``settings`` as for ``aioserve.serve``.

    Defaults that suit a test: a free port of 127.0.0.1, no access log, 5 s for requests in flight at the end.
    Raises what ``serve`` raises if the server cannot start.
    """
    settings = {"access_log": False, "timeout_graceful_shutdown": 5.0, **settings}
    if not {"port", "bind", "uds", "fd"} & settings.keys():
        settings["port"] = 0
    started: Future[tuple[Running, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        shutdown = asyncio.Event()
        ready: asyncio.Future[Running] = loop.create_future()
        ready.add_done_callback(
            lambda done: (
                None if done.cancelled() or done.exception() else started.set_result((done.result(), loop, shutdown))
            )
        )
        await serve(app, shutdown=shutdown, started=ready, **settings)

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: new_loop("auto")) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001  # whatever it was belongs to the test
            if not started.done():
                started.set_exception(error)

    thread = threading.Thread(target=run, name="aioserve", daemon=True)
    thread.start()
    running, loop, shutdown = started.result(PATIENCE)
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(shutdown.set)
        thread.join(PATIENCE)
        if thread.is_alive():
            raise TimeoutError(f"the server has not stopped within {PATIENCE:g} s")
