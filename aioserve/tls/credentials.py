"""What a process shows in TLS handshakes, chosen anew for each of them.

There are two kinds of context. Every handshake begins with the *front*. It has the terms (versions, ciphers, ALPN) and
the keys of session tickets, but no certificate. Whoever forks makes it once; so all processes, also those that are
forked later, can decrypt each other's tickets. A *leaf* has one certificate with its key, or one for each kind of key.
OpenSSL calls the front's SNI callback in every handshake, also if the client names no host, and the callback chooses
the leaf. New certificates are new leaves: handshakes under way go on with the old ones, and tickets stay good.

In one case tickets must not stay good. A ticket lets a client in without looking at its certificate, even if the
authority that signed it is trusted no more. So when the authorities change there is a new front, with new keys. Only
processes that are forked afterwards share these; until then each process resumes its own sessions only.

Loops in several threads share one ``Credentials``. A handshake reads one reference, which ``replace`` changes at once.
"""

from __future__ import annotations

import logging
import ssl
import sys
from functools import cache
from typing import TYPE_CHECKING, Final, final

from aioserve.tls import terms
from aioserve.tls.names import Names

if TYPE_CHECKING:
    from aioserve.config.tree import Ssl
    from aioserve.tls.material import Loadable, Material, Source
    from aioserve.tls.names import Shown
    from aioserve.tls.sets import CertificateSet


log = logging.getLogger("aioserve")


def make_front() -> ssl.SSLContext:
    """An empty context, whose ticket keys all processes share that are forked from now on."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


class Leaf(ssl.SSLContext):
    """Has a certificate, or several with keys of different kinds: ``pems``, by kind. ``digest`` says which they are."""

    digest: str
    pems: dict[str, str]


@final
class _Choice:
    """The leaves of one set; those of ``before`` that hold the same are taken over."""

    __slots__ = ("_leaves", "_names", "authorities", "until")

    def __init__(self, chosen: CertificateSet, settings: Ssl, before: _Choice | None = None) -> None:
        report = chosen.report
        self.until: Final = report.until
        self.authorities: Final = report.authorities
        self._names: Final = Names(report.certificates)
        known: dict[str, Leaf] = {}
        if before is not None and before.authorities == self.authorities:
            known = {leaf.digest: leaf for leaf in before._leaves.values()}
        self._leaves: Final[dict[Shown, Leaf]] = {}
        for shown in sorted(self._names.sets):
            digest = " ".join(report.certificates[place].digest for place in shown)
            self._leaves[shown] = known.get(digest) or _load(chosen, shown, digest, settings)

    def leaf(self, name: str | None) -> Leaf:
        return self._leaves[self._names.choose(name)]


@final
class Credentials:
    """One per process. ``front`` is what the process that forked it has made; the terms are set on it here.

    Raises ``ConfigError`` for terms, and ``ssl.SSLError`` or ``OSError`` for a set, that cannot be used. The set may be
    closed afterwards.
    """

    def __init__(self, settings: Ssl, chosen: CertificateSet, front: ssl.SSLContext | None = None) -> None:
        hush_odd_names()
        self._settings: Final = settings
        self._choice = _Choice(chosen, settings)
        self._front = self._prepare(front or make_front())

    @property
    def until(self) -> int:
        """When the first of the certificates expires, in seconds since 1970."""
        return max(0, int(self._choice.until))

    def engine(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The server's side of one connection, reading ciphertext from ``incoming`` and writing it to ``outgoing``."""
        return self._front.wrap_bio(incoming, outgoing, server_side=True)

    def engine_on(self, sock: object) -> ssl.SSLSocket:
        """The same on a socket itself, which does not block: what kernel TLS needs."""
        return self._front.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[arg-type] # any socket

    def replace(self, chosen: CertificateSet) -> None:
        """Show these from the next handshake on. Raises as the beginning does, and then nothing has changed."""
        before = self._choice
        choice = _Choice(chosen, self._settings, before)
        # A handshake that is under way has the old front and the new leaf, which it may have.
        self._choice = choice
        if choice.authorities != before.authorities:
            self._front = self._prepare(make_front())

    def shown(self, engine: ssl.SSLObject | ssl.SSLSocket) -> str | None:
        """The certificate that the client was shown, as PEM; None where OpenSSL does not tell which of several."""
        leaf = engine.context
        assert isinstance(leaf, Leaf), "to be asked after the handshake"
        if len(leaf.pems) == 1:
            return next(iter(leaf.pems.values()))
        cipher = engine.cipher()
        suite = cipher[0] if cipher is not None else ""
        return next((pem for kind, pem in leaf.pems.items() if f"-{kind}-" in suite), None)

    def _prepare(self, front: ssl.SSLContext) -> ssl.SSLContext:
        terms.apply(self._settings, front)
        front.sni_callback = self._choose
        return front

    def _choose(self, engine: ssl.SSLObject, name: str | None, _front: ssl.SSLContext) -> None:
        engine.context = self._choice.leaf(name)
        engine.asked_for = name  # type: ignore[attr-defined] # nobody else keeps it: what a terminator tells workers


@cache
def hush_odd_names() -> None:
    """Keep clients from filling the log with tracebacks; once for this process and those that it forks.

    Python decodes the name that a client asks for before it calls us. If it is not ASCII, Python refuses the handshake,
    as it should (RFC 6066 3), and also prints a traceback through this hook, as often as anybody likes.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        # The name is the object at fault, from Python 3.14 on a part of the message.
        wording = unraisable.err_msg or ""
        of_a_name = isinstance(unraisable.object, bytes) or "ssl servername callback" in wording
        if unraisable.exc_type is UnicodeDecodeError and of_a_name:
            name = getattr(unraisable.exc_value, "object", unraisable.object)
            log.debug("a client asked for a name that is not ASCII: %r", name)
        else:
            before(unraisable)

    sys.unraisablehook = hook


def _load(chosen: CertificateSet, shown: Shown, digest: str, settings: Ssl) -> Leaf:
    """A leaf with the certificates of these places."""
    leaf = Leaf(ssl.PROTOCOL_TLS_SERVER)
    terms.apply(settings, leaf)
    leaf.digest = digest
    leaf.pems = {}
    material = chosen.material
    for place in shown:
        load(leaf, material, material.pairs[place])
        certificate = chosen.report.certificates[place]
        leaf.pems[certificate.kind] = certificate.pem
    if material.authorities is not None:
        trust(leaf, material, material.authorities)
    return leaf


def load(context: ssl.SSLContext, material: Material, pair: Loadable) -> None:
    """Load a certificate with its chain and its key."""
    # Two sources, also if they are the same: a path is read once. A password callback, always: without one OpenSSL asks
    # whoever sits at the terminal.
    with material.opened(pair.certificate, pair.key) as (certificate, key):
        context.load_cert_chain(certificate, key, password=lambda: material.password)


def trust(context: ssl.SSLContext, material: Material, authorities: Source) -> None:
    """Let in those for whom these authorities have signed. Raises ``ssl.SSLError``."""
    # An empty file is an error of another kind than one without certificates.
    context.load_verify_locations(cadata=as_ascii(material.read(authorities)) or " ")


def as_ascii(pem: bytes) -> str:
    """As Python wants it. What is written between certificates, which OpenSSL skips, may be in any language."""
    return pem.decode("ascii", "backslashreplace")
