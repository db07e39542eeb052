"""The PROXY protocol, versions 1 and 2: what a load balancer says of a connection before the client's first byte.

The rules are those of haproxy's doc/proxy-protocol.txt, cited below by section. A ``PreambleReader`` is fed bytes, cut
anywhere, until it returns a ``Preamble``; what came behind the header is then its ``rest``, the beginning of HTTP.

    feed() -> None, more is needed      feed() -> Preamble, and ``rest``      feed() raises PreambleError: close

Whatever does not match exactly is refused, as early as it can be told: a header is either from a load balancer that can
write one, or from somebody who would like to be taken for another client. There is no way to go on without a header
(section 2: the receiver must not guess whether there is one).

Version 1 is a line, ``PROXY TCP4 192.0.2.7 198.51.100.1 50000 443`` and CRLF. Version 2 is a signature, one byte each
for version and command and for family and transport, a length, and that many bytes of addresses and TLVs, which are
read by ``proxy_tlvs``.

Three kinds of connection keep their own addresses, those of the load balancer: LOCAL (its health checks), UNKNOWN and
UNSPEC. Their block is skipped without being read, since the specification gives it no meaning (2.1, 2.2).

It knows nothing of sockets; whether the peer may speak for others is asked before the first byte gets here.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aioserve.errors import PreambleError
from aioserve.http.proxy_tlvs import NOTHING, read_tlvs

if TYPE_CHECKING:
    from aioserve.http.proxy_tlvs import Facts

#: Section 2.1: the worst case of a line, CRLF included.
LONGEST_LINE: Final = 107

#: The most bytes of addresses and TLVs that are taken; the field could say 65,535. All registered TLVs together are
#: below 2 KiB; some senders add the client's certificate, which is seldom above 4. nginx takes 4 KiB in all.
LONGEST_BLOCK: Final = 8 * 1024

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_LINE_START: Final = b"PROXY "
_FIXED: Final = 16

#: 2.1: decimal, no zeroes in front.
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)

#: How much of what was sent instead of a header is shown.
_SHOWN: Final = 24

#: An address and its port, or the path of a unix socket and None.
Endpoint: TypeAlias = tuple[str, int | None]


class Mode(enum.Enum):
    """Which versions are accepted."""

    V1 = "v1"
    V2 = "v2"
    AUTO = "auto"


class Command(enum.Enum):
    LOCAL = 0
    PROXY = 1


class Family(enum.Enum):
    """Of the client's connection. UNSPEC covers version 1's UNKNOWN, and version 2's unspecified transport."""

    UNSPEC = 0
    INET = 1
    INET6 = 2
    UNIX = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """One header. ``source`` and ``destination`` are None where the connection's own addresses are to be kept."""

    version: int
    command: Command
    family: Family
    source: Endpoint | None = None
    destination: Endpoint | None = None
    facts: Facts = NOTHING


@final
class PreambleReader:
    """Reads one header. See the module's docstring for the order of calls."""

    __slots__ = ("_mode", "_seen", "rest")

    def __init__(self, mode: Mode) -> None:
        #: What came behind the header, once there is one.
        self.rest: bytes = b""
        self._mode: Mode = mode
        self._seen: bytes = b""

    def feed(self, data: bytes) -> Preamble | None:
        """The header once it is complete, else None. Raises ``PreambleError``; do not feed again after either."""
        # Joined anew each time: no more than LONGEST_BLOCK and the last read are ever kept.
        seen = self._seen = self._seen + data
        if not seen:
            return None
        if SIGNATURE.startswith(seen[: len(SIGNATURE)]) and self._mode is not Mode.V1:
            return self._read_block(seen)
        if _LINE_START.startswith(seen[: len(_LINE_START)]) and self._mode is not Mode.V2:
            return self._read_line(seen)
        for start, version in ((SIGNATURE, 2), (_LINE_START, 1)):
            if seen.startswith(start):
                raise PreambleError(
                    f"a PROXY header of version {version}, but --proxy-protocol is {self._mode.value}; set it to auto"
                )
        raise PreambleError(
            f"no PROXY header but {seen[:_SHOWN]!r}; let the load balancer send one (send-proxy-v2 in haproxy), or "
            "leave --proxy-protocol out"
        )

    def _read_line(self, seen: bytes) -> Preamble | None:
        # 2.1: the line ends at the first CRLF, which stands within the first 107 bytes, and at nothing less.
        line, end, rest = seen[:LONGEST_LINE].partition(b"\r\n")
        if b"\n" in line or b"\r" in (line if end else line[:-1]) or (not end and len(line) == LONGEST_LINE):
            raise PreambleError(f"a PROXY line without CRLF within {LONGEST_LINE} bytes: {line[:_SHOWN]!r}...")
        if not end:
            return None
        self.rest = rest + seen[LONGEST_LINE:]
        return _parse_line(line)

    def _read_block(self, seen: bytes) -> Preamble | None:
        if len(seen) < _FIXED:
            return None
        command, family, length = _parse_fixed(seen)
        end = _FIXED + length
        if len(seen) < end:
            return None
        self.rest = seen[end:]
        if command is Command.LOCAL or family is Family.UNSPEC:
            return Preamble(version=2, command=command, family=Family.UNSPEC)
        return _parse_block(seen[:end], family)


