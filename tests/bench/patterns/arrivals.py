"""New short connections that arrive at fixed times, whatever the server does: a client in a process of its own.

    python -m tests.bench.patterns.arrivals PORT RATE SECONDS     prints a JSON object
    python -m tests.bench.patterns.arrivals empty                 serves nothing, to see what the client itself costs

A latency counts from the moment at which its connection was to be opened to the last byte of the answer: a server that
is late does not get fewer connections, and a client that is late does not hide it. By how much the client was late is
told beside. One thread, one epoll set; nothing is imported that it does not need.
"""

from __future__ import annotations

import errno
import gc
import json
import math
import select
import socket
import sys
import time
from collections import Counter

HOST = "127.0.0.1"
REQUEST = b"GET /burn HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ANSWER = b"Hello, World!"

#: Who has had no answer for so long has lost it, in seconds. Long enough for a SYN that is sent again twice.
PATIENCE = 5.0

#: From the start of the process to the first arrival, in seconds.
LEAD = 0.05


class Arrivals:
    """``run()`` once; then ``latencies`` and ``late`` are in seconds, and ``failed`` says what went wrong how often."""

    def __init__(self, port, rate, seconds):
        self._address = (HOST, port)
        self._interval = 1 / rate
        self._count = round(rate * seconds)
        self._epoll = select.epoll()
        self._open = {}  # descriptor -> socket, when it was due, what has come
        self.latencies = []
        self.late = []
        self.failed = Counter()

    def run(self):
        first = time.perf_counter() + LEAD
        launched = 0
        while launched < self._count or self._open:
            due = first + launched * self._interval
            now = time.perf_counter()
            if launched < self._count and now >= due:
                self.late.append(now - due)
                self._launch(due)
                launched += 1
            elif launched == self._count and now > due + PATIENCE:
                self.failed["no answer"] += len(self._open)
                break
            else:
                # select() sleeps for microseconds, epoll_wait() for milliseconds.
                select.select([self._epoll], [], [], due - now if launched < self._count else PATIENCE)
            for descriptor, _ in self._epoll.poll(0):
                self._go_on(descriptor)

    def _launch(self, due):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        error = sock.connect_ex(self._address)
        if error not in {0, errno.EINPROGRESS}:
            self.failed[errno.errorcode[error]] += 1
            sock.close()
            return
        self._open[sock.fileno()] = [sock, due, b""]
        try:
            # The handshake on the loopback is over before connect() returns, unless the queue is full.
            sock.send(REQUEST)
            self._epoll.register(sock, select.EPOLLIN)
        except BlockingIOError:
            self._epoll.register(sock, select.EPOLLOUT)
        except OSError as error:
            self._epoll.register(sock, 0)
            self._end(sock.fileno(), type(error).__name__)

    def _go_on(self, descriptor):
        entry = self._open[descriptor]
        sock, due, answer = entry
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            sock.send(REQUEST)
            self._epoll.modify(sock, select.EPOLLIN)
            return
        except OSError as error:
            self._end(descriptor, type(error).__name__)
            return
        answer = entry[2] = answer + data
        if answer.endswith(ANSWER):
            self.latencies.append(time.perf_counter() - due)
            self._end(descriptor, "" if answer.startswith(b"HTTP/1.1 200 ") else "status")
        elif not data:
            self._end(descriptor, "closed early")

    def _end(self, descriptor, problem):
        if problem:
            self.failed[problem] += 1
        sock = self._open.pop(descriptor)[0]
        self._epoll.unregister(descriptor)
        sock.close()


def quantile(values, share):
    """The smallest of the values that at least ``share`` of them do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def summary(latencies, late, failed):
    """What is kept of a run, in microseconds."""
    if not latencies:
        return {"failed": dict(failed) or {"no answer": 1}}
    return {
        "connections": len(latencies),
        "failed": dict(failed),
        **{f"{name}_us": quantile(latencies, share) * 1e6 for name, share in SHARES.items()},
        **{f"client_late_{name}_us": quantile(late, share) * 1e6 for name, share in SHARES.items()},
    }


SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}


def serve_nothing():
    """The least that answers: prints its port, and is ended from outside."""
    with socket.create_server((HOST, 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(ANSWER) + ANSWER
        while True:
            with listener.accept()[0] as sock:
                sock.recv(4096)
                sock.send(answer)


def main(arguments):
    if arguments == ["empty"]:
        serve_nothing()
    port, rate, seconds = arguments
    gc.disable()
    arrivals = Arrivals(int(port), float(rate), float(seconds))
    arrivals.run()
    print(json.dumps(summary(arrivals.latencies, arrivals.late, arrivals.failed)))


if __name__ == "__main__":
    main(sys.argv[1:])
