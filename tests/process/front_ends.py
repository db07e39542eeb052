"""nginx and haproxy in front of a real server, as the machine has them, each on a port that the kernel has chosen."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import textwrap
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING, Self

import pytest

from tests.process.servers import PATIENCE, REPO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROGRAMS = f"{os.environ.get('PATH', '')}:/usr/sbin"
NGINX = shutil.which("nginx", path=PROGRAMS)
HAPROXY = shutil.which("haproxy", path=PROGRAMS)

#: A client that is not the proxy and yet on this machine, to which all of 127.0.0.0/8 belongs.
CLIENT = "127.0.0.2"


class Nginx:
    """``with Nginx(tmp_path, upstream) as nginx``: the shipped configuration, listening on a free port.

    ``changes`` are made to its text, besides those to its addresses and paths.
    """

    def __init__(
        self, directory: Path, upstream: str, *, tls: bool = False, changes: Mapping[str, str] | None = None
    ) -> None:
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
            **(changes or {}),
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
        self.close()
        self._process.terminate()
        self._process.wait(PATIENCE)

    def close(self) -> None:
        """Let go of the socket; for an nginx that was never started."""
        self._sock.close()

    def connect(self) -> HTTPConnection:
        """A client. It waits in the queue of the socket until nginx runs."""
        address = {"host": "127.0.0.1", "port": self.port, "timeout": PATIENCE, "source_address": (CLIENT, 0)}
        return HTTPSConnection(**address, context=self.trust()) if self.tls else HTTPConnection(**address)

    def trust(self) -> ssl.SSLContext:
        """For a client: the certificate is the test's own."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

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


class HAProxy:
    """``with HAProxy(tmp_path, upstream) as haproxy``: plain HTTP on both sides, connections kept on both sides.

    ``patience`` is how long it waits for a client and for the server, in seconds.
    """

    CONFIGURATION = """
        global
            maxconn 256
        defaults
            mode http
            timeout connect 5s
            timeout server {milliseconds}ms
            timeout client {milliseconds}ms
            timeout http-request {milliseconds}ms
            timeout http-keep-alive 30s
        frontend clients
            bind fd@{fd}
            default_backend aioserve
        backend aioserve
            http-reuse always
            server one {upstream}
    """

    def __init__(self, directory: Path, upstream: str, *, patience: float = 10.0) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        self._conf = directory / "haproxy.cfg"
        text = textwrap.dedent(self.CONFIGURATION)
        milliseconds = int(patience * 1000)
        self._conf.write_text(text.format(fd=self._sock.fileno(), upstream=upstream, milliseconds=milliseconds))

    def __enter__(self) -> Self:
        command = [str(HAPROXY), "-db", "-f", str(self._conf)]
        self._process = subprocess.Popen(command, pass_fds=(self._sock.fileno(),))
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._process.terminate()
        self._process.wait(PATIENCE)
