"""The wire corpus: what clients send, byte by byte, and what must come of it.

    wire/valid/<topic>/<name>.http      the bytes, as they go over the wire; everything is answered by the application
    wire/invalid/<topic>/<name>.http    bytes with something in them that is refused, or that never becomes a request
    .../<name>.toml                     the expectation

An expectation is written from the RFCs and from what an origin server can afford to refuse, never from what the code
does. It says:

    about       the idea of the case, in a sentence
    rfc         the clauses, "9112 6.3" being RFC 9112, section 6.3
    statuses    of the final responses, in order
    then        "open": the connection serves another request; "closed": the server has ended it; "waiting": the
                server waits for more
    requests    what the application sees, in order: method, path (as it came, without the query), and where they are
                not the usual query = "", body = "", version = "1.1", trailers = []; complete = false for one that has
                a head and never an end; headers are those that must be there with exactly these values, absent names
                must not be there. Text stands for bytes, as in Latin-1.
    lenient     more requests that may be seen behind a front end that forgives what is refused here, where the RFC
                lets it, or that reads the bytes in another way that is its right

Names are unique, and the paths of a case's requests begin with its name where the target is not what is tried, so that
a request can be traced to its case. What would have been smuggled has a path with "smuggled" in it: only a front end
that takes it for a request of its own, answered like any other, may let it be seen.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

WIRE = Path(__file__).resolve().parent / "wire"

#: The limits that the cases count on: small, so that files at the limits stay readable.
LIMITS = {"request_line": 400, "header_fields": 20, "header_bytes": 2000, "request_body": 1000}


@dataclass(frozen=True)
class Request:
    """A request as the application sees it."""

    method: str
    path: str
    query: str = ""
    body: str = ""
    version: str = "1.1"
    headers: dict[str, list[str]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    complete: bool = True

    def of(self, seen: Mapping[str, Any]) -> Request:
        """What was ``seen``, as far as this request says something about it: equal to it if all is as expected."""
        fields = seen["headers"]
        return Request(
            method=seen["method"],
            path=seen["path"],
            query=seen["query"],
            body=seen["body"] if seen["complete"] else "",
            version=seen["version"],
            headers={name: [value for key, value in fields if key == name] for name in self.headers},
            absent=tuple(name for name in self.absent if all(key != name for key, _ in fields)),
            trailers=tuple((name, value) for name, value in seen["trailers"]),
            complete=seen["complete"],
        )


@dataclass(frozen=True)
class Case:
    """One exchange and its expectation; see the module's docstring."""

    name: str
    topic: str
    valid: bool
    raw: bytes
    about: str
    rfc: tuple[str, ...]
    statuses: tuple[int, ...]
    then: str
    requests: tuple[Request, ...]
    lenient: tuple[Request, ...]

    def __str__(self) -> str:
        return f"{self.topic}/{self.name}: {self.about}"


def pieces(raw: bytes, way: str) -> list[bytes]:
    """``raw`` "whole", "byte by byte", or cut at places that depend only on it and on ``way``: failures come back."""
    if way == "whole":
        return [raw]
    if way == "byte by byte":
        return [raw[at : at + 1] for at in range(len(raw))]
    seeded = random.Random(f"{way} {raw!r}")
    places = [0, *sorted(seeded.choices(range(len(raw) + 1), k=seeded.randint(1, 7))), len(raw)]
    return [raw[begin:end] for begin, end in pairwise(places) if end > begin]


def read_request(table: dict[str, Any]) -> Request:
    if "absent" in table:
        table["absent"] = tuple(table["absent"])
    if "trailers" in table:
        table["trailers"] = tuple((name, value) for name, value in table["trailers"])
    return Request(**table)


def read_case(path: Path) -> Case:
    """The case whose bytes are in ``path``."""
    said = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    for plural in ("rfc", "statuses"):
        said[plural] = tuple(said[plural])
    for requests in ("requests", "lenient"):
        said[requests] = tuple(read_request(table) for table in said.get(requests, ()))
    topic = path.parent
    return Case(path.stem, topic.name, topic.parent.name == "valid", path.read_bytes(), **said)


@cache
def cases() -> tuple[Case, ...]:
    """All cases, by topic and name."""
    return tuple(read_case(path) for path in sorted(WIRE.glob("*/*/*.http")))
