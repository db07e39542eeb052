"""The real frameworks, served for real in both accept modes that have workers."""

from __future__ import annotations

import hashlib
import importlib.metadata
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.sync.client import connect

from tests.process.apps import payload
from tests.process.servers import Served, forget_peak, memory

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMEWORKS = ("starlette", "fastapi", "django", "litestar", "quart")
MODES = {
    "reuseport": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
    "threads": ("--accept", "threads", "--threads", "2"),
}

#: With threads, those that say the most: Litestar keeps what its lifespan has made on the application, so each loop
#: needs one of its own (--factory).
SERVED = [(one, mode) for one in FRAMEWORKS for mode in MODES if mode != "threads" or one in {"fastapi", "litestar"}]
FACTORIES = {("litestar", "threads")}

#: How far the resident memory of a worker may rise above what it was, while 100 MiB pass through it. The buffers of a
#: connection hold well under one MiB; the remainder is room for the framework's own and for the allocator.
GROWTH_LIMIT = 32 * 1024 * 1024

UPLOAD = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(10 * 1024 * 1024 // 32))
UPLOAD_ANSWER = {"size": 10 * 1024 * 1024, "sha256": hashlib.sha256(UPLOAD).hexdigest()}


@pytest.fixture(scope="module", params=SERVED, ids="-".join)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    framework, mode = request.param
    # They are in the test extra: one that is missing is a failure. This says so before the server does.
    importlib.metadata.version(framework)
    target = ("create_app", "--factory") if (framework, mode) in FACTORIES else ("app",)
    with Served(f"on_{framework}:{target[0]}", *target[1:], *MODES[mode], "--no-access-log") as server:
        server.framework = framework
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30, trust_env=False, verify=False) as client:
        yield client


def test_page_is_served(served, client):
    response = client.get("/")

    assert (response.status_code, response.text) == (200, "<h1>A page</h1>")
    assert response.headers["content-type"].startswith("text/html")


def test_json_body_is_read_and_answered(served, client):
    document = {"text": "ä\u2028", "numbers": [1, 2.5, None]}

    response = client.post("/json", json=document)

    assert (response.status_code, response.json()) == (200, {"echo": document, "framework": served.framework})


def test_form_with_a_file_of_10_mib_arrives_whole(served, client):
    response = client.post("/upload", files={"file": ("upload.bin", UPLOAD)})

    assert (response.status_code, response.json()) == (200, UPLOAD_ANSWER)


def test_chunked_upload_of_10_mib_arrives_whole(served, client):
    pieces = (UPLOAD[at : at + 50_000] for at in range(0, len(UPLOAD), 50_000))

    response = client.put("/raw", content=pieces)

    assert (response.status_code, response.json()) == (200, UPLOAD_ANSWER)


def test_websocket_echoes_and_closes(served):
    if served.framework == "django":
        pytest.skip("Django has WebSockets through Channels only")
    url = served.url.replace("http", "ws", 1) + "/socket"
    with connect(url, subprotocols=["other", "echo"], proxy=None, open_timeout=30) as websocket:
        websocket.send("ä\u2028")
        assert websocket.recv(30) == "ä\u2028"
        assert websocket.subprotocol == "echo"
    assert websocket.close_code == 1000


def test_stream_of_100_mib_arrives_whole_and_memory_stays_flat(served, client):
    for _worker in served.workers():
        client.get("/")
    before = {worker: forget_peak(worker) for worker in served.workers()}
    received, digest = 0, hashlib.sha256()

    with client.stream("GET", "/stream") as response:
        for piece in response.iter_raw():
            received += len(piece)
            digest.update(piece)

    assert (received, digest.hexdigest()) == (payload.SIZE, payload.digest())
    grown = {worker: memory(worker, "VmHWM") - resident for worker, resident in before.items()}
    assert max(grown.values()) < GROWTH_LIMIT, grown
