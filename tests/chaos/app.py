"""What is served while everything happens to the server: each answer says which process has given it, and can be
checked to its last byte.

Every answer carries ``x-pid``. The harness copies this file to a folder of its own, where it may be broken and mended.
"""

import asyncio
import hashlib
import os
import random
import time
from pathlib import Path
from urllib.parse import parse_qsl

HOG = []


def content(seed: str, size: int) -> bytes:
    """The bytes that a stream of this seed and size consists of; the client makes them anew to compare."""
    return random.Random(seed).randbytes(size)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    await PATHS[scope["path"]](query, receive, send)


async def start(send, *headers):
    fields = [(b"x-pid", b"%d" % os.getpid()), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": fields})


async def answer(send, body):
    await start(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def echo(query, receive, send):
    """The token of the request, at once or after ``wait`` seconds."""
    if "wait" in query:
        await asyncio.sleep(float(query["wait"]))
    await answer(send, query["token"].encode())


async def stream(query, receive, send):
    """``size`` bytes in ``pieces`` with ``pause`` seconds between them, with a length or chunked."""
    body = content(query["seed"], int(query["size"]))
    pieces = int(query["pieces"])
    step = -(-len(body) // pieces)
    length = (b"content-length", b"%d" % len(body))
    await start(send, *([length] if query["framing"] == "length" else []))
    for at in range(0, len(body), step):
        await send({"type": "http.response.body", "body": body[at : at + step], "more_body": True})
        await asyncio.sleep(float(query["pause"]))
    await send({"type": "http.response.body"})


async def upload(query, receive, send):
    """The digest of the body and its size."""
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        size += len(message["body"])
        if not message["more_body"]:
            break
    await answer(send, f"{size} {digest.hexdigest()}".encode())


async def block(query, receive, send):
    """The mistake that a watchdog is for; the file ``sign`` says that nothing else happens here from now on."""
    if "sign" in query:
        Path(query["sign"]).touch()
    time.sleep(float(query["seconds"]))
    await answer(send, b"unblocked")


async def grow(query, receive, send):
    """Memory that is never given back."""
    HOG.append(bytearray(b"x") * (int(query["mib"]) << 20))
    await answer(send, b"grown")


async def take(query, receive, send):
    """So many descriptors as there are, for so long: what a leaking application does to its server."""
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        await asyncio.sleep(float(query["seconds"]))
    finally:
        for descriptor in taken:
            os.close(descriptor)
    await answer(send, b"%d" % len(taken))


PATHS = {
    "/echo": echo,
    "/stream": stream,
    "/upload": upload,
    "/block": block,
    "/grow": grow,
    "/take": take,
}
