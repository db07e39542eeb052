"""Making listening sockets: TCP, unix, and descriptors that somebody else has opened.

Every function answers sockets that listen, do not block and are not inherited by programs that a worker executes
(PEP 446), or raises ``BindError`` with a sentence that says what to do and leaves nothing open. Which process accepts
from which socket is not known here.

O_NONBLOCK belongs to the open file, which all processes share: it is set once, here, and nobody may clear it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aioserve.accept.activation import named
from aioserve.accept.base import Inherited, Listener
from aioserve.config.addresses import Address, FdAddress, NamedAddress, PrivateAddress, Speaks, TcpAddress, UnixAddress
from aioserve.errors import BindError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.accept.activation import Passed

Resolved: TypeAlias = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

#: accept(2): the connection that was next broke before it was accepted, or a firewall forbids it. There may be others.
BROKEN: Final = frozenset({
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.EOPNOTSUPP, errno.ENOPROTOOPT,
})  # fmt: skip

#: How long a door is left alone at which nothing can be accepted (no descriptors, no memory), in seconds; asyncio's
#: figure. Without it the loop would spin, because the listener stays readable.
NO_ROOM_SECONDS: Final = 1.0

_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})
# Port 0 and several addresses: the port that is free for the first is taken for the second now and then.
_PORT_ATTEMPTS: Final = 16
_PROBE_TIMEOUT: Final = 1.0
# <linux/tcp.h>, struct tcp_info: eight bytes, four words, then tcpi_unacked.
_UNACKED: Final = struct.Struct("=24xI")

#: What the kernel takes of a response beyond what is on its way, in bytes. Its own limit follows the size of packets:
#: megabytes for each client that does not read on loopback or behind a proxy on this machine (2,000 of them kept a
#: worker busy with copying for 8 s). Larger values made responses of 100 KiB to 4 MiB no cheaper.
UNSENT_LIMIT: Final = 128 * 1024


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions:
    """What is the same for all listening sockets of a server."""

    backlog: int = 2048
    dual_stack: bool = False  # an IPv6 wildcard takes IPv4 too
    unix_mode: int = 0o660
    unix_owner: tuple[int, int] | None = None  # user and group that unix sockets are given to
    passed: Sequence[Passed] = ()  # what the service manager has opened for us


@final
@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a unix socket that we made. Its inode tells it from one that took its name since."""

    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Unlink it if it is still ours."""
        with suppress(OSError):
            there = os.lstat(self.path)
            if (there.st_dev, there.st_ino) == (self.device, self.inode):
                Path(self.path).unlink()


def open_address(address: Address, options: SocketOptions) -> tuple[list[Listener], SocketFile | None]:
    """Listen on one address, for all workers together; the file is that of a unix socket."""
    match address:
        case TcpAddress():
            return bind_tcp(address, backlog=options.backlog, dual_stack=options.dual_stack), None
        case UnixAddress():
            listener, file = bind_unix(
                address, backlog=options.backlog, mode=options.unix_mode, owner=options.unix_owner
            )
            return [listener], file
        case FdAddress():
            return [adopt_fd(address, backlog=options.backlog)], None
        case NamedAddress():
            found = named(address, options.passed)
            return [adopt_fd(FdAddress(fd, speaks=address.speaks), backlog=options.backlog) for fd in found], None
        case PrivateAddress():
            return [bind_private(backlog=options.backlog)], None


def bind_tcp(address: TcpAddress, *, backlog: int, dual_stack: bool, reuse_port: bool = False) -> list[Listener]:
    """Listen on an address, or on every address of a name: ``localhost`` is usually both 127.0.0.1 and ::1.

    Of several addresses, those that this machine does not have are passed over (a container without IPv6 still has
    ::1 in /etc/hosts) unless none is left; one that is in use is an error, because half a name is a trap. Port 0 gives
    all of them the same port.
    """
    return bind_found(address, resolve(address), backlog=backlog, dual_stack=dual_stack, reuse_port=reuse_port)


def bind_found(
    address: TcpAddress, found: list[Resolved], *, backlog: int, dual_stack: bool = False, reuse_port: bool = False
) -> list[Listener]:
    """The part of ``bind_tcp`` after the name has been resolved."""
    attempts = _PORT_ATTEMPTS if address.port == 0 and len(found) > 1 else 1
    while True:
        attempts -= 1
        try:
            return _bind_all(address, found, backlog=backlog, dual_stack=dual_stack, reuse_port=reuse_port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempts == 0:
                raise BindError(_tcp_advice(address, error)) from error


def bind_beside(listener: Listener, *, backlog: int | None) -> Listener:
    """One more socket of the SO_REUSEPORT group of a TCP listener: same address, same port, a queue of its own.

    Without a backlog it is bound and does not listen yet.
    """
    first = listener.sock
    dual_stack = first.family == socket.AF_INET6 and not first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    try:
        return _listen_tcp(
            first.family,
            first.getsockname(),
            backlog=backlog,
            dual_stack=dual_stack,
            reuse_port=True,
            speaks=listener.speaks,
        )
    except OSError as error:
        raise BindError(_tcp_advice(TcpAddress(*first.getsockname()[:2]), error)) from error


def bind_unix(
    address: UnixAddress, *, backlog: int, mode: int, owner: tuple[int, int] | None = None
) -> tuple[Listener, SocketFile]:
    """Listen on a path. A socket file that nobody listens on any more is replaced; anything else there is refused."""
    # Bound as it is written: made absolute it may be longer than an address can be. Removed by its full name.
    path = address.path
    _clear_the_way(address)
    with ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            # bind(2) makes the file with 0777 less the umask. A chmod afterwards goes by name, and a name may have
            # become a link to something else; nobody can connect before listen() in either case.
            old_umask = os.umask(0o777 & ~mode)
            try:
                sock.bind(path)
            finally:
                os.umask(old_umask)
            there = os.lstat(path)
            file = SocketFile(str(Path(path).absolute()), there.st_dev, there.st_ino)
            stack.callback(file.remove)
            if owner is not None:
                os.chown(path, *owner, follow_symlinks=False)
            sock.setblocking(False)
            sock.listen(backlog)
        except OSError as error:
            raise BindError(_unix_advice(address, error)) from error
        stack.pop_all()
    return _listener(sock, address.speaks), file


def bind_private(*, backlog: int) -> Listener:
    """Listen under a name that nobody has chosen, in the abstract name space of unix sockets. Linux only."""
    with ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.bind("")
            sock.setblocking(False)
            sock.listen(backlog)
        except OSError as error:
            raise BindError(f"no socket between terminators and workers: {error.strerror or error}") from error
        stack.pop_all()
    return Listener(sock=sock, address="private", server=None, private=True)


def adopt_fd(address: FdAddress, *, backlog: int) -> Listener:
    """Take over a stream socket that was opened by whoever started the server; it must be bound, and may listen."""
    try:
        sock = socket.socket(fileno=address.fd)
    except OSError as error:
        raise BindError(
            f"{address}: descriptor {address.fd} is not a socket ({error.strerror}); the program that starts aioserve "
            "has to open it and pass it on"
        ) from error
    wrong = _why_not_adoptable(sock)
    if not wrong and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        try:
            sock.listen(backlog)
        except OSError as error:
            wrong = f"cannot listen: {error.strerror}"
    if wrong:
        sock.detach()  # it is not ours to close
        raise BindError(f"{address}: the socket {wrong}; pass a bound TCP or unix stream socket")
    sock.setblocking(False)
    sock.set_inheritable(False)
    _limit_unsent(sock)
    return _listener(sock, address.speaks)


def adopt_inherited(inherited: Inherited, speaks: Speaks = "") -> Listener:
    """Take over a socket that the master before us had open, whatever that has spoken there."""
    sock = socket.socket(fileno=inherited.fd)
    sock.setblocking(False)
    sock.set_inheritable(False)
    return _listener(sock, speaks)


def adopt_lent(fd: int, speaks: Speaks) -> Listener:
    """Take over a copy of a sibling's socket, which the master has sent."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return _listener(sock, speaks)


