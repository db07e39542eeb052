"""``python -m tests.load.starving``: how long new connections wait beside a worker that blocks, and what it costs.

New short connections come at a steady pace, whatever becomes of them; one worker blocks for 50 ms four times a second,
by requests on a connection that it has already. Each way of accepting is visited in turn, several times. Also: CPU per
connection without anybody who blocks, at that pace and from a closed loop of 64 clients, and at rest.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from tests.process.servers import Served

WAYS = {
    "off": ("--reuseport", "--steal", "off"),
    "late": ("--reuseport",),
    "always": ("--reuseport", "--steal", "always"),
    "shared": (),
}
RATE = 600
PATIENCE = 10.0
BLOCKS = 4
REQUEST = b"GET /%s HTTP/1.1\r\nhost: x\r\n%s\r\n"
CLOSE = b"connection: close\r\n"


@dataclass
class Found:
    """What came of one run. Times in seconds."""

    waits: list[float] = field(default_factory=list)
    lost: int = 0
    seconds: float = 0.0
    cpu: float = 0.0  # of the master and all workers

    def at(self, share: float) -> float:
        ordered = sorted(self.waits)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def cpu_per_connection(self) -> float:
        return self.cpu / max(len(self.waits), 1)


class Visit(asyncio.Protocol):
    """One connection, one request, and the time from the first to the last."""

    def __init__(self, path: bytes, done: asyncio.Future[float]) -> None:
        self._path = path
        self._done = done
        self._began = time.perf_counter()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(REQUEST % (self._path, CLOSE))

    def data_received(self, data: bytes) -> None:
        self._answered = data.startswith(b"HTTP/1.1 200")

    def connection_lost(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if self._answered:
            self._done.set_result(time.perf_counter() - self._began)
        else:
            self._done.set_exception(error or ConnectionResetError("closed without an answer"))


async def visit(port: int, path: bytes, found: Found) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    try:
        await loop.create_connection(lambda: Visit(path, done), "127.0.0.1", port)
        found.waits.append(await asyncio.wait_for(done, PATIENCE))
    except OSError:
        found.lost += 1


async def steadily(port: int, path: bytes, seconds: float, found: Found, rate: float = RATE) -> None:
    """An open loop."""
    loop = asyncio.get_running_loop()
    visits: set[asyncio.Task[None]] = set()
    begin = loop.time()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(begin + number / rate - loop.time(), 0))
        task = loop.create_task(visit(port, path, found))
        visits.add(task)
        task.add_done_callback(visits.discard)
    await asyncio.gather(*visits)


async def eagerly(port: int, path: bytes, seconds: float, found: Found, clients: int = 64) -> None:
    """A closed loop."""
    end = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            await visit(port, path, found)

    await asyncio.gather(*(client() for _ in range(clients)))


async def blocking(port: int) -> None:
    """Keep one worker busy for a while, again and again, until cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(REQUEST % (b"block", b""))
            await reader.readuntil(b"ok")
            await asyncio.sleep(1 / BLOCKS - 0.05)
    finally:
        writer.close()


def spent(server: Served) -> float:
    """Seconds of CPU that the master and its workers have had; proc(5), /proc/pid/schedstat."""
    found = 0.0
    for pid in {server.pid} | server.workers():
        found += sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    return found


def measure(server: Served, load: str, seconds: float) -> Found:
    found = Found()

    async def main() -> None:
        port = server.port
        await steadily(port, b"work", 0.3, Found())  # warm up
        blocker = asyncio.create_task(blocking(port)) if load == "blocked" else None
        begin, cpu = time.perf_counter(), spent(server)
        match load:
            case "blocked" | "steady":
                await steadily(port, b"work", seconds, found)
            case "eager":
                await eagerly(port, b"work", seconds, found)
            case "hello":
                await eagerly(port, b"", seconds, found)
            case "rest":
                await asyncio.sleep(seconds)
        found.seconds, found.cpu = time.perf_counter() - begin, spent(server) - cpu
        if blocker is not None:
            blocker.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return found


def say(load: str, way: str, workers: int, runs: list[Found]) -> None:
    def each(values: list[float], form: str = "{:.1f}") -> str:
        return " / ".join(form.format(value) for value in values)

    line = f"{load:8} n={workers} {way:7}"
    if load == "rest":
        print(line, "CPU ms/s", each([1e3 * run.cpu / run.seconds for run in runs], "{:.2f}"), flush=True)
        return
    print(
        line,
        "p50", each([1e3 * run.at(0.5) for run in runs], "{:.2f}"),
        "| p99", each([1e3 * run.at(0.99) for run in runs]),
        "| p99.9", each([1e3 * run.at(0.999) for run in runs]),
        "ms | CPU us/conn", each([1e6 * run.cpu_per_connection for run in runs], "{:.0f}"),
        f"| median {statistics.median([1e6 * run.cpu_per_connection for run in runs]):.0f}",
        "| conn/s", each([len(run.waits) / run.seconds for run in runs], "{:.0f}"),
        "| lost", sum(run.lost for run in runs),
        flush=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load.starving", description=__doc__)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--load", choices=("blocked", "steady", "eager", "hello", "rest"), action="append")
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for load in options.load or ["blocked"]:
        for workers in options.workers or [2, 4]:
            runs: dict[str, list[Found]] = {way: [] for way in options.way or WAYS}
            for _ in range(options.runs):
                for way, found in runs.items():
                    with Served("burning:app", *WAYS[way], "--workers", str(workers), "--no-access-log") as server:
                        found.append(measure(server, load, options.seconds))
            for way, found in runs.items():
                say(load, way, workers, found)


if __name__ == "__main__":
    main()
