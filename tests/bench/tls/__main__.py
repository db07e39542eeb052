"""TLS side by side with the peers: ``python -m tests.bench.tls`` in the root of the repository.

    python -m tests.bench.tls --json result.json            everything, about seven minutes
    python -m tests.bench.tls --servers aioserve,uvicorn --workloads hello --rounds 1 --seconds 1
    python -m tests.bench.tls --render result.json          the README's table

It goes about it as ``python -m tests.bench`` does: all servers run and all but one are stopped, each round visits each,
ratios are taken within a round. All have one certificate (ECDSA on P-256) and speak TLS 1.3 with one cipher. Tails are
those of a paced load: under a load that is as fast as it can be, a tail says how the kernel shares the cores.
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

from tests.bench import machine
from tests.bench.__main__ import names, rotated, say
from tests.bench.patterns.quiet import exclusively
from tests.bench.servers import Running, ServerError
from tests.bench.tls import report
from tests.bench.tls.loads import LOADS, NEGOTIATED, answers, check
from tests.bench.tls.peers import VARIANTS, peers
from tests.bench.visit import visit
from tests.process.identities import self_signed

TOOLS = ("wrk", "taskset", "openssl")


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
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tls", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each visit")
    parser.add_argument("--servers", type=names(VARIANTS), default=list(VARIANTS), metavar="A,B")
    parser.add_argument("--workloads", type=names(LOADS), default=list(LOADS), metavar="X,Y", help=", ".join(LOADS))
    parser.add_argument("--base", choices=VARIANTS, default="uvicorn")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--client-core", type=int, default=cores[-1])
    parser.add_argument("--lock", type=Path, metavar="FILE", help="hold this lock, as flock(1) does, during each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: print the table of these results")
    return parser.parse_args(argv)


def run(options):
    """Measure everything that is asked for. The servers have ended when this returns or raises."""
    os.sched_setaffinity(0, {options.client_core})
    failed = {}
    with tempfile.TemporaryDirectory() as directory:
        known = peers(*self_signed("localhost", "127.0.0.1").write(Path(directory)))
        chosen = [known[name] for name in options.servers if known[name].version is not None]
        missing = [name for name in options.servers if known[name].version is None]
        if missing:
            say(f"not installed: {', '.join(missing)}")
        described = machine.describe(chosen)
        visits = visit_all(options, chosen, directory, failed)
        commands = {peer.name: [word.replace(directory, "DIR") for word in peer.options("PORT")] for peer in chosen}
    return {
        **described,
        "settings": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "servers": [peer.name for peer in chosen],
            "workloads": options.workloads,
            "base": options.base,
            "cores": [options.server_core, options.client_core],
            "negotiated": NEGOTIATED,
            "commands": commands,
            "loops": {peer.name: peer.loop for peer in chosen},
        },
        "missing": missing,
        "failed": failed,
        "visits": visits,
    }


def visit_all(options, chosen, directory, failed):
    records = []
    with contextlib.ExitStack() as stack:
        servers = []
        for peer in chosen:
            server = stack.enter_context(Running(peer, options.server_core, directory))
            try:
                server.await_boot(answers)
            except ServerError as error:
                failed[peer.name] = str(error)
                say(f"left out: {peer.name}: {error}")
            else:
                server.pause()
                servers.append(server)
        # What happens once per process, such as growing memory, happens before the first round.
        for server in servers:
            visit(server, LOADS["hello"], 1, check=check)
        for number in range(options.rounds):
            with exclusively(options.lock):
                for name in options.workloads:
                    for server in rotated(servers, number):
                        record = visit(server, LOADS[name], options.seconds, check=check, load=LOADS[name].load)
                        records.append({"round": number, "workload": name, "server": server.peer.name, **record})
                        tell(records[-1])
    return records


def tell(record):
    said = ""
    if "requests_per_second" in record:
        unit = LOADS[record["workload"]].unit
        said = f"{record['requests_per_second']:,.0f} {unit}/s, {record['cpu_us_per_request']:.1f} us"
        if record["p99_us"]:
            said += f", p99 {record['p99_us'] / 1e3:.2f} ms"
    problems = f"  !! {'; '.join(record['problems'])}" if record["problems"] else ""
    say(f"{record['round'] + 1}  {record['workload']:9} {record['server']:16} {said}{problems}")


if __name__ == "__main__":
    main()
