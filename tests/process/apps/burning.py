"""An application that works for some 200 us, and paths at which it blocks its whole worker.

While there is a file of the name that SLOW_START says, it does not start.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

WORK = 200e-6
BLOCKS = {"/block": 0.05, "/block-long": 2.0}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    if path in BLOCKS:
        if path == "/block-long":
            print(f"{os.getpid()} blocks", file=sys.stderr, flush=True)
        time.sleep(BLOCKS[path])
    elif path == "/work":
        end = time.perf_counter() + WORK
        while time.perf_counter() < end:
            pass
    body = b"%d" % os.getpid() if path == "/pid" else b"ok"
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]},
    )
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive, send):
    await receive()
    slow = os.environ.get("SLOW_START", "")
    while slow and Path(slow).exists():
        await asyncio.sleep(0.02)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
