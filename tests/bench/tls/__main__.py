"""TLS side by side with the peers: ``python -m tests.bench.tls`` in the root of the repository.

    python -m tests.bench.tls --json result.json            everything, about seven minutes
    python -m tests.bench.tls --servers aioserve,uvicorn --workloads hello --rounds 1 --seconds 1
    python -m tests.bench.tls --render result.json          the README's table

It goes about it as ``python -m tests.bench`` does: all servers run and all but one are stopped, each round visits each,
ratios are taken within a round. All have one certificate (ECDSA on P-256) and speak TLS 1.3 with one cipher. Tails are
those of a paced load: under a load that is as fast as it can be, a tail says how the kernel shares the cores.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.bench import harness, machine
from tests.bench.harness import Visits, names
from tests.bench.patterns.quiet import exclusively
from tests.bench.tls import report
from tests.bench.tls.loads import LOADS, NEGOTIATED, answers, check
from tests.bench.tls.peers import VARIANTS, peers
from tests.bench.visit import visit
from tests.process.identities import self_signed

TOOLS = ("wrk", "taskset", "openssl")


def parse(argv=None):
    parser = harness.command_line("tests.bench.tls", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each visit")
    parser.add_argument("--servers", type=names(VARIANTS), default=list(VARIANTS), metavar="A,B")
    parser.add_argument("--workloads", type=names(LOADS), default=list(LOADS), metavar="X,Y", help=", ".join(LOADS))
    parser.add_argument("--base", choices=VARIANTS, default="uvicorn")
    harness.add_cores(parser)
    parser.add_argument("--lock", type=Path, metavar="FILE", help="hold this lock, as flock(1) does, during each round")
    harness.add_files(parser)
    return parser.parse_args(argv)


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    os.sched_setaffinity(0, {options.client_core})

    def visited(server, name):
        return visit(server, LOADS[name], options.seconds, check=check, load=LOADS[name].load)

    with tempfile.TemporaryDirectory() as directory:
        known = peers(*self_signed("localhost", "127.0.0.1").write(Path(directory)))
        visits = Visits(options, known, directory, answers, tell)
        described = machine.describe(visits.peers)
        with visits.running(lambda server: visit(server, LOADS["hello"], 1, check=check)) as servers:
            for number in range(options.rounds):
                with exclusively(options.lock):
                    visits.visit_all(number, servers, options.workloads, visited)
    return visits.results(described, negotiated=NEGOTIATED)


def tell(record):
    said = ""
    if "requests_per_second" in record:
        unit = LOADS[record["workload"]].unit
        said = f"{record['requests_per_second']:,.0f} {unit}/s, {record['cpu_us_per_request']:.1f} us"
        if record["p99_us"]:
            said += f", p99 {record['p99_us'] / 1e3:.2f} ms"
    harness.tell(record, said, 16)


if __name__ == "__main__":
    harness.main(parse(), TOOLS, run, report)
