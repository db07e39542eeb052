"""WebSockets side by side with the peers: ``python -m tests.bench.websocket`` in the root of the repository.

    python -m tests.bench.websocket --json result.json          everything, about seven minutes
    python -m tests.bench.websocket --servers aioserve,uvicorn --workloads echo32 --rounds 1 --seconds 1
    python -m tests.bench.websocket --render result.json        the README's table

It goes about it as ``python -m tests.bench`` does: all servers run and all but one are stopped, each round visits each,
ratios are taken within a round. The client is ours, since wrk has no WebSockets; "floor" is the least that a uvloop
protocol can do, and shows where the client would be the limit.
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
from importlib import metadata
from pathlib import Path

from tests.bench import idle, machine
from tests.bench.__main__ import names, rotated, say
from tests.bench.servers import Running, ServerError
from tests.bench.websocket import report
from tests.bench.websocket.crowd import CROWDS
from tests.bench.websocket.load import WORKLOADS, answers, visit
from tests.bench.websocket.peers import SOCKET_PEERS, WEIGHED


def main(argv=None):
    options = parse(argv)
    if options.render:
        print(report.render(json.loads(options.render.read_text())))
        return
    if shutil.which("taskset") is None:
        sys.exit("not installed: taskset")
    # Whoever ends the harness ends what it has started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    results = run(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.details(results))


def parse(argv):
    cores = sorted(os.sched_getaffinity(0))
    workloads = [*WORKLOADS, *CROWDS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.websocket", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each visit")
    parser.add_argument("--servers", type=names(SOCKET_PEERS), default=list(SOCKET_PEERS), metavar="A,B")
    parser.add_argument("--workloads", type=names(workloads), default=workloads, metavar="X,Y")
    parser.add_argument("--base", choices=SOCKET_PEERS, default="uvicorn")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--client-core", type=int, default=cores[-1])
    parser.add_argument("--idle-connections", type=int, default=5000)
    parser.add_argument("--idle-rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: print the table of these results")
    return parser.parse_args(argv)


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    os.sched_setaffinity(0, {options.client_core})
    idle.raise_descriptor_limit(options.idle_connections)
    peers = [SOCKET_PEERS[name] for name in options.servers if SOCKET_PEERS[name].version is not None]
    missing = [name for name in options.servers if SOCKET_PEERS[name].version is None]
    if missing:
        say(f"not installed: {', '.join(missing)}")
    failed = {}
    with tempfile.TemporaryDirectory() as directory:
        visits = visit_all(options, peers, directory, failed) + weigh_all(options, peers, directory, failed)
    described = machine.describe(peers)
    described["versions"] |= {"websockets": metadata.version("websockets"), "floor": None}
    return {
        **described,
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


def visit_all(options, peers, directory, failed):
    workloads = [WORKLOADS[name] for name in options.workloads if name in WORKLOADS]
    records = []
    with contextlib.ExitStack() as stack:
        servers = []
        for peer in peers if workloads else ():
            server = stack.enter_context(Running(peer, options.server_core, directory))
            if booted(server, failed):
                server.pause()
                servers.append(server)
        # What happens once per process, such as growing memory, happens before the first round.
        for server in servers:
            visit(server, WORKLOADS["echo32"], 0.5)
        for number in range(options.rounds):
            for workload in workloads:
                for server in rotated(servers, number):
                    record = visit(server, workload, options.seconds)
                    records.append({"round": number, "workload": workload.name, "server": server.peer.name, **record})
                    tell(records[-1])
    return records


def weigh_all(options, peers, directory, failed):
    weighed = [peer for peer in peers if peer.name in WEIGHED]
    records = []
    for number in range(options.idle_rounds):
        for crowd in (name for name in options.workloads if name in CROWDS):
            for peer in rotated(weighed, number):
                with Running(peer, options.server_core, directory) as server:
                    if booted(server, failed):
                        record = idle.weigh(server, options.idle_connections, CROWDS[crowd][1])
                        records.append({"round": number, "workload": crowd, "server": peer.name, **record})
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


def tell(record):
    numbers = ", ".join(
        f"{record[key]:,.1f} {unit}"
        for key, unit in (
            ("requests_per_second", "messages/s"),
            ("cpu_us_per_request", "us"),
            ("kib_per_connection", "KiB per connection"),
        )
        if key in record
    )
    problems = f"  !! {'; '.join(record['problems'])}" if record["problems"] else ""
    say(f"{record['round'] + 1}  {record['workload']:9} {record['server']:16} {numbers}{problems}")


if __name__ == "__main__":
    main()
