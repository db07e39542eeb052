"""Sockets that a service manager has opened and passed on: sd_listen_fds(3). Text in, numbers out.

They begin at descriptor 3. ``LISTEN_PID`` says for which process they are meant: the variables are inherited by every
child, the intention is not. ``LISTEN_FDNAMES`` has a name for each, several of which may be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import BindError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioserve.config.addresses import NamedAddress

#: What must be removed once it was read, or programs that a worker starts would take our sockets for theirs.
VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

#: SD_LISTEN_FDS_START
_FIRST: Final = 3


@final
@dataclass(frozen=True, slots=True)
class Passed:
    """One descriptor, and the name of its socket unit."""

    fd: int
    name: str

    def __str__(self) -> str:
        return f"fd://{self.fd} ({self.name})"


def passed_on(environ: Mapping[str, str], pid: int) -> tuple[Passed, ...]:
    """What is meant for the process ``pid``, in the order of the descriptors."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not count.isascii() or not count.isdecimal():
        return ()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * int(count)  # systemd's own word for one without a name
    return tuple(Passed(_FIRST + index, names[index] or "unknown") for index in range(int(count)))


def named(address: NamedAddress, passed: Sequence[Passed]) -> list[int]:
    """The descriptors of this name; ``BindError`` if there are none."""
    found = [one.fd for one in passed if one.name == address.name]
    if not found:
        names = ", ".join(sorted({one.name for one in passed}))
        have = f"the names are {names}" if names else "none was passed in at all"
        raise BindError(
            f"{address}: no socket of this name was passed in ({have}); set FileDescriptorName={address.name} in the "
            "socket unit, or name another address"
        )
    return found
