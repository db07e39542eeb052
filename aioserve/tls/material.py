"""Certificates and keys as bytes that no process has read: copied by the kernel from their files into one of memory.

The master, which may be root, copies; it never reads them, so that no key is in memory that workers inherit by the
fork. Whoever is to have them gets the descriptor. It cuts out one file after the other, again without reading, and
gives it to OpenSSL by a path below /proc/self/fd. One descriptor is enough for any number of certificates, can be
passed over a unix socket, and works for a process that has become another user and may not read the files.

The memory is sealed: what was inspected is what is loaded, whatever becomes of the files.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.tls.memory import MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioserve.tls.memory import Memory
    from aioserve.tls.places import Places

#: The certificates of all public authorities are a quarter of this. Bytes.
LARGEST: Final = 4 << 20


@final
@dataclass(frozen=True, slots=True)
class Source:
    """A file of before: its path, for messages, and where its copy is."""

    path: str
    at: int
    size: int


@final
@dataclass(frozen=True, slots=True)
class Loadable:
    """A certificate with its chain, and its key: the same source, if that has both."""

    certificate: Source
    key: Source


@final
class Material:
    """Copies of files, in the order of ``Places``. Whoever holds one closes it; a fork makes one more holder."""

    def __init__(
        self,
        descriptor: int,
        pairs: tuple[Loadable, ...],
        authorities: Source | None = None,
        password: str = "",
        memory: Memory = MEMORY,
    ) -> None:
        self.descriptor = descriptor
        self.pairs: Final = pairs
        self.authorities: Final = authorities
        self.password: Final = password
        self._memory: Final = memory

    @contextmanager
    def opened(self, *sources: Source) -> Iterator[list[str]]:
        """A path for each of them, good within the block and within this process, and to be read once."""
        copies: list[int] = []
        try:
            for source in sources:
                copies.append(self._memory.make("aioserve-pem"))
                self._memory.copy(self.descriptor, copies[-1], at=source.at, size=source.size)
            yield [self._memory.path(number) for number in copies]
        finally:
            for number in copies:
                os.close(number)

    def read(self, source: Source) -> bytes:
        """Its bytes. With a key in it this is for processes that are to have it."""
        return os.pread(self.descriptor, source.size, source.at)

    def close(self) -> None:
        """Give up the copies; it may be called again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def spell(self) -> dict[str, Any]:
        """What goes over a channel beside the descriptor."""
        return {
            "pairs": [[_spell(pair.certificate), _spell(pair.key)] for pair in self.pairs],
            "authorities": _spell(self.authorities) if self.authorities is not None else None,
            "password": self.password,
        }

    @classmethod
    def spelt(cls, descriptor: int, said: dict[str, Any]) -> Material:
        """The reverse of ``spell``."""
        authorities = Source(*said["authorities"]) if said["authorities"] is not None else None
        pairs = tuple(Loadable(Source(*certificate), Source(*key)) for certificate, key in said["pairs"])
        return cls(descriptor, pairs, authorities, said["password"])


def copy(places: Places, password: str = "", memory: Memory = MEMORY) -> tuple[Material | None, list[str]]:
    """Copy all files, or say what is wrong with them."""
    problems = list(places.problems)
    try:
        bundle = memory.make("aioserve-tls")
    except OSError as error:
        return None, [*problems, f"certificates cannot be copied: {error.strerror}"]
    sources: dict[str, Source] = {}
    at = 0
    for path in places.paths:
        try:
            size = _append(path, bundle, at, memory)
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        sources[path] = Source(path, at, size)
        at += size
    if problems:
        os.close(bundle)
        return None, problems
    memory.seal(bundle)
    pairs = tuple(Loadable(sources[pair.certificate], sources[pair.key]) for pair in places.pairs)
    return Material(bundle, pairs, sources.get(places.authorities), password, memory), []


def _spell(source: Source) -> list[Any]:
    return [source.path, source.at, source.size]


def _append(path: str, to: int, at: int, memory: Memory) -> int:
    """Copy a file to the end; its size."""
    # Not to wait for somebody to write into a pipe of this name.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if found.st_size > LARGEST:
            raise OSError(errno.EFBIG, f"it has {found.st_size >> 20} MiB, which no certificate has")
        return memory.copy(file, to, at=0, size=found.st_size, put=at)
    finally:
        os.close(file)
