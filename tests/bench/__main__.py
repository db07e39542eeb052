"""Measure aioserve side by side with its peers: ``python -m tests.bench`` in the root of the repository.

    python -m tests.bench --json result.json            everything, about 12 minutes
    python -m tests.bench --servers aioserve,uvicorn --workloads hello --rounds 1 --seconds 1
    python -m tests.bench --render result.json          the README's table

All servers run at once, and all but the one that is being visited are stopped (SIGSTOP). Each round visits each of them
with each workload, in an order that is rotated from round to round, so that whatever else the machine does falls on all
of them alike; ratios are taken within a round. Idle connections are weighed afterwards, on one fresh server at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench import idle, machine, report
from tests.bench.servers import DEFAULT, PEERS, Running, ServerError, installed
from tests.bench.visit import visit
from tests.bench.workloads import IDLE, WORKLOADS, answers

TOOLS = ("wrk", "taskset")


def main(argv=None):
    options = parse(argv)
    if options.render:
        print(report.render(json.loads(options.render.read_text())))
        return
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        sys.exit(f"not installed: {', '.join(absent)}")
    # Whoever ends the harness ends what it has started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    results = run(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.details(results))


def parse(argv):
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each visit")
    parser.add_argument("--servers", type=names(PEERS), default=DEFAULT, metavar="A,B", help=", ".join(PEERS))
    workloads = [*WORKLOADS, IDLE]
    parser.add_argument(
        "--workloads", type=names(workloads), default=workloads, metavar="X,Y", help=", ".join(workloads)
    )
    parser.add_argument("--base", choices=PEERS, default="uvicorn", help="the server that the others are compared with")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--client-core", type=int, default=cores[-1])
    parser.add_argument("--idle-connections", type=int, default=5000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: print the table of these results")
    return parser.parse_args(argv)


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    os.sched_setaffinity(0, {options.client_core})
    idle.raise_descriptor_limit(options.idle_connections)
    peers, missing = installed(options.servers)
    if missing:
        say(f"not installed: {', '.join(missing)}")
    failed = {}
    with tempfile.TemporaryDirectory() as directory:
        workloads = [name for name in options.workloads if name != IDLE]
        visits = visit_all(options, peers, workloads, directory, failed) if workloads else []
        if IDLE in options.workloads:
            visits += weigh_all(options, peers, directory, failed)
    return {
        **machine.describe(peers),
        "settings": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "servers": [peer.name for peer in peers],
            "workloads": options.workloads,
            "base": options.base,
            "cores": [options.server_core, options.client_core],
            "idle_connections": options.idle_connections,
            "commands": {peer.name: peer.options("PORT") for peer in peers},
            "loops": {peer.name: peer.loop for peer in peers},
        },
        "missing": missing,
        "failed": failed,
        "visits": visits,
    }


def visit_all(options, peers, workloads, directory, failed):
    records = []
    with contextlib.ExitStack() as stack:
        servers = []
        for peer in peers:
            server = stack.enter_context(Running(peer, options.server_core, directory))
            if booted(server, failed):
                server.pause()
                servers.append(server)
        # What happens once per process, such as growing memory, happens before the first round.
        for server in servers:
            visit(server, WORKLOADS["hello"], 1)
        for number in range(options.rounds):
            for name in workloads:
                for server in rotated(servers, number):
                    record = visit(server, WORKLOADS[name], options.seconds)
                    records.append({"round": number, "workload": name, "server": server.peer.name, **record})
                    tell(records[-1])
    return records


def weigh_all(options, peers, directory, failed):
    records = []
    for number in range(options.rounds):
        for peer in rotated(peers, number):
            with Running(peer, options.server_core, directory) as server:
                if booted(server, failed):
                    record = idle.weigh(server, options.idle_connections)
                    records.append({"round": number, "workload": IDLE, "server": peer.name, **record})
                    tell(records[-1])
    return records


def booted(server, failed):
    try:
        server.await_boot(answers)
    except ServerError as error:
        failed[server.peer.name] = str(error)
        say(f"left out: {error}")
        return False
    return True


def rotated(servers, number):
    """The order of this round: everybody is first in turn."""
    start = number % len(servers) if servers else 0
    return servers[start:] + servers[:start]


def tell(record):
    numbers = ", ".join(
        f"{record[key]:,.1f} {unit}"
        for key, unit in (
            ("requests_per_second", "requests/s"),
            ("cpu_us_per_request", "us"),
            ("kib_per_connection", "KiB per connection"),
        )
        if key in record
    )
    problems = f"  !! {'; '.join(record['problems'])}" if record["problems"] else ""
    say(f"{record['round'] + 1}  {record['workload']:9} {record['server']:10} {numbers}{problems}")


def say(text):
    print(text, file=sys.stderr, flush=True)


def names(known):
    """The type of an argument that is a list of these names."""

    def chosen_of(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return chosen_of


if __name__ == "__main__":
    main()
