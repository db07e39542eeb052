"""Seeds: inputs that a fuzz run begins with and that every test run replays.

One file per target, one input per line, as the text of a Python bytes literal between its quotes. The reader's are
what fuzzing has found; the wire corpus is read beside them.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conformance import wire

#: Each is a module with ``run(data)``, which raises when something is wrong with what comes of ``data``.
TARGETS = ("reader", "proxy_protocol", "forwarded")

FOLDER = Path(__file__).parent / "seeds"


def load(target: str) -> list[bytes]:
    """All seeds of ``target``."""
    return [*given(target), *kept(target)]


def given(target: str) -> list[bytes]:
    """Those that are there for another purpose."""
    return [case.raw for case in wire.cases()] if target == "reader" else []


def kept(target: str) -> list[bytes]:
    """Those that fuzzing has found or begun with."""
    return [read(line) for line in (FOLDER / f"{target}.txt").read_text("ascii").splitlines()]


def save(target: str, inputs: list[bytes]) -> None:
    """Replace the kept seeds of ``target``, the shortest first, so that a change of the file is easy to read."""
    lines = [write(data) for data in sorted(set(inputs), key=lambda data: (len(data), data))]
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")


def read(line: str) -> bytes:
    return ast.literal_eval(f"b'{line}'")


def write(data: bytes) -> str:
    return "".join(_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data)


_ESCAPES = {9: r"\t", 10: r"\n", 13: r"\r", 39: r"\'", 92: r"\\"}
