"""The supervisor's decisions: a pure state machine, ``handle(event, now) -> actions``."""

from __future__ import annotations

import enum
from typing import final


@final
class Role(enum.Enum):
    """What a slot is for. Its value is what logs and process titles say."""

    WORKER = "worker"
    WATCHER = "watcher"  # watches files for --reload
