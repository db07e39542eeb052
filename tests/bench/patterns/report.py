"""From the raw numbers of the patterns to tables. Nothing here measures.

A visit's ``workload`` names what was measured; ``quiet-4`` and ``blocked-4`` are ``quiet`` and ``blocked`` with more
workers than cores.
Medians, ratios within a round and daggers are tests.bench.report's.
"""

from __future__ import annotations

import math
from statistics import median

from tests.bench.patterns.balance import CROWDS, spread
from tests.bench.patterns.table import FEW, MANY
from tests.bench.patterns.tails import BLOCK_INTERVAL, BLOCK_SECONDS, RATE
from tests.bench.report import QUIET, cell_text, footnotes, markdown, ratio, stamp, summarize

#: What a rate is measured with, and what it is called.
RATES = {"hello": "request", "newconn": "connection"}


def render(results):
    """The Markdown table for the README: one row for each pattern."""
    table = Table(results)
    header = [
        "", "requests/s · CPU", "connections/s · CPU", "all turn, p50 / p99 / p99.9", "one blocked",
        f"one of {MANY} blocked", "64 kept, most to least", "1,000 kept", "lost of requests in replacements",
    ]  # fmt: skip
    rows = [
        [
            pattern,
            table.cell("hello", pattern, _speed),
            table.cell("newconn", pattern, _speed),
            table.cell("quiet", pattern, _tail),
            table.cell("blocked", pattern, _tail),
            table.cell(f"blocked-{MANY}", pattern, _tail),
            *(_pair(table, pattern, size) for size in ("64", "1000")),
            table.cell("replace", pattern, _loss),
        ]
        for pattern in table.patterns
    ]
    return "\n".join([caption(results), "", *markdown(header, rows), *absent(results), *table.footnotes()])


def details(results):
    """A table for each thing that was measured, with all of it."""
    table = Table(results)
    parts = [caption(results)]

    def add(title, header, row):
        rows = [[pattern, *cells] for pattern in table.patterns if any(cells := row(pattern))]
        if rows:
            parts.extend(["", f"### {title}", "", *markdown(["", *header], rows)])

    for workload, thing in RATES.items():
        add(
            f"{thing.title()}s per second, wrk with 64 connections",
            [f"{thing}s/s", f"x {results['settings']['base']}", f"CPU us/{thing}", "cores: server / wrk / others"],
            lambda pattern, workload=workload: [
                table.cell(workload, pattern, form)
                for form in (
                    lambda cell: f"{cell['requests_per_second']:,.0f}",
                    ratio,
                    lambda cell: f"{cell['cpu_us_per_request']:.1f}",
                    lambda cell: f"{cell['server_cores']:.2f} / {cell['client_cores']:.2f} / {cell['other_cores']:.2f}",
                )
            ],
        )
    for workload, title in {"quiet": "all workers turn", "blocked": "one worker is blocked"}.items():
        for workers, suffix in ((FEW, ""), (MANY, f"-{MANY}")):
            add(
                f"New connections at {RATE}/s, ms, {title}, {workers} workers",
                ["p50", "p99", "p99.9", "max", "CPU us/connection", "client late p99 / max"],
                lambda pattern, workload=workload + suffix: [
                    table.cell(workload, pattern, form)
                    for form in (
                        *(_ms(key) for key in ("p50_us", "p99_us", "p999_us", "max_us")),
                        lambda cell: f"{cell['cpu_us_per_connection']:.0f}",
                        lambda cell: f"{cell['client_late_p99_us'] / 1e3:.2f} / {cell['client_late_max_us'] / 1e3:.2f}",
                    )
                ],
            )
    add(
        f"Long-lived connections on {MANY} workers, most to least, median and worst; in brackets the last round",
        list(CROWDS),
        lambda pattern: [table.balance(crowd, pattern) for crowd in CROWDS],
    )
    add(
        "Replacements under load",
        ["replaced", "requests", "lost", "races", "ended", "seconds"],
        lambda pattern: [
            table.cell("replace", pattern, lambda cell, key=key: f"{cell[key]:,.0f}")
            for key in ("replacements", "requests", "lost", "race", "ended", "seconds")
        ],
    )
    return "\n".join([*parts, *absent(results), *table.footnotes()])


