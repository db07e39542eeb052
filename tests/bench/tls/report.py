"""From raw numbers to tables, as ``tests.bench.report`` does it, whose medians and ratios these are."""

from __future__ import annotations

from tests.bench import report
from tests.bench.tls.loads import LOADS

#: Here the tail counts and not the rate, which is the client's.
PACED = "paced"


def render(results):
    """A Markdown table: requests and handshakes against the base with their CPU time, then the tail of a paced load."""
    cells = report.summarize(results)
    settings = results["settings"]
    loads = [name for name in LOADS if name in settings["workloads"] and name != PACED]
    paced = PACED in settings["workloads"]
    header = ["", *(LOADS[name].title for name in loads), *(["p99 of a paced load"] if paced else [])]
    rows = []
    for server in settings["servers"]:
        # The paced rate is the client's, and never all of a core.
        row = [
            report.named(results, server),
            *(report.cell_text(cells.get((name, server)), report.speed) for name in loads),
        ]
        if paced:
            row.append(report.cell_text(cells.get((PACED, server)), _tail))
        rows.append(row)
    shown = {key: cell for key, cell in cells.items() if key[0] != PACED}
    return "\n".join([caption(results), "", *report.markdown(header, rows), *report.footnotes(shown)])


def details(results):
    """What was measured of each workload."""
    cells = report.summarize(results)
    base = f"x {results['settings']['base']}"
    parts = [caption(results)]
    for name, load in LOADS.items():
        columns = [
            report.column(f"{load.unit}/s", "requests_per_second", "{:,.0f}"),
            (base, report.ratio),
            report.CPU,
            report.column(base, "cpu_ratio", "{:.2f}"),
            report.column("client's CPU us", "client_us_per_request", "{:.1f}"),
            *report.LATENCIES,
            *report.taken("client"),
        ]
        parts += report.section(f"{load.title}, {load.connections} connections", columns, results, cells, name)
    return "\n".join([*parts, *report.footnotes({key: cell for key, cell in cells.items() if key[0] != PACED})])


def caption(results):
    settings = results["settings"]
    return (
        f"Requests and handshakes per second as a multiple of {settings['base']}'s, and CPU microseconds for each:"
        f" medians of {settings['rounds']} rounds of {settings['seconds']:g} s."
        f" {' with '.join(settings['negotiated'])}, an ECDSA certificate on P-256. One worker on one core,"
        f" with its terminators if it has some, the client (wrk {results['versions']['wrk']}; openssl s_time for"
        f" resumed handshakes) on another; {report.place(results, 'uvloop')}{report.unrest(results['visits'])}"
    )


def _tail(cell):
    return f"{cell['p99_us'] / 1e3:.2f} ms · {cell['cpu_us_per_request']:.1f} µs"
