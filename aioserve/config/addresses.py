"""Addresses as an operator writes them: where to listen, whom to trust, where to mount. Text in, values out.

Nothing is resolved here: a host name stays a name until it is bound.

What is spoken at an address (``speaks``) is no part of what it is: two addresses are the same if one socket can be
bound to both, and ``str`` is the name by which a new master knows a socket of the old one, which may have spoken
something else there. ``spell`` has the scheme, as an operator writes it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

#: What a listening socket takes: TLS, plain HTTP, or plain HTTP that is answered with a redirect to TLS. Empty: nobody
#: has said so yet (``settled``).
Speaks: TypeAlias = Literal["", "http", "https", "redirect"]


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or address without brackets, and a port; 0 lets the kernel choose one."""

    host: str
    port: int
    speaks: Speaks = field(default="", compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str
    speaks: Speaks = field(default="", compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class FdAddress:
    """A socket that whoever started the server has opened already."""

    fd: int
    speaks: Speaks = field(default="", compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"fd://{self.fd}"


@dataclass(frozen=True, slots=True)
class NamedAddress:
    """The sockets that a service manager has opened under this name (FileDescriptorName= in a socket unit)."""

    name: str
    speaks: Speaks = field(default="", compare=False, kw_only=True)

    def __str__(self) -> str:
        return f"fd://{self.name}"


@dataclass(frozen=True, slots=True)
class PrivateAddress:
    """A unix socket for processes of this server alone: no file, a name that the kernel chooses (unix(7), autobind).

    Nobody can write one in a configuration.
    """

    speaks: Speaks = field(default="http", compare=False, kw_only=True)

    def __str__(self) -> str:
        return "private"


Address: TypeAlias = TcpAddress | UnixAddress | FdAddress | NamedAddress | PrivateAddress

_FORMS = (
    "write HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd://N or fd://NAME, with https:// or http:// in front if need be"
)
# RFC 3986 3.1: schemes know no case.
_SCHEME = re.compile(r"(https?)://", re.IGNORECASE)
# unix(7): sun_path has 108 bytes on Linux, the last of them NUL; 104 on macOS and the BSDs.
_LONGEST_PATH = 107
# systemd.socket(5), FileDescriptorName=: no colons and no control characters; more than a word nobody has.
_NAME = re.compile(r"[A-Za-z_][\w.@-]{0,254}", re.ASCII)
_HOST = re.compile(r"[^\s/?#@\[\]:%]+")


def parse_address(text: str) -> Address:
    """Read one address of ``--bind``. ``:PORT`` is every IPv4 interface, as gunicorn has it."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _place(text)
    try:
        address = _place(text[scheme.end() :].removesuffix("/"))
    except ValueError as error:
        raise ValueError(f"{error} (behind {scheme[0]})") from None
    return replace(address, speaks="https" if scheme[1].lower() == "https" else "http")


def spell(address: Address) -> str:
    """As it is written in the configuration, with the scheme if it has one."""
    return f"{address.speaks}://{address}" if address.speaks in {"http", "https"} else str(address)


def settled(address: Address, speaks: Speaks) -> Address:
    """The address, which speaks this unless it says otherwise."""
    return address if address.speaks else replace(address, speaks=speaks)


def _place(text: str) -> Address:
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if _NAME.fullmatch(number):
            return NamedAddress(number)
        if not number.isascii() or not number.isdecimal() or len(number) > 9:
            raise ValueError("does not name a descriptor; write fd://3, or fd://NAME for a socket unit's")
        return FdAddress(int(number))
    host, colon, port = text.rpartition(":")
    if not colon and text.isdecimal():
        raise ValueError(f"names no host; write :{text} for all interfaces or 127.0.0.1:{text} for this machine")
    if not colon or text.endswith("]"):
        raise ValueError(f"has no port; write {text}:8000")
    if "://" in text:
        raise ValueError(f"is a URL; {_FORMS}")
    if not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"has no port between 0 and 65535; {_FORMS}")
    if host.startswith("[") and host.endswith("]"):
        return TcpAddress(_ipv6(host[1:-1]), int(port))
    if ":" in host:
        raise ValueError(f"needs brackets around an IPv6 address; write [{host}]:{port} or [{text}]:PORT")
    if host and _HOST.fullmatch(host) is None:
        raise ValueError(f"is not an address; {_FORMS}")
    return TcpAddress(host or "0.0.0.0", int(port))


def _unix(path: str) -> UnixAddress:
    # unix:///run/x.sock is a habit from other programs' URLs.
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path or not path.isprintable():
        raise ValueError("names no path; write unix:/run/app.sock")
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise ValueError(f"has more than the {_LONGEST_PATH} bytes a socket's path may have; choose a shorter one")
    return UnixAddress(path)


def _ipv6(text: str) -> str:
    address, _, _zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise ValueError("has no IPv6 address between the brackets; write [::]:8000 or [::1]:8000") from None
    return text


def parse_network(text: str) -> str:
    """An address or network whose forwarding headers are believed; ``unix:`` any unix peer, ``*`` everybody."""
    if text in {"unix:", "*"}:
        return text
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is not an IP address, a network such as 10.0.0.0/8, unix: or *") from None
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"has bits set beyond its prefix; write {network}")
    return text


def parse_mount(text: str) -> str:
    """``PREFIX=module:attribute``, normalised: one leading slash, none at the end; ``/`` is the root."""
    prefix, equals, target = text.partition("=")
    module, colon, attribute = target.partition(":")
    names = f"{module}.{attribute}".split(".")
    if not equals or not colon or not all(name.isidentifier() for name in names):
        raise ValueError("is not of the form PREFIX=module:attribute, such as /api=shop.api:app")
    if not prefix.startswith("/"):
        raise ValueError(f"has a prefix without a slash in front; write /{text}")
    if "//" in prefix or re.search(r"[\s?#%]", prefix) or not prefix.isprintable():
        raise ValueError("has a prefix with a double slash, white space, ?, # or %; write it plain, such as /api")
    return f"{prefix.rstrip('/') or '/'}={target}"


def split_mount(mount: str) -> tuple[str, str]:
    """Prefix (empty for the root) and target of a mount that ``parse_mount`` has accepted."""
    prefix, _, target = mount.partition("=")
    return prefix.rstrip("/"), target
