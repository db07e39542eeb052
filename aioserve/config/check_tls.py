"""Which combinations of TLS's settings make no sense.

A mistake is what would leave clients without the protection that somebody has asked for, or what cannot work; what has
merely no effect is a note. Files are not looked at here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioserve.config.addresses import Address, parse_address

if TYPE_CHECKING:
    from aioserve.config.given import Given, Mistakes

#: What the other settings of the section are about, and does nothing alone.
_REFINEMENTS = (
    "keyfile_password", "ciphers", "minimum_version", "ktls", "processes", "redirect_port",
)  # fmt: skip
_CERTIFICATE = "--ssl-certfile or --ssl-certdir"


def settle_tls(given: dict[str, Given], found: Mistakes) -> list[str]:
    """Notes for the operator; mistakes go to ``found``."""
    enabled = bool(_value(given, "ssl.certfile") or _value(given, "ssl.certdir"))
    addresses = _addresses(given)
    notes = _one_key_for_each_certificate(given, found)
    notes += _clients_are_verified(given, found, enabled=enabled)
    _what_is_spoken(given, found, notes, addresses, enabled=enabled)
    _redirects(given, found, addresses, enabled=enabled)
    processes = given.get("ssl.processes")
    if enabled and processes is not None and processes.value and _value(given, "process.accept") == "single":
        accept = given["process.accept"].place
        found.lines.append(
            f"{processes.place} contradicts single ({accept}), which is one process; use --accept shared"
        )
    if enabled and processes is not None and processes.value and _value(given, "process.preload"):
        found.lines.append(
            f"{processes.place} contradicts {given['process.preload'].place}: the application would be imported in the "
            "process from which those with the keys are forked; leave one out"
        )
    return notes


def _value(given: dict[str, Given], path: str) -> Any:
    return given[path].value if path in given else None


def _addresses(given: dict[str, Given]) -> list[Address]:
    """Those with something to say about what is spoken: the others have no scheme."""
    return [parse_address(text) for text in _value(given, "listen.bind") or () if text]


def _one_key_for_each_certificate(given: dict[str, Given], found: Mistakes) -> list[str]:
    certificates, keys = given.get("ssl.certfile"), given.get("ssl.keyfile")
    if keys is not None and keys.value:
        count = len(certificates.value or ()) if certificates is not None else 0
        if certificates is None or not count:
            found.lines.append(f"{keys.place}: a key and no certificate for it; add --ssl-certfile")
        elif count != len(keys.value):
            found.lines.append(
                f"{keys.place}: {_counted(len(keys.value), 'key')} for {_counted(count, 'certificate')} "
                f"({certificates.place}); give one for each, in the same order, or none if the keys are in the "
                "certificates' files"
            )
    password = given.get("ssl.keyfile_password")
    if password is not None and password.value and password.place.startswith("--"):
        where = "everybody on this machine can read it there; set AIOSERVE_SSL_KEYFILE_PASSWORD instead"
        return [f"{password.place} is in the list of processes: {where}"]
    return []


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _clients_are_verified(given: dict[str, Given], found: Mistakes, *, enabled: bool) -> list[str]:
    wanted, authorities = given.get("ssl.cert_reqs"), given.get("ssl.ca_certs")
    verifies = wanted is not None and wanted.value in {"optional", "required"}
    named = authorities is not None and bool(authorities.value)
    if wanted is not None and verifies and not enabled:
        found.lines.append(f"{wanted.place}: clients show certificates over TLS only; add {_CERTIFICATE}")
    elif wanted is not None and verifies and not named:
        found.lines.append(
            f"{wanted.place}: nothing says which clients are to be trusted; add --ssl-ca-certs with the authorities "
            "that sign their certificates"
        )
    if authorities is not None and named and not verifies:
        return [f"{authorities.place} has no effect without --ssl-cert-reqs required, or optional: nobody is asked"]
    return []


def _what_is_spoken(
    given: dict[str, Given], found: Mistakes, notes: list[str], addresses: list[Address], *, enabled: bool
) -> None:
    """Addresses and certificates agree, and nothing is said about TLS where there is none."""
    if enabled:
        if addresses and all(address.speaks == "http" for address in addresses):
            path = "ssl.certfile" if _value(given, "ssl.certfile") else "ssl.certdir"
            notes.append(
                f"{given[path].place} has no effect: every address says http:// ({given['listen.bind'].place})"
            )
        return
    found.lines.extend(
        f"{given['listen.bind'].place}: https://{address} needs a certificate; add {_CERTIFICATE}"
        for address in addresses
        if address.speaks == "https"
    )
    notes += [
        f"{given[path].place} has no effect without {_CERTIFICATE}"
        for path in (f"ssl.{field}" for field in _REFINEMENTS)
        if _value(given, path)
    ]
    # A front end may speak TLS, and say so with the PROXY protocol.
    if _value(given, "ssl.hsts") and _value(given, "proxy.protocol") in {None, "off"}:
        notes.append(f"{given['ssl.hsts'].place} has no effect without {_CERTIFICATE}: it is never sent without TLS")


def _redirects(given: dict[str, Given], found: Mistakes, addresses: list[Address], *, enabled: bool) -> None:
    redirect = given.get("ssl.redirect")
    if redirect is None or not redirect.value:
        return
    if not enabled or (addresses and all(address.speaks == "http" for address in addresses)):
        what = "no address speaks TLS" if enabled else f"there is no TLS without {_CERTIFICATE}"
        found.lines.append(f"{redirect.place}: {what}, so there is nothing to redirect to")
    texts = [text for text in redirect.value if text]
    taken = [str(address) for address in addresses] or [_default_address(given)]
    for text in sorted(set(texts)):
        if text in taken:
            found.lines.append(f"{redirect.place}: {text} is what the server itself listens on; choose another address")
        elif texts.count(text) > 1:
            found.lines.append(f"{redirect.place}: {text} is there twice; leave one out")


def _default_address(given: dict[str, Given]) -> str:
    """What the server listens on without --bind, as far as it is an address."""
    if _value(given, "listen.uds"):
        return f"unix:{_value(given, 'listen.uds')}"
    if _value(given, "listen.fd") is not None:
        return f"fd://{_value(given, 'listen.fd')}"
    host, port = _value(given, "listen.host") or "127.0.0.1", _value(given, "listen.port")
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{8000 if port is None else port}"
