"""From raw numbers to tables, as ``tests.bench.report`` does it, whose medians and ratios these are."""

from __future__ import annotations

from tests.bench import report
from tests.bench.websocket.crowd import CROWDS
from tests.bench.websocket.load import WORKLOADS


def render(results):
    """A Markdown table: messages against the base and CPU time, then memory per idle WebSocket."""
    cells = report.summarize(results)
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
            report.named(results, name),
            *(report.cell_text(cells.get((workload, name)), report.speed) for workload in workloads),
            *(
                report.cell_text(cells.get((crowd, name)), lambda cell: f"{cell['kib_per_connection']:.1f} KiB")
                for crowd in crowds
            ),
        ]
        for name in settings["servers"]
    ]
    return "\n".join([caption(results), "", *report.markdown(header, rows), *report.footnotes(cells)])


def details(results):
    """What was measured of each workload."""
    cells = report.summarize(results)
    columns = [
        report.column("messages/s", "requests_per_second", "{:,.0f}"),
        (f"x {results['settings']['base']}", report.ratio),
        report.CPU,
        *report.taken("client"),
    ]
    parts = [caption(results)]
    for name, workload in WORKLOADS.items():
        title = f"{workload.title}, {workload.connections} connections"
        parts += report.section(title, columns, results, cells, name)
    for name, (kind, _) in CROWDS.items():
        title = f"{results['settings']['idle_connections']} idle WebSockets, {kind}"
        parts += report.section(title, report.WEIGHTS, results, cells, name)
    return "\n".join([*parts, *report.footnotes(cells)])


def caption(results):
    settings = results["settings"]
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
    parts.append(f"One worker on one core, the client on another; {report.place(results, 'uvloop', 'websockets')}")
    return " ".join(parts) + report.unrest(results["visits"])
