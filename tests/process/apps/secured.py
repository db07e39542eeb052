"""What goes over TLS in large pieces and both ways: bodies, files and WebSockets."""

from __future__ import annotations

import asyncio

MIB = 1024 * 1024


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            await send({"type": (await receive())["type"] + ".complete"})
    else:
        await PATHS[scope["path"]](scope, receive, send)


async def start(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def facts(scope, receive, send):
    said = scope["extensions"]["tls"]
    await start(send)
    text = f"{scope['scheme']} {said['tls_version']:#06x} {said['client_cert_name']}"
    await send({"type": "http.response.body", "body": text.encode()})


async def echo(scope, receive, send):
    """The body as it comes."""
    await start(send)
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


async def whole(scope, receive, send):
    """So many MiB in one piece."""
    await start(send)
    await send({"type": "http.response.body", "body": bytes(int(scope["query_string"]) * MIB)})


async def file(scope, receive, send):
    await start(send)
    await send({"type": "http.response.pathsend", "path": scope["query_string"].decode()})


async def later(scope, receive, send):
    """A response after its client has had time to half-close."""
    while (await receive())["type"] != "http.disconnect":
        pass
    await asyncio.sleep(0.05)
    await start(send)
    await send({"type": "http.response.body", "body": b"still here"})


async def talk(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


PATHS = {"/": facts, "/echo": echo, "/whole": whole, "/file": file, "/later": later, "/talk": talk}
