"""From the configuration to the applications: import, adapt, give each its lifespan. Imports run the user's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioserve.config.addresses import split_mount
from aioserve.config.values import split_size_at
from aioserve.importer import load_app
from aioserve.worker.adapters import adapt
from aioserve.worker.applications import Applications
from aioserve.worker.lifespan import Lifespan

if TYPE_CHECKING:
    from aioserve.config.tree import Config
    from aioserve.types import ASGIApp


def assemble(config: Config, app: object | None = None) -> Applications:
    """All applications that ``config`` names, the main one first; ``app`` takes the main one's place.

    Raises ``BootError`` if one of them cannot be imported or is no application.
    """
    entries: list[tuple[str, ASGIApp, Lifespan]] = []
    if app is not None:
        entries.append(_entry(config, "", app, "the application"))
    elif config.app.target:
        target = config.app.target
        entries.append(_entry(config, "", load_app(target, factory=config.app.factory, app_dir=config.app.dir), target))
    for text in config.app.mount:
        prefix, target = split_mount(text)
        loaded = load_app(target, factory=False, app_dir=config.app.dir)
        entries.append(_entry(config, prefix, loaded, f"{prefix} ({target})"))
    return Applications(
        entries,
        root_path=config.app.root_path,
        body_limit=config.limit.request_body,
        body_limits=dict(map(split_size_at, config.limit.request_body_at)),
    )


def assemble_all(config: Config) -> list[Applications]:
    """What each loop of a worker serves: the same applications, each time with lifespans of their own.

    Modules are imported once; with --factory each loop has an application of its own, too.
    """
    return [assemble(config) for _ in range(config.process.threads)]


def _entry(config: Config, prefix: str, app: object, name: str) -> tuple[str, ASGIApp, Lifespan]:
    asgi = adapt(app, config.app.interface)
    lifespan = Lifespan(
        asgi,
        mode=config.app.lifespan,
        startup_timeout=config.timeout.lifespan_startup,
        shutdown_timeout=config.timeout.lifespan_shutdown,
        name=name,
    )
    return prefix, asgi, lifespan
