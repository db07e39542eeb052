"""Which candidate to take, and why: stated rules on a table, nothing else.

In this order, each rule among those that the rules before have left. Of two candidates one is out only if the other was
better in every round, and by more than a tolerance: TOLERANCE, or the scatter of the rounds if that is larger.

1. Requests per second on kept connections.
2. The tail of the paced load: a p99 of more than LONGER times another's, and more than NOTICED above it. Who could not
   keep up is out.
3. New connections per second, with twice the tolerance, since they are measured for a shorter time; if there were at
   least TURNS for each connection.
4. A supervisor before none: what restarts a worker that crashes is worth a few MiB.
5. Memory: within SPARE of the least.
6. The simplest: fewer workers, then the earlier one in ``plan.PATTERNS``.

Rules 2 and 3 rest on less than the first one, and are left out on a machine that others use (RESTLESS) or whose rounds
are far apart (WILD): among so many comparisons some would hold by accident.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.tune.results import Row, is_ahead, scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: What a machine that does other things as well changes from minute to minute; a difference below it is nobody's gain.
TOLERANCE: Final = 0.05

LONGER: Final = 1.5
#: Seconds. Below a millisecond, a tail on a machine that also runs the client is the scheduler's.
NOTICED: Final = 0.001

SPARE: Final = 0.15

#: Parts of the CPUs: a machine busier than FULL has given what it has; a server below IDLE waits for something else.
FULL: Final = 0.9
IDLE: Final = 0.4
#: The part of the machine that others may take before it has to be said.
RESTLESS: Final = 0.15

#: Seconds that an event loop may stand still under full load before it has to be said.
LAG: Final = 0.25

#: Rounds that are further apart than this say little.
WILD: Final = 0.25
#: So do visits in which connections have had fewer answers than this, each.
TURNS: Final = 2

#: What to try then.
LONGER_SECONDS: Final = 20


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``best`` is to be taken. ``equals`` are those that no rule about speed has told from it."""

    best: Row
    equals: tuple[Row, ...]
    reasons: tuple[str, ...]
    #: What to know before believing it, and what others are better at.
    cautions: tuple[str, ...]
    costs: tuple[str, ...]
    tolerance: float
    scatter: float
    #: Others have used the machine, the rounds were far apart for another reason, or there were few answers.
    doubtful: bool


def judge(table: Sequence[Row], *, cpus: int, connections: int) -> Verdict | None:
    """None: nothing was measured well enough to say."""
    measured = [row for row in table if row.counts]
    if not measured:
        return None
    noise = scatter(table)
    tolerance = max(TOLERANCE, noise)
    fast = _not_behind(measured, lambda row: row.rounds, tolerance)
    others = max((row.others for row in measured if row.others is not None), default=0.0)
    restless = noise > WILD or others > RESTLESS
    few = TURNS * connections
    steady = fast if restless else _steady(fast)
    taking = steady
    if not restless and min(row.fresh_answers for row in steady) >= few:
        taking = _not_behind(steady, lambda row: row.fresh_rounds, 2 * tolerance)
    safe = [row for row in taking if row.candidate.pattern.counts] or taking
    lean = _least(safe, lambda row: row.memory, SPARE)
    best = min(lean, key=lambda row: row.candidate.rank)
    reasons = [_by_speed(measured, fast, tolerance, noise)]
    if restless and len(measured) > 1:
        reasons.append(
            "Tails and new connections are not compared: a machine as restless as this says nothing of them."
        )
    if len(steady) < len(fast):
        reasons.append(_by_tail(fast, steady))
    if len(taking) < len(steady):
        reasons.append(_by_new_connections(steady, taking))
    if len(safe) > 1:
        reasons.append(_by_size(best, safe, lean))
    rivals = [row for row in measured if row.candidate.count == best.candidate.count and row.candidate.pattern.counts]
    if len(rivals) > 1 and all(row in taking for row in rivals):
        reasons.append(f"Among {_names(rivals)}, no pattern is measurably better for this application here.")
    return Verdict(
        best=best,
        equals=tuple(row for row in taking if row is not best),
        reasons=tuple(reasons),
        cautions=tuple(_cautions(best, noise, others, cpus, few)),
        costs=tuple(_costs(best, measured, tolerance)),
        tolerance=tolerance,
        scatter=noise,
        doubtful=restless or best.answers < few,
    )


# The rules.


def _not_behind(rows: list[Row], rounds: Callable[[Row], Sequence[float]], tolerance: float) -> list[Row]:
    """Those that nobody is ahead of. The best in the middle is always among them."""
    return [row for row in rows if not any(is_ahead(rounds(other), rounds(row), 1 + tolerance) for other in rows)]


def _least(rows: list[Row], value: Callable[[Row], float | None], tolerance: float) -> list[Row]:
    """Those that are near the smallest; all, if somebody's value is not known."""
    values = [(row, value(row)) for row in rows]
    known = [number for _, number in values if number is not None]
    if len(known) < len(values):
        return rows
    return [row for row, number in values if number is not None and number <= min(known) * (1 + tolerance)]


def _steady(rows: list[Row]) -> list[Row]:
    keeping_up = [row for row in rows if not row.behind] or rows
    return [row for row in keeping_up if not any(_is_longer(row, other) for other in keeping_up)]


