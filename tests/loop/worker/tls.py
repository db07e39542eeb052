"""Clients of a server that speaks TLS, in memory: a real engine at each end, and a fake transport between them."""

from __future__ import annotations

import ssl

from aioserve.worker.handshakes import Handshakes
from tests.fakes import FakeTransport, OneCertificate
from tests.loop.worker.conftest import settle
from tests.tls import Authority, TlsClient

AUTHORITY = Authority()
CERTIFICATE = AUTHORITY.server()


def terms(certificate=CERTIFICATE, **options):
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_into(context)
    for option, value in options.items():
        setattr(context, option, value)
    return context


class Caller:
    """One connection to ``server``. What goes either way is moved by hand."""

    def __init__(self, server, listener, context=None, *, session=None, **transport):
        self.server = server
        self.tls = TlsClient(context or AUTHORITY.client_context(), session=session)
        self.transport = FakeTransport(**transport)
        self._waiting = []
        self.transport.protocol = server.handshakes.connect(listener)
        self.transport.protocol.connection_made(self.transport)

    @property
    def state(self):
        return self.transport.state

    def send(self, data, sizes=()):
        """Bytes as they are, in pieces of these sizes, and then the rest; what is not read now waits."""
        for size in sizes:
            if data:
                self._waiting.append(data[:size])
                data = data[size:]
        if data:
            self._waiting.append(data)
        self._deliver()

    def _deliver(self):
        while self._waiting and self.transport.reading and not self.transport.is_closing():
            self.transport.protocol.data_received(self._waiting.pop(0))

    async def settle(self):
        """Until everybody has had a turn and has read what was sent."""
        await settle()
        while self._waiting and self.transport.reading and not self.transport.is_closing():
            self._deliver()
            await settle()

    def hear(self):
        """All plaintext that the server has sent meanwhile."""
        self.tls.feed(self.transport.take())
        return self.tls.read()

    async def shake_hands(self, sizes=()):
        while not self.tls.shake_hands():
            self.send(self.tls.take(), sizes)
            await self.settle()
            self.tls.feed(self.transport.take())
        self.send(self.tls.take(), sizes)
        await self.settle()
        return self

    async def ask(self, data):
        """Send it encrypted, let the application run; what came back."""
        self.send(self.tls.write(data))
        await self.settle()
        return self.hear()

    def leave(self):
        """A FIN."""
        if not self.transport.protocol.eof_received():
            self.transport.close()

    def wait(self, seconds):
        """Let time pass for the server's deadlines, tick by tick."""
        deadlines = self.server.deadlines
        until = deadlines.now + seconds
        while deadlines.now < until:
            deadlines.advance(deadlines.now + deadlines.resolution)


def speak_tls(server, context=None, pem=None):
    """Let the server of ``connect`` have credentials, as ``start`` does."""
    server.credentials = OneCertificate(context or terms(), pem)
    server.handshakes = Handshakes(server)
    return server
