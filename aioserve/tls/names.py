"""Which certificates are shown for the name that a client asks for (SNI, RFC 6066 3; names, RFC 9525 6.3). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioserve.tls.findings import Certificate

#: Places of certificates that are shown together: one for each kind of key, of which OpenSSL takes what the client can.
Shown: TypeAlias = tuple[int, ...]


@final
class Names:
    """Chooses among certificates. The first one is shown to clients that ask for no name, or for one that is not here.

    An exact name comes before a wildcard, and a wildcard stands for one label. Of several certificates with the same
    name and the same kind of key the first is taken.
    """

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        found: dict[str, dict[str, int]] = {}
        self.doubles: list[tuple[str, int, int]] = []
        for place, one in enumerate(certificates):
            for name in _keys(one.names):
                before = found.setdefault(name, {}).setdefault(one.kind, place)
                if before != place:
                    self.doubles.append((name, before, place))
        self._found: Final[dict[str, Shown]] = {name: tuple(sorted(kinds.values())) for name, kinds in found.items()}
        self.default: Final[Shown] = self._default(certificates)

    def choose(self, name: str | None) -> Shown:
        """What a client that asks for ``name`` is shown. None: it asks for nothing, or for an address."""
        if name is None:
            return self.default
        name = plain(name)
        found = self._found.get(name)
        if found is None:
            _, dot, parent = name.partition(".")
            found = self._found.get(f"*.{parent}") if dot else None
        return found or self.default

    @property
    def sets(self) -> set[Shown]:
        """All that may be chosen."""
        return {self.default, *self._found.values()}

    def _default(self, certificates: Sequence[Certificate]) -> Shown:
        """The first, with those of other kinds that have one of its names."""
        if not certificates:
            return ()
        first = next(iter(_keys(certificates[0].names)), None)
        return self._found[first] if first is not None and 0 in self._found[first] else (0,)


def plain(name: str) -> str:
    """A name as it is compared: without regard to case, and without the dot of the root."""
    return name.lower().removesuffix(".")


def _keys(names: Iterable[str]) -> Iterable[str]:
    """Names that a client can ask for. Addresses are none of them (RFC 6066 3), and "*." stands for one label."""
    for name in dict.fromkeys(map(plain, names)):
        if not _is_address(name):
            yield name


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdecimal()