def _is_longer(row: Row, other: Row) -> bool:
    if row.p99 is None or other.p99 is None or row.p99 - other.p99 <= NOTICED:
        return False
    return is_ahead(row.p99_rounds, other.p99_rounds, LONGER)


# What is said of them.


def _by_speed(measured: list[Row], fast: list[Row], tolerance: float, noise: float) -> str:
    if len(measured) == 1:
        return "Nothing else was measured."
    why = (
        f"the rounds themselves were {noise:.0%} apart" if noise > TOLERANCE else f"less than {tolerance:.0%} is noise"
    )
    slow = [row for row in measured if row not in fast]
    if not slow:
        return f"No candidate serves measurably more requests per second than the others ({why})."
    runner_up = max(slow, key=_rate)
    gain = f"{max(map(_rate, fast)) / _rate(runner_up) - 1:.0%} more than {_label(runner_up)}, the next"
    if len(fast) == 1:
        return f"{_label(fast[0])} serves most requests per second in every round, {gain}."
    return f"{_names(fast)} serve most requests per second, up to {gain}; none of them is ahead ({why})."


def _by_tail(fast: list[Row], steady: list[Row]) -> str:
    lost = [row for row in fast if row not in steady]
    late, longer = [row for row in lost if row.behind], [row for row in lost if not row.behind]
    sentences = [f"{_names(late)} could not keep up with the paced load."] if late else []
    if longer:
        # Whose is the shortest of all is never out.
        shortest = min((row for row in steady if row.p99 is not None), key=_p99)
        sentences.append(
            f"At the paced load p99 is {_p99(shortest) * 1e3:.1f} ms with {_label(shortest)}, and up to "
            f"{max(map(_p99, longer)) * 1e3:.1f} with {_names(longer)}."
        )
    return " ".join(sentences)


def _by_new_connections(steady: list[Row], taking: list[Row]) -> str:
    lost = [row for row in steady if row not in taking]
    takes = "takes" if len(taking) == 1 else "take"
    return f"{_names(taking)} {takes} more new connections per second than {_names(lost)}."


def _by_size(best: Row, safe: list[Row], lean: list[Row]) -> str:
    """Why this one of those that are equally fast."""
    if len(lean) < len(safe):
        what = f"Of these, {_label(best)} needs less memory than {_names([row for row in safe if row not in lean])}"
        return f"{what}, and is the simplest." if len(lean) > 1 else f"{what}."
    return f"Of these, {_label(best)} is the simplest."


def _cautions(best: Row, noise: float, others: float, cpus: int, few: int) -> Iterator[str]:
    """What the reader should know before believing it."""
    server, client = best.busy or 0.0, best.client_busy or 0.0
    if others > RESTLESS:
        yield f"Other processes took up to {others:.0%} of the machine meanwhile. Try again when it is quiet."
    elif best.answers < few:
        yield (
            f"Few answers came in a visit ({best.answers:.0f}). Take longer (--seconds {LONGER_SECONDS}) or fewer "
            "--connections."
        )
    elif noise > WILD:
        yield f"The rounds were {noise:.0%} apart. Longer ones say more (--seconds {LONGER_SECONDS})."
    if best.busy is not None and server < IDLE and others <= RESTLESS and server + client < FULL * cpus:
        yield (
            f"The server kept {server:.2f} CPUs busy: this path waits for something else, and neither a pattern nor "
            "more workers change that. More connections show how far one worker goes (--connections)."
        )
    elif best.busy is not None and server + client > FULL * cpus:
        yield (
            f"Client and server share {_count(cpus, 'CPU')}, of which the client took {client:.1f}. Where clients have "
            "machines of their own, more workers gain more than here; believe the comparison of patterns."
        )
    if best.lag is not None and best.lag > LAG:
        yield (
            f"Event loops stood still for up to {best.lag:.1f} s: what computes within a request holds up all others "
            "of its worker. Let it run outside the loop (asyncio.to_thread, a process pool)."
        )
    if best.candidate.pattern.caution:
        yield f"{_label(best)}: {best.candidate.pattern.caution}."


def _costs(best: Row, measured: list[Row], tolerance: float) -> Iterator[str]:
    """What others are better at."""
    for what, value, less in _RESPECTS:
        mine = value(best)
        others = [(row, other) for row in measured if not row.behind and (other := value(row))]
        if not mine or not others:
            continue
        row, other = (min if less else max)(others, key=lambda pair: pair[1])
        apart = mine / other - 1 if less else 1 - mine / other
        if row is not best and apart > tolerance:
            yield f"{apart:.0%} {'more' if less else 'fewer'} {what} than {_label(row)}"


_RESPECTS: Final[tuple[tuple[str, Callable[[Row], float | None], bool], ...]] = (
    ("requests per second", lambda row: row.rate, False),
    ("new connections per second", lambda row: row.fresh_rate, False),
    ("memory", lambda row: row.memory, True),
    ("CPU time per request", lambda row: row.cpu, True),
)


def _rate(row: Row) -> float:
    return row.rate or 0.0


def _p99(row: Row) -> float:
    return row.p99 or 0.0


def _label(row: Row) -> str:
    return row.candidate.label


def _names(rows: Sequence[Row]) -> str:
    labels = [_label(row) for row in rows]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
