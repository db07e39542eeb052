"""What the WebSocket tests talk to: each path of ``app`` is a way to behave.

/echo           whatever comes goes back, text as text and bytes as bytes; "close CODE REASON" ends it so
/echo/chosen    the same, with the last subprotocol that the client offers
/room           what one says, all hear, the speaker too
/sink           counts bytes until "how many", and answers with the number
/source?N       sends N bytes in messages of a MiB and closes
/deaf           accepts and never reads
/torrent        sends pieces of 64 KiB without end; the file named by TORRENT tells how many, and how it ended
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

MIB = 1 << 20

#: Nothing in it can be compressed.
NOISE = os.urandom(MIB)

#: Who is in the room: their ``send``.
ROOM = set()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    if scope["type"] == "http":
        await page(send)
        return
    assert (await receive())["type"] == "websocket.connect"
    await WAYS[scope["path"]](scope, receive, send)


async def live(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def page(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>WebSockets</title>"})


async def accept(send, **more):
    await send({"type": "websocket.accept", **more})


async def messages(receive):
    """What the client says until it leaves: text or bytes."""
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        yield message["bytes"] if text is None else text


async def say(send, message):
    await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})


async def echo(scope, receive, send, **how):
    await accept(send, **how)
    async for message in messages(receive):
        await say(send, message)


async def echo_chosen(scope, receive, send):
    await echo(scope, receive, send, subprotocol=scope["subprotocols"][-1])


async def farewell(scope, receive, send):
    await accept(send)
    code, _, reason = (await receive())["text"].partition(" ")
    await send({"type": "websocket.close", "code": int(code), "reason": reason})


async def room(scope, receive, send):
    await accept(send)
    ROOM.add(send)
    try:
        async for message in messages(receive):
            await asyncio.gather(*(say(other, message) for other in ROOM))
    finally:
        ROOM.discard(send)


async def sink(scope, receive, send):
    await accept(send)
    received = 0
    async for message in messages(receive):
        if message == "how many":
            await say(send, str(received))
            received = 0
        else:
            received += len(message)


async def source(scope, receive, send):
    await accept(send)
    left = int(scope["query_string"])
    while left:
        size = min(left, MIB)
        await say(send, NOISE[:size])
        left -= size
    await send({"type": "websocket.close", "code": 1000})


async def refused(scope, receive, send):
    await send({"type": "websocket.close", "code": 4000})


async def deaf(scope, receive, send):
    await accept(send)
    await asyncio.Event().wait()


async def drowsy(scope, receive, send):
    await accept(send)
    received = 0
    async for message in messages(receive):
        if message == "how many":
            await say(send, str(received))
        received += 1
        await asyncio.sleep(0.001)


async def torrent(scope, receive, send):
    await accept(send)
    pieces = 0
    try:
        while True:
            await say(send, NOISE[:65536])
            pieces += 1
    except OSError as error:
        Path(os.environ["TORRENTS"], scope["query_string"].decode()).write_text(f"{pieces} {type(error).__name__}")


WAYS = {
    "/": echo,
    "/echo": echo,
    "/echo/chosen": echo_chosen,
    "/farewell": farewell,
    "/room": room,
    "/sink": sink,
    "/source": source,
    "/refused": refused,
    "/deaf": deaf,
    "/drowsy": drowsy,
    "/torrent": torrent,
}
