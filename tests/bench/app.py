"""The application that every server serves: plain ASGI, no framework, each answer with its Content-Length."""

from __future__ import annotations

import asyncio

HELLO = b"Hello, World!"
TEN_KIB = b"x" * 10_240


def _headers(body):
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]


HELLO_HEADERS = _headers(HELLO)
TEN_KIB_HEADERS = _headers(TEN_KIB)


async def app(scope, receive, send):
    if scope["type"] == "http":
        path = scope["path"]
        if path == "/":
            await _answer(send, HELLO, HELLO_HEADERS)
        elif path == "/10k":
            await _answer(send, TEN_KIB, TEN_KIB_HEADERS)
        elif path == "/echo":
            body = await _read(receive)
            await _answer(send, body, _headers(body))
        elif path == "/1ms":
            await asyncio.sleep(0.001)
            await _answer(send, HELLO, HELLO_HEADERS)
        else:
            await send({"type": "http.response.start", "status": 404, "headers": _headers(b"")})
            await send({"type": "http.response.body", "body": b""})
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["type"] == "lifespan":
        await _live(receive, send)


async def _answer(send, body, headers):
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read(receive):
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    pieces = [body]
    while message.get("more_body", False):
        message = await receive()
        pieces.append(message.get("body", b""))
    return b"".join(pieces)


async def _echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": text})


async def _live(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
