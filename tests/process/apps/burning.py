"""An application that works for some 200 us, and one path at which it blocks its whole worker for 50 ms."""

import time

WORK = 200e-6
BLOCK = 0.05


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/block":
        time.sleep(BLOCK)
    elif scope["path"] == "/work":
        end = time.perf_counter() + WORK
        while time.perf_counter() < end:
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
