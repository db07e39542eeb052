"""Quart: the upload is in ``request.files``, the raw one is iterated over."""

import hashlib

import payload
from quart import Quart, request, websocket

app = Quart(__name__)


@app.get("/")
async def page():
    return "<h1>A page</h1>"


@app.post("/json")
async def echo():
    return {"echo": await request.get_json(), "framework": "quart"}


@app.post("/upload")
async def upload():
    file = (await request.files)["file"]
    digest, size = hashlib.sha256(), 0
    while piece := file.read(payload.CHUNK):
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@app.put("/raw")
async def raw_upload():
    digest, size = hashlib.sha256(), 0
    async for piece in request.body:
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@app.get("/stream")
async def stream():
    return payload.achunks(), {"content-type": "application/octet-stream"}


@app.websocket("/socket")
async def socket():
    await websocket.accept(subprotocol="echo")
    while True:
        await websocket.send(await websocket.receive())
