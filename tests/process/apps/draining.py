"""An application whose requests end when they are told to, or do not, or keep the loop busy meanwhile."""

import asyncio
import logging
import time

log = logging.getLogger("aioserve")
asked = {"slow shutdown": False}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await PATHS[scope["path"]](receive, send)


async def lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if asked["slow shutdown"]:
        await asyncio.sleep(5)
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def hello(receive, send):
    await answer(send, b"hello")


async def block(receive, send):
    log.info("blocks")
    time.sleep(0.2)
    await answer(send, b"blocked")


async def slow_shutdown(receive, send):
    asked["slow shutdown"] = True
    await answer(send, b"")


async def begin(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})


async def stream(receive, send):
    await begin(send)
    while (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.body", "body": b"goodbye"})


async def deaf(receive, send):
    await begin(send)
    await rest()


async def rest():
    await asyncio.sleep(60)


PATHS = {
    "/": hello,
    "/block": block,
    "/slow-shutdown": slow_shutdown,
    "/stream": stream,
    "/deaf": deaf,
}
