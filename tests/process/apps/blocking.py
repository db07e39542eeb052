"""An application whose requests wait, or do not let others run."""

import asyncio
import hashlib
import os
import signal
import time


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await PATHS[scope["path"]]()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def wait():
    await asyncio.sleep(60)


async def sleep_at_once():
    time.sleep(60)


async def sleep_later():
    await asyncio.sleep(0)
    deep_down()


async def short():
    time.sleep(2.5)


async def in_c():
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 50_000_000)


async def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def deep_down():
    time.sleep(60)


PATHS = {
    "/wait": wait,
    "/at-once": sleep_at_once,
    "/later": sleep_later,
    "/short": short,
    "/in-c": in_c,
    "/crash": crash,
}
