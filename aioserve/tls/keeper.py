"""Keeps the certificates that are shown up with their files: when to look again, what to take, what to say.

It has no process and no loop. Whoever has a clock calls ``look`` twice a second; once that is true there are other
files, and two looks have seen the same ones, so that no half of a pair is taken. Then they are to be copied, inspected
where keys may be, and judged here:

    look() -> copy() -> inspect -> judge()

If a set is refused, the old one stays. That is said after some seconds only, because two files may be written one after
the other; and again every day, because the old set will expire. The same files are tried again every five minutes: it
may have been for want of descriptors.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import ConfigError
from aioserve.tls import material, places, terms
from aioserve.tls.findings import DAY, Calendar, Weight, spell_time
from aioserve.tls.sets import CertificateSet
from aioserve.tls.take import take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.config.tree import Ssl
    from aioserve.tls.findings import Certificate, Report
    from aioserve.tls.material import Material
    from aioserve.tls.places import Places, Stamp
    from aioserve.tls.take import Inspect

log = logging.getLogger("aioserve")

#: Between two looks, in seconds: a change is seen by the second look after it, and has two seconds to be shown.
INTERVAL: Final = 0.5

#: Files are wrong for so long before it is said: somebody copies a key some moments after its certificate. Seconds.
PATIENCE: Final = 3.0

#: Between two attempts at a set that is refused and does not change. Seconds.
RETRY: Final = 300.0


@final
class Keeper:
    """``current`` is the set that is shown. ``clock`` is seconds since 1970."""

    def __init__(self, ssl: Ssl, current: CertificateSet, clock: Callable[[], float] = time.time) -> None:
        self.current = current
        self._ssl = ssl
        self._clock: Final = clock
        self._calendar: Final = Calendar()
        self._handled: Stamp = current.stamp
        self._seen: Stamp = current.stamp
        self._there: Places | None = None
        # Why the files are refused as they are now, and when to say so and to try again.
        self._refused = ""
        self._say_at = self._retry_at = math.inf

    @property
    def ssl(self) -> Ssl:
        """The settings that say where the files are."""
        return self._ssl

    def announce(self) -> None:
        """Say at the start what is shown, and what is doubtful about it."""
        for one in self.current.report.certificates:
            log.info("certificate %s", one)
        self._warn(self.current.report, terms.doubts(self._ssl))

    def look(self) -> bool:
        """Whether there are other files now, and they were the same at the last look."""
        self._there = places.look(self._ssl)
        seen, self._seen = self._seen, self._there.stamp()
        if self._seen != seen:
            self._settle()
        elif self._clock() >= self._retry_at:
            self.again()
        return self._seen == seen != self._handled

    def copy(self) -> Material | None:
        """Copy what was looked at; None if that cannot be, which is said. Somebody has to ``judge`` it, or close it."""
        assert self._there is not None, "look comes first"
        self._handled = self._seen
        copied, problems = material.copy(self._there, self._ssl.keyfile_password)
        if copied is None:
            self._refuse(problems)
        return copied

    def again(self) -> None:
        """It has come to nothing for another reason than the files: they are new still."""
        self._handled = ()
        self._retry_at = math.inf

    def retry(self) -> None:
        """Take the same files again, after some minutes."""
        self._retry_at = self._clock() + RETRY

    def judge(self, copied: Material, report: Report) -> CertificateSet | None:
        """The new set, which is current from now on; the caller closes the one before. None: it is refused."""
        assert self._there is not None, "look comes first"
        report = report.with_more(self._there.doubts())
        problems = self._problems(report)
        if problems:
            self._refuse(problems)
            copied.close()
            return None
        before = self.current
        self.current = CertificateSet(copied, report, self._handled)
        self._settle()
        for line in _changes(before.report, report):
            log.info("%s", line)
        self._warn(report)
        return self.current

    def reload(self, ssl: Ssl, inspect: Inspect) -> bool:
        """Settings that were read again: whether there is another set. ``ConfigError``: no, and nothing has changed.

        The set of before is the caller's to close.
        """
        if ssl == self._ssl and places.look(ssl).stamp() == self.current.stamp:
            return False
        chosen = take(ssl, inspect)
        problems = self._problems(chosen.report)
        if problems:
            chosen.close()
            raise ConfigError(problems)
        before = self.current
        self.look_after(ssl, chosen)
        for line in _changes(before.report, chosen.report):
            log.info("%s", line)
        self._warn(chosen.report, terms.doubts(ssl))
        return True

    def look_after(self, ssl: Ssl, chosen: CertificateSet) -> None:
        """Look after these settings, whose files were found good as ``chosen``."""
        self._ssl, self.current = ssl, chosen
        self._handled = self._seen = chosen.stamp
        self._settle()

    def remind(self) -> None:
        """Say what is refused and which certificates expire soon, once a day; to be called now and then."""
        if self._clock() >= self._say_at:
            self._say_at = self._clock() + DAY
            until = spell_time(self.current.report.until)
            log.error("the new certificates are refused: %s; the old ones stay (valid until %s)", self._refused, until)
        for is_error, line in self._calendar.due(self.current.report.certificates, self._clock()):
            log.log(logging.ERROR if is_error else logging.WARNING, "%s", line)

    def _problems(self, report: Report) -> list[str]:
        """What keeps a set from being shown in the place of the current one.

        One that has expired is better than nothing, and better than one that has expired as well; not than a good one.
        """
        now = self._clock()
        good = {one.path for one in self.current.report.certificates if one.since <= now < one.until}
        dated = [one for one in report.findings if one.weight is Weight.DATED and one.path in good]
        return report.lines(Weight.REFUSED) + [str(one) for one in dated]

    def _settle(self) -> None:
        """There is nothing to be said about the files, nor to be tried again."""
        self._refused, self._say_at, self._retry_at = "", math.inf, math.inf

    def _refuse(self, problems: list[str]) -> None:
        self.retry()
        why = "; ".join(problems)
        if why != self._refused:
            self._refused, self._say_at = why, self._clock() + PATIENCE

    def _warn(self, report: Report, doubts: Sequence[str] = ()) -> None:
        expired = {one.path for one in report.certificates if one.until <= self._clock()}
        for finding in report.findings:
            if finding.weight is Weight.DATED and finding.path not in expired:
                log.error("%s", finding)
        for line in (*doubts, *report.lines(Weight.DOUBTFUL)):
            log.warning("%s", line)
        self.remind()


def _changes(before: Report, now: Report) -> list[str]:
    """What is shown that was not, and what is shown no more."""
    old: dict[str, Certificate] = {one.path: one for one in before.certificates}
    new: dict[str, Certificate] = {one.path: one for one in now.certificates}
    lines = [f"new certificate {one}" for path, one in new.items() if path not in old or old[path].digest != one.digest]
    lines += [f"certificate {path} is shown no more" for path in old.keys() - new.keys()]
    if before.authorities != now.authorities:
        lines.append("other authorities verify clients from now on; sessions of before are not resumed")
    return lines
