"""The table as a picture: an SVG of a few kilobytes, drawn here because it is rectangles, circles and words.

One line per candidate, one panel per question: how many requests, how many new connections, how long they wait, how
much memory. Bars begin at zero; latencies have a logarithmic axis, because tails are multiples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aioserve.tune.plan import Candidate
    from aioserve.tune.report import Setup
    from aioserve.tune.results import Row

# Pixels.
_LABELS: Final = 150
_PANEL: Final = 210
_GAP: Final = 34
_LINE: Final = 34
_TOP: Final = 112
_MARGIN: Final = 24
#: Room behind the longest bar for its number.
_NUMBER: Final = 52

_INK, _SOFT, _FAINT, _BAR, _BEST, _BAND = "#1f2933", "#616e7c", "#e4e7eb", "#9fb3c8", "#0b7285", "#eef7f8"

_STYLE: Final = f"""\
text {{ font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px; fill: {_INK} }}
.title {{ font-size: 17px; font-weight: 600 }}
.soft {{ fill: {_SOFT} }}
.head {{ font-weight: 600 }}
.best {{ font-weight: 700; fill: {_BEST} }}
.end {{ text-anchor: end }}
.middle {{ text-anchor: middle }}"""


def draw(rows: Sequence[Row], setup: Setup, *, best: Candidate | None) -> str:
    """The whole document."""
    panels = [panel for panel in _panels(setup) if any(panel.has(row) for row in rows)]
    width = 2 * _MARGIN + _LABELS + len(panels) * (_PANEL + _GAP) - _GAP
    height = _TOP + _LINE * len(rows) + 64
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(_title(setup))}">'
    )
    parts = [
        opening,
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(_MARGIN, 34, _title(setup), "title"),
        _text(_MARGIN, 54, _conditions(setup), "soft"),
    ]
    for number, row in enumerate(rows):
        y = _TOP + number * _LINE
        chosen = row.candidate == best
        if chosen:
            parts.append(_rect(_MARGIN - 10, y, width - 2 * _MARGIN + 20, _LINE, _BAND, radius=5))
        parts.append(_text(_MARGIN, y + _LINE / 2 + 4, row.candidate.label, "best" if chosen else ""))
    for number, panel in enumerate(panels):
        parts += panel.draw(_MARGIN + _LABELS + number * (_PANEL + _GAP), rows, best)
    parts.append(_text(_MARGIN, height - 18, _legend(setup, best), "soft"))
    return "\n".join([*parts, "</svg>", ""])


def _title(setup: Setup) -> str:
    return f"aioserve tune {setup.app}: {', '.join(setup.requests)}"


def _conditions(setup: Setup) -> str:
    cpus = f"{setup.cpus} CPU{'' if setup.cpus == 1 else 's'} shared with the client"
    return f"{setup.client}, {setup.connections} connections, {setup.rounds} rounds, {cpus}, {setup.python}"


def _legend(setup: Setup, best: Candidate | None) -> str:
    chosen = f"Recommended: {best.flags}.  " if best is not None else ""
    paced = "  Latency: p50, p99 and p99.9 from left to right." if setup.paced_rate else ""
    return f"{chosen}Bars: medians; dots: single rounds.{paced}"


def _panels(setup: Setup) -> list[_Bars | _Latencies]:
    rate = f" at {setup.paced_rate:,.0f}/s" if setup.paced_rate else ""
    return [
        _Bars("requests per second", lambda row: row.rate, dots=lambda row: row.rounds),
        _Bars("new connections per second", lambda row: row.fresh_rate),
        _Latencies(f"latency{rate}, ms"),
        _Bars("memory, MiB", lambda row: None if row.memory is None else row.memory / (1 << 20)),
    ]


@final
@dataclass(frozen=True, slots=True)
class _Bars:
    title: str
    value: Callable[[Row], float | None]
    dots: Callable[[Row], Sequence[float]] = field(default=lambda _: ())

    def has(self, row: Row) -> bool:
        return self.value(row) is not None

    def draw(self, x: float, rows: Sequence[Row], best: Candidate | None) -> Iterator[str]:
        yield _text(x, _TOP - 14, self.title, "head")
        yield _rule(x, _TOP - 4, len(rows))
        most = max(max(self.value(row) or 0.0, *self.dots(row), 0.0) for row in rows) or 1.0
        scale = (_PANEL - _NUMBER) / most
        for number, row in enumerate(rows):
            y = _TOP + number * _LINE
            value = self.value(row)
            if value is None:
                yield _text(x + 6, y + _LINE / 2 + 4, "not measured", "soft")
                continue
            yield _rect(x, y + 9, max(value * scale, 1), _LINE - 18, _BEST if row.candidate == best else _BAR)
            for dot in self.dots(row):
                yield _dot(x + dot * scale, y + _LINE / 2, 2.5, _INK)
            end = max((value, *self.dots(row))) * scale
            yield _text(x + end + 7, y + _LINE / 2 + 4, f"{value:,.0f}")


@final
@dataclass(frozen=True, slots=True)
class _Latencies:
    title: str

    def has(self, row: Row) -> bool:
        return bool(_points(row))

    def draw(self, x: float, rows: Sequence[Row], best: Candidate | None) -> Iterator[str]:
        yield _text(x, _TOP - 14, self.title, "head")
        points = [point for row in rows for point in _points(row)]
        low, high = math.floor(math.log10(min(points))), math.ceil(math.log10(max(points)))
        high = max(high, low + 1)
        scale = (_PANEL - 14) / (high - low)
        bottom = _TOP + len(rows) * _LINE
        for power in range(low, high + 1):
            place = x + (power - low) * scale
            yield f'<path d="M{place:.1f} {_TOP - 4}V{bottom}" stroke="{_FAINT}"/>'
            yield _text(place, bottom + 16, f"{10.0**power:g}", "soft middle")
        for number, row in enumerate(rows):
            y = _TOP + number * _LINE + _LINE / 2
            places = [x + (math.log10(point) - low) * scale for point in _points(row)]
            colour = _BEST if row.candidate == best else _SOFT
            if row.behind or not places:
                yield _text(x + 6, y + 4, "could not keep up" if row.behind else "not measured", "soft")
                continue
            yield f'<path d="M{places[0]:.1f} {y:.1f}H{places[-1]:.1f}" stroke="{colour}" stroke-width="2"/>'
            for size, place in zip((3, 5, 3), places, strict=False):
                yield _dot(place, y, size, colour)


def _points(row: Row) -> list[float]:
    """Milliseconds, rising."""
    return [value * 1e3 for value in (row.p50, row.p99, row.p999) if value and not row.behind]


def _text(x: float, y: float, text: str, style: str = "") -> str:
    look = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{look}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, *, radius: int = 2) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" fill="{colour}"/>'


def _dot(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" stroke="#ffffff" stroke-width="1"/>'


def _rule(x: float, y: float, lines: int) -> str:
    return f'<path d="M{x:.1f} {y:.1f}v{lines * _LINE + 4}" stroke="{_SOFT}"/>'
