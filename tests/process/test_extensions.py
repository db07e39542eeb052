"""ASGI's extensions as a framework uses them, by a real server."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from starlette.requests import Request

from tests.process.servers import Served

CONTENT = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(5 * 1024 * 1024 // 32))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "file.bin"
    path.write_bytes(CONTENT)
    with Served("on_files:app", "--workers", "2", env={"FILE": str(path)}) as server:
        yield server


def test_a_file_response_is_sent_by_the_kernel_and_whole(served):
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        for _ in range(3):
            response = client.get("/file")
            assert response.content == CONTENT
            assert response.headers["content-length"] == str(len(CONTENT))


def test_a_range_of_a_file_is_a_part_of_it(served):
    response = httpx.get(served.url + "/file", headers={"range": "bytes=1000-99999"}, trust_env=False)
    assert (response.status_code, response.content) == (206, CONTENT[1000:100_000])


def test_the_head_of_a_file_says_its_length(served):
    response = httpx.head(served.url + "/file", trust_env=False)
    assert (response.headers["content-length"], response.content) == (str(len(CONTENT)), b"")


@pytest.mark.skipif(not hasattr(Request, "send_early_hints"), reason="this Starlette has no send_early_hints()")
def test_early_hints_come_before_the_response(served):
    with served.connect() as client:
        client.request("/hinted")
        hint = client.head()
        assert (hint.status, hint.headers) == (103, {"link": "</style.css>; rel=preload; as=style"})
        assert client.response().text == "hinted"