def _parse_line(line: bytes) -> Preamble:
    try:
        parts = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        parts = line.decode("latin-1").split(" ")[:2]
    if parts[1] == "UNKNOWN":
        # 2.1: the receiver must ignore whatever stands behind it.
        return Preamble(version=1, command=Command.PROXY, family=Family.UNSPEC)
    if len(parts) != 6 or parts[1] not in {"TCP4", "TCP6"}:
        raise PreambleError(f"a PROXY line that is not of the form PROXY TCP4|TCP6 ADDRESS ADDRESS PORT PORT: {line!r}")
    family = Family.INET if parts[1] == "TCP4" else Family.INET6
    read = _ipv4 if family is Family.INET else _ipv6
    return Preamble(
        version=1,
        command=Command.PROXY,
        family=family,
        source=(read(parts[2]), _port(parts[4])),
        destination=(read(parts[3]), _port(parts[5])),
    )


def _ipv4(text: str) -> str:
    try:
        # It refuses zeroes in front, as 2.1 wants it.
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise PreambleError(f"a PROXY line with {text!r} for an IPv4 address") from None


def _ipv6(text: str) -> str:
    # A zone says something on the sender's machine alone. The dotted form at the end (::ffff:192.0.2.7) is not in 2.1's
    # words, but it is how haproxy, through inet_ntop, writes an IPv4 address in a TCP6 line.
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise PreambleError(f"a PROXY line with {text!r} for an IPv6 address")
    return _spell(address)


def _spell(address: ipaddress.IPv6Address) -> str:
    """As the kernel spells it for a peer of a socket, in every version of Python."""
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped is not None else str(address)


def _port(text: str) -> int:
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise PreambleError(f"a PROXY line with {text!r} for a port")
    return int(text)


def _parse_fixed(seen: bytes) -> tuple[Command, Family, int]:
    """Command, family (UNSPEC also for an unspecified transport) and length of the block."""
    version, command = seen[12] >> 4, seen[12] & 15
    if version != 2:
        raise PreambleError(f"a PROXY signature with version {version}; only 2 exists")
    if command > 1:
        raise PreambleError(f"a PROXY header with the unassigned command {command}")
    length = int.from_bytes(seen[14:16], "big")
    if length > LONGEST_BLOCK:
        raise PreambleError(
            f"a PROXY header of {length} bytes; {LONGEST_BLOCK} are taken: let the proxy send fewer TLVs"
        )
    if command == 0:
        # 2.2: the block is discarded "including the family which is ignored".
        return Command.LOCAL, Family.UNSPEC, length
    family, transport = seen[13] >> 4, seen[13] & 15
    if family > 3 or transport > 2:
        raise PreambleError(f"a PROXY header with the unassigned family and transport 0x{seen[13]:02x}")
    # A datagram's addresses count as well: haproxy says so of clients of its HTTP/3.
    return Command.PROXY, Family(family) if transport else Family.UNSPEC, length


def _parse_block(header: bytes, family: Family) -> Preamble:
    size = {Family.INET: 4, Family.INET6: 16}.get(family, 108)
    ports = 0 if family is Family.UNIX else 4
    tlvs_at = _FIXED + 2 * size + ports
    if len(header) < tlvs_at:
        raise PreambleError(f"a PROXY header of {len(header)} bytes; its addresses alone need {tlvs_at}")
    source = header[_FIXED : _FIXED + size]
    destination = header[_FIXED + size : _FIXED + 2 * size]
    port = int.from_bytes(header[tlvs_at - 4 : tlvs_at - 2], "big")
    destination_port = int.from_bytes(header[tlvs_at - 2 : tlvs_at], "big")
    return Preamble(
        version=2,
        command=Command.PROXY,
        family=family,
        source=_endpoint(source, port, family),
        destination=_endpoint(destination, destination_port, family),
        facts=read_tlvs(header, tlvs_at),
    )


def _endpoint(packed: bytes, port: int, family: Family) -> Endpoint:
    if family is Family.INET:
        return str(ipaddress.IPv4Address(packed)), port
    if family is Family.INET6:
        return _spell(ipaddress.IPv6Address(packed)), port
    # A path ends at its first NUL; an abstract or unnamed socket has none to show.
    return packed.partition(b"\0")[0].decode("utf-8", "surrogateescape"), None
