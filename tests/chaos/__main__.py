"""``python -m tests.chaos``: do everything to a server that may be done to one, under load, and say what was lost.

Prints the table of each part; ends with status 1 if anything was lost that must not be, or has leaked.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.chaos import PARTS, Wish
from tests.chaos.clients import Pace


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--accept", choices=("shared", "reuseport", "dispatch"), default="shared")
    parser.add_argument("--steal", choices=("late", "always", "off"), default="late")
    parser.add_argument("--tls-processes", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--loop", choices=("auto", "uvloop", "asyncio"), default="auto")
    parser.add_argument("--http", choices=("auto", "httptools", "h11"), default="auto")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on with each part for so long")
    parser.add_argument("--stream-seconds", type=float, default=1.5, help="the longest answers")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of clients")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, action="append", help="do this part only; repeatable")
    parser.add_argument("--log", action="store_true", help="print the server's log too")
    parser.add_argument("--only", default="", help="do nothing but operations with this in their name")
    options = parser.parse_args()
    wish = Wish(
        accept=options.accept,
        steal=options.steal,
        workers=options.workers,
        tls_processes=options.tls_processes,
        seconds=options.seconds,
        seed=options.seed,
        only=options.only,
        loop=options.loop,
        http=options.http,
        pace=Pace(stream_seconds=options.stream_seconds, scale=options.scale),
    )
    problems = 0
    for part in options.part or PARTS:
        report = PARTS[part](wish)
        if options.log:
            print(report.log)
        print(report, flush=True)
        problems += len(report.problems())
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
