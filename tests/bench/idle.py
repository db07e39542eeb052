"""Memory of idle connections: open many, have one request answered on each, keep them, and weigh the server."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time

from tests.bench import proc
from tests.bench.app import HELLO
from tests.bench.servers import HOST, ServerError

#: Opened and closed before the first weighing, so that what is made once per process is there.
WARM_UP = 100

#: Before each weighing: buffers of the last requests are given back, closed connections are forgotten.
SETTLE_SECONDS = 1.0

#: Descriptors that harness and servers need besides those of the connections.
OTHER_DESCRIPTORS = 200

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def raise_descriptor_limit(connections):
    """Let this process, and the servers that it starts from now on, open as many files as they may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < connections + OTHER_DESCRIPTORS:
        raise SystemExit(f"{connections} connections need a limit on open files of more than {hard} (ulimit -Hn)")
    # Unlimited stays finite: some servers make a table of that size.
    soft = connections + 10_000 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def weigh(server, connections, assemble):
    """KiB per idle connection of a server that was just started and runs alone, as a record like a visit's.

    ``assemble(port, size)`` opens the connections: a ``Crowd``, or one of another kind.
    """
    try:
        with contextlib.closing(assemble(server.port, WARM_UP)):
            pass
        before = _settled_pss(server)
        with contextlib.closing(assemble(server.port, connections)) as crowd:
            after = _settled_pss(server)
            lost = crowd.count_lost()
    except (OSError, ServerError) as error:
        return {"problems": [str(error)]}
    return {
        "connections": connections,
        "pss_before_kib": before,
        "pss_after_kib": after,
        "kib_per_connection": (after - before) / connections,
        "problems": [f"{lost} of {connections} connections were closed by the server"] if lost else [],
    }


class Crowd:
    """Open connections on which nothing happens."""

    def __init__(self, port, size):
        self.sockets = []
        try:
            for _ in range(size):
                self.sockets.append(self._connect(port))
                self._ask(self.sockets[-1])
        except BaseException:
            self.close()
            raise

    def count_lost(self):
        """How many have ended. Nothing else can have made them readable."""
        poll = select.poll()
        for sock in self.sockets:
            poll.register(sock, select.POLLIN)
        return len(poll.poll(0))

    def close(self):
        for sock in self.sockets:
            sock.close()

    def _connect(self, port):
        return socket.create_connection((HOST, port), timeout=5)

    def _ask(self, sock):
        sock.sendall(REQUEST)
        answer = b""
        while not answer.endswith(HELLO):
            piece = sock.recv(65536)
            if not piece:
                raise ServerError(f"closed a connection after {answer!r}")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise ServerError(f"answered {answer[:60]!r}")


def _settled_pss(server):
    time.sleep(SETTLE_SECONDS)
    return proc.pss_kib(server.processes())
