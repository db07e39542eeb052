"""From raw numbers to tables, as ``tests.bench.report`` does it, whose medians and ratios these are."""

from __future__ import annotations

from tests.bench.report import cell_text, footnotes, markdown, speed, summarize, unrest
from tests.bench.websocket.crowd import CROWDS
from tests.bench.websocket.load import WORKLOADS


def render(results):
    """A Markdown table: messages against the base and CPU time, then memory per idle WebSocket."""
    cells = summarize(results)
    settings = results["settings"]
    workloads = [name for name in WORKLOADS if name in settings["workloads"]]
    crowds = [name for name in CROWDS if name in settings["workloads"]]
    header = [
        "",
        *(WORKLOADS[name].title for name in workloads),
        *(f"idle, {CROWDS[name][0]}" for name in crowds),
    ]
    rows = [
        [
            name if version is None else f"{name} {version}",
            *(cell_text(cells.get((workload, name)), speed) for workload in workloads),
            *(
                cell_text(cells.get((crowd, name)), lambda cell: f"{cell['kib_per_connection']:.1f} KiB")
                for crowd in crowds
            ),
        ]
        for name in settings["servers"]
        for version in [results["versions"].get(name)]
    ]
    return "\n".join([caption(results), "", *markdown(header, rows), *footnotes(cells)])


def details(results):
    """What was measured of each workload."""
    cells = summarize(results)
    parts = [caption(results)]
    for name, workload in WORKLOADS.items():
        rows = [
            [
                server,
                cell_text(cell, lambda c: f"{c['requests_per_second']:,.0f}"),
                cell_text(cell, lambda c: f"{c['ratio']:.2f} ({c['ratio_low']:.2f}-{c['ratio_high']:.2f})"),
                cell_text(cell, lambda c: f"{c['cpu_us_per_request']:.1f}"),
                cell_text(cell, lambda c: f"{c['pss_kib'] / 1024:.1f}"),
                cell_text(cell, lambda c: f"{c['server_busy']:.0%} / {c['client_busy']:.0%}"),
                cell_text(cell, lambda c: f"{c['others_on_server_core']:.0%} / {c['others_on_client_core']:.0%}"),
            ]
            for server in results["settings"]["servers"]
            if (cell := cells.get((name, server)))
        ]
        if rows:
            base = f"x {results['settings']['base']}"
            header = ["", "messages/s", base, "CPU us", "PSS MiB", "busy: server / client", "others on their cores"]
            parts += ["", f"### {workload.title}, {workload.connections} connections", "", *markdown(header, rows)]
    for name, (title, _) in CROWDS.items():
        rows = [
            [
                server,
                cell_text(cell, lambda c: f"{c['kib_per_connection']:.2f}"),
                cell_text(cell, lambda c: f"{c['pss_before_kib'] / 1024:.1f}"),
                cell_text(cell, lambda c: f"{c['pss_after_kib'] / 1024:.1f}"),
            ]
            for server in results["settings"]["servers"]
            if (cell := cells.get((name, server)))
        ]
        if rows:
            parts += ["", f"### {results['settings']['idle_connections']} idle WebSockets, {title}", ""]
            parts += markdown(["", "KiB each", "PSS MiB without", "PSS MiB with"], rows)
    return "\n".join([*parts, *footnotes(cells)])


def caption(results):
    machine, versions, settings = results["machine"], results["versions"], results["settings"]
    connections = next(iter(WORKLOADS.values())).connections
    parts = []
    if any(name in settings["workloads"] for name in WORKLOADS):
        parts.append(
            f"Messages echoed per second, as a multiple of {settings['base']}'s, and CPU microseconds per message:"
            f" {connections} connections with one message each in flight, medians of {settings['rounds']} rounds of"
            f" {settings['seconds']:g} s."
        )
    if any(name in settings["workloads"] for name in CROWDS):
        parts.append(f"Memory of each of {settings['idle_connections']:,} WebSockets that have said one message.")
    return " ".join(parts) + (
        f" One worker on one core, the client on another; {machine['cpu']},"
        f" {machine['kernel']}, {versions['python']}, uvloop {versions['uvloop']}, websockets {versions['websockets']},"
        f" commit {results['commit'][:9]}{' with changes' if results['dirty'] else ''}, {results['date'][:10]}."
        f"{unrest(results['visits'])}"
    )
