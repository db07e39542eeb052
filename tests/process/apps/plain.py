"""A plain ASGI application whose paths do what the tests need, and which logs nothing."""

import asyncio
import json
import os

MIB = 1024 * 1024


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await PATHS.get(scope["path"], not_found)(scope, receive, send)


async def lifespan(scope, receive, send):
    await receive()
    scope["state"]["born"] = os.getpid()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, body, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left within its request")
        body += message.get("body", b"")
        if not message["more_body"]:
            return body


async def hello(scope, receive, send):
    await answer(send, b"Hello, World!", headers=[(b"content-type", b"text/plain")])


async def pid(scope, receive, send):
    await answer(send, b"%d" % os.getpid())


async def echo(scope, receive, send):
    """The body, once all of it has come: a request that lasts as long as its client wishes."""
    await answer(send, await read(receive))


async def started(scope, receive, send):
    """A response that begins before its request has come to an end, and ends after it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
    body = await read(receive)
    await send({"type": "http.response.body", "body": body})


async def describe(scope, receive, send):
    keys = ("path", "root_path", "http_version", "scheme", "server", "state")
    shown = {key: scope.get(key) for key in keys} | {"raw_path": scope["raw_path"].decode()}
    shown["client"] = scope["client"] and scope["client"][0]
    shown["loop"] = type(asyncio.get_running_loop()).__module__
    await answer(send, json.dumps(shown).encode())


async def environ(scope, receive, send):
    await answer(send, "\n".join(os.environ).encode())


async def large(scope, receive, send):
    """As many MiB as the query says."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    piece = bytes(64 * 1024)
    for _ in range(int(scope["query_string"] or b"1") * 16):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def breaks(scope, receive, send):
    """A response that ends in an error."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise RuntimeError("in the middle of a response")


async def refuse(scope, receive, send):
    """A final answer without a look at the body."""
    await answer(send, b"no", 403)


async def not_found(scope, receive, send):
    await answer(send, b"Not Found", 404)


PATHS = {
    "/": hello,
    "/pid": pid,
    "/echo": echo,
    "/started": started,
    "/scope": describe,
    "/environ": environ,
    "/large": large,
    "/breaks": breaks,
    "/refuse": refuse,
}
