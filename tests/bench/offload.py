"""Measure offload() beside what else there is: ``python -m tests.bench.offload`` in the root of the repository.

    python -m tests.bench.offload                     calls, then mixed load, about a minute and a half
    python -m tests.bench.offload --only calls        overhead of a call and throughput of 10 MiB
    python -m tests.bench.offload --only load         p99 of light requests beside heavy ones

*Calls*: an empty call awaited alone and 100 at a time, 10 MiB there and back, the first call; through offload, through
``loop.run_in_executor`` with a ProcessPoolExecutor of one process, and through gunicorn's dirty workers, each from
within a running uvloop. The three are visited in turn, round after round; medians of the rounds.

*Load*: light requests at a steady pace, alone and beside clients that ask for heavy work all the time: offloaded, and
in the loop. The pace does not wait for answers, so that what a stall holds up is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
MIB10 = 10 << 20
ALONE, AT_ONCE, LARGE = 500, 1000, 6

#: Light requests a second, and rounds of the heavy path in one request: some 20 ms of work.
PACE, ROUNDS, HEAVY_CLIENTS = 200, 300_000, 2


def empty():
    return None


def give_back(data):
    return data


async def measure(call, *, first=0.0):
    """Microseconds and milliseconds of a way to make calls: ``call(name, *arguments)``."""
    for _ in range(20):
        await call("empty")
    began = time.perf_counter()
    for _ in range(ALONE):
        await call("empty")
    alone = (time.perf_counter() - began) / ALONE
    began = time.perf_counter()
    for _ in range(AT_ONCE // 100):
        await asyncio.gather(*[call("empty") for _ in range(100)])
    at_once = (time.perf_counter() - began) / AT_ONCE
    data, large = os.urandom(MIB10), []
    for _ in range(LARGE):
        began = time.perf_counter()
        assert len(await call("give_back", data)) == MIB10
        large.append(time.perf_counter() - began)
    return {
        "alone_us": alone * 1e6, "at_once_us": at_once * 1e6, "large_ms": statistics.median(large) * 1e3,
        "first_ms": first * 1e3,
    }  # fmt: skip


async def through_offload():
    from aioserve import offload

    functions = {"empty": empty, "give_back": give_back}
    began = time.perf_counter()
    await offload(empty)
    first = time.perf_counter() - began
    return await measure(lambda name, *arguments: offload(functions[name], *arguments), first=first)


async def through_an_executor():
    loop = asyncio.get_running_loop()
    functions = {"empty": empty, "give_back": give_back}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as executor:
        began = time.perf_counter()
        await loop.run_in_executor(executor, empty)
        first = time.perf_counter() - began
        return await measure(
            lambda name, *arguments: loop.run_in_executor(executor, functions[name], *arguments), first=first
        )


@contextlib.contextmanager
def serving(*command, port):
    """A server, from when it answers until the end of the block."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    urllib.request.urlopen(f"http://{HOST}:{port}/hello", timeout=5).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        log.seek(0)
                        sys.exit(f"{command[0]} does not answer:\n{log.read().decode()}")
                    time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def free_port():
    import socket

    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def through_gunicorn():
    """The same measure within a worker of gunicorn; see tests/bench/dirty.py."""
    port = free_port()
    command = (
        "gunicorn", "-k", "asgi", "-b", f"{HOST}:{port}", "--dirty-app", "tests.bench.dirty:Work",
        "--dirty-workers", "1", "--log-level", "error", "tests.bench.dirty:app",
    )  # fmt: skip
    with serving(*command, port=port), urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=120) as answer:
        return json.load(answer)


def run_apart(name):
    """One of the functions above in a fresh interpreter, where nothing is warm."""
    program = f"import uvloop, json; from tests.bench import offload as b; print(json.dumps(uvloop.run(b.{name}())))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def calls(rounds):
    ways = {
        "offload": lambda: run_apart("through_offload"),
        "ProcessPoolExecutor": lambda: run_apart("through_an_executor"),
    }
    try:
        import gunicorn.dirty  # noqa: F401
    except ImportError:
        print("gunicorn's dirty workers are not installed")
    else:
        ways["gunicorn dirty"] = through_gunicorn
    found = {way: [] for way in ways}
    for _ in range(rounds):
        for way, go in ways.items():
            found[way].append(go())
    keys = ("alone_us", "at_once_us", "large_ms", "first_ms")
    print(f"\n{'':22}{'alone':>12}{'100 at once':>14}{'10 MiB':>12}{'first call':>13}")
    medians = {way: {key: statistics.median(one[key] for one in runs) for key in keys} for way, runs in found.items()}
    for way, one in medians.items():
        print(
            f"{way:22}{one['alone_us']:9.0f} us{one['at_once_us']:11.0f} us{one['large_ms']:9.1f} ms"
            f"{one['first_ms']:10.0f} ms"
        )
    return {"calls": found}


async def paced(port, seconds):
    """Latencies of light requests, each measured from when it was due."""
    lines = asyncio.Queue()
    latencies = []

    async def client():
        reader, writer = await asyncio.open_connection(HOST, port)
        while (due := await lines.get()) is not None:
            writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"Hello, World!")
            latencies.append(time.perf_counter() - due)
        writer.close()

    clients = [asyncio.create_task(client()) for _ in range(20)]
    start = time.perf_counter()
    for number in range(int(PACE * seconds)):
        due = start + number / PACE
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        lines.put_nowait(due)
    for _ in clients:
        lines.put_nowait(None)
    await asyncio.gather(*clients)
    return latencies


async def heavy(port, path, done):
    reader, writer = await asyncio.open_connection(HOST, port)
    count = 0
    while not done.is_set():
        writer.write(f"GET {path}?n={ROUNDS} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(length)
        count += head.startswith(b"HTTP/1.1 200")
    writer.close()
    return count


async def visit(port, path, seconds):
    done = asyncio.Event()
    clients = [asyncio.create_task(heavy(port, path, done)) for _ in range(HEAVY_CLIENTS if path else 0)]
    await asyncio.sleep(0.5)
    latencies = sorted(await paced(port, seconds))
    done.set()
    served = sum(await asyncio.gather(*clients))
    return {
        "p50_ms": latencies[len(latencies) // 2] * 1e3, "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        "heavy_per_second": served / (seconds + 0.5),
    }  # fmt: skip


def load(rounds, seconds):
    port = free_port()
    command = ("aioserve", "aioserve.example:app", "--host", HOST, "--port", str(port), "--no-access-log")
    visits = {"no heavy requests": "", "heavy, offloaded": "/cpu", "heavy, in the loop": "/cpu-in-loop"}
    found = {name: [] for name in visits}
    with serving(*command, port=port):
        for _ in range(rounds):
            for name, path in visits.items():
                found[name].append(asyncio.run(visit(port, path, seconds)))
    print(f"\n{PACE} light requests a second{'p50':>14}{'p99':>12}{'p99, times':>14}{'heavy a second':>17}")
    for name, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        times = statistics.median(
            run["p99_ms"] / base["p99_ms"] for run, base in zip(runs, found["no heavy requests"], strict=True)
        )
        print(
            f"{name:26}{middle['p50_ms']:10.2f} ms{middle['p99_ms']:9.2f} ms{times:14.1f}"
            f"{middle['heavy_per_second']:17.1f}"
        )
    return {"load": found}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.offload", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each visit under load")
    parser.add_argument("--only", choices=("calls", "load"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    options = parser.parse_args()
    results = {}
    if options.only != "load":
        results |= calls(options.rounds)
    if options.only != "calls":
        results |= load(options.rounds, options.seconds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
