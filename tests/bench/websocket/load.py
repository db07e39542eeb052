"""The client: many WebSockets, on each of them one message in flight, and nothing done per message but read and write.

Requests and answers are bytes that were made before. An answer is compared byte by byte; one that comes in pieces is
collected first. One process, one thread, one core: ``floor`` shows how far that goes.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time

from tests.bench import proc
from tests.bench.servers import HOST, ServerError
from tests.bench.websocket.wire import BINARY, TEXT, accept_for, answer, handshake, request

#: For an answer, in seconds.
PATIENCE = 5.0

READ = 1 << 18


class Workload:
    """``connections`` clients say ``size`` bytes each, again and again, as text or bytes."""

    def __init__(self, name, title, size, opcode, connections=64):
        self.name, self.title, self.size, self.connections = name, title, size, connections
        self._opcode = opcode

    def payload(self, number):
        """Of the client with this number: no two are alike."""
        text = b"I am client %d; " % number
        return (text * (self.size // len(text) + 1))[: self.size]

    def request(self, number):
        return request(self._opcode, self.payload(number))

    def answer(self, number):
        return answer(self._opcode, self.payload(number))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("echo32", "32 bytes of text", 32, TEXT),
        Workload("echo16k", "16 KiB binary", 16_384, BINARY),
    )
}


def join(port, *, deflate=False):
    """An open WebSocket, blocking, and what the server has agreed on about compression."""
    sock = socket.create_connection((HOST, port), timeout=PATIENCE)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = handshake(deflate=deflate)
        sock.sendall(asked)
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            piece = sock.recv(4096)
            if not piece:
                raise ServerError(f"closed a connection after {said!r}")
            said += piece
        wanted = accept_for(asked).rpartition(b": ")[2].strip()
        if not said.startswith(b"HTTP/1.1 101 ") or wanted not in said:
            raise ServerError(f"answered a handshake with {said[:60]!r}")
    except BaseException:
        sock.close()
        raise
    return sock, b"permessage-deflate" in said.lower()


def exchange(sock, asked, wanted):
    """One message and its answer."""
    sock.sendall(asked)
    said = b""
    while len(said) < len(wanted):
        piece = sock.recv(READ)
        if not piece:
            raise ServerError(f"closed a connection after {said[:40]!r}")
        said += piece
    if said != wanted:
        raise ServerError(f"answered {said[:40]!r}, not {wanted[:40]!r}")


def answers(port):
    """Whether somebody echoes on ``port``."""
    workload = WORKLOADS["echo32"]
    try:
        sock, _ = join(port)
        with sock:
            exchange(sock, workload.request(0), workload.answer(0))
    except (OSError, ServerError):
        return False
    return True


def visit(server, workload, seconds):
    """The numbers of one visit, under the names that ``tests.bench.visit`` uses: a message counts as a request.

    The server is paused again when this returns.
    """
    sockets = []
    try:
        server.resume()
        try:
            for number in range(workload.connections):
                sockets.append(join(server.port)[0])
                exchange(sockets[-1], workload.request(number), workload.answer(number))
            return _measure(server, workload, sockets, seconds)
        finally:
            for sock in sockets:
                sock.close()
            server.pause()
    except (OSError, ServerError) as error:
        return {"problems": [str(error)]}


def _measure(server, workload, sockets, seconds):
    cores = {"server": server.core, "client": min(os.sched_getaffinity(0))}
    gc.collect()
    gc.disable()
    try:
        busy_before = {end: proc.core_seconds(core) for end, core in cores.items()}
        before, client_before, began = server.processes(), time.process_time(), time.perf_counter()
        messages, problem = converse(workload, sockets, seconds)
        elapsed = time.perf_counter() - began
        after, client = server.processes(), time.process_time() - client_before
        busy = {end: proc.core_seconds(core) - busy_before[end] for end, core in cores.items()}
    finally:
        gc.enable()
    cpu = sum(after.values()) - sum(before.values())
    problems = [problem] if problem else []
    if before.keys() != after.keys():
        problems.append("its processes have changed")
    if not messages:
        return {"problems": [*problems, "no message was answered"]}
    return {
        "requests": messages,
        "seconds": elapsed,
        "requests_per_second": messages / elapsed,
        "cpu_us_per_request": cpu / messages * 1e6,
        "pss_kib": proc.pss_kib(after),
        "server_busy": cpu / elapsed,
        "client_busy": client / elapsed,
        "others_on_server_core": max(busy["server"] - cpu, 0.0) / elapsed,
        "others_on_client_core": max(busy["client"] - client, 0.0) / elapsed,
        "problems": problems,
    }


def converse(workload, sockets, seconds):
    """How many messages were answered within ``seconds``, and what went wrong, if anything."""
    asked, wanted, partial = {}, {}, {}
    poll = select.epoll()
    try:
        for number, sock in enumerate(sockets):
            sock.setblocking(False)
            asked[sock.fileno()] = workload.request(number)
            wanted[sock.fileno()] = workload.answer(number)
            poll.register(sock, select.EPOLLIN)
        return _rounds(poll, asked, wanted, partial, seconds)
    finally:
        poll.close()


def _rounds(poll, asked, wanted, partial, seconds):
    read, write, now, wait = os.read, os.write, time.perf_counter, poll.poll
    answered = 0
    for fd, message in asked.items():
        write(fd, message)
    end = now() + seconds
    while now() < end:
        ready = wait(PATIENCE)
        if not ready:
            return answered, f"no answer within {PATIENCE:g} s"
        for fd, _ in ready:
            said = read(fd, READ)
            if said != wanted[fd]:
                if not said:
                    return answered, "closed a connection"
                said = partial.pop(fd, b"") + said
                if said != wanted[fd]:
                    if len(said) >= len(wanted[fd]):
                        return answered, f"answered {said[:40]!r}"
                    partial[fd] = said
                    continue
            answered += 1
            message = asked[fd]
            sent = write(fd, message)
            if sent < len(message):
                return answered, "took no more of a message"
    return answered, None
