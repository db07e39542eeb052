"""The workloads: what is asked, by how many connections, and what the answer must be."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path

from tests.bench.app import HELLO, TEN_KIB
from tests.bench.servers import HOST, ServerError

HERE = Path(__file__).parent

#: As many as keep any of the servers busy without queues that hide the latency of a request.
CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Workload:
    """``script`` is wrk's, for what its options cannot say; the other fields must say the same for the check."""

    name: str
    title: str
    path: str
    answer: bytes
    connections: int = CONNECTIONS
    method: str = "GET"
    body: bytes | None = None
    closes: bool = False
    script: str | None = None

    def wrk(self, port, seconds):
        """The command that puts this load on ``port``. One thread: wrk has one core."""
        return [
            "wrk", "--threads", "1", "--connections", str(self.connections), "--duration", f"{seconds}s", "--latency",
            *(["--script", str(HERE / self.script)] if self.script else []),
            *(["--header", "Connection: close"] if self.closes else []),
            f"http://{HOST}:{port}{self.path}",
        ]  # fmt: skip


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("hello", "hello", "/", HELLO),
        Workload("body10k", "10 KiB body", "/10k", TEN_KIB),
        Workload("browser", "12 headers", "/", HELLO, script="browser.lua"),
        Workload("post10k", "POST 10 KiB", "/echo", TEN_KIB, method="POST", body=TEN_KIB, script="post10k.lua"),
        Workload("await1ms", "awaits 1 ms", "/1ms", HELLO, connections=256),
        Workload("newconn", "new connections", "/", HELLO, closes=True),
    )
}

#: Measured by ``idle``, not by wrk.
IDLE = "idle5000"


def check(workload, port):
    """Ask twice; raise ``ServerError`` unless both answers are right and persistence is as the workload wants it."""
    exchange(workload, http.client.HTTPConnection(HOST, port, timeout=5))


def exchange(workload, connection):
    """The same on this connection, which is closed then."""
    headers = {"Connection": "close"} if workload.closes else {}
    try:
        for _ in range(2):
            connection.request(workload.method, workload.path, body=workload.body, headers=headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or body != workload.answer:
                raise ServerError(f"answered {response.status} with {len(body)} bytes: {body[:40]!r}")
            # http.client drops its socket when the response is the last of its connection.
            if (connection.sock is None) is not workload.closes:
                raise ServerError("left the connection open" if workload.closes else "closed the connection")
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"did not answer: {error!r}") from error
    finally:
        connection.close()


def answers(port):
    """Whether somebody serves the application on ``port``."""
    try:
        check(WORKLOADS["hello"], port)
    except ServerError:
        return False
    return True
