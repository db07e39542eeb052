"""Starlette: the upload is a form's file, which it spools to disk."""

import hashlib

import payload
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute


async def page(request):
    return HTMLResponse("<h1>A page</h1>")


async def echo(request):
    return JSONResponse({"echo": await request.json(), "framework": "starlette"})


async def upload(request):
    async with request.form() as form:
        digest, size = hashlib.sha256(), 0
        while piece := await form["file"].read(payload.CHUNK):
            digest.update(piece)
            size += len(piece)
        return JSONResponse({"size": size, "sha256": digest.hexdigest()})


async def raw_upload(request):
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return JSONResponse({"size": size, "sha256": digest.hexdigest()})


async def stream(request):
    return StreamingResponse(payload.achunks(), media_type="application/octet-stream")


async def socket(websocket):
    await websocket.accept(subprotocol="echo")
    async for text in websocket.iter_text():
        await websocket.send_text(text)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/json", echo, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/raw", raw_upload, methods=["PUT"]),
        Route("/stream", stream),
        WebSocketRoute("/socket", socket),
    ]
)
