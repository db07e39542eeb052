"""deploy/nginx.conf as it is, with the machine's nginx in front of a real server: only addresses are put in."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING, Self

import pytest

from tests.process.servers import PATIENCE, REPO, Served

if TYPE_CHECKING:
    from pathlib import Path

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")

#: A client that is not the proxy and yet on this machine, to which all of 127.0.0.0/8 belongs.
CLIENT = "127.0.0.2"


class Nginx:
    """``with Nginx(tmp_path, upstream) as nginx``: the shipped configuration, listening on a free port."""

    def __init__(self, directory: Path, upstream: str, *, tls: bool = False) -> None:
        # nginx takes over sockets that its environment names: thus the kernel chooses the port.
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        self.tls = tls
        listen = f"listen 127.0.0.1:{self.port}"
        text = (REPO / "deploy" / "nginx.conf").read_text()
        for old, new in {
            " /tmp/": f" {directory}/",
            "server app:8000;": f"server {upstream};",
            "listen 8080;": f"{listen} ssl; {certificate(directory)}" if tls else f"{listen};",
            "worker_processes auto;": "worker_processes 1;",
            "access_log /dev/stdout combined;": "access_log off;",
        }.items():
            assert old in text
            text = text.replace(old, new)
        conf = directory / "nginx.conf"
        conf.write_text(text)
        self.command = [str(NGINX), "-p", str(directory), "-c", str(conf), "-e", "stderr"]

    def __enter__(self) -> Self:
        # Started by root, nginx would serve as another user, who may not enter a test's directory.
        settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        fd = self._sock.fileno()
        self._process = subprocess.Popen(
            [*self.command, "-g", settings], env={**os.environ, "NGINX": f"{fd};"}, pass_fds=(fd,)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._process.terminate()
        self._process.wait(PATIENCE)

    def connect(self) -> HTTPConnection:
        """A client. It waits in the queue of the socket until nginx runs."""
        address = {"host": "127.0.0.1", "port": self.port, "timeout": PATIENCE, "source_address": (CLIENT, 0)}
        if not self.tls:
            return HTTPConnection(**address)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(**address, context=context)

    def seen(self, **headers: str) -> dict:
        """What the application sees of a GET on a connection of its own; ``_`` in names is ``-``."""
        client = self.connect()
        client.request("GET", "/headers?x=1", headers={name.replace("_", "-"): text for name, text in headers.items()})
        with client.getresponse() as response:
            assert response.status == 200
            seen = json.load(response)
        client.close()
        return seen


def certificate(directory: Path) -> str:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, cert = str(directory / "key.pem"), str(directory / "cert.pem")
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    subprocess.run([openssl, *new, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return f"ssl_certificate {cert}; ssl_certificate_key {key};"


def test_nginx_accepts_the_file_without_a_warning(tmp_path):
    nginx = Nginx(tmp_path, "127.0.0.1:8000")
    with nginx._sock:
        done = subprocess.run([*nginx.command, "-t"], capture_output=True, text=True, check=False)
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
