"""From a connection whose TLS handshake is complete to what the worker is told of it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from aioserve.http.introduction import Introduced, write

if TYPE_CHECKING:
    import asyncio

    from aioserve.worker.peer import Peer


def introduce(transport: asyncio.Transport, peer: Peer) -> bytes:
    """The header that the worker's connection begins with. Raises ``ValueError`` if there is too much to say."""
    engine: ssl.SSLObject = transport.get_extra_info("ssl_object")
    said: dict[str, Any] = dict(peer.extensions or {})
    tls = said.pop("tls", {})
    cipher = engine.cipher()
    chain = tls.get("client_cert_chain") or ()
    return write(
        Introduced(
            client=peer.client,
            server=peer.local,
            version=engine.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=engine.selected_alpn_protocol() or "",
            authority=getattr(engine, "asked_for", None) or "",
            certificates=tuple(ssl.PEM_cert_to_DER_cert(certificate) for certificate in chain),
            common_name=_common_name(engine.getpeercert()),
            name=tls.get("client_cert_name"),
            fault=tls.get("client_cert_error"),
            own_certificate=tls.get("server_cert") or "",
            more=_more(peer, said),
        )
    )


def _more(peer: Peer, extensions: dict[str, Any]) -> dict[str, Any] | None:
    """What a load balancer in front of us has said of the client."""
    more: dict[str, Any] = {}
    if peer.anonymous:
        more["anonymous"] = True
    for name, facts in extensions.items():
        # Latin-1 makes text of any bytes, and bytes of it again.
        more.setdefault("extensions", {})[name] = {
            key: {"bytes": value.decode("latin-1")} if isinstance(value, bytes) else value
            for key, value in facts.items()
        }
    return more or None


def _common_name(certificate: Any) -> str:
    parts = [value for part in (certificate or {}).get("subject", ()) for kind, value in part if kind == "commonName"]
    return str(parts[-1]) if parts else ""
