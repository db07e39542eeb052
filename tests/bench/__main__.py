"""Measure aioserve side by side with its peers: ``python -m tests.bench`` in the root of the repository.

    python -m tests.bench --json result.json            everything, about 12 minutes
    python -m tests.bench --servers aioserve,uvicorn --workloads hello --rounds 1 --seconds 1
    python -m tests.bench --render result.json          the README's table

All servers run at once, and all but the one that is being visited are stopped (SIGSTOP). Each round visits each of them
with each workload, in an order that is rotated from round to round, so that whatever else the machine does falls on all
of them alike; ratios are taken within a round. Idle connections are weighed afterwards, on one fresh server at a time.
"""

from __future__ import annotations

import os
import tempfile

from tests.bench import harness, idle, machine, report
from tests.bench.harness import Visits, names
from tests.bench.servers import DEFAULT, PEERS
from tests.bench.visit import visit
from tests.bench.workloads import IDLE, WORKLOADS, answers

TOOLS = ("wrk", "taskset")


def parse(argv=None):
    workloads = [*WORKLOADS, IDLE]
    parser = harness.command_line("tests.bench", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each visit")
    parser.add_argument("--servers", type=names(PEERS), default=DEFAULT, metavar="A,B", help=", ".join(PEERS))
    parser.add_argument(
        "--workloads", type=names(workloads), default=workloads, metavar="X,Y", help=", ".join(workloads)
    )
    parser.add_argument("--base", choices=PEERS, default="uvicorn", help="the server that the others are compared with")
    harness.add_cores(parser)
    parser.add_argument("--idle-connections", type=int, default=5000)
    harness.add_files(parser)
    return parser.parse_args(argv)


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    os.sched_setaffinity(0, {options.client_core})
    idle.raise_descriptor_limit(options.idle_connections)
    workloads = [name for name in options.workloads if name != IDLE]

    def visited(server, name):
        return visit(server, WORKLOADS[name], options.seconds)

    with tempfile.TemporaryDirectory() as directory:
        visits = Visits(options, PEERS, directory, answers, tell)
        if workloads:
            with visits.running(lambda server: visit(server, WORKLOADS["hello"], 1)) as servers:
                for number in range(options.rounds):
                    visits.visit_all(number, servers, workloads, visited)
        if IDLE in options.workloads:
            for number in range(options.rounds):
                visits.weigh_all(number, visits.peers, {IDLE: idle.Crowd})
    return visits.results(machine.describe(visits.peers), idle_connections=options.idle_connections)


def tell(record):
    harness.tell(record, harness.numbers(record, "requests"), 10)


if __name__ == "__main__":
    harness.main(parse(), TOOLS, run, report)
