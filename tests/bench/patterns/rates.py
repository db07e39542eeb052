"""Throughput and cost: wrk against a server on all cores, and the CPU time of every process of the server."""

from __future__ import annotations

import os
import subprocess

from tests.bench import proc
from tests.bench.servers import ServerError
from tests.bench.visit import client_seconds, parse_wrk
from tests.bench.workloads import check


def measure(server, workload, seconds):
    """A record like a visit's. Server and wrk share the cores, so the rate says less than the CPU time does."""
    try:
        check(workload, server.port)
        busy, before, client = _busy(), server.processes(), client_seconds()
        done = subprocess.run(
            workload.wrk(server.port, seconds), capture_output=True, text=True, timeout=seconds + 30, check=False
        )
        client, after, busy = client_seconds() - client, server.processes(), _busy() - busy
        wrk = parse_wrk(done.stdout + done.stderr)
    except (ServerError, ValueError) as error:
        return {"problems": [str(error)]}
    problems = [f"{count} {kind} errors" for kind, count in wrk.errors.items()]
    if before.keys() != after.keys():
        problems.append("its processes have changed")
    if not wrk.requests:
        return {"problems": [*problems, "no request was answered"]}
    cpu = sum(after.values()) - sum(before.values())
    return {
        "requests": wrk.requests,
        "seconds": wrk.seconds,
        "requests_per_second": wrk.requests / wrk.seconds,
        "cpu_us_per_request": cpu / wrk.requests * 1e6,
        # As numbers of cores.
        "server_cores": cpu / wrk.seconds,
        "client_cores": client / wrk.seconds,
        "other_cores": max(busy - cpu - client, 0.0) / wrk.seconds,
        "problems": problems,
    }


def _busy():
    return sum(proc.core_seconds(core) for core in os.sched_getaffinity(0))
