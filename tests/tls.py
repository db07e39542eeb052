"""Throw-away certificates, and clients that trust them. Nothing is read from the machine, and no name is looked up.

    authority = Authority()                       # or Authority(intermediates=1): leaves then come with a chain
    certfile, keyfile = authority.server("localhost").write(tmp_path)
    client = authority.client_context(authority.client("alice"))

Keys are on the P-256 curve, which takes 1 ms each, unless ``rsa`` is asked for (50 ms and more).
"""

from __future__ import annotations

import ctypes
import datetime as dt
import errno
import ssl
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme
from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("localhost", "127.0.0.1", "::1")

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A leaf. ``chain`` is PEM: its certificate and then the intermediates, if there are any; without the root."""

    chain: bytes
    key: bytes

    @property
    def pem(self) -> bytes:
        """The leaf alone."""
        end = b"-----END CERTIFICATE-----\n"
        return self.chain[: self.chain.index(end) + len(end)]

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pem.decode())

    def encrypted_key(self, password: str) -> bytes:
        """The key in PKCS 8, which openssl asks ``password`` for."""
        key = serialization.load_pem_private_key(self.key, None)
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show it to whoever ``context`` speaks with."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.key + self.chain)
            file.flush()
            context.load_cert_chain(file.name)

    def write(self, folder: Path, name: str = "server", *, password: str = "") -> tuple[Path, Path]:
        """``NAME.crt`` with the chain and ``NAME.key``, each replaced as a whole if it is there; their paths."""
        key = self.encrypted_key(password) if password else self.key
        return replace(folder / f"{name}.crt", self.chain), replace(folder / f"{name}.key", key)

    def write_together(self, folder: Path, name: str = "server") -> Path:
        """``NAME.pem`` with key and chain; its path."""
        return replace(folder / f"{name}.pem", self.key + self.chain)


class Authority:
    """A root, and so many ``intermediates`` below it, the last of which signs the leaves."""

    def __init__(self, *, intermediates: int = 0) -> None:
        self._root = issuer = trustme.CA()
        for _ in range(intermediates):
            issuer = issuer.create_child_ca()
        self._issuer = issuer

    @property
    def pem(self) -> bytes:
        """The root."""
        return self._root.cert_pem.bytes()

    def write(self, folder: Path, name: str = "authority") -> Path:
        """``NAME.crt`` with the root; its path."""
        return replace(folder / f"{name}.crt", self.pem)

    def server(self, *names: str, days: float = 30, rsa: bool = False) -> Certificate:
        """For these names and addresses; without any, those of this machine. It expires in so many days."""
        return self._issue(*(names or NAMES), days=days, rsa=rsa)

    def client(self, name: str, *, organization: str | None = None, days: float = 30) -> Certificate:
        """Its subject is CN=name with O and OU."""
        return self._issue("client@example.org", common_name=name, organization_name=organization, days=days)

    def expired(self, *names: str) -> Certificate:
        """A server's, since yesterday."""
        return self._issue(*(names or NAMES), days=-1)

    def client_context(self, certificate: Certificate | None = None, **options: object) -> ssl.SSLContext:
        """A client that trusts this authority, and shows ``certificate`` if it is asked for one.

        ``options`` are attributes of the context, such as ``maximum_version``.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.pem.decode())
        if certificate is not None:
            certificate.load_into(context)
        for option, value in options.items():
            setattr(context, option, value)
        return context

    def _issue(
        self,
        *names: str,
        days: float,
        rsa: bool = False,
        common_name: str | None = None,
        organization_name: str | None = None,
    ) -> Certificate:
        now = dt.datetime.now(dt.UTC)
        leaf = self._issuer.issue_cert(
            *names,
            common_name=common_name,
            organization_name=organization_name,
            not_before=now - 30 * DAY,
            not_after=now + days * DAY,
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
        )
        return Certificate(b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes())


class TlsClient:
    """A client in memory: what it has to say is had with ``take``, what it is told is given to ``feed``."""

    def __init__(
        self, context: ssl.SSLContext, name: str = "localhost", *, session: ssl.SSLSession | None = None
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        #: It has had the server's close_notify.
        self.ended = False

    def shake_hands(self) -> bool:
        """Go on as far as what it was told allows; whether the handshake is complete."""
        try:
            self.engine.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        self._incoming.write(data)

    def take(self) -> bytes:
        return self._outgoing.read()

    def write(self, data: bytes) -> bytes:
        """Ciphertext of ``data``."""
        self.engine.write(data)
        return self.take()

    def read(self) -> bytes:
        """All that can be read; ``ended`` says whether that is the end. Raises what OpenSSL does."""
        found = b""
        try:
            while data := self.engine.read(65536):
                found += data
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return found

    def close(self) -> bytes:
        """Its close_notify."""
        with suppress(ssl.SSLWantReadError):
            self.engine.unwrap()
        return self.take()


def shake_hands(server: ssl.SSLContext, client: TlsClient) -> ssl.SSLObject:
    """Let ``client`` and a server with this context come to terms; the server's side. Raises what OpenSSL does."""
    return meet(server, client)[0]


def meet(server: ssl.SSLContext, client: TlsClient) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """The same, and where the server's side reads from and writes to."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = server.wrap_bio(incoming, outgoing, server_side=True)
    complete = False
    while not complete:
        client.shake_hands()
        incoming.write(client.take())
        try:
            engine.do_handshake()
            complete = True
        except ssl.SSLWantReadError:
            pass
        client.feed(outgoing.read())
    client.shake_hands()
    return engine, incoming, outgoing


def replace(path: Path, content: bytes) -> Path:
    """Write the file as deployments do: beside it, and then in its place, so that nobody ever reads half of one."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    return beside.replace(path)


def leave_an_error() -> None:
    """In OpenSSL's queue of this thread, as a client of the application does when its server has gone."""
    import _ssl

    openssl = ctypes.CDLL(_ssl.__file__)  # what it depends on is looked at, too
    openssl.ERR_new()
    openssl.ERR_set_error(2, errno.EPIPE, None)  # ERR_LIB_SYS of <openssl/err.h>
