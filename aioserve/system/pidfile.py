"""The file with the master's process id, for init scripts and log rotation.

It appears as a whole (written beside itself and renamed). One that names a live process is left alone and is an error,
because two servers with one file are a trap for whoever signals by it; one that names a dead process was left behind.
It is removed only while it names us: after an upgrade it is the new master's.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from aioserve.errors import ConfigError

# The directory may be another user's, and root would write to whatever that has put a link to; O_EXCL follows none.
_ANEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@final
class PidFile:
    """``claim`` at the start, ``release`` at the end."""

    def __init__(self, path: str) -> None:
        self.path: Final = Path(path).absolute()

    def claim(self, *, predecessor: int = 0) -> None:
        """Write our process id; ``predecessor`` is a master that may still have the file. ``ConfigError`` if we cannot.

        Saying it again takes the file back from a successor that has not come to anything.
        """
        holder = self.holder()
        if holder not in {0, os.getpid(), predecessor} and _is_alive(holder):
            advice = "stop it first, name another file, or remove the file if that process is no server"
            raise ConfigError([f"--pid {self.path}: process {holder} is alive and has this file; {advice}"])
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            beside.unlink(missing_ok=True)
            with os.fdopen(os.open(beside, _ANEW, 0o644), "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            beside.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise ConfigError([f"--pid {self.path}: it cannot be written: {error.strerror or error}"]) from None

    def release(self) -> None:
        """Remove the file if it is ours."""
        if self.holder() == os.getpid():
            with suppress(OSError):
                self.path.unlink()

    def holder(self) -> int:
        """The process that the file names; 0 for no file, or one that names none."""
        try:
            text = self.path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return 0
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True
