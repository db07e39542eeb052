"""FastAPI: the upload is an ``UploadFile``."""

import hashlib
from typing import Annotated

import payload
from fastapi import Body, FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, StreamingResponse

app = FastAPI()


@app.get("/", response_class=HTMLResponse)
async def page():
    return "<h1>A page</h1>"


@app.post("/json")
async def echo(document: Annotated[dict, Body()]):
    return {"echo": document, "framework": "fastapi"}


@app.post("/upload")
async def upload(file: UploadFile):
    digest, size = hashlib.sha256(), 0
    while piece := await file.read(payload.CHUNK):
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@app.put("/raw")
async def raw_upload(request: Request):
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@app.get("/stream")
async def stream():
    return StreamingResponse(payload.achunks(), media_type="application/octet-stream")


@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept(subprotocol="echo")
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
