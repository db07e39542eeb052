"""All applications of one worker: their lifespans together, in order, and the way from a path to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aioserve.worker.mount import Mounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioserve.types import ASGIApp
    from aioserve.worker.lifespan import Lifespan


@final
class Applications:
    """``entries`` are (prefix, application, its lifespan); the main application's prefix is empty."""

    def __init__(
        self,
        entries: Sequence[tuple[str, ASGIApp, Lifespan]],
        *,
        root_path: str = "",
        body_limit: int = 0,
        body_limits: Mapping[str, int] | None = None,
    ) -> None:
        self.mounts: Mounts = Mounts(entries, root_path=root_path, body_limit=body_limit, body_limits=body_limits)
        self._lifespans: list[Lifespan] = [lifespan for _, _, lifespan in entries]
        self._started: list[Lifespan] = []

    async def startup(self) -> None:
        """Start all, in the order given. If one fails, those before it are shut down, and its ``BootError`` raised."""
        try:
            for lifespan in self._lifespans:
                await lifespan.startup()
                self._started.append(lifespan)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> bool:
        """Shut down what was started, last first; whether all of it was clean."""
        clean = True
        while self._started:
            clean = await self._started.pop().shutdown() and clean
        return clean