def listens(listener: Listener) -> bool:
    """Whether anybody has called listen() on it, and nobody has shut it down since."""
    return bool(listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def queue_length(sock: socket.socket) -> int:
    """How many connections wait to be accepted; 0 where the system does not tell (unix sockets, other systems).

    Of a listening socket Linux says it in struct tcp_info, in the field tcpi_unacked. It takes 0.5 us.
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return 0
    size = _UNACKED.size
    waiting: int = _UNACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size))[0]
    return waiting


def adopt_file(path: str) -> SocketFile | None:
    """The file of a unix socket that the master before us has made; None if it is not there any more."""
    try:
        there = os.lstat(path)
    except OSError:
        return None
    return SocketFile(path, there.st_dev, there.st_ino) if stat.S_ISSOCK(there.st_mode) else None


def resolve(address: TcpAddress) -> list[Resolved]:
    """Every address of a name, once, in the resolver's order."""
    try:
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BindError(
            f"{address}: the name {address.host!r} cannot be resolved ({why}); check how it is spelled, or bind an "
            "address such as 127.0.0.1"
        ) from error
    return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))


def _bind_all(
    address: TcpAddress, found: list[Resolved], *, backlog: int, dual_stack: bool, reuse_port: bool
) -> list[Listener]:
    listeners: list[Listener] = []
    port = address.port
    passed_over: OSError | None = None
    with ExitStack() as stack:
        for family, sockaddr in found:
            try:
                listener = _listen_tcp(
                    family,
                    (sockaddr[0], port, *sockaddr[2:]),
                    backlog=backlog,
                    dual_stack=dual_stack,
                    reuse_port=reuse_port,
                    speaks=address.speaks,
                )
            except OSError as error:
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                passed_over = error
                continue
            stack.callback(listener.sock.close)
            listeners.append(listener)
            port = listener.sock.getsockname()[1]
        if passed_over is not None and not listeners:
            raise passed_over
        stack.pop_all()
    return listeners


