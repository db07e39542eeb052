"""What foreign code raises, made fit to be told and to be carried."""

from __future__ import annotations

from aioserve.errors import OffloadError


def shown(error: BaseException) -> str:
    """An exception in a message, whatever its own text does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # a foreign __str__
        return f"{type(error).__name__} (it has no text: its __str__ raises)"


def plain(error: BaseException) -> Exception:
    """What a loop can carry: SystemExit, KeyboardInterrupt and CancelledError mean something to it, and not this."""
    if isinstance(error, Exception):
        return error
    return OffloadError(f"the function raised {shown(error)}")
