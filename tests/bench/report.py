"""From raw numbers to tables. Nothing here measures: a report can be made again from the JSON at any time.

Only visits without problems count. A cell that lost some of them says so with a dagger, one that lost all of them is
empty but for the dagger, and the reasons follow the table.
"""

from __future__ import annotations

from statistics import median

from tests.bench.workloads import IDLE, WORKLOADS

#: A server that was busy for less of its core than this was waiting for wrk, or for others to leave.
BUSY = 0.9

#: What other processes may take of a core; the kernel's own work and the harness are below this.
QUIET = 0.05


def summarize(results):
    """(workload, server) -> medians over the rounds, the ratio to the base pair by pair, and what was wrong."""
    base = results["settings"]["base"]
    rounds = results["settings"]["rounds"]
    cells = {}
    visits = {(v["workload"], v["server"], v["round"]): v for v in results["visits"]}
    for workload, server in dict.fromkeys((w, s) for w, s, _ in visits):
        mine = [visits[workload, server, r] for r in range(rounds) if (workload, server, r) in visits]
        clean = [visit for visit in mine if not visit["problems"]]
        cell = {"rounds": len(mine), "clean": len(clean), "problems": _reasons(mine)}
        for key in sorted({key for visit in clean for key, value in visit.items() if _is_number(value)} - {"round"}):
            cell[key] = median(visit[key] for visit in clean)
        pairs = [
            (visit, visits[workload, base, visit["round"]])
            for visit in clean
            if "requests_per_second" in visit and not _problems(visits, workload, base, visit["round"])
        ]
        if pairs:
            ratios = [visit["requests_per_second"] / other["requests_per_second"] for visit, other in pairs]
            cell |= {"ratio": median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
            # The other way round, so that more is better in both. It stands also when wrk or others were the limit.
            cell["cpu_ratio"] = median(
                other["cpu_us_per_request"] / visit["cpu_us_per_request"] for visit, other in pairs
            )
        cells[workload, server] = cell
    return cells


def render(results):
    """The Markdown table for the README: throughput against the base and CPU time, memory in the last two columns."""
    cells = summarize(results)
    settings, servers = results["settings"], results["settings"]["servers"]
    workloads = [name for name in WORKLOADS if any((name, server) in cells for server in servers)]
    idle = any((IDLE, server) in cells for server in servers)
    header = ["", *(WORKLOADS[name].title for name in workloads), *(["at rest", "idle connection"] if idle else [])]
    rows = []
    for server in servers:
        row = [named(results, server), *(cell_text(cells.get((name, server)), speed) for name in workloads)]
        if idle:
            weight = cells.get((IDLE, server))
            row += [cell_text(weight, lambda c: f"{c['pss_before_kib'] / 1024:.0f} MiB")]
            row += [cell_text(weight, lambda c: f"{c['kib_per_connection']:.1f} KiB")]
        rows.append(row)
    caption = (
        f"Requests per second as a multiple of {settings['base']}'s, and CPU microseconds per request: medians of"
        f" {settings['rounds']} rounds of {settings['seconds']} s. {_conditions(results)}"
    )
    return "\n".join([caption, "", *markdown(header, rows), *footnotes(cells)])


def details(results):
    """A table per workload with everything that was measured."""
    cells = summarize(results)
    base = f"x {results['settings']['base']}"
    columns = [
        column("requests/s", "requests_per_second", "{:,.0f}"),
        (base, lambda cell: ratio(cell) + _waited(cell) if "ratio" in cell else "-"),
        CPU,
        column(base, "cpu_ratio", "{:.2f}"),
        *LATENCIES,
        *taken("wrk"),
    ]
    parts = [_conditions(results)]
    for name, workload in WORKLOADS.items():
        title = f"{workload.title}, {workload.connections} connections"
        parts += section(title, columns, results, cells, name)
    title = f"{results['settings']['idle_connections']} idle connections"
    parts += section(title, WEIGHTS, results, cells, IDLE)
    return "\n".join([*parts, *footnotes(cells)])


def column(title, key, form, unit=1):
    """A column of details, title and content; a dash where a client does not tell this."""
    return title, lambda cell: form.format(cell[key] / unit) if key in cell else "-"


CPU = column("CPU us", "cpu_us_per_request", "{:.1f}")
LATENCIES = [column("p50 ms", "p50_us", "{:.2f}", 1e3), column("p99 ms", "p99_us", "{:.2f}", 1e3)]
WEIGHTS = [
    column("KiB each", "kib_per_connection", "{:.2f}"),
    column("PSS MiB without", "pss_before_kib", "{:.1f}", 1024),
    column("PSS MiB with", "pss_after_kib", "{:.1f}", 1024),
]


def taken(client):
    """The columns of what was taken of the machine."""
    return [
        column("PSS MiB", "pss_kib", "{:.1f}", 1024),
        (f"busy: server / {client}", _both("server_busy", "client_busy")),
        ("others on their cores", _both("others_on_server_core", "others_on_client_core")),
    ]


def _both(*keys):
    return lambda cell: " / ".join(f"{cell[key]:.0%}" for key in keys)


def section(title, columns, results, cells, workload):
    """The table of this workload below its title; nothing if nobody was visited with it."""
    rows = [
        [server, *(cell_text(cell, form) for _, form in columns)]
        for server in results["settings"]["servers"]
        if (cell := cells.get((workload, server)))
    ]
    header = ["", *(above for above, _ in columns)]
    return ["", f"### {title}", "", *markdown(header, rows)] if rows else []


def speed(cell):
    times = f"{cell['ratio']:.2f} x" if "ratio" in cell else "-"
    return f"{times}{_waited(cell)} · {cell['cpu_us_per_request']:.1f} µs"


def ratio(cell):
    return f"{cell['ratio']:.2f} ({cell['ratio_low']:.2f}-{cell['ratio_high']:.2f})" if "ratio" in cell else "-"


def _waited(cell):
    return " ‡" if cell["server_busy"] < BUSY else ""


def cell_text(cell, form):
    if cell is None:
        return ""
    dagger = "†" if cell["problems"] else ""
    return f"{form(cell)} {dagger}".strip() if cell["clean"] else dagger


def footnotes(cells):
    notes = [
        f"- {workload}, {server}: {cell['rounds'] - cell['clean']} of {cell['rounds']} rounds do not count"
        f" ({'; '.join(cell['problems'])})"
        for (workload, server), cell in cells.items()
        if cell["problems"]
    ]
    waited = any(cell["clean"] and _waited(cell) for cell in cells.values() if "server_busy" in cell)
    return [
        *(["", "†", *notes] if notes else []),
        *(["", f"‡ busy for less than {BUSY:.0%} of its core: not the server was the limit."] if waited else []),
    ]


def _conditions(results):
    server_core, client_core = results["settings"]["cores"]
    return (
        f"One worker on one core, wrk {results['versions']['wrk']} on another; {place(results, 'uvloop')}"
        + (" **One core for both: these numbers say nothing.**" if server_core == client_core else "")
        + unrest(results["visits"])
    )


def place(results, *libraries):
    """Where this was measured, and when."""
    machine, versions = results["machine"], results["versions"]
    return (
        f"{machine['cpu']}, {machine['kernel']}, {versions['python']},"
        f" {', '.join(f'{name} {versions[name]}' for name in libraries)}, {stamp(results)}"
    )


def stamp(results):
    return f"commit {results['commit'][:9]}{' with changes' if results['dirty'] else ''}, {results['date'][:10]}."


def unrest(visits):
    shares = [visit["others_on_server_core"] for visit in visits if "others_on_server_core" in visit]
    if not shares or median(shares) <= QUIET:
        return ""
    return (
        f" **The machine was not quiet: others took {median(shares):.0%} of the servers' core (median;"
        f" {max(shares):.0%} at worst).**"
    )


def named(results, server):
    version = results["versions"].get(server)
    return server if version is None else f"{server} {version}"


def _reasons(visits):
    return sorted({reason for visit in visits for reason in visit["problems"]})


def _problems(visits, workload, server, number):
    visit = visits.get((workload, server, number))
    return ["not visited"] if visit is None else visit["problems"]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def markdown(header, rows):
    rules = ["-", *["-:"] * (len(header) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (header, rules, *rows)]
