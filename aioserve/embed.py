"""aioserve inside somebody else's program: ``serve`` in a running loop, ``run`` as the whole process."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from aioserve import boot, surroundings
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.load import from_settings
from aioserve.errors import ConfigError
from aioserve.observe.access import open_access_log
from aioserve.offloading.api import pooled
from aioserve.offloading.settings import Settings as PoolSettings
from aioserve.tls.credentials import Credentials
from aioserve.tls.keeper import Keeper
from aioserve.tls.take import take
from aioserve.worker.assemble import assemble
from aioserve.worker.renewal import Renewal
from aioserve.worker.serving import Stop, serve_until_stopped
from aioserve.worker.settings import Settings

if TYPE_CHECKING:
    from aioserve.config.tree import Config
    from aioserve.worker.server import Server

#: Settings of a process or of its logging, which are the caller's here.
NOT_HERE = frozenset((
    "workers", "threads", "accept", "reuseport", "loop", "timeout_boot", "app", "factory", "app_dir", "env_file",
    "preload", "user", "group", "umask", "chdir", "pid", "timeout_worker",
    "on_master_start", "on_worker_start", "on_worker_ready", "on_worker_exit", "on_reload",
    "limit_max_requests", "limit_max_requests_jitter", "limit_worker_age", "limit_worker_memory",
    "tls_processes",
    "reload", "reload_dir", "reload_include", "reload_exclude", "reload_delay",
    "log_level", "log_format", "log_config", "log_file", "use_colors",
))  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts. ``addresses`` is each bound address, with the port that the kernel chose."""

    addresses: tuple[str, ...]

    @property
    def url(self) -> str:
        """The first address, such as ``http://127.0.0.1:8000``."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of the first address; ``ValueError`` if that is a unix socket."""
        return int(self.url.rpartition(":")[2])


async def serve(
    app: object,
    config: Config | None = None,
    *,
    shutdown: asyncio.Event | None = None,
    started: asyncio.Future[Running] | None = None,
    **settings: object,
) -> None:
    """Serve ``app`` (ASGI 3, ASGI 2, or WSGI with ``interface="wsgi"``) in the running loop until ``shutdown`` is set.

    ``config`` is a whole configuration; ``settings`` are single ones by the names of their flags, such as ``port=0`` or
    ``timeout_keep_alive=5``, instead of it. ``started`` is resolved with a ``Running`` once connections are accepted.
    On ``shutdown`` requests in flight have ``timeout_graceful_shutdown`` to finish; cancelling this coroutine ends
    quickly. No signal handler is installed, no process is forked, logging is left as it is: what a ``config`` says of
    these is for ``run``.

    Raises ``ConfigError``, ``BindError``, or ``BootError`` if the application's lifespan cannot start.
    """
    if config is None:
        misplaced = sorted(NOT_HERE & settings.keys())
        if misplaced:
            raise ConfigError(
                [
                    f"{name}=: serve() runs in its caller's process, loop and logging; aioserve.run() takes it"
                    for name in misplaced
                ]
            )
        config = from_settings(**settings)
    elif settings:
        raise ConfigError(["serve() takes a config or single settings, not both"])
    config = surroundings.choose_ktls(config)
    loop = asyncio.get_running_loop()
    keeper, credentials = None, None
    if config.ssl.enabled:
        keeper = Keeper(config.ssl, take(config.ssl))
        with closing(keeper.current):
            credentials = Credentials(config.ssl, keeper.current)
    applications = assemble(config, app)
    listen = config.listen
    acceptor = Shared(
        config.addresses(),
        SocketOptions(backlog=listen.backlog, dual_stack=listen.dual_stack, unix_mode=listen.uds_mode),
    )
    acceptor.open()
    stop = Stop()
    access = open_access_log(config.log, loop)
    watcher = loop.create_task(_forward(shutdown, stop)) if shutdown is not None else None
    renewal = Renewal(keeper, credentials, loop) if keeper is not None and credentials is not None else None

    def on_server(server: Server) -> None:
        server.credentials, server.refuse = credentials, acceptor.refuse

    def on_ready() -> None:
        if started is not None and not started.done():
            started.set_result(Running(tuple(acceptor.addresses())))

    try:
        async with pooled(PoolSettings.of(config)):
            await serve_until_stopped(
                Settings.of(config, acceptor.listeners(0)),
                applications,
                acceptor.listeners(0),
                backlog=listen.backlog,
                access=access,
                row=None,
                stop=stop,
                on_ready=on_ready,
                on_server=on_server,
            )
    except BaseException as error:
        if started is not None and not started.done() and isinstance(error, Exception):
            started.set_exception(error)
        raise
    finally:
        if renewal is not None:
            renewal.close()
        if watcher is not None:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        if access is not None:
            access.close()
        acceptor.close()


def run(app: str, **settings: object) -> int:
    """Serve ``app`` (``module:attribute``) as the command line does, with ``settings`` by the names of their flags.

    Returns the exit status. Raises ``ConfigError`` with all mistakes. Call it from the main thread: it installs signal
    handlers and forks workers.
    """
    return boot.run(from_settings(app=app, **settings))


async def _forward(shutdown: asyncio.Event, stop: Stop) -> None:
    await shutdown.wait()
    stop.gracefully()
