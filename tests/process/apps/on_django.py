"""Django through its ASGI handler: settings, URLs and views in one module."""

import hashlib
import json

import django
import payload
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for this test",
    LOGGING_CONFIG=None,
)


async def page(request):
    return HttpResponse("<h1>A page</h1>")


async def echo(request):
    return JsonResponse({"echo": json.loads(request.body), "framework": "django"})


async def upload(request):
    digest, size = hashlib.sha256(), 0
    for piece in request.FILES["file"].chunks():
        digest.update(piece)
        size += len(piece)
    return JsonResponse({"size": size, "sha256": digest.hexdigest()})


async def raw_upload(request):
    digest, size = hashlib.sha256(), 0
    while piece := request.read(payload.CHUNK):
        digest.update(piece)
        size += len(piece)
    return JsonResponse({"size": size, "sha256": digest.hexdigest()})


async def stream(request):
    return StreamingHttpResponse(payload.achunks(), content_type="application/octet-stream")


urlpatterns = [
    path("", page),
    path("json", echo),
    path("upload", upload),
    path("raw", raw_upload),
    path("stream", stream),
]

django.setup()
app = get_asgi_application()
