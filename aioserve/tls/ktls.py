"""Kernel TLS: whether the kernel of this machine can encrypt what is sent, and whether it does on one connection.

OpenSSL makes the handshake on the socket itself and then gives the kernel its keys (SSL_OP_ENABLE_KTLS): what is
written from then on, also by sendfile(2), leaves the socket as TLS records. It needs a kernel with the ``tls`` module,
an OpenSSL from 3.0 on that is built for it, and AES-GCM. What the kernel cannot do on a connection, OpenSSL goes on
doing in the process, silently.
"""

from __future__ import annotations

import errno
import platform
import re
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Final, final

#: tcp.h and tls.h of Linux; Python has no names for them.
TCP_ULP: Final = 31
SOL_TLS: Final = 282
TLS_TX: Final = 1

#: struct tls12_crypto_info_aes_gcm_128 of tls.h, for a connection that nobody uses.
_KEY: Final = struct.pack("=HH36x", 0x0303, 51)

#: SSL_OP_ENABLE_KTLS of OpenSSL 3.0, which Python has a name for from 3.12 on.
OPTION: Final = 1 << 3

#: From here on the kernel can renew its key; before, a client's KeyUpdate ends the connection.
RENEWS_KEYS: Final = (6, 14)

#: What stands in the names of cipher suites that the kernel is given keys for. It knows others, too, and OpenSSL 3.0
#: leaves those to itself.
OFFLOADED: Final = "GCM"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is on this machine."""

    system: str  # "Linux"
    release: str  # of the kernel: "6.1.0-56-amd64"
    openssl: tuple[int, ...]
    version: str  # of OpenSSL, as it names itself
    #: What the kernel says of a connection that is to have TLS, and then of a key for it: an errno, or 0.
    attached: int
    keyed: int


def look() -> Found:
    """Ask this machine."""
    attached, keyed = _try() if platform.system() == "Linux" else (errno.ENOSYS, 0)
    return Found(
        system=platform.system(),
        release=platform.release(),
        openssl=ssl.OPENSSL_VERSION_INFO[:3],
        version=ssl.OPENSSL_VERSION,
        attached=attached,
        keyed=keyed,
    )


def obstacle(found: Found) -> str | None:
    """Why the kernel cannot encrypt here, and what to do about it; None if it can."""
    if found.system != "Linux":
        return f"{found.system or 'this system'} has no kernel TLS"
    if found.openssl < (3, 0):
        return f"this Python has {found.version}, and OpenSSL 3.0 was the first that can"
    match found.attached:
        case 0 if not found.keyed:
            return None
        case 0:
            return f"the kernel has no AES-GCM for TLS ({_name(found.keyed)}; modprobe gcm or aesni_intel on the host)"
        case errno.ENOENT:
            return "the kernel has no module tls (modprobe tls on the host; a container cannot load it)"
        case errno.ENOPROTOOPT:
            return "the kernel has no TCP_ULP"
        case number:
            return f"the kernel refuses TLS for a socket ({_name(number)})"


def renews_keys(release: str) -> bool:
    """Whether a kernel of this release can go on after a client's KeyUpdate."""
    number = re.match(r"(\d+)\.(\d+)", release)
    return number is not None and (int(number[1]), int(number[2])) >= RENEWS_KEYS


def sends(sock: socket.socket) -> bool:
    """Whether the kernel has the key of what is sent on ``sock``."""
    try:
        # The version and the cipher; EBUSY before there is a key, and EOPNOTSUPP or ENOPROTOOPT where there is no TLS.
        return len(sock.getsockopt(SOL_TLS, TLS_TX, 4)) == 4
    except OSError:
        return False


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _try() -> tuple[int, int]:
    """Ask for TLS on a connection to ourselves: the kernel loads its modules for it where it may, and else says no.

    That is the only question with an answer: /sys/module/tls is not there where the module is built in.
    """
    attached = False
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=1) as client,
        ):
            client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
            attached = True
            client.setsockopt(SOL_TLS, TLS_TX, _KEY)
    except OSError as error:
        number = error.errno or errno.EIO
        return (0, number) if attached else (number, 0)
    return 0, 0
