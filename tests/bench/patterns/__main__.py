"""Measure every accept pattern in one run: ``python -m tests.bench.patterns`` in the root of the repository.

    python -m tests.bench.patterns --json result.json       everything
    python -m tests.bench.patterns --quick                  everything once and shortly, to see that it works
    python -m tests.bench.patterns --only shared,reuseport --parts tails,losses
    python -m tests.bench.patterns --render result.json     the README's table

Each round visits each pattern in an order that is rotated from round to round, on a server that was just started. A
pattern whose flags the installed aioserve refuses is named and left out; so is a peer that is not installed. Ends with
status 1 if aioserve has lost a request while its workers were replaced.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import harness, machine
from tests.bench.harness import names, rotated, say
from tests.bench.idle import raise_descriptor_limit
from tests.bench.patterns import balance, losses, rates, report, tails
from tests.bench.patterns.quiet import exclusively, preferred, rest
from tests.bench.patterns.table import BASE, FEW, MANY, PARTS, PATTERNS, available
from tests.bench.servers import PEERS, Running, ServerError
from tests.bench.workloads import WORKLOADS, answers

#: For the estimate: to start a server, to let it come to rest several times, and to end it.
BOOT_SECONDS = 2.0


def main():
    began = time.monotonic()
    if results := harness.main(parse(), ("wrk", "taskset"), run, report):
        print(f"\n{report.render(results)}")
        say(f"took {(time.monotonic() - began) / 60:.1f} minutes")
        if lost := shortfall(results):
            sys.exit(f"LOST: {'; '.join(lost)}")


def parse(argv=None):
    parser = harness.command_line("tests.bench.patterns", __doc__)
    parser.add_argument("--only", type=names(PATTERNS), default=list(PATTERNS), metavar="A,B", help=", ".join(PATTERNS))
    parser.add_argument("--parts", type=names(PARTS), default=list(PARTS), metavar="X,Y", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement of a rate or a tail")
    parser.add_argument("--replacements", type=int, default=200, help="of workers, under load; fewer for peers")
    parser.add_argument("--quick", action="store_true", help="one round of one second, a tenth of the replacements")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="hold a lock on it while measuring, as flock(1) does")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="of servers and clients; below 0 needs root")
    harness.add_files(parser)
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.seconds, options.replacements = 1, 1, options.replacements // 10
    return options


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    raise_descriptor_limit(max(size for size, _ in balance.CROWDS.values()))
    usable, unavailable = available([PATTERNS[name] for name in options.only])
    for name, why in unavailable.items():
        say(f"NOT AVAILABLE: {name}: {why}")
    steps = plan(options, list(usable))
    say(f"{len(steps)} visits, about {estimate(options, steps) / 60:.0f} minutes")
    failed, records, client = {}, [], {}
    with tempfile.TemporaryDirectory() as directory, preferred(os.getpid(), options.nice):
        if "tails" in options.parts:
            with exclusively(options.lock):
                client = tails.measure_client(options.seconds, options.nice)
        for number, pattern, workers, parts in steps:
            peer = pattern.peer(workers, usable[pattern])
            with (
                exclusively(options.lock),
                Running(peer, _cores(), directory) as server,
                preferred(server.process.pid, options.nice),
            ):
                try:
                    server.await_boot(answers)
                    rest(server)
                    for workload, record in visit(server, pattern, workers, parts, options):
                        place = {"round": number, "workload": workload, "server": pattern.name, "workers": workers}
                        records.append({**place, **record})
                        tell(records[-1])
                except ServerError as error:
                    failed[pattern.name] = str(error)
                    say(f"LEFT OUT: {error}")
    servers = [PEERS[name] for name in dict.fromkeys(pattern.server for pattern in usable)]
    return {
        **machine.describe(servers),
        "settings": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "replacements": options.replacements,
            "nice": options.nice,
            "parts": options.parts,
            "base": BASE,
            "cores": sorted(os.sched_getaffinity(0)),
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
            "servers": [server.name for server in servers],
            "patterns": [pattern.name for pattern in usable],
            "workers": [FEW, MANY],
            "commands": {pattern.name: pattern.peer("N", flags).options("PORT") for pattern, flags in usable.items()},
        },
        "unavailable": unavailable,
        "failed": failed,
        "client": client,
        "visits": records,
    }


def shortfall(results):
    """What aioserve has lost, which must be nothing."""
    return [
        f"{visit['server']}: {visit['lost']} of {visit['requests']:,} requests"
        for visit in results["visits"]
        if visit.get("lost") and PATTERNS[visit["server"]].server == "aioserve"
    ]


def plan(options, patterns):
    """Which server is started when, and for what: (round, pattern, workers, parts)."""
    steps = []
    for number in range(options.rounds):
        for pattern in rotated(patterns, number):
            parts = [part for part in options.parts if part in pattern.parts]
            few = [part for part in parts if part in {"rates", "tails"}]
            many = [part for part in parts if part in {"tails", "balance"} and "balance" in pattern.parts]
            steps += [(number, pattern, pattern.few, few)] if few else []
            steps += [(number, pattern, MANY, many)] if many else []
    if "losses" in options.parts:
        steps += [(0, pattern, pattern.few, ["losses"]) for pattern in patterns if "losses" in pattern.parts]
    return steps


def estimate(options, steps):
    """Seconds."""
    total = 0.0
    for _, pattern, workers, parts in steps:
        cost = {
            "rates": 2 * options.seconds,
            "tails": 2 * options.seconds + 0.5,
            "balance": sum(size / balance.PACE for size, paced in balance.CROWDS.values() if paced) + 0.5,
            "losses": replacements(options, pattern) / workers * pattern.reload_seconds,
        }
        total += BOOT_SECONDS + sum(cost[part] for part in parts)
    return total


def replacements(options, pattern):
    return round(options.replacements * pattern.share)


def visit(server, pattern, workers, parts, options):
    """(workload, record) of everything that this server is there for."""
    suffix = f"-{MANY}" if workers == MANY else ""
    if "rates" in parts:
        for name in report.RATES:
            yield name, rates.measure(server, WORKLOADS[name], options.seconds)
    if "tails" in parts:
        for name, blocked in (("quiet", False), ("blocked", True)):
            rest(server)
            yield name + suffix, tails.measure(server, options.seconds, blocked=blocked)
    if "balance" in parts:
        for crowd in balance.CROWDS:
            rest(server)
            yield crowd, balance.measure(server, crowd, workers)
    if "losses" in parts:
        yield "replace", losses.measure(server, pattern, workers, replacements(options, pattern))


def tell(record):
    forms = {
        "requests_per_second": "{:,.0f}/s",
        "cpu_us_per_request": "{:.1f} us",
        "p50_us": "p50 {:.0f}",
        "p99_us": "p99 {:.0f}",
        "p999_us": "p99.9 {:.0f}",
        "max_us": "max {:.0f} us",
        "cpu_us_per_connection": "CPU {:.0f} us",
        "counts": "{}",
        "replacements": "{} replaced",
        "requests": "{:,} requests",
        "lost": "{} lost",
        "race": "{} races",
        "ended": "{} ended",
    }
    numbers = ", ".join(form.format(record[key]) for key, form in forms.items() if key in record)
    problems = f"  !! {'; '.join(record['problems'])}" if record["problems"] else ""
    say(f"{record['round'] + 1}  {record['workload']:11} {record['server']:24} {numbers}{problems}")


def _cores():
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


if __name__ == "__main__":
    main()
