"""The servers: how each is started with one worker, and a process that can be paused, resumed and surely stopped.

Fairness is decided in this table. Every server has one worker on the same core, the same application, no access log,
keep-alive for 75 s, a backlog of 2,048, room for 10,000 connections, HTTP/1.1 alone where HTTP/2 can be left out, and
uvloop wherever the loop can be chosen. Everything else is as it comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import proc

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"

#: How long a server may take to answer for the first time, and to end after SIGTERM, in seconds.
BOOT_SECONDS = 20.0
STOP_SECONDS = 5.0

#: Variables that would change a server's settings behind the harness's back.
FOREIGN = ("AIOSERVE_", "UVICORN_", "GRANIAN_", "GUNICORN_", "HYPERCORN_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")


@dataclass(frozen=True, slots=True)
class Peer:
    """A row of the table. ``loop`` says whose event loop runs the application; ``options`` follow ``python``."""

    name: str
    package: str
    loop: str
    options: Callable[[str], list[str]]

    @property
    def version(self):
        """The installed version, None if it is not installed. aioserve is taken from this tree."""
        if self.package == "aioserve":
            from aioserve import __version__

            return __version__
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def _module(name, options):
    return lambda port: ["-m", name, *options.replace("{port}", port).split()]


def _program(text):
    return lambda port: ["-c", text.replace("{port}", port)]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("aioserve", "aioserve", "uvloop", _module(
            "aioserve",
            "app:app --host 127.0.0.1 --port {port} --accept single --loop uvloop --http httptools --no-access-log"
            " --log-level warning --timeout-keep-alive 75 --backlog 2048",
        )),
        Peer("uvicorn", "uvicorn", "uvloop", _module(
            "uvicorn",
            "app:app --host 127.0.0.1 --port {port} --loop uvloop --http httptools --no-access-log"
            " --log-level warning --timeout-keep-alive 75 --backlog 2048",
        )),
        # A permit of --backpressure is held by each open connection. 60 s is the longest that idle ones can be given.
        Peer("granian", "granian", "uvloop", _module(
            "granian",
            "app:app --host 127.0.0.1 --port {port} --interface asgi --workers 1 --loop uvloop --http 1 --no-ws"
            " --no-access-log --log-level warning --backlog 2048 --backpressure 10000"
            " --http1-keep-alive --http1-header-read-timeout 60000",
        )),
        Peer("hypercorn", "hypercorn", "uvloop", _module(
            "hypercorn",
            "app:app --bind 127.0.0.1:{port} --workers 1 --worker-class uvloop --log-level warning --keep-alive 75"
            " --backlog 2048 --config hypercorn.toml",
        )),
        # --timeout 0: its master kills a worker that was stopped for longer than that.
        Peer("gunicorn", "gunicorn", "uvloop", _module(
            "gunicorn",
            "app:app --bind 127.0.0.1:{port} --workers 1 --worker-class asgi --asgi-loop uvloop --log-level warning"
            " --keep-alive 75 --backlog 2048 --worker-connections 10000 --timeout 0 --no-control-socket",
        )),
        # No command line. Its loop is libuv's and steps asyncio's selector loop.
        Peer("freastal", "freastal", "own", _program(
            "import freastal, app; freastal.serve_asgi(app.app, host='127.0.0.1', port={port}, workers=1)"
        )),
        Peer("weft", "weft-server", "own", _module(
            "weft",
            "app:app --host 127.0.0.1 --port {port} --workers 1 --protocol asgi --no-http2 --no-auto-venv"
            " --log-level warning --keep-alive 75 --backlog 2048 --max-connections 10000",
        )),
        Peer("peregrine", "peregrine-server", "uvloop", _module(
            "peregrine",
            "--host 127.0.0.1 --port {port} --workers 1 --protocol asgi --no-http2 --no-auto-venv"
            " --log-level warning --keep-alive 75000 --backlog 2048 --max-connections 10000 app:app",
        )),
        # The only one that leaves Nagle's algorithm on. Version 0.6 garbles bodies of requests and hangs on
        # Connection: close, so it is visited only when it is named.
        Peer("fastpysgi", "fastpysgi", "own", _program(
            "import fastpysgi, app; fastpysgi.server.tcp_nodelay = 1;"
            " fastpysgi.run(app.app, '127.0.0.1', {port}, workers=1)"
        )),
    )
}  # fmt: skip

DEFAULT = [name for name in PEERS if name != "fastpysgi"]


class ServerError(Exception):
    """A server did not start, has died or answers wrongly. The message says which and why."""


class Running:
    """A server in a session of its own, pinned to ``core``. Leaving the context ends all of its processes."""

    def __init__(self, peer, core, directory):
        self.peer = peer
        self.core = core
        self.port = free_port()
        self.log = Path(directory) / f"{peer.name}.{self.port}.log"
        self.command = [sys.executable, *peer.options(str(self.port))]
        with self.log.open("wb") as log:
            # taskset replaces itself by the command: the pid is the server's.
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *self.command],
                cwd=HERE, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    def await_boot(self, answers):
        """Return once ``answers(port)`` is true."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not answers(self.port):
            if self.process.poll() is not None:
                raise ServerError(f"{self.peer.name} ended with {self.process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.peer.name} did not answer within {BOOT_SECONDS:g} s: {self._last_words()}")
            time.sleep(0.05)

    def processes(self):
        """pid -> CPU seconds of everything that belongs to this server."""
        return proc.tree(self.process.pid)

    def pause(self):
        """Stop it where it stands: some servers spin while they have nothing to do."""
        self._signal(self.processes(), signal.SIGSTOP)

    def resume(self):
        if self.process.poll() is not None:
            raise ServerError(f"{self.peer.name} has died with {self.process.returncode}: {self._last_words()}")
        self._signal(self.processes(), signal.SIGCONT)

    def stop(self):
        """Ask it to end, then make it: every process of its tree, by number."""
        self._signal(self.processes(), signal.SIGCONT)
        self._signal({self.process.pid}, signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        finally:
            # Also when somebody is impatient and interrupts the wait.
            self._signal(self.processes(), signal.SIGKILL)
            self.process.wait()

    def _signal(self, pids, number):
        for pid in pids:
            # A child that has been waited for is gone, and its number may be somebody else's.
            if pid != self.process.pid or self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _last_words(self):
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"


def free_port():
    """A port that the kernel has chosen and nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return sock.getsockname()[1]


def environment():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return environment | {"PYTHONPATH": str(ROOT)}
