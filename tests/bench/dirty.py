"""What tests/bench/offload.py measures in gunicorn: a dirty application, and a worker that calls it from its loop."""

from __future__ import annotations

import asyncio
import json

from gunicorn.dirty import DirtyApp, get_dirty_client_async

from tests.bench.offload import measure


class Work(DirtyApp):
    def empty(self):
        return None

    def give_back(self, data):
        return data


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    body = b"hello"
    if scope["path"] == "/":
        client = await get_dirty_client_async(timeout=60.0)
        # Its client loses its connection when two calls are made at once, and there is one for each worker.
        turn = asyncio.Lock()

        async def call(name, *given):
            async with turn:
                return await client.execute_async("tests.bench.dirty:Work", name, *given)

        body = json.dumps(await measure(call)).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
