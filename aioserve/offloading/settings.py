"""What a pool needs to know, flat and final."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from aioserve.config.tree import Config


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Durations in seconds, sizes in bytes; 0 is no limit, but of ``workers``, where it turns offloading off."""

    workers: int = 1
    queue: int = 100
    idle: float = 300.0
    timeout: float = 0.0
    max_tasks: int = 0
    memory: int = 0
    initializer: str = ""
    imports: tuple[str, ...] = ()
    engine: str = "process"

    @staticmethod
    def of(config: Config) -> Settings:
        offload = config.offload
        return Settings(
            workers=offload.workers,
            queue=offload.queue,
            idle=offload.idle,
            timeout=offload.timeout,
            max_tasks=offload.max_tasks,
            memory=offload.memory,
            initializer=offload.initializer,
            imports=offload.imports,
            engine=offload.engine,
        )
