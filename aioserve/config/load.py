"""From layers of raw settings to one ``Config``: defaults < TOML file < environment < flags.

``load`` reads neither the environment nor files by itself: it is given a mapping and a function. Each layer turns its
raw values into ``Given`` values (value, place, layer) and notes every mistake; the layers are merged, ``check`` settles
what concerns several settings, and either one ``ConfigError`` with all mistakes or a ``Loaded`` comes out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from aioserve.config.check import settle
from aioserve.config.compat import REFUSED_VALUES, refusal
from aioserve.config.files import Read, find_table
from aioserve.config.given import Given, Layer, Mistakes
from aioserve.config.tree import HIDDEN, Config, Setting, sections, settings
from aioserve.config.values import nearest, parse_switch, suggest
from aioserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT = "default"
CONFIG_VARIABLE = "AIOSERVE_CONFIG"

_BY_PATH = {setting.path: setting for setting in settings()}
# By flat name: the settings, and the switches that stand for one value of a setting.
SETTINGS = {setting.flat: setting for setting in settings()}
SWITCHES = {name: (setting, value) for setting in settings() for name, value in setting.doc.switches}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, where each value of it came from (by path), and what the operator should know about it."""

    config: Config
    sources: dict[str, str]
    notes: tuple[str, ...] = ()


def load(
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    read: Read,
    config_file: str = "",
    mistakes: Iterable[str] = (),
    need_app: bool = True,
) -> Loaded:
    """Merge all layers. ``flags`` goes by flat names; ``mistakes`` are earlier ones, for the same report."""
    found = Mistakes(list(mistakes))
    given = {
        **_from_file(config_file or environ.get(CONFIG_VARIABLE, ""), read, found),
        **_from_environ(environ, found),
        **_from_names(flags, found, _flag),
    }
    return _finish(given, found, need_app=need_app)


def from_settings(**flat: object) -> Config:
    """A ``Config`` from keywords (the flags with underscores), given as text or as Python values.

    The application is usually an object that is passed along, so none has to be named.
    """
    found = Mistakes([])
    given = _from_names(flat, found, "{}=".format)
    return _finish(given, found, need_app=False).config


def env_file(*, flags: Mapping[str, object], environ: Mapping[str, str], read: Read, config_file: str = "") -> str:
    """The file of variables that the layers name: it has to be read before the environment counts.

    Mistakes are left for ``load`` to report.
    """
    ignored = Mistakes([])
    setting = _BY_PATH["app.env_file"]
    given = _from_file(config_file or environ.get(CONFIG_VARIABLE, ""), read, ignored).get(setting.path)
    named = flags.get(setting.flat) or environ.get(setting.env[0]) or (given.value if given else "")
    return str(named)


def _finish(given: dict[str, Given], found: Mistakes, *, need_app: bool) -> Loaded:
    given, notes = settle(given, found, need_app=need_app)
    if found.lines:
        raise ConfigError(found.lines)
    groups: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for setting in settings():
        if setting.path in given:
            groups[setting.section][setting.field] = given[setting.path].value
    default = Config()
    config = Config(**{section: type(getattr(default, section))(**group) for section, group in groups.items()})
    sources = {path: given[path].place if path in given else DEFAULT for path in _BY_PATH}
    return Loaded(config, sources, tuple(notes))


def _read_value(setting: Setting, raw: object, place: str, found: Mistakes) -> Any:
    """The typed value of one setting; ``None`` and a mistake noted when it is wrong."""
    if isinstance(raw, PurePath):
        raw = str(raw)
    if not setting.many:
        return _read_one(setting, raw, place, found)
    if isinstance(raw, str):
        # Variables and comma flags are one text; a repeatable flag comes as a list of elements.
        raw = [part for part in raw.split(setting.kind.separator) if part.strip()]
    if not isinstance(raw, list | tuple):
        found.add(place, raw, f"is not a list, each element {setting.kind.expects}")
        return None
    return tuple(_read_one(setting, str(part) if isinstance(part, PurePath) else part, place, found) for part in raw)


def _read_one(setting: Setting, raw: object, place: str, found: Mistakes) -> Any:
    refused = REFUSED_VALUES.get((setting.path, str(raw).strip().lower()))
    if refused is not None:
        found.add(place, raw, refused)
        return None
    try:
        value = setting.kind.read(raw)
    except ValueError as error:
        found.add(place, HIDDEN if setting.doc.secret else raw, str(error))
        return None
    low, high, spell = setting.doc.low, setting.doc.high, setting.kind.spell
    if value is None or ((low is None or value >= low) and (high is None or value <= high)):
        return value
    if high is None:
        found.add(place, raw, f"is too small; write {spell(low)} or more")
    else:
        found.add(place, raw, f"is out of range; write {spell(low)} to {spell(high)}")
    return None


