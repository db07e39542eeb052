"""What an inspection has found: facts about certificates, none of them secret, and what is wrong with them. Pure."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, final

DAY: Final = 86400.0


@final
class Weight(enum.StrEnum):
    """How much a finding matters."""

    REFUSED = "refused"  # it cannot be used
    DATED = "dated"  # it has expired, or is not valid yet: clients refuse it
    DOUBTFUL = "doubtful"  # some clients may refuse it, or a part of it is not used


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and with which file."""

    weight: Weight
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} {self.text}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A leaf. ``kind`` is the algorithm of its key, as ciphers name it; ``digest`` is of its whole file."""

    path: str
    names: tuple[str, ...]
    issuer: str
    since: float
    until: float
    kind: str
    pem: str
    digest: str

    def __str__(self) -> str:
        shown = ", ".join(self.names[:4]) + (f" and {len(self.names) - 4} more" if len(self.names) > 4 else "")
        return f"{self.path}: {shown or 'no name'}, {self.kind}, by {self.issuer}, until {spell_time(self.until)}"


@final
@dataclass(frozen=True, slots=True)
class Report:
    """All of it. ``authorities`` is a digest of those who sign clients' certificates, if there are any."""

    certificates: tuple[Certificate, ...] = ()
    findings: tuple[Finding, ...] = ()
    authorities: str = ""

    def lines(self, *weights: Weight) -> list[str]:
        """What was found of these weights."""
        return [str(finding) for finding in self.findings if finding.weight in weights]

    def with_more(self, findings: tuple[Finding, ...]) -> Report:
        """The same report with these findings added."""
        return replace(self, findings=self.findings + findings)

    @property
    def until(self) -> float:
        """When the first of them expires, in seconds since 1970; 0 if there is none."""
        return min((one.until for one in self.certificates), default=0.0)

    def spell(self) -> bytes:
        """For a pipe."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def spelt(cls, said: bytes) -> Report:
        """The reverse of ``spell``; ``ValueError`` if it is not that."""
        found = json.loads(said)
        return cls(
            tuple(Certificate(**{**one, "names": tuple(one["names"])}) for one in found["certificates"]),
            tuple(Finding(Weight(one["weight"]), one["path"], one["text"]) for one in found["findings"]),
            found["authorities"],
        )


def spell_time(moment: float) -> str:
    """A time as people compare it with their calendar, in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


#: So long before its end a certificate should have been renewed: certbot and cert-manager do so at 30 days. Seconds.
SOON: Final = 14 * DAY
#: And so long before it, somebody has to get up. Seconds.
URGENT: Final = 2 * DAY


@final
@dataclass(slots=True)
class Calendar:
    """Reminds of certificates that expire, of each once a day."""

    _said: dict[str, float] = field(default_factory=dict)

    def due(self, certificates: tuple[Certificate, ...], now: float) -> list[tuple[bool, str]]:
        """Lines to be logged now, each with whether it is an error."""
        lines: list[tuple[bool, str]] = []
        for one in certificates:
            left = one.until - now
            if left > SOON or now - self._said.get(one.pem, 0.0) < DAY:
                continue
            self._said[one.pem] = now
            if left <= 0:
                lines.append(
                    (True, f"{one.path} has expired ({spell_time(one.until)}): clients refuse it; renew it now")
                )
            else:
                days = f"{left / DAY:.0f} days" if left >= URGENT else f"{left / 3600:.0f} hours"
                lines.append((left < URGENT, f"{one.path} expires in {days} ({spell_time(one.until)}); renew it"))
        present = {one.pem for one in certificates}
        for gone in self._said.keys() - present:
            del self._said[gone]
        return lines
