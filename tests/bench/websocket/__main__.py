"""WebSockets side by side with the peers: ``python -m tests.bench.websocket`` in the root of the repository.

    python -m tests.bench.websocket --json result.json          everything, about seven minutes
    python -m tests.bench.websocket --servers aioserve,uvicorn --workloads echo32 --rounds 1 --seconds 1
    python -m tests.bench.websocket --render result.json        the README's table

It goes about it as ``python -m tests.bench`` does: all servers run and all but one are stopped, each round visits each,
ratios are taken within a round. The client is ours, since wrk has no WebSockets; "floor" is the least that a uvloop
protocol can do, and shows where the client would be the limit.
"""

from __future__ import annotations

import os
import tempfile
from importlib import metadata

from tests.bench import harness, idle, machine
from tests.bench.harness import Visits, names
from tests.bench.websocket import report
from tests.bench.websocket.crowd import CROWDS
from tests.bench.websocket.load import WORKLOADS, answers, visit
from tests.bench.websocket.peers import SOCKET_PEERS, WEIGHED

TOOLS = ("taskset",)


def parse(argv=None):
    workloads = [*WORKLOADS, *CROWDS]
    parser = harness.command_line("tests.bench.websocket", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each visit")
    parser.add_argument("--servers", type=names(SOCKET_PEERS), default=list(SOCKET_PEERS), metavar="A,B")
    parser.add_argument("--workloads", type=names(workloads), default=workloads, metavar="X,Y")
    parser.add_argument("--base", choices=SOCKET_PEERS, default="uvicorn")
    harness.add_cores(parser)
    parser.add_argument("--idle-connections", type=int, default=5000)
    parser.add_argument("--idle-rounds", type=int, default=1)
    harness.add_files(parser)
    return parser.parse_args(argv)


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    os.sched_setaffinity(0, {options.client_core})
    idle.raise_descriptor_limit(options.idle_connections)
    workloads = [name for name in options.workloads if name in WORKLOADS]
    crowds = {name: CROWDS[name][1] for name in options.workloads if name in CROWDS}

    def visited(server, name):
        return visit(server, WORKLOADS[name], options.seconds)

    with tempfile.TemporaryDirectory() as directory:
        visits = Visits(options, SOCKET_PEERS, directory, answers, tell)
        if workloads:
            with visits.running(lambda server: visit(server, WORKLOADS["echo32"], 0.5)) as servers:
                for number in range(options.rounds):
                    visits.visit_all(number, servers, workloads, visited)
        weighed = [peer for peer in visits.peers if peer.name in WEIGHED]
        for number in range(options.idle_rounds):
            visits.weigh_all(number, weighed, crowds)
    described = machine.describe(visits.peers)
    described["versions"] |= {"websockets": metadata.version("websockets"), "floor": None}
    return visits.results(described, idle_connections=options.idle_connections)


def tell(record):
    harness.tell(record, harness.numbers(record, "messages"), 16)


if __name__ == "__main__":
    harness.main(parse(), TOOLS, run, report)
