"""What a configuration that was read again changes in a running server, and what has to wait for a restart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aioserve.config.render import toml
from aioserve.config.tree import settings

if TYPE_CHECKING:
    from aioserve.config.tree import Config


@dataclass(frozen=True, slots=True)
class Renewed:
    """The configuration from now on, and a line for each setting that differs."""

    config: Config
    applied: tuple[str, ...]
    postponed: tuple[str, ...]


def renew(running: Config, wanted: Config) -> Renewed:
    """``wanted``, but for the settings that belong to the master: those stay as they are ``running``."""
    applied, postponed = [], []
    config = wanted
    # Whether the listeners speak TLS was settled when they were opened.
    turned = running.ssl.enabled != wanted.ssl.enabled
    for setting in settings():
        old, new = (getattr(getattr(one, setting.section), setting.field) for one in (running, wanted))
        if old == new:
            continue
        before, after = toml(setting, old), toml(setting, new)
        if setting.restart or (turned and setting.section == "ssl"):
            section = replace(getattr(config, setting.section), **{setting.field: old})
            config = replace(config, **{setting.section: section})
            postponed.append(f"{setting.path} = {after} needs a restart; until then it is {before}")
        else:
            applied.append(f"{setting.path} = {after} (was {before})")
    return Renewed(config, tuple(applied), tuple(postponed))
