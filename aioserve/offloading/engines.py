"""From the name of an engine to the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioserve.offloading.children import Children

if TYPE_CHECKING:
    from aioserve.offloading.pool import Engine, Pool


def make_engine(pool: Pool) -> Engine:
    """The engine that the settings of ``pool`` name. What is missing for it shows when the first lane is opened."""
    name = pool.settings.engine
    if name == "process":
        return Children(pool)
    from aioserve.offloading.executors import Executors

    return Executors(pool, name)
