"""WebSockets that do what the tests need, by path."""

import asyncio
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            await send({"type": (await receive())["type"] + ".complete"})
    elif scope["type"] == "websocket":
        await receive()
        await PATHS[scope["path"].removeprefix(scope["root_path"])](scope, receive, send)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})


async def echo(scope, receive, send):
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def describe(scope, receive, send):
    """The facts of the scope that a proxy may change, and the process."""
    await send({"type": "websocket.accept"})
    client = scope["client"] and scope["client"][0]
    said = f"{scope['scheme']} {client} {scope['root_path']} {scope['path']} {os.getpid()}"
    await send({"type": "websocket.send", "text": said})
    await receive()


async def silent(scope, receive, send):
    await asyncio.Event().wait()


async def deaf(scope, receive, send):
    """Accepts, and neither receives nor sends."""
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


async def deny(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no token")]})
    await send({"type": "websocket.http.response.body", "body": b"who are ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"you?"})


async def breaks(scope, receive, send):
    await send({"type": "websocket.accept"})
    raise RuntimeError("in the middle of a WebSocket")


PATHS = {"/": echo, "/scope": describe, "/silent": silent, "/deaf": deaf, "/deny": deny, "/breaks": breaks}


class Asgi2:
    """The same in the two calls of ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await app(self.scope, receive, send)
