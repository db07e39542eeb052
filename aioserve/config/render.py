"""The configuration as text: the annotated reference file, what ``--print-config`` prints, one value as TOML.

``python -m aioserve.config.render > conf/aioserve.toml`` writes the reference file anew.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from typing import TYPE_CHECKING

from aioserve.config.load import DEFAULT, Loaded
from aioserve.config.tree import HIDDEN, Setting, sections, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 100
_PREAMBLE = """\
aioserve: every setting with its default. Generated from the declarations; uncomment what you change.

The server reads the file named by -c/--config or AIOSERVE_CONFIG, else ./aioserve.toml, else the tables
[tool.aioserve.*] of ./pyproject.toml. Variables win over the file, flags win over variables. An unknown key is an
error. Relative paths start at the directory the server is started in. See the result with
`aioserve --print-config`."""

_NUMBER = re.compile(r"0|[1-9]\d*|0o[0-7]+", re.ASCII)


def toml(setting: Setting, value: object) -> str:
    """One value as TOML that reads back as the same value, unless it is a secret."""
    if setting.doc.secret and value:
        return json.dumps(HIDDEN)
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(setting, element) for element in value) + "]"
    text = setting.kind.spell(value)
    if isinstance(value, bool) or (int in setting.kind.native and _NUMBER.fullmatch(text)):
        return text
    return json.dumps(text, ensure_ascii=False)


def limits(setting: Setting) -> str:
    """``0 to 65535``, or nothing where there are no two ends worth naming."""
    low, high, spell = setting.doc.low, setting.doc.high, setting.kind.spell
    return "" if low is None or high is None else f"{spell(low)} to {spell(high)}"


def flags(setting: Setting) -> str:
    """The setting's flags as a reader would look them up: ``-w/--workers``, ``--reload/--no-reload``."""
    names = [f"-{setting.doc.short}"] if setting.doc.short else []
    names.append(setting.flag)
    if setting.is_switch:
        names.append(f"--no-{setting.flag.removeprefix('--')}")
    return "/".join(names)


def reference() -> str:
    """The text of conf/aioserve.toml."""
    return "\n".join(_reference_lines()) + "\n"


def _reference_lines() -> Iterator[str]:
    first, second = _PREAMBLE.split("\n\n")
    yield from (*_comment(first), "#", *_comment(second))
    for section, heading in sections().items():
        yield from ("", f"# {heading}", f"[{section}]")
        for setting in settings():
            if setting.section == section:
                yield ""
                yield from _comment(f"{setting.doc.help[0].upper()}{setting.doc.help[1:]}{_allowed(setting)}.")
                yield from _comment(_names(setting))
                yield f"# {setting.field} = {toml(setting, setting.default)}"


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _allowed(setting: Setting) -> str:
    allowed = ", ".join(setting.kind.choices) or limits(setting)
    return f" ({allowed})" if allowed else ""


def _names(setting: Setting) -> str:
    switches = [f"--{name}" for name, _ in setting.doc.switches]
    again = ["(repeatable)"] if setting.doc.repeatable else []
    also = [f"--{name}" for name in setting.doc.also]
    return " ".join([", ".join([flags(setting), *also, *switches, *setting.env]), *again])


def printed(loaded: Loaded) -> str:
    """Each value and its source. Defaults are commented out, so that the output is a configuration file.

    So are secrets, which are not shown.
    """
    lines = []
    for section in sections():
        lines += ["", f"[{section}]"]
        for setting in settings():
            if setting.section == section:
                value = getattr(getattr(loaded.config, section), setting.field)
                source = loaded.sources[setting.path]
                mark = "# " if source == DEFAULT or setting.doc.secret else ""
                lines.append(f"{mark}{setting.field} = {toml(setting, value)}  # {source}")
    return "\n".join(lines[1:]) + "\n"


def default_text(setting: Setting) -> str:
    """The default as the help shows it; empty where "nothing" goes without saying."""
    default = setting.default
    if isinstance(default, tuple):
        return setting.kind.separator.join(default)
    if setting.is_switch:
        return {True: "on", False: "", None: "auto"}[default]
    return "" if default is None else setting.kind.spell(default)


if __name__ == "__main__":
    sys.stdout.write(reference())
