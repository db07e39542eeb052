"""What a new short connection waits for its answer: when all workers turn, and while one is blocked now and then.

The block is an application's mistake, ``time.sleep`` in the loop, asked for again and again on one connection that was
kept since before: it always meets the same worker.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time

from tests.bench.patterns.quiet import preferred
from tests.bench.servers import HOST, ROOT
from tests.process.clients import Broken, Client

#: New connections a second: with /burn about an eighth of one core, so that nothing waits but for who is blocked.
RATE = 600

#: How long the worker is blocked, and how often.
BLOCK_SECONDS = 0.05
BLOCK_INTERVAL = 0.25


def measure(server, seconds, *, blocked):
    """A record like a visit's."""
    problems = []
    try:
        with Blocker(server.port, problems) if blocked else contextlib.nullcontext() as blocker:
            before = server.processes()
            record = arrive(server.port, seconds)
            after = server.processes()
    except (OSError, Broken) as error:
        return {"problems": [f"nobody could be blocked: {error!r}"]}
    problems += [f"{count} connections: {what}" for what, count in record.pop("failed").items()]
    if before.keys() != after.keys():
        problems.append("its processes have changed")
    if blocker:
        record["blocks"] = blocker.count
    if "connections" in record:
        cpu = sum(after.values()) - sum(before.values())
        record["cpu_us_per_connection"] = cpu / record["connections"] * 1e6
    return {**record, "problems": problems}


def measure_client(seconds, nice):
    """The same with a server that does nothing: what is left is the client's own error, and the machine's."""
    command = [sys.executable, "-m", "tests.bench.patterns.arrivals", "empty"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as server:
        try:
            with preferred(server.pid, nice):
                return arrive(int(server.stdout.readline()), seconds)
        finally:
            server.send_signal(signal.SIGKILL)


def arrive(port, seconds):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.patterns.arrivals", str(port), str(RATE), str(seconds)],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds + 30, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the client of arrivals has failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Blocker:
    """``with Blocker(port, problems)``: blocks the worker that has its connection, until the end of the block."""

    def __init__(self, port, problems):
        self.count = 0
        self._problems = problems
        self._client = Client((HOST, port))
        self._worker = self._client.get("/who").text
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blocker", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self):
        due = time.monotonic()
        try:
            while not self._over.wait(due - time.monotonic()):
                self._client.get(f"/block?seconds={BLOCK_SECONDS}")
                self.count += 1
                due += BLOCK_INTERVAL
            met = self._client.get("/who").text
        except (OSError, Broken) as error:
            self._problems.append(f"the blocking client failed: {error!r}")
            return
        if met != self._worker:
            self._problems.append(f"the block went to {self._worker}, then to {met}")
