"""A value that somebody gave, before it is known whether it counts; and the list of everything that is wrong."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Layer(enum.IntEnum):
    FILE = 1
    ENVIRONMENT = 2
    FLAG = 3


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave: where, and in which layer."""

    value: Any
    place: str
    layer: Layer


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Everything found wrong so far, one line each: the place, the value, what to do."""

    lines: list[str]

    def add(self, place: str, raw: object, message: str) -> None:
        shown = repr(raw)
        self.lines.append(f"{place}: {shown if len(shown) <= 100 else shown[:100] + '...'} {message}")
