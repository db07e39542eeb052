"""The doubles that tests use. Each does what the real thing does as far as the code under test can see."""

from __future__ import annotations

import asyncio

from aioserve.errors import RequestError
from aioserve.http.parser import ParserPool
from aioserve.http.parser_h11 import H11Parser
from aioserve.http.parser_httptools import LlhttpParser
from aioserve.http.reader import Limits, RequestReader

PARSERS = {"httptools": LlhttpParser, "h11": H11Parser}


class Request:
    """What a reader has pushed for one request."""

    def __init__(self, head):
        self.head = head
        self.body = b""
        self.trailers = []
        self.complete = head.length == 0


class RecordingSink:
    """A sink that answers each request at once, or when told to, and remembers everything."""

    def __init__(self, parser="httptools", *, answer=True, **limits):
        self.requests = []
        self.error = None
        self.answer = answer
        self.reader = RequestReader(self, ParserPool(PARSERS[parser]), Limits(**limits))

    def feed(self, data):
        try:
            hanging = self.reader.feed(data)
            while hanging and self.answer and self.reader.rest:
                hanging = self.reader.feed(b"")
        except RequestError as error:
            self.error = error
        return self

    def on_request(self, head):
        self.requests.append(Request(head))
        if head.length == 0 and self.answer:
            self.reader.proceed()

    def on_body(self, data):
        assert data
        self.requests[-1].body += data

    def on_end(self, trailers):
        self.requests[-1].trailers = list(trailers)
        self.requests[-1].complete = True
        if self.answer:
            self.reader.proceed()

    @property
    def status(self):
        return self.error.status if self.error else None

    def summary(self):
        """Everything that the client could tell apart."""
        return (
            [
                (r.head.line.method, r.head.line.raw_path, r.head.line.query, r.head.headers, r.head.keep_alive,
                 r.body if r.complete else None, r.trailers, r.complete)
                for r in self.requests
            ],
            self.status,
        )  # fmt: skip


class FakeTransport(asyncio.Transport):
    """Keeps what is written; ``accept`` says how many bytes the peer takes before writing pauses."""

    def __init__(self, peer=("192.0.2.7", 50000), accept=1 << 30):
        super().__init__()
        self.peer = peer
        self.written = b""
        self.queued = 0
        self.accept = accept
        self.reading = True
        self.state = "open"
        self.protocol = None

    def get_extra_info(self, name, default=None):
        return {"peername": self.peer, "sockname": ("192.0.2.1", 80)}.get(name, default)

    def write(self, data):
        if self.state == "open":
            self.written += data
            self.queued += len(data)
            if self.queued > self.accept:
                self.protocol.pause_writing()

    def peer_reads(self):
        """The peer takes everything that is queued."""
        paused = self.queued > self.accept
        self.queued = 0
        if paused:
            self.protocol.resume_writing()

    def get_write_buffer_size(self):
        return self.queued if self.queued > self.accept else 0

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.state = "half-closed"

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_closing(self):
        return self.state in {"closed", "aborted"}

    def is_reading(self):
        return self.reading

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def close(self):
        self._end("closed")

    def abort(self):
        self._end("aborted")

    def _end(self, state):
        if self.state not in {"closed", "aborted"}:
            self.state = state
            self.protocol.connection_lost(None)

    def take(self):
        """What has been written since the last call."""
        written, self.written = self.written, b""
        return written


class OneCertificate:
    """Credentials that show one certificate on the terms of ``context``."""

    def __init__(self, context, pem=None):
        self.context = context
        self.pem = pem

    def engine(self, incoming, outgoing):
        return self.context.wrap_bio(incoming, outgoing, server_side=True)

    def engine_on(self, sock):
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def shown(self, engine):
        return self.pem
