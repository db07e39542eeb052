"""--ktls on the machine that the tests run on, whatever its kernel can; what it does where it can: tests/ktls."""

from __future__ import annotations

import os

import pytest

from aioserve.tls import ktls
from tests.process.servers import Served
from tests.tls import Authority

SIZE = 3_000_000

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": os.path.abspath("file")})
"""


@pytest.mark.parametrize("accept", ["single", "shared", "reuseport", "dispatch", "threads"])
def test_files_are_served_and_the_log_says_by_whom_they_are_encrypted(tmp_path, accept):
    authority = Authority()
    certificate, key = authority.server().write(tmp_path)
    content = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "sends.py").write_text(APP)
    arguments = ("--ssl-certfile", certificate, "--ssl-keyfile", key, "--lifespan", "off", "--accept", accept)
    with Served("sends:app", *arguments, "--ktls", cwd=tmp_path) as server:
        obstacle = ktls.obstacle(ktls.look())
        server.wait_for(f"--ktls is not used: {obstacle}" if obstacle else "--ktls: Linux ")
        assert server.log().count("--ktls is not used") == (obstacle is not None)
        with (
            server.connect() as client,
            authority.client_context().wrap_socket(client.sock, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            got = b""
            while data := sock.recv(1 << 18):
                got += data
    assert got.partition(b"\r\n\r\n")[2] == content
