"""The wire corpus against a running server: an application that tells what it saw, and clients that ask it.

A ``Witness`` serves apps/witness.py. Whatever goes over the wire to it is noted here, and compared with what it has
written down when it has stopped: then nothing can come late, and a request that nobody sent has no place to hide.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conformance.wire import LIMITS, Case
from tests.process.clients import Client
from tests.process.servers import Served

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Method, path, query and body.
Brief = tuple[str, str, str, str]

APPS = Path(__file__).resolve().parent / "apps"

OPTIONS = [
    "--no-access-log",
    *(f"--limit-{name.replace('_', '-')}={value}" for name, value in LIMITS.items()),
]


class Witness:
    """A server whose application remembers, and the ``port`` at which to talk to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cases: list[Case] = []
        self._canaries = count()
        self.canaries: list[str] = []

    def connect(self) -> Client:
        client = Client(("127.0.0.1", self.port))
        # Small writes are to go out at once, not when the one before has been acknowledged (tcp(7), TCP_NODELAY).
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def canary(self) -> tuple[str, bytes]:
        """A path that no other request has, and a request for it."""
        path = f"/canary/{next(self._canaries)}"
        self.canaries.append(path)
        return path, f"GET {path} HTTP/1.1\r\nHost: canary.example\r\n\r\n".encode()

    def sing(self, client: Client) -> str:
        """One canary there and back; its path."""
        path, request = self.canary()
        client.send(request)
        response = client.response()
        assert response.status == 200, response
        assert json.loads(response.body)["path"] == path
        return path


@contextmanager
def witness(directory: Path, *options: str) -> Iterator[tuple[Served, Witness, Path]]:
    """A server, the witness at its own port, and the file of what it saw."""
    file = directory / "witness"
    file.touch()
    with Served("witness:app", *OPTIONS, *options, cwd=APPS, env={"WITNESS": str(file)}) as server:
        yield server, Witness(server.port), file


def records(file: Path, since: int = 0) -> list[dict[str, Any]]:
    """What the application saw, in the order in which its requests ended; ``since`` a size that the file had."""
    with file.open("rb") as lines:
        lines.seek(since)
        return [json.loads(line) for line in lines]


def brief(request: Any) -> Brief:
    """What identifies a request, as the application saw it or as it is expected."""
    said = request if isinstance(request, dict) else vars(request)
    return said["method"], said["path"], said["query"], said["body"] if said["complete"] else "(incomplete)"


def tally(requests: Iterable[Any]) -> Counter[Brief]:
    return Counter(brief(request) for request in requests)
