"""deploy/nginx.conf as it is, with the machine's nginx in front of a real server: only addresses are put in."""

from __future__ import annotations

import json
import os
import socket
import subprocess

import pytest

from tests.process.front_ends import CLIENT, NGINX, Nginx
from tests.process.servers import PATIENCE, Served

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
]


def test_nginx_accepts_the_file_without_a_warning(tmp_path):
    nginx = Nginx(tmp_path, "127.0.0.1:8000")
    done = subprocess.run([*nginx.command, "-t"], capture_output=True, text=True, check=False)
    nginx.close()
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_application_sees_the_client_and_not_the_proxy(tmp_path, way, tls):
    path = f"{tmp_path}/s"
    listen = ["--port", "0"] if way == "tcp" else ["--uds", path]
    with Served("aioserve.example:app", *listen) as server:
        upstream = f"127.0.0.1:{server.port}" if way == "tcp" else f"unix:{path}"
        with Nginx(tmp_path, upstream, tls=tls) as nginx:
            seen = nginx.seen()
    headers = dict(seen["headers"])
    assert seen["client"][0] == CLIENT
    assert seen["scheme"] == ("https" if tls else "http")
    assert headers["host"] == f"127.0.0.1:{nginx.port}"
    assert (seen["http_version"], seen["path"], seen["query_string"]) == ("1.1", "/headers", "x=1")


@pytest.mark.parametrize(
    "claim",
    [
        {"x_forwarded_for": "192.0.2.6"},
        {"forwarded": "for=192.0.2.6;proto=https;host=evil.example"},
        {"x_forwarded_proto": "https"},
        {"x_forwarded_host": "evil.example"},
        {"x_forwarded_port": "6666"},
    ],
    ids=lambda claim: next(iter(claim)),
)
def test_what_a_client_claims_does_not_get_through(tmp_path, claim):
    with Served("aioserve.example:app") as server, Nginx(tmp_path, f"127.0.0.1:{server.port}") as nginx:
        seen = nginx.seen(**claim)
    assert seen["client"][0] == CLIENT
    assert seen["scheme"] == "http"
    assert dict(seen["headers"])["host"] == f"127.0.0.1:{nginx.port}"
    assert next(iter(claim.values())) not in dict(seen["headers"]).values()


def test_client_that_names_no_host_is_served(tmp_path):
    with (
        Served("aioserve.example:app") as server,
        Nginx(tmp_path, f"127.0.0.1:{server.port}") as nginx,
        socket.create_connection(("127.0.0.1", nginx.port), PATIENCE) as client,
        client.makefile("rb") as answers,
    ):
        client.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
        answer = answers.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"Hello, World!")


def test_nginx_keeps_its_connections_open(tmp_path):
    with (
        Served("aioserve.example:app", "--no-proxy-headers") as server,
        Nginx(tmp_path, f"127.0.0.1:{server.port}") as nginx,
    ):
        first, second = nginx.seen()["client"], nginx.seen()["client"]
    assert first[0] == "127.0.0.1"
    assert first == second


def test_upload_larger_than_the_buffers_arrives(tmp_path):
    body = os.urandom(4 * 1024 * 1024)
    with Served("aioserve.example:app") as server, Nginx(tmp_path, f"127.0.0.1:{server.port}") as nginx:
        client = nginx.connect()
        client.request("POST", "/upload", body=body)
        with client.getresponse() as response:
            assert json.load(response)["bytes"] == len(body)
        client.close()


def test_first_event_arrives_while_the_stream_is_open(tmp_path):
    with Served("aioserve.example:app") as server, Nginx(tmp_path, f"127.0.0.1:{server.port}") as nginx:
        client = nginx.connect()
        client.request("GET", "/events")
        response = client.getresponse()
        assert response.readline() == b"id: 0\n"
        response.close()
        client.close()