class Table:
    """The cells, by workload and pattern, as text."""

    def __init__(self, results):
        self._visits = results["visits"]
        self._cells = summarize(results)
        self.patterns = results["settings"]["patterns"]

    def cell(self, workload, pattern, form):
        return cell_text(self._cells.get((workload, pattern)), form)

    def balance(self, crowd, pattern):
        counts = self._counts(crowd, pattern)
        worst = max(map(spread, counts), default=0)
        text = f"{self.spread(crowd, pattern)} / {_number(worst)} ({':'.join(map(str, counts[-1]))})" if counts else ""
        return self.cell(crowd, pattern, lambda _: text)

    def spread(self, crowd, pattern):
        counts = self._counts(crowd, pattern)
        return _number(median(map(spread, counts))) if counts else ""

    def footnotes(self):
        return footnotes(self._cells)

    def _counts(self, crowd, pattern):
        return [
            visit["counts"]
            for visit in self._visits
            if (visit["workload"], visit["server"]) == (crowd, pattern) and not visit["problems"]
        ]


def caption(results):
    machine, versions, settings = results["machine"], results["versions"], results["settings"]
    peers = [f"{name} {versions[name]}" for name in settings["servers"] if name in versions and name != "aioserve"]
    client = results["client"]
    text = (
        f"{FEW} workers (single: 1) and wrk {versions['wrk']} on {len(settings['cores'])} cores; balance with {MANY}"
        f" workers; medians, {settings['seconds']} s in each of {settings['rounds']} rounds. Rates as multiples of"
        f" {settings['base']}'s, and CPU microseconds of all processes. Latencies in ms: new connections at {RATE}/s,"
        f" each with 0.2 ms of work, from when they were due; blocked means {BLOCK_SECONDS * 1e3:.0f} ms every"
        f" {BLOCK_INTERVAL * 1e3:.0f} ms. Kept connections: opened at once · one every ms. Lost: requests without their"
        f" whole answer while workers were replaced under load."
    )
    if "p50_us" in client:
        text += (
            f" A server that does nothing gave p50 / p99 / p99.9 of {_tail(client)} ms: that much is the client's and"
            " the machine's."
        )
    text += (
        f" {machine['cpu']}, {machine['kernel']}, {versions['python']}{'' if settings['gil'] else ' without GIL'},"
        f" uvloop {versions['uvloop']}, {', '.join([*peers, stamp(results)])}"
    )
    return text + _unrest(results["visits"])


def absent(results):
    """What was asked for and is not there, and why."""
    reasons = {**results["unavailable"], **results["failed"]}
    return ["", "Not measured:", *(f"- {name}: {why}" for name, why in reasons.items())] if reasons else []


def _unrest(visits):
    others = [visit["other_cores"] for visit in visits if "other_cores" in visit]
    if not others or median(others) <= QUIET:
        return ""
    return (
        f" **The machine was not quiet: others took {median(others):.2f} cores (median; {max(others):.2f} at worst).**"
    )


def _pair(table, pattern, size):
    spreads = [table.spread(f"{kind}{size}", pattern) for kind in ("burst", "paced")]
    return " · ".join(filter(None, spreads))


def _speed(cell):
    times = f"{cell['ratio']:.2f} x" if "ratio" in cell else "-"
    return f"{times} · {cell['cpu_us_per_request']:.0f} µs"


def _tail(cell):
    return " / ".join(_ms(key)(cell) for key in ("p50_us", "p99_us", "p999_us"))


def _loss(cell):
    return f"{cell['lost']:.0f} of {cell['requests']:,.0f} in {cell['replacements']:.0f}"


def _ms(key):
    return lambda cell: _number(cell[key] / 1e3)


def _number(value):
    """Two digits, as far as they are before the point or the two after it."""
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
