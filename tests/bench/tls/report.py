"""From raw numbers to tables, as ``tests.bench.report`` does it, whose medians and ratios these are."""

from __future__ import annotations

from tests.bench.report import cell_text, footnotes, markdown, speed, summarize, unrest
from tests.bench.tls.loads import LOADS

#: Here the tail counts and not the rate, which is the client's.
PACED = "paced"


def render(results):
    """A Markdown table: requests and handshakes against the base with their CPU time, then the tail of a paced load."""
    cells = summarize(results)
    settings = results["settings"]
    loads = [name for name in LOADS if name in settings["workloads"] and name != PACED]
    paced = PACED in settings["workloads"]
    header = ["", *(LOADS[name].title for name in loads), *(["p99 of a paced load"] if paced else [])]
    rows = []
    for server in settings["servers"]:
        # The paced rate is the client's, and never all of a core.
        row = [_named(results, server), *(cell_text(cells.get((name, server)), speed) for name in loads)]
        if paced:
            row.append(cell_text(cells.get((PACED, server)), _tail))
        rows.append(row)
    shown = {key: cell for key, cell in cells.items() if key[0] != PACED}
    return "\n".join([caption(results), "", *markdown(header, rows), *footnotes(shown)])


def details(results):
    """What was measured of each workload."""
    cells = summarize(results)
    parts = [caption(results)]
    for name, load in LOADS.items():
        rows = [
            [
                server,
                cell_text(cell, lambda c: f"{c['requests_per_second']:,.0f}"),
                cell_text(cell, _ratio),
                cell_text(cell, lambda c: f"{c['cpu_us_per_request']:.1f}"),
                cell_text(cell, lambda c: f"{c['cpu_ratio']:.2f}" if "cpu_ratio" in c else "-"),
                cell_text(cell, lambda c: f"{c['client_us_per_request']:.1f}"),
                cell_text(cell, lambda c: f"{c['p50_us'] / 1e3:.2f}" if "p50_us" in c else "-"),
                cell_text(cell, lambda c: f"{c['p99_us'] / 1e3:.2f}" if "p99_us" in c else "-"),
                cell_text(cell, lambda c: f"{c['pss_kib'] / 1024:.1f}"),
                cell_text(cell, lambda c: f"{c['server_busy']:.0%} / {c['client_busy']:.0%}"),
                cell_text(cell, lambda c: f"{c['others_on_server_core']:.0%} / {c['others_on_client_core']:.0%}"),
            ]
            for server in results["settings"]["servers"]
            if (cell := cells.get((name, server)))
        ]
        if rows:
            base = f"x {results['settings']['base']}"
            header = ["", f"{load.unit}/s", base, "CPU us", base, "client's CPU us", "p50 ms", "p99 ms", "PSS MiB",
                      "busy: server / client", "others on their cores"]  # fmt: skip
            parts += ["", f"### {load.title}, {load.connections} connections", "", *markdown(header, rows)]
    return "\n".join([*parts, *footnotes({key: cell for key, cell in cells.items() if key[0] != PACED})])


def caption(results):
    machine, versions, settings = results["machine"], results["versions"], results["settings"]
    return (
        f"Requests and handshakes per second as a multiple of {settings['base']}'s, and CPU microseconds for each:"
        f" medians of {settings['rounds']} rounds of {settings['seconds']:g} s."
        f" {' with '.join(settings['negotiated'])}, an ECDSA certificate on P-256. One worker on one core,"
        f" with its terminators if it has some, the client (wrk"
        f" {versions['wrk']}; openssl s_time for resumed handshakes) on another; {machine['cpu']}, {machine['kernel']},"
        f" {versions['python']}, uvloop {versions['uvloop']},"
        f" commit {results['commit'][:9]}{' with changes' if results['dirty'] else ''}, {results['date'][:10]}."
        f"{unrest(results['visits'])}"
    )


def _named(results, server):
    version = results["versions"].get(server)
    return server if version is None else f"{server} {version}"


def _ratio(cell):
    return f"{cell['ratio']:.2f} ({cell['ratio_low']:.2f}-{cell['ratio_high']:.2f})" if "ratio" in cell else "-"


def _tail(cell):
    return f"{cell['p99_us'] / 1e3:.2f} ms · {cell['cpu_us_per_request']:.1f} µs"
