"""``python -m tests.load.balance``: how connections that stay are spread over the workers.

They are made at once or at a steady pace, and kept; then each is asked who serves it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter

import uvloop

from tests.load.starving import WAYS
from tests.process.servers import Served

REQUEST = b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n"


async def held(port: int, count: int, pace: float) -> Counter[int]:
    """How many of ``count`` connections each worker has; ``pace`` in connections per second, 0: all at once."""
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def hold(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if pace:
            await asyncio.sleep(max(begin + number / pace - loop.time(), 0))
        return await asyncio.open_connection("127.0.0.1", port)

    pairs = await asyncio.gather(*(hold(number) for number in range(count)))
    await asyncio.sleep(0.2)  # all of them are accepted, none has said anything
    found: Counter[int] = Counter()
    for reader, writer in pairs:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        found[int(await reader.readexactly(length))] += 1
    for _, writer in pairs:
        writer.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load.balance", description=__doc__)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for workers in options.workers or [2, 4]:
        for count in (64, 1000):
            for pace in (0.0, 1000.0):
                for way in options.way or ["shared"]:
                    runs = []
                    with Served("burning:app", *WAYS[way], "--workers", str(workers), "--no-access-log") as server:
                        for _ in range(options.runs):
                            time.sleep(1.0)  # workers look at their siblings twice a second
                            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                                spread = runner.run(held(server.port, count, pace))
                            runs.append(sorted([*spread.values(), *[0] * (workers - len(spread))]))
                    how = f"{pace:g}/s" if pace else "burst"
                    print(f"n={workers} {way:7} {count:5} {how:7}", *runs, flush=True)


if __name__ == "__main__":
    main()
