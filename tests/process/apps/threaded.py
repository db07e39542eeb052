"""An application that tells its loops apart: each has a state, and a thread, of its own."""

import asyncio
import logging
import os
import sys
import threading

log = logging.getLogger("aioserve")
lock = threading.Lock()
born = []
release = threading.Event()


def create_app():
    async def made(scope, receive, send):
        await app(scope, receive, send)

    return made


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    body = await PATHS[scope["path"]](scope)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(scope, receive, send):
    await receive()
    with lock:
        born.append(threading.current_thread().name)
        last = len(born) == int(os.environ.get("LAST_FAILS", "0"))
    if last:
        await send({"type": "lifespan.startup.failed", "message": "one too many"})
        return
    scope["state"]["thread"] = threading.current_thread().name
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def thread(scope):
    """Where the request runs, and where the lifespan did whose state it sees."""
    return f"{threading.current_thread().name}|{scope['state']['thread']}".encode()


async def pid(scope):
    return b"%d" % os.getpid()


async def block(scope):
    """Keep the whole loop waiting until /release."""
    release.clear()
    log.info("blocks: %s", threading.current_thread().name)
    release.wait(20)
    return b"released"


async def let_go(scope):
    release.set()
    return b"let go"


async def wait(scope):
    while not release.is_set():
        await asyncio.sleep(0.02)
    return b"waited"


async def die(scope):
    """End the loop: asyncio lets SystemExit of a callback through."""
    asyncio.get_running_loop().call_soon(sys.exit, "the loop ends here")
    return b"dying"


def burn():
    """Some tenths of a millisecond of Python."""
    return sum(number & 3 for number in range(4000))


async def busy(scope):
    burn()
    return b"busy"


async def gil(scope):
    return str(getattr(sys, "_is_gil_enabled", bool)()).encode()


PATHS = {
    "/": thread,
    "/pid": pid,
    "/block": block,
    "/release": let_go,
    "/wait": wait,
    "/die": die,
    "/busy": busy,
    "/gil": gil,
}
