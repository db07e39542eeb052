"""Files without a name, into which the kernel copies what this process is not to read.

``Sealed`` is Linux's memory (memfd_create(2)): nobody can change it once it is sealed, and sendfile(2) fills it without
a byte in this process. ``Nameless`` is what there is elsewhere: a temporary file that was unlinked, through which the
bytes go by way of this process.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Final, Protocol, final

_PIECE: Final = 1 << 20


class Memory(Protocol):
    """One kind of such files. A descriptor is its caller's to close."""

    def make(self, name: str) -> int:
        """An empty one, for this user alone; the name is for those who list descriptors."""

    def copy(self, source: int, to: int, *, at: int, size: int, put: int = 0) -> int:
        """Copy so many bytes from ``at`` of the source, or what there is of them, to ``put``; how many there were."""

    def seal(self, descriptor: int) -> None:
        """From now on nobody changes it."""

    def path(self, descriptor: int) -> str:
        """By which this process, and no other, opens it from its beginning; once."""


@final
class Sealed:
    """In memory, Linux only."""

    def make(self, name: str) -> int:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(descriptor, 0o600)  # it is made with 0777, for whoever has a path to it
        return descriptor

    def copy(self, source: int, to: int, *, at: int, size: int, put: int = 0) -> int:
        os.lseek(to, put, os.SEEK_SET)
        done = 0
        while done < size and (count := os.sendfile(to, source, at + done, size - done)):
            done += count
        return done

    def seal(self, descriptor: int) -> None:
        import fcntl

        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)

    def path(self, descriptor: int) -> str:
        return f"/proc/self/fd/{descriptor}"


@final
class Nameless:
    """On disk, without a name."""

    def make(self, name: str) -> int:
        with tempfile.TemporaryFile(prefix=name, buffering=0) as file:
            return os.dup(file.fileno())

    def copy(self, source: int, to: int, *, at: int, size: int, put: int = 0) -> int:
        done = 0
        while done < size and (piece := os.pread(source, min(size - done, _PIECE), at + done)):
            done += os.pwrite(to, piece, put + done)
        return done

    def seal(self, descriptor: int) -> None:
        """Such a file cannot be sealed; but no other process has it open."""

    def path(self, descriptor: int) -> str:
        # What is opened by this path shares its place with the descriptor.
        os.lseek(descriptor, 0, os.SEEK_SET)
        return f"/dev/fd/{descriptor}"


MEMORY: Final[Memory] = Sealed() if sys.platform == "linux" and hasattr(os, "memfd_create") else Nameless()