def _listen_tcp(
    family: int,
    sockaddr: tuple[object, ...],
    *,
    backlog: int | None,
    dual_stack: bool,
    reuse_port: bool,
    speaks: Speaks,
) -> Listener:
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # Connections of the last run in TIME_WAIT do not keep the address (tcp(7), ip(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _limit_unsent(sock)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Said always: the default is the machine's (net.ipv6.bindv6only), and differs between systems.
            v6_only = not (dual_stack and sockaddr[0] == "::")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        sock.bind(sockaddr)
        sock.setblocking(False)
        if backlog is not None:
            sock.listen(backlog)
        stack.pop_all()
    return _listener(sock, speaks)


def _limit_unsent(sock: socket.socket) -> None:
    """Connections inherit it from the socket that has accepted them; tcp(7)."""
    if sock.family != socket.AF_UNIX:
        with suppress(OSError):  # a system that lacks it is as safe as its own limit
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LIMIT)


def _clear_the_way(address: UnixAddress) -> None:
    path = address.path
    try:
        there = os.lstat(path)
    except OSError:  # nothing there, or bind() will say what is wrong
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise BindError(f"{address}: there is something else, not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # a socket file without a listener: its owner was killed
            SocketFile(path, there.st_dev, there.st_ino).remove()
            return
        except FileNotFoundError:  # its owner has just removed it
            return
        except (BlockingIOError, TimeoutError):  # its queue is full: somebody listens
            pass
        except OSError as error:
            raise BindError(
                f"{address}: there is a socket, and whether it is in use cannot be told ({error.strerror}); "
                "remove it or choose another path"
            ) from error
    raise BindError(f"{address}: another process is listening there; stop it or choose another path")


def _why_not_adoptable(sock: socket.socket) -> str:
    if sock.type != socket.SOCK_STREAM or sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return "is of another kind"
    with suppress(OSError):
        sock.getpeername()
        return "is a connection"
    name = sock.getsockname()
    if not name or (sock.family != socket.AF_UNIX and name[1] == 0):
        return "is not bound to an address"
    return ""


def _listener(sock: socket.socket, speaks: Speaks) -> Listener:
    """Describe a bound socket."""
    name = sock.getsockname()
    scheme: Literal["http", "https"] = "https" if speaks == "https" else "http"
    redirect = speaks == "redirect"
    if sock.family == socket.AF_UNIX:
        # An abstract address (unix(7)) is bytes that begin with NUL; people write it with an @.
        path = os.fsdecode(name).replace("\0", "@", 1)
        prefix = "https://" if scheme == "https" else ""
        return Listener(
            sock=sock, address=f"{prefix}unix:{path}", server=(path, None), scheme=scheme, redirect=redirect
        )
    host, port = name[:2]
    return Listener(
        sock=sock,
        address=f"{scheme}://{TcpAddress(host, port)}",
        server=None if host in _WILDCARDS else (host, port),
        port=port,
        scheme=scheme,
        redirect=redirect,
    )


def _tcp_advice(address: TcpAddress, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"{address}: another process is listening there; stop it, or choose another port (0: any free one)"
        case errno.EACCES:
            return (
                f"{address}: no permission; ports below 1024 belong to root (grant CAP_NET_BIND_SERVICE, or choose a "
                "higher port)"
            )
        case errno.EADDRNOTAVAIL:
            return (
                f"{address}: this machine has no such address; bind one that it has, or 0.0.0.0 or [::] for all of them"
            )
        case errno.EAFNOSUPPORT:
            return f"{address}: this machine has no IPv6; bind an IPv4 address such as 0.0.0.0"
        case errno.EINVAL if address.host.lower().startswith("fe80:"):
            return f"{address}: a link-local address needs its interface; write it as [fe80::1%eth0]"
        case _:
            return f"{address}: {error.strerror or error}"


def _unix_advice(address: UnixAddress, error: OSError) -> str:
    folder = Path(address.path).absolute().parent
    match error.errno:
        case errno.ENOENT:
            return f"{address}: the directory {folder} does not exist; create it"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{address}: no permission to create a socket in {folder}; make it writable or choose another path"
        case errno.EADDRINUSE:
            return f"{address}: another process took the path just now; choose another one"
        case _:
            return f"{address}: {error.strerror or error}"
