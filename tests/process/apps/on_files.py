"""Starlette's own ways to the extensions that the server offers: a file by its path, and early hints."""

import os

from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route


async def file(request):
    return FileResponse(os.environ["FILE"])


async def hinted(request):
    await request.send_early_hints("</style.css>; rel=preload; as=style")
    return PlainTextResponse("hinted")


app = Starlette(routes=[Route("/file", file), Route("/hinted", hinted)])
