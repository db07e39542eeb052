"""From visits to the rows of the table: medians over the rounds, and how far the rounds were apart. It is pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aioserve.tune.measured import Measured
    from aioserve.tune.plan import Candidate

#: Paced: who has sent less than this part of what was due, in every round, was behind, and its latencies say little.
KEPT_UP: Final = 0.98


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one visit to a candidate has found. ``problem``: why it found nothing."""

    candidate: Candidate
    round: int
    kept: Measured | None = None
    fresh: Measured | None = None
    paced: Measured | None = None
    #: CPU seconds of the server during ``kept`` and ``fresh``; None where nobody can say.
    kept_cpu: float | None = None
    fresh_cpu: float | None = None
    #: The part of the machine that others than server and client have used during ``kept``.
    others: float | None = None
    #: Bytes of all its processes together.
    memory: int | None = None
    #: The part of all requests that the busiest worker had; None: there is nothing to compare.
    share: float | None = None
    #: The worst lag of a worker's event loop, in seconds.
    lag: float | None = None
    problem: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A candidate in the table. None: not measured, or too few to say."""

    candidate: Candidate
    # Round by round: requests and new connections per second, and the p99 of the paced load.
    rounds: tuple[float, ...] = ()
    fresh_rounds: tuple[float, ...] = ()
    p99_rounds: tuple[float, ...] = ()
    rate: float | None = None
    fresh_rate: float | None = None
    # How many answers there were in a visit: a closed loop that has hardly gone round says little.
    answers: float = 0.0
    fresh_answers: float = 0.0
    cpu: float | None = None  # seconds per request
    fresh_cpu: float | None = None  # seconds per connection with its request
    busy: float | None = None  # CPUs that the server kept busy
    client_busy: float | None = None
    others: float | None = None  # the part of the machine that processes had that are neither
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    behind: bool = False
    memory: float | None = None
    share: float | None = None
    lag: float | None = None
    errors: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it was measured without anything that makes the figures doubtful."""
        return self.rate is not None and self.rate > 0 and not self.errors


def rows(candidates: Sequence[Candidate], visits: Iterable[Visit]) -> list[Row]:
    """One row for each candidate that was visited."""
    visits = list(visits)
    found = []
    for candidate in candidates:
        mine = [visit for visit in visits if visit.candidate == candidate]
        if mine:
            found.append(_row(candidate, mine))
    return found


def _row(candidate: Candidate, visits: Sequence[Visit]) -> Row:
    kept = [(visit, visit.kept) for visit in visits if visit.kept is not None]
    fresh = [(visit, visit.fresh) for visit in visits if visit.fresh is not None]
    paced = [visit.paced for visit in visits if visit.paced is not None]

    def over(values: Iterable[float | None]) -> float | None:
        said = [value for value in values if value is not None]
        return median(said) if said else None

    def per(pairs: list[tuple[Visit, Measured]], cpu: Callable[[Visit], float | None]) -> float | None:
        costs = [(cpu(visit), run.requests) for visit, run in pairs]
        return over(cost / requests for cost, requests in costs if cost is not None and requests)

    return Row(
        candidate=candidate,
        rounds=tuple(run.rate for _, run in kept),
        fresh_rounds=tuple(run.rate for _, run in fresh),
        p99_rounds=tuple(run.p99 for run in paced if run.p99 is not None),
        rate=over(run.rate for _, run in kept),
        fresh_rate=over(run.rate for _, run in fresh),
        answers=over(run.requests for _, run in kept) or 0.0,
        fresh_answers=over(run.requests for _, run in fresh) or 0.0,
        cpu=per(kept, lambda visit: visit.kept_cpu),
        fresh_cpu=per(fresh, lambda visit: visit.fresh_cpu),
        busy=over(visit.kept_cpu / run.seconds for visit, run in kept if visit.kept_cpu is not None and run.seconds),
        client_busy=over(run.client_cpu / run.seconds for _, run in kept if run.seconds),
        others=over(visit.others for visit, _ in kept),
        p50=over(run.p50 for run in paced),
        p99=over(run.p99 for run in paced),
        p999=over(run.p999 for run in paced),
        behind=bool(paced) and all(run.behind > (1 - KEPT_UP) * (run.behind + run.requests) for run in paced),
        memory=over(visit.memory for visit in visits),
        share=over(visit.share for visit in visits),
        lag=over(visit.lag for visit in visits),
        errors=tuple(dict.fromkeys(_problems(visits))),
    )


def _problems(visits: Iterable[Visit]) -> Iterable[str]:
    for visit in visits:
        if visit.problem:
            yield visit.problem
        for kind, run in (("kept", visit.kept), ("new", visit.fresh), ("paced", visit.paced)):
            if run is not None:
                yield from (f"{name} ({kind} connections)" for name in run.errors)


def is_ahead(one: Sequence[float], other: Sequence[float], factor: float) -> bool:
    """Whether ``one`` has more than ``other``: in every round, and more than ``factor`` times as much in the middle.

    In every round, because on a machine that does other things as well medians differ for no reason.
    """
    if not one or not other or median(one) <= median(other) * factor:
        return False
    return all(mine > theirs for mine, theirs in zip(one, other, strict=False))


def scatter(table: Iterable[Row]) -> float:
    """How far the rounds were apart, as a part of the rate, when what was common to a whole round is taken out.

    A machine that is slower for a while is slower for all candidates of that round. What is left is by how much two
    candidates may differ without any reason: the median over the candidates of highest less lowest, 1 at most.
    """
    measured = [row.rounds for row in table if any(row.rounds)]
    most = max(map(len, measured), default=0)
    if most < 2:
        return 0.0
    measured = [rounds for rounds in measured if len(rounds) == most]
    full = [rounds for rounds in measured if all(rounds)]
    # Nothing at all in one round, and something in another: as far apart as can be.
    spreads = [1.0] * (len(measured) - len(full))
    pace = [median(rounds[number] for rounds in full) for number in range(most)] if full else []
    for rounds in full:
        relative = [rate / common for rate, common in zip(rounds, pace, strict=True)]
        spreads.append((max(relative) - min(relative)) / median(relative))
    return min(median(spreads), 1.0)
