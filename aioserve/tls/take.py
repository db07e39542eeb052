"""From the settings to a set of certificates that was found good, or to what is wrong with them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aioserve.errors import ConfigError
from aioserve.tls import material, places, terms
from aioserve.tls.findings import Weight
from aioserve.tls.inspection import inspect
from aioserve.tls.sets import CertificateSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.config.tree import Ssl
    from aioserve.tls.findings import Report
    from aioserve.tls.material import Material

    #: Says what there is to be said about the copies: in this process, or in another one.
    Inspect = Callable[[Material], Report]


#: Two files that are written one after the other are both there within this time, mostly. Seconds.
MOMENT: Final = 0.5

#: So many moments the start waits for somebody who is writing.
_MOMENTS: Final = 10


def here(copied: Material) -> Report:
    """Inspect in this process, which is to have the keys anyway."""
    return inspect(copied, time.time())


def take(ssl: Ssl, look: Inspect = here) -> CertificateSet:
    """The certificates of these settings. Raises ``ConfigError`` with all problems; dates are none of them."""
    problems: list[str] = []
    try:
        terms.check(ssl)
    except ConfigError as error:
        problems += error.problems
    there = places.look(ssl)
    stamp = there.stamp()
    found, unreadable = material.copy(there, ssl.keyfile_password)
    problems += unreadable
    if found is None:
        raise ConfigError(problems)
    report = look(found)
    problems += report.lines(Weight.REFUSED)
    if problems:
        found.close()
        raise ConfigError(problems)
    return CertificateSet(found, report.with_more(there.doubts()), stamp)


def take_at_start(ssl: Ssl, look: Inspect = here, wait: Callable[[float], None] = time.sleep) -> CertificateSet:
    """``take``, and try again if the files are being written: a start must not fail because it meets a renewal."""
    for _ in range(_MOMENTS):
        before = places.look(ssl).stamp()
        try:
            return take(ssl, look)
        except ConfigError:
            wait(MOMENT)
            if places.look(ssl).stamp() == before:
                raise
    return take(ssl, look)
