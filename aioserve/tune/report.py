"""The table and the recommendation as text, and everything as JSON. It is pure: it returns what to print."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioserve.tune.measured import Measured
    from aioserve.tune.plan import Candidate
    from aioserve.tune.results import Row, Visit
    from aioserve.tune.verdict import Verdict

#: The version of the JSON document; another one when a key changes its meaning or goes away.
FORMAT: Final = 1

_WIDTH: Final = 100


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What was measured, on what, and how."""

    app: str
    command: str  # "aioserve shop:app ...", before flags
    requests: tuple[str, ...]  # "GET /hello: 200, 151 bytes"
    client: str  # "wrk" or "the built-in client"
    connections: int
    cpus: int
    python: str
    seconds: float
    rounds: int
    paced_rate: float | None = None
    interrupted: bool = False


def table(rows: Sequence[Row], setup: Setup, *, best: Candidate | None, current: Candidate | None) -> str:
    """The rows, the recommended one marked. Columns that nobody could fill are left out."""
    paced = f"paced at {setup.paced_rate:,.0f}/s, ms" if setup.paced_rate else "paced, ms"
    columns = [
        _Column("", "", [_mark(row, best, current) for row in rows], left=True),
        _Column("kept connections", "requests/s", [_number(row.rate, 1, ",.0f") for row in rows]),
        _Column("kept connections", "+-", [_spread(row) for row in rows]),
        _Column("kept connections", "us CPU", [_number(row.cpu, 1e6, ",.1f") for row in rows]),
        _Column("kept connections", "busiest", [_number(row.share, 100, ".0f", " %") for row in rows]),
        _Column("new connections", "per s", [_number(row.fresh_rate, 1, ",.0f") for row in rows]),
        _Column("new connections", "us CPU", [_number(row.fresh_cpu, 1e6, ",.1f") for row in rows]),
        _Column(paced, "p50", ["behind" if row.behind else _latency(row.p50) for row in rows]),
        _Column(paced, "p99", ["behind" if row.behind else _latency(row.p99) for row in rows]),
        _Column(paced, "p99.9", ["behind" if row.behind else _latency(row.p999) for row in rows]),
        _Column("", "MiB", [_number(row.memory, 1 / (1 << 20), ",.0f") for row in rows]),
    ]
    columns = [column for column in columns if any(column.cells)]
    lines = [_groups(columns), "  ".join(column.head() for column in columns)]
    lines += ["  ".join(column.cell(number) for column in columns) for number in range(len(rows))]
    return "\n".join(line.rstrip() for line in lines)


def explanations(rows: Sequence[Row], setup: Setup) -> list[str]:
    """What the columns mean, as far as their headings do not say, and what went wrong."""
    lines = []
    if any(len(row.rounds) > 1 for row in rows):
        lines.append("+-: from the slowest round to the fastest.")
    if any(row.cpu is not None for row in rows):
        lines.append("us CPU: of all processes of the server, per request (on a new connection).")
    else:
        lines.append("CPU time and memory can be told on Linux only.")
    if any(row.share is not None for row in rows):
        lines.append("busiest: the part of all requests that one worker had.")
    if setup.paced_rate:
        lines.append(
            "paced: the same rate for all, half of the middle one's at most; each eighth request on a new connection."
        )
    for row in rows:
        lines += [f"{row.candidate.label}: {error}" for error in row.errors]
    return lines


def recommendation(verdict: Verdict, setup: Setup, *, current: Candidate | None) -> str:
    """The flags to copy, why, at what cost, and what to do next."""
    candidate = verdict.best.candidate
    known = ["as it is configured now"] if candidate == current else []
    doubts = ["not for certain: see the notes"] if verdict.doubtful else []
    remark = f"   ({'; '.join(known + doubts)})" if known or doubts else ""
    lines = [f"Recommended: {candidate.flags}{remark}"]
    lines += _wrapped("Why", " ".join(verdict.reasons))
    if verdict.costs:
        lines += _wrapped("Cost", f"{'; '.join(verdict.costs)}.")
    for caution in verdict.cautions:
        lines += _wrapped("Note", caution)
    lines += [
        f"Next:  {setup.command} {candidate.flags}{'   (...: your other flags)' if '...' in setup.command else ''}",
        f"       or in aioserve.toml, [process]: {candidate.toml}",
    ]
    return "\n".join(lines)


def document(setup: Setup, rows: Sequence[Row], visits: Sequence[Visit], verdict: Verdict | None) -> dict[str, Any]:
    """Everything that was measured, and what follows, for programs. Times in seconds, memory in bytes."""
    return {
        "format": FORMAT,
        "setup": asdict(setup),
        "candidates": [
            {
                "label": row.candidate.label,
                "flags": row.candidate.flags,
                "accept": row.candidate.pattern.accept,
                "count": row.candidate.count,
                **{name: value for name, value in asdict(row).items() if name != "candidate"},
            }
            for row in rows
        ],
        "visits": [
            {
                "label": visit.candidate.label,
                **{name: value for name, value in asdict(visit).items() if name != "candidate"},
            }
            for visit in visits
        ],
        "recommendation": None
        if verdict is None
        else {
            "label": verdict.best.candidate.label,
            "flags": verdict.best.candidate.flags,
            "equals": [row.candidate.label for row in verdict.equals],
            "reasons": list(verdict.reasons),
            "costs": list(verdict.costs),
            "cautions": list(verdict.cautions),
            "tolerance": verdict.tolerance,
            "scatter": verdict.scatter,
            "doubtful": verdict.doubtful,
        },
    }


def dump(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2) + "\n"


def visited(visit: Visit) -> str:
    """One visit in one line, for who has no bar to look at."""
    if visit.problem:
        return f"round {visit.round}, {visit.candidate.label}: {visit.problem}"
    said = [
        f"{_rate(visit.kept)} requests/s",
        f"{_rate(visit.fresh)} new connections/s",
        f"p99 {_latency(visit.paced.p99)} ms" if visit.paced is not None and visit.paced.p99 is not None else "",
    ]
    return f"round {visit.round}, {visit.candidate.label}: {', '.join(filter(None, said))}"


@final
@dataclass(frozen=True, slots=True)
class _Column:
    group: str
    name: str
    cells: list[str]
    left: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.name, *self.cells)))

    def head(self) -> str:
        return self.name.ljust(self.width) if self.left else self.name.rjust(self.width)

    def cell(self, number: int) -> str:
        text = self.cells[number] or "-"
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def _groups(columns: Sequence[_Column]) -> str:
    """The line above the heads: each group's name over its columns."""
    line, place = "", 0
    previous = ""
    for column in columns:
        if column.group and column.group != previous:
            line = line.ljust(place) + column.group + " "
        previous = column.group
        place += column.width + 2
    return line


def _mark(row: Row, best: Candidate | None, current: Candidate | None) -> str:
    mark = ">" if row.candidate == best else " "
    return f"{mark} {row.candidate.label}{' (now)' if row.candidate == current else ''}"


def _spread(row: Row) -> str:
    if len(row.rounds) < 2 or not row.rate:
        return ""
    return f"{(max(row.rounds) - min(row.rounds)) / row.rate:.0%}"


def _number(value: float | None, factor: float, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:{form}}{unit}"


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:,.0f}"


def _rate(run: Measured | None) -> str:
    return "-" if run is None else f"{run.rate:,.0f}"


def _wrapped(title: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH, initial_indent=f"{title + ':':<7}", subsequent_indent=" " * 7)
