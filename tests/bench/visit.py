"""One visit: resume a server, see that it answers rightly, let wrk at it, and read what it cost."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from dataclasses import dataclass, field

from tests.bench import proc
from tests.bench.servers import ServerError
from tests.bench.workloads import check

_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Wrk:
    """What wrk has printed, or another client, which may know no latencies (in microseconds); ``errors`` above zero."""

    requests: int
    seconds: float
    p50_us: float | None
    p99_us: float | None
    errors: dict = field(default_factory=dict)


def parse_wrk(text):
    """Read the output of ``wrk --latency``; ``ValueError`` if it is none."""
    total = re.search(r"^ *(\d+) requests in ([\d.]+)(us|ms|s|m|h),", text, re.MULTILINE)
    latency = {
        int(percent): float(value) * _UNITS[unit]
        for percent, value, unit in re.findall(r"^ +(50|99)% +([\d.]+)(us|ms|s|m|h)$", text, re.MULTILINE)
    }
    if total is None or len(latency) != 2:
        raise ValueError(f"this is no output of wrk --latency: {text.strip()[:200]!r}")
    errors = {}
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if sockets:
        errors = dict(zip(("connect", "read", "write", "timeout"), map(int, sockets.groups()), strict=True))
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if statuses:
        errors["status"] = int(statuses[1])
    return Wrk(
        requests=int(total[1]),
        seconds=float(total[2]) * _SECONDS[total[3]],
        p50_us=latency[50],
        p99_us=latency[99],
        errors={kind: count for kind, count in errors.items() if count},
    )


def run_wrk(workload, port, seconds):
    done = subprocess.run(
        workload.wrk(port, seconds), capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    return parse_wrk(done.stdout + done.stderr)


def visit(server, workload, seconds, *, check=check, load=run_wrk):
    """The numbers of one visit, and ``problems``: reasons why they do not count, empty if they do.

    The server is paused again when this returns. All CPU time of its processes is counted, also the kernel's on their
    behalf; what the two ends of a loopback connection do for one another is charged to whoever was running.
    """
    try:
        server.resume()
        try:
            check(workload, server.port)
            return _measure(server, workload, seconds, load)
        finally:
            server.pause()
    except (ServerError, ValueError) as error:
        return {"problems": [str(error)]}


def _measure(server, workload, seconds, load):
    # The harness is pinned to the core of wrk, its child.
    cores = {"server": server.core, "client": min(os.sched_getaffinity(0))}
    busy_before = {end: proc.core_seconds(core) for end, core in cores.items()}
    before, client_before = server.processes(), client_seconds()
    wrk = load(workload, server.port, seconds)
    after, client = server.processes(), client_seconds() - client_before
    busy = {end: proc.core_seconds(core) - busy_before[end] for end, core in cores.items()}
    cpu = sum(after.values()) - sum(before.values())
    problems = [f"{count} {kind} errors" for kind, count in wrk.errors.items()]
    if before.keys() != after.keys():
        problems.append("its processes have changed")
    if not wrk.requests:
        return {"problems": [*problems, "no request was answered"]}
    return {
        "requests": wrk.requests,
        "seconds": wrk.seconds,
        "requests_per_second": wrk.requests / wrk.seconds,
        "cpu_us_per_request": cpu / wrk.requests * 1e6,
        "client_us_per_request": client / wrk.requests * 1e6,
        "p50_us": wrk.p50_us,
        "p99_us": wrk.p99_us,
        "pss_kib": proc.pss_kib(after),
        # As parts of one core: a server well below 1 was waiting for wrk, or for others to leave its core.
        "server_busy": cpu / wrk.seconds,
        "client_busy": client / wrk.seconds,
        "others_on_server_core": max(busy["server"] - cpu, 0.0) / wrk.seconds,
        "others_on_client_core": max(busy["client"] - client, 0.0) / wrk.seconds,
        "errors": wrk.errors,
        "problems": problems,
    }


def client_seconds():
    """CPU seconds of children that have been waited for: between two calls in a visit, wrk is the only one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