def _from_names(flags: Mapping[str, object], found: Mistakes, place_of: Callable[[str], str]) -> dict[str, Given]:
    """The layer of flags or keywords, by flat names. ``None`` is a flag that was not given."""
    given: dict[str, Given] = {}
    for name, raw in flags.items():
        if raw is None:
            continue
        if name in SETTINGS:
            setting = SETTINGS[name]
            place = place_of(name)
            given[setting.path] = Given(_read_value(setting, raw, place, found), place, Layer.FLAG)
        elif name not in SWITCHES:
            found.lines.append(f"{name}=: {refusal(name) or 'no such setting' + suggest(name, [*SETTINGS, *SWITCHES])}")
    for name, raw in flags.items():
        if name in SWITCHES and raw:
            setting, value = SWITCHES[name]
            _apply_switch(given, setting, Given(value, place_of(name), Layer.FLAG), found)
    return given


def _apply_switch(given: dict[str, Given], setting: Setting, switch: Given, found: Mistakes) -> None:
    """Let ``--reuseport`` stand for ``--accept reuseport``, unless the same layer says otherwise."""
    other = given.get(setting.path)
    if other is not None and other.value not in {None, switch.value}:
        found.lines.append(
            f"{switch.place} means {setting.flag} {switch.value}, but {other.place} says {other.value}; leave one out"
        )
    given[setting.path] = switch


# Kubernetes puts such variables into every pod of a namespace that has a service named "aioserve".
_SERVICE_LINK = re.compile(r"AIOSERVE_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def _from_environ(environ: Mapping[str, str], found: Mistakes) -> dict[str, Given]:
    given: dict[str, Given] = {}
    known = {"config", *SETTINGS, *SWITCHES}
    for setting in settings():
        for name in setting.env:
            # An empty variable is one that compose files leave behind. An empty list is a list: trust nobody.
            if name in environ and (environ[name] or setting.many) and not _is_service_link(name, environ[name]):
                given[setting.path] = Given(_read_value(setting, environ[name], name, found), name, Layer.ENVIRONMENT)
                break
    for flat, (setting, value) in SWITCHES.items():
        name = f"AIOSERVE_{flat.upper()}"
        if environ.get(name) and _switched_on(environ[name], name, found):
            _apply_switch(given, setting, Given(value, name, Layer.ENVIRONMENT), found)
    for name, value in environ.items():
        flat = name.removeprefix("AIOSERVE_").lower()
        if name.startswith("AIOSERVE_") and flat not in known and not _is_service_link(name, value):
            near = nearest(flat, known).upper()
            hint = f"; did you mean AIOSERVE_{near}?" if near else ""
            found.lines.append(f"{name}: {refusal(flat) or 'no such variable' + hint}")
    return given


def _switched_on(text: str, name: str, found: Mistakes) -> bool:
    try:
        return parse_switch(text)
    except ValueError as error:
        found.add(name, text, str(error))
        return False


def _is_service_link(name: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(name) is not None or (
        name == "AIOSERVE_PORT" and value.startswith(("tcp://", "udp://", "sctp://"))
    )


def _from_file(path: str, read: Read, found: Mistakes) -> dict[str, Given]:
    name, table = find_table(path, read, found)
    given: dict[str, Given] = {}
    for section, group in table.items():
        if section not in sections():
            found.lines.append(f"{name}: {section}: {_unknown_key(section, group)}")
        elif not isinstance(group, dict):
            found.add(f"{name}: {section}", group, f"is not a table; write [{section}] and the settings below it")
        else:
            for key, raw in group.items():
                place = f"{name}: {section}.{key}"
                setting = _BY_PATH.get(f"{section}.{key}")
                if setting is None:
                    found.lines.append(f"{place}: {_unknown_leaf(section, key)}")
                else:
                    given[setting.path] = Given(_read_value(setting, raw, place, found), place, Layer.FILE)
    return given


def _unknown_key(key: str, group: object) -> str:
    """What to say about a name at the top of the file that is no section."""
    flat = key.replace("-", "_")
    if flat in SETTINGS:
        setting = SETTINGS[flat]
        return f"no such section; write {setting.field} in [{setting.section}]"
    names = [f"{flat}_{inner}" for inner in group] if isinstance(group, dict) else []
    refused = next(filter(None, map(refusal, [flat, *names])), "")
    return refused or "no such section" + suggest(flat, sections())


def _unknown_leaf(section: str, key: str) -> str:
    flat = key.replace("-", "_")
    if f"{section}.{flat}" in _BY_PATH:
        return f"no such setting; did you mean {flat}?"
    refused = refusal(f"{section}_{flat}") or refusal(flat)
    if refused:
        return refused
    if flat in SETTINGS:
        setting = SETTINGS[flat]
        return f"no such setting here; write {setting.field} in [{setting.section}]"
    if flat in SWITCHES:
        setting, value = SWITCHES[flat]
        return f'no such setting; write {setting.field} = "{value}" in [{setting.section}]'
    fields = [setting.field for setting in settings() if setting.section == section]
    near = suggest(flat, fields) or suggest(f"{section}_{flat}", _BY_PATH)
    return f"no such setting{near}"


def _flag(name: str) -> str:
    return SETTINGS[name].flag if name in SETTINGS else "--" + name.replace("_", "-")
