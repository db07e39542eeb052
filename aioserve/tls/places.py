"""Where certificates and keys are: from the settings to pairs of paths. The layout of a folder is decided here alone.

In ``ssl.certdir`` a certificate is ``NAME.crt`` or ``NAME.pem`` with ``NAME.key``, or ``NAME.pem`` that has both. One
level down it is ``NAME/fullchain.pem`` with ``NAME/privkey.pem``, as certbot has it, or ``NAME/tls.crt`` with
``NAME/tls.key``, as Kubernetes mounts a secret; these two may also be the folder itself. Names that begin with a dot
are nobody's business: Kubernetes keeps the files of a secret in ``..data``, a link that it replaces, and writers keep
halves of files in such names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aioserve.tls.findings import Finding, Weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aioserve.config.tree import Ssl

#: Certbot's and Kubernetes' names: in a folder that has such a pair, nothing else is a certificate.
_KNOWN: Final = (("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key"))


#: What tells one state of all files from another; two of the same state are equal.
Stamp: TypeAlias = tuple[tuple[str | int, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """Two paths, which are the same if the key is in the certificate's file."""

    certificate: str
    key: str


@final
@dataclass(frozen=True, slots=True)
class Places:
    """All that there is to read. ``unused`` are certificates without a key; with ``problems`` nothing is good."""

    pairs: tuple[Pair, ...]
    authorities: str = ""
    unused: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Each file once."""
        found = dict.fromkeys(path for pair in self.pairs for path in (pair.certificate, pair.key))
        return (*found, *filter(None, [self.authorities]))

    def doubts(self) -> tuple[Finding, ...]:
        """What an inspection of the copies cannot see."""
        text = "has no key beside it, NAME.key: it is not shown"
        return tuple(Finding(Weight.DOUBTFUL, path, text) for path in self.unused)

    def stamp(self) -> Stamp:
        """As the files are now, wherever links lead."""
        return (*map(_stamp, self.paths), *((path,) for path in self.unused), *((text,) for text in self.problems))


def look(ssl: Ssl) -> Places:
    """What the settings name now; the folder is read anew."""
    pairs = [Pair(*both) for both in zip(ssl.certfile, ssl.keyfile or ssl.certfile, strict=True)]
    authorities = ssl.ca_certs if ssl.cert_reqs != "none" else ""
    root = ssl.certdir
    if not root:
        return Places(tuple(pairs), authorities)
    try:
        found, unused = pair_up(_listing(root))
    except OSError as error:
        return Places(tuple(pairs), authorities, problems=(f"{root} cannot be read: {error.strerror or error}",))
    pairs += [Pair(f"{root}/{one.certificate}", f"{root}/{one.key}") for one in found]
    problem = (
        f"{root} has no certificate: put in NAME.crt with NAME.key, NAME.pem with both, or folders with fullchain.pem "
        "and privkey.pem"
    )
    problems = () if pairs else (problem,)
    return Places(tuple(pairs), authorities, tuple(f"{root}/{name}" for name in unused), problems)


def pair_up(listing: Mapping[str, Iterable[str]]) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The pairs, and certificates without a key. ``listing`` is the names of files by folder, "" for the topmost.

    The first pair is what clients without SNI see: those of the folder itself come first, in the order of their names.
    """
    pairs: list[Pair] = []
    unused: list[str] = []
    for folder in sorted(listing):
        prefix = f"{folder}/" if folder else ""
        names = {name for name in listing[folder] if not name.startswith(".")}
        known = [Pair(prefix + certificate, prefix + key) for certificate, key in _KNOWN if {certificate, key} <= names]
        if known:
            pairs += known
        elif not folder:
            for name in sorted(names):
                stem, dot, suffix = name.rpartition(".")
                if not dot or suffix not in {"crt", "pem"}:
                    continue
                if f"{stem}.key" in names:
                    if suffix == "crt" or f"{stem}.crt" not in names:
                        pairs.append(Pair(name, f"{stem}.key"))
                elif suffix == "pem":
                    pairs.append(Pair(name, name))
                else:
                    unused.append(name)
    return tuple(pairs), tuple(unused)


def _stamp(path: str) -> tuple[str | int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - of thousands, twice a second
    except OSError as error:
        return path, error.errno or 0
    # A copy over the file keeps its number, and "cp -p" its time of modification; ctime is what nobody can set.
    return path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _listing(root: str) -> dict[str, list[str]]:
    """The files of the folder and of those right below it, by their folder."""
    found: dict[str, list[str]] = {"": []}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                found[entry.name] = _names(entry.path)
            else:
                found[""].append(entry.name)
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, say. If it has the name of a certificate, reading it says what is wrong.
        return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - as above
    except OSError:
        # Certbot's archive, or somebody's lost+found: what may not be read there is not what we are to show.
        return []
