"""New certificates in a process that serves: told by its master, or found by looking at the files by itself."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import ConfigError
from aioserve.observe.scoreboard import CERTIFICATE_UNTIL
from aioserve.tls.keeper import INTERVAL
from aioserve.tls.sets import adopt
from aioserve.tls.take import here

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aioserve.tls.credentials import Credentials
    from aioserve.tls.findings import Report
    from aioserve.tls.keeper import Keeper
    from aioserve.tls.material import Material
    from aioserve.tls.sets import CertificateSet, Show

log = logging.getLogger("aioserve")

#: Why a process is recycled that cannot take over what the master found good: its descriptors have been used up.
_SHORT: Final = "descriptors, for new certificates"


def show(order: Show, credentials: Credentials | None, cells: memoryview, recycle: Callable[[str], None]) -> None:
    """Show what the master has found good. If that cannot be done here, ask for a successor, which is born with it."""
    try:
        chosen = adopt(order.descriptors)
    except ValueError:
        log.error("new certificates have not arrived, this process is short of descriptors")  # noqa: TRY400 - as below
        recycle(_SHORT)
        return
    try:
        if credentials is not None and not _replace(credentials, chosen, cells):
            recycle(_SHORT)
    finally:
        chosen.close()


def publish(credentials: Credentials | None, cells: memoryview | None) -> None:
    """Write into the scoreboard when the first certificate expires."""
    if credentials is not None and cells is not None:
        cells[CERTIFICATE_UNTIL] = credentials.until


def _replace(credentials: Credentials, chosen: CertificateSet, cells: memoryview | None) -> bool:
    try:
        credentials.replace(chosen)
    except (ssl.SSLError, OSError, ConfigError) as error:
        log.error("new certificates cannot be loaded (%s); the old ones stay for now", error)  # noqa: TRY400 - OpenSSL's stack says nothing
        return False
    publish(credentials, cells)
    return True


@final
class Renewal:
    """Looks at the files from within the loop, in a process without a master. What takes long is done in a thread."""

    def __init__(
        self,
        keeper: Keeper,
        credentials: Credentials,
        loop: asyncio.AbstractEventLoop,
        cells: memoryview | None = None,
    ) -> None:
        self._keeper: Final = keeper
        self._credentials: Final = credentials
        self._loop: Final = loop
        self._cells: Final = cells
        self._closed = False
        self._inspection: asyncio.Task[None] | None = None
        publish(credentials, cells)
        keeper.current.close()  # it has been loaded
        self._timer = loop.call_later(INTERVAL, self._look)

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._timer.cancel()

    def _look(self) -> None:
        copied = self._keeper.copy() if self._keeper.look() else None
        self._keeper.remind()
        if copied is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)
        else:
            self._inspection = self._loop.create_task(self._inspect(copied), name="inspection of certificates")

    async def _inspect(self, copied: Material) -> None:
        try:
            report: Report = await self._loop.run_in_executor(None, here, copied)
            chosen = self._keeper.judge(copied, report)
            if chosen is not None:
                if not _replace(self._credentials, chosen, self._cells):
                    self._keeper.retry()
                chosen.close()
        finally:
            self._inspection = None  # so that the loop says what has gone wrong, if anything has
            if not self._closed:
                self._timer = self._loop.call_later(INTERVAL, self._look)
