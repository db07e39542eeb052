"""What a load has measured, as plain values that go through a pipe as JSON; and percentiles."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A percentile is said only when so many measured values lie beyond it; one or two are an accident.
BEYOND: Final = 5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of a client. Latencies in seconds; None where too few were measured to say."""

    requests: int
    seconds: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    #: CPU seconds of the client itself.
    client_cpu: float = 0.0
    #: What went wrong, and how often.
    errors: dict[str, int] = field(default_factory=dict)
    #: Paced: requests that were due and not sent until the end, because no answer freed a connection.
    behind: int = 0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Measured:
        return cls(**json.loads(data))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` of the ordered values lie; None if too few lie beyond to say."""
    if len(ordered) * (1 - share) < BEYOND:
        return None
    return ordered[min(math.ceil(len(ordered) * share), len(ordered)) - 1]
