"""How evenly long-lived connections are spread: each asks once who serves it, and stays until all have asked."""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import time
from collections import Counter

from tests.bench.servers import HOST

REQUEST = b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n"

#: Connections a second when they are not opened as fast as possible.
PACE = 1000

#: name -> how many connections, and whether they are opened one by one at that pace.
CROWDS = {"burst64": (64, False), "paced64": (64, True), "burst1000": (1000, False), "paced1000": (1000, True)}


def measure(server, crowd, workers):
    """A record like a visit's: how many connections each of the workers has got, from most to least."""
    size, paced = CROWDS[crowd]
    with contextlib.ExitStack() as stack:
        try:
            found = Counter(_who(sock) for sock in list(_open(stack, server.port, size, paced)))
        except (OSError, http.client.HTTPException) as error:
            return {"problems": [f"a connection failed: {error!r}"]}
    counts = sorted(found.values(), reverse=True)
    problems = [f"{len(counts)} workers answered, and there are {workers}"] if len(counts) > workers else []
    return {"counts": counts + [0] * (workers - len(counts)), "problems": problems}


def spread(counts):
    """The most connections of a worker to the least; infinite if one has none."""
    return max(counts) / min(counts) if min(counts) else math.inf


def _open(stack, port, size, paced):
    first = time.perf_counter()
    for number in range(size):
        if paced:
            time.sleep(max(first + number / PACE - time.perf_counter(), 0))
        sock = stack.enter_context(socket.socket())
        sock.settimeout(5)
        sock.connect((HOST, port))
        sock.sendall(REQUEST)
        yield sock


def _who(sock):
    response = http.client.HTTPResponse(sock)
    response.begin()
    with response:
        return response.read()
