"""Litestar: the upload is an ``UploadFile`` in a multipart body."""

import hashlib
from typing import Annotated, Any

import payload
from litestar import Litestar, MediaType, Request, WebSocket, get, post, put, websocket
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Stream

LIMIT = 32 * 1024 * 1024


@get("/", media_type=MediaType.HTML)
async def page() -> str:
    return "<h1>A page</h1>"


@post("/json", status_code=200)
async def echo(data: dict[str, Any]) -> dict[str, Any]:
    return {"echo": data, "framework": "litestar"}


@post("/upload", status_code=200)
async def upload(
    data: Annotated[dict[str, UploadFile], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while piece := await data["file"].read(payload.CHUNK):
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@put("/raw")
async def raw_upload(request: Request) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@get("/stream")
async def stream() -> Stream:
    return Stream(payload.achunks())


@websocket("/socket")
async def talk(socket: WebSocket) -> None:
    await socket.accept(subprotocols="echo")
    async for text in socket.iter_data():
        await socket.send_text(text)


def create_app() -> Litestar:
    return Litestar([page, echo, upload, raw_upload, stream, talk], request_max_body_size=LIMIT)


app = create_app()
