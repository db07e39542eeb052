"""The same call in a framework, which answers errors itself, with 500."""

import time

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aioserve import offload


def work(seconds):
    time.sleep(seconds)
    return "done"


async def call(request):
    return PlainTextResponse(await offload(work, float(request.query_params["seconds"])))


app = Starlette(routes=[Route("/", call)])
