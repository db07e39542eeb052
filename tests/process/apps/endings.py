"""An ASGI application for connections that end early, late or badly. It remembers what it was told about that."""

import asyncio
import json

PIECE = bytes(64 * 1024)

#: What receive() and send() have said, in order, since ``/seen`` was asked last.
seen = []
release = asyncio.Event()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await PATHS[scope["path"]](scope, receive, send)


async def answer(send, body, **headers):
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def disconnected(receive):
    """Wait until the client has gone; how many bytes of its body came before."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
    return size


async def hello(scope, receive, send):
    await answer(send, b"Hello, World!")


async def early(scope, receive, send):
    """An answer of as many KiB as the query says, without a look at the body."""
    await answer(send, bytes(1024 * int(scope["query_string"] or b"1")))


async def early_then_read(scope, receive, send):
    await answer(send, b"early")
    seen.append(f"{await disconnected(receive)} bytes after the answer, then http.disconnect")


async def wait(scope, receive, send):
    """No answer: it waits for the client to go."""
    seen.append(f"{await disconnected(receive)} bytes, then http.disconnect")


async def hold(scope, receive, send):
    """It works until it is released, and then answers whoever may be there."""
    seen.append("working")
    await release.wait()
    try:
        await answer(send, b"worked")
        seen.append("sent")
    except OSError as error:
        seen.append(type(error).__name__)
        raise


async def let_go(scope, receive, send):
    release.set()
    await asyncio.sleep(0)
    release.clear()
    await answer(send, b"released")


async def stream(scope, receive, send):
    """Pieces without end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    except OSError as error:
        seen.append(type(error).__name__)
        raise


async def echo(scope, receive, send):
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            await answer(send, body)
            return
    seen.append(f"{len(body)} bytes, then http.disconnect")


async def tell(scope, receive, send):
    told = json.dumps(seen).encode()
    seen.clear()
    await answer(send, told)


PATHS = {
    "/": hello,
    "/early": early,
    "/early-then-read": early_then_read,
    "/wait": wait,
    "/hold": hold,
    "/release": let_go,
    "/stream": stream,
    "/echo": echo,
    "/seen": tell,
}
