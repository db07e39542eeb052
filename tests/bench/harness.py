"""What the side-by-sides have in common: their command lines, how servers are visited, the form of the results.

Each of them has its own servers and workloads, its way to visit a server and to say what it found, and a report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.bench import idle
from tests.bench.servers import Running, ServerError


def main(options, tools, run, report):
    """Print what ``report`` makes of old results, or measure: ``run(options)`` gives new ones, which are returned."""
    if options.render:
        print(report.render(json.loads(options.render.read_text())))
        return None
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        sys.exit(f"not installed: {', '.join(absent)}")
    # Whoever ends the harness ends what it has started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    results = run(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.details(results))
    return results


def command_line(module, doc):
    return argparse.ArgumentParser(prog=f"python -m {module}", description=doc.partition("\n")[0])


def add_cores(parser):
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--client-core", type=int, default=cores[-1])


def add_files(parser):
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: print the table of these results")


def names(known):
    """The type of an argument that is a list of these names."""

    def chosen_of(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return chosen_of


class Visits:
    """The records of a run, and the peers that they are of: those of ``known`` that were asked for and are installed.

    ``answers(port)`` is true once a server has started; ``tell(record)`` says what a visit has given.
    """

    def __init__(self, options, known, directory, answers, tell):
        asked = [known[name] for name in options.servers]
        self.peers = [peer for peer in asked if peer.version is not None]
        self.missing = [peer.name for peer in asked if peer.version is None]
        if self.missing:
            say(f"not installed: {', '.join(self.missing)}")
        self.failed, self.records = {}, []
        self._options, self._directory, self._answers, self._tell = options, directory, answers, tell

    @contextlib.contextmanager
    def running(self, warm_up):
        """All servers that start, each of them after ``warm_up(server)`` and paused."""
        with contextlib.ExitStack() as stack:
            servers = []
            for peer in self.peers:
                server = stack.enter_context(self._start(peer))
                if self._booted(server):
                    server.pause()
                    servers.append(server)
            # What happens once per process, such as growing memory, happens before the first round.
            for server in servers:
                warm_up(server)
            yield servers

    def visit_all(self, number, servers, workloads, visit):
        """The round of this number: ``visit(server, workload)`` of each server with each of these names."""
        for workload in workloads:
            for server in rotated(servers, number):
                self._keep(number, workload, server.peer, visit(server, workload))

    def weigh_all(self, number, peers, crowds):
        """The same with idle connections, each time on a fresh server. ``crowds``: name -> what opens them."""
        for name, crowd in crowds.items():
            for peer in rotated(peers, number):
                with self._start(peer) as server:
                    if self._booted(server):
                        self._keep(number, name, peer, idle.weigh(server, self._options.idle_connections, crowd))

    def results(self, described, **settings):
        """All of it, beside what ``machine.describe`` has said; ``settings`` are those that not all have."""
        options = self._options
        return {
            **described,
            "settings": {
                "rounds": options.rounds,
                "seconds": options.seconds,
                "servers": [peer.name for peer in self.peers],
                "workloads": options.workloads,
                "base": options.base,
                "cores": [options.server_core, options.client_core],
                **settings,
                # Without the names of files that are gone after the run.
                "commands": {
                    peer.name: [word.replace(self._directory, "DIR") for word in peer.options("PORT")]
                    for peer in self.peers
                },
                "loops": {peer.name: peer.loop for peer in self.peers},
            },
            "missing": self.missing,
            "failed": self.failed,
            "visits": self.records,
        }

    def _start(self, peer):
        return Running(peer, self._options.server_core, self._directory)

    def _booted(self, server):
        try:
            server.await_boot(self._answers)
        except ServerError as error:
            self.failed[server.peer.name] = str(error)
            say(f"left out: {server.peer.name}: {error}")
            return False
        return True

    def _keep(self, number, workload, peer, record):
        self.records.append({"round": number, "workload": workload, "server": peer.name, **record})
        self._tell(self.records[-1])


def rotated(servers, number):
    """The order of this round: everybody is first in turn."""
    start = number % len(servers) if servers else 0
    return servers[start:] + servers[:start]


def numbers(record, unit):
    """What a visit has counted, or weighed, in a few words."""
    units = {"requests_per_second": f"{unit}/s", "cpu_us_per_request": "us", "kib_per_connection": "KiB per connection"}
    return ", ".join(f"{record[key]:,.1f} {units[key]}" for key in units if key in record)


def tell(record, said, width):
    """Say what a visit has given and what was wrong; ``width`` is that of the servers' names."""
    problems = f"  !! {'; '.join(record['problems'])}" if record["problems"] else ""
    say(f"{record['round'] + 1}  {record['workload']:9} {record['server']:{width}} {said}{problems}")


def say(text):
    print(text, file=sys.stderr, flush=True)
