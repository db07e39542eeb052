"""Programs in front of the server, as the machine has them, with the configuration that is shipped in deploy/.

Each listens on a port that the kernel has chosen. Only addresses and paths of the files are put in.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import textwrap
from typing import TYPE_CHECKING, Self

from tests.process.front_ends import HAPROXY, NGINX, PROGRAMS
from tests.process.servers import PATIENCE, REPO, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.process.identities import Identities

HITCH = shutil.which("hitch", path=PROGRAMS)

#: Where Debian's nginx finds its modules.
STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"


def shipped(name: str, changes: Mapping[str, str]) -> str:
    text = (REPO / "deploy" / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


class InFront:
    """``with Hitch(...) as front: front.port``: a process that ends with the block."""

    port: int
    command: list[str]
    environment: Mapping[str, str] = {}
    fds: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.command, env={**os.environ, **self.environment}, pass_fds=self.fds, stdin=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._process.terminate()
        self._process.wait(PATIENCE)

    def close(self) -> None:
        """Let go of the socket."""
        self._sock.close()

    def _reserve(self, *, listening: bool) -> int:
        """A socket on a free port: to be inherited, or one that holds the port for a program that shares it."""
        self._sock = socket.socket()
        if listening:
            self._sock.bind(("127.0.0.1", 0))
            self._sock.listen()
            self.fds = (self._sock.fileno(),)
        else:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._sock.bind(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        return self._sock.fileno()


class Hitch(InFront):
    """deploy/hitch.conf. ``header`` is how it says from whom a connection is; ``verify`` whether clients are asked."""

    def __init__(
        self,
        directory: Path,
        identities: Identities,
        upstream: str,
        *,
        header: str = "write-proxy-v2",
        verify: str = "optional",
    ) -> None:
        # hitch opens its socket by itself, and lets others share the port.
        self._reserve(listening=False)
        # Whose files it reads while it is root.
        user = "nobody" if os.geteuid() == 0 else ""
        changes = {
            'host = "*"': 'host = "127.0.0.1"',
            'port = "8443"': f'port = "{self.port}"',
            "[127.0.0.1]:8000": upstream,
            "/etc/hitch/": f"{identities.directory}/",
            "write-proxy-v2": header,
            "client-verify = optional": f"client-verify = {verify}",
            "workers = 2": "workers = 1",
            'user = "_hitch"': f'user = "{user}"',
            'group = "_hitch"\n': "",
        }
        self.configuration = directory / "hitch.conf"
        self.configuration.write_text(shipped("hitch.conf", changes))
        self.command = [str(HITCH), f"--config={self.configuration}"]

    def __enter__(self) -> Self:
        super().__enter__()
        wait_until(self._listens, "hitch listens")
        return self

    def _listens(self) -> bool:
        assert self._process.poll() is None, "hitch has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class NginxStream(InFront):
    """deploy/nginx-stream.conf."""

    def __init__(self, directory: Path, upstream: str) -> None:
        fd = self._reserve(listening=True)
        self.environment = {"NGINX": f"{fd};"}
        changes = {
            "modules/ngx_stream_module.so": STREAM,
            " /tmp/": f" {directory}/",
            "server app:8443;": f"server {upstream};",
            "listen 8443;": f"listen 127.0.0.1:{self.port};",
            "worker_processes auto;": "worker_processes 1;",
        }
        configuration = directory / "nginx.conf"
        configuration.write_text(shipped("nginx-stream.conf", changes))
        settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        self.command = [str(NGINX), "-p", str(directory), "-c", str(configuration), "-e", "stderr", "-g", settings]


class Passthrough(InFront):
    """haproxy that passes TLS on as it comes, with a header in front (``send-proxy``, ``send-proxy-v2``)."""

    CONFIGURATION = """
        global
            maxconn 256
        defaults
            mode tcp
            timeout connect 5s
            timeout client 30s
            timeout server 30s
        frontend clients
            bind fd@{fd}
            default_backend aioserve
        backend aioserve
            server one {upstream} {sends}
    """

    def __init__(self, directory: Path, upstream: str, *, sends: str) -> None:
        fd = self._reserve(listening=True)
        configuration = directory / "passthrough.cfg"
        configuration.write_text(textwrap.dedent(self.CONFIGURATION).format(fd=fd, upstream=upstream, sends=sends))
        self.command = [str(HAPROXY), "-db", "-q", "-f", str(configuration)]
