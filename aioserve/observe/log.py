"""The log of what the server does and what goes wrong: logger "aioserve", on stderr or in a file.

Owns the form of its lines, --log-config, and reopening files after they were moved away. Requests are logged by
``access.py``; a --log-config that has a handler for the logger "aioserve.access" takes those over as well.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
import tomllib
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TextIO

from aioserve.errors import ConfigError
from aioserve.observe.jsonline import dump

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioserve.config.tree import Log

ACCESS_LOGGER: Final = "aioserve.access"
TRACE: Final = 5
LEVELS: Final = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

#: ANSI colours by level; green for info, as uvicorn has it.
_COLOURS: Final = {
    TRACE: "34",
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "91",
}

#: Control characters but line feed and tab: what a client or an exception has put into a message must not move the
#: cursor of whoever reads the log.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in {9, 10}}


class TextFormatter(logging.Formatter):
    """``2026-11-23 12:00:00 [4711] INFO     message``, the level in colour on request."""

    def __init__(self, *, use_colors: bool = False) -> None:
        super().__init__("%(asctime)s [%(process)d] %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        self._colours = _COLOURS if use_colors else {}

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        level = f"{record.levelname:<8}"
        colour = self._colours.get(record.levelno)
        if colour is not None:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        return f"{record.asctime} [{record.process}] {level} {record.message.translate(_CONTROLS)}"

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        return super().formatException(ei).translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """One object per line: time (UTC), level, logger, pid, message; ``exception``, the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document: dict[str, object] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        # Of an offloaded function, whose record says whose work it did.
        if getattr(record, "request_id", ""):
            document["request_id"] = record.request_id  # type: ignore[attr-defined]  # looked for above
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return dump(document)


def configure(log: Log, *, stream: TextIO | None = None) -> None:
    """Make the logger as ``log`` says, with ``stream`` in place of stderr. Call it before any fork; again replaces.

    Raises ``ConfigError`` for a --log-config or --log-file that cannot be used.
    """
    logging.addLevelName(TRACE, "TRACE")
    logger = logging.getLogger("aioserve")
    if log.config:
        _apply(log.config)
        if logger.level == logging.NOTSET:
            logger.setLevel(LEVELS[log.level])
        return
    stream = stream or sys.stderr
    handler: logging.Handler
    if log.file:
        try:
            handler = logging.FileHandler(log.file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ConfigError([f"--log-file {log.file}: {error.strerror}"]) from None
        terminal = False
    else:
        handler = logging.StreamHandler(stream)
        terminal = stream.isatty() and not os.environ.get("NO_COLOR")
    coloured = terminal if log.colors is None else log.colors
    handler.setFormatter(JsonFormatter() if log.format == "json" else TextFormatter(use_colors=coloured))
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(LEVELS[log.level])
    logger.propagate = False


def open_stream() -> IO[str] | None:
    """What the log is written to, if that has a descriptor: for those who write without the logging module."""
    for handler in logging.getLogger("aioserve").handlers:
        stream = getattr(handler, "stream", None)
        with suppress(AttributeError, OSError, ValueError):  # none, or none any more
            if stream is not None and stream.fileno() >= 0:
                return stream  # type: ignore[no-any-return]  # a handler of any kind: typeshed cannot know
    return None


def reopen() -> None:
    """Close and open again, by name, every file that any logger writes to; streams are left alone.

    A file that cannot be opened goes on being written where it is now.
    """
    for handler in _file_handlers():
        handler.acquire()
        try:
            # Never "w": it would empty a file that nobody has moved away.
            handler.mode = "a"
            old, handler.stream = handler.stream, handler._open()
            if old is not None:
                old.close()
        except OSError as error:
            problem = f"cannot reopen {handler.baseFilename}: {error.strerror}"
        else:
            continue
        finally:
            handler.release()
        logging.getLogger("aioserve").error("%s", problem)


def _file_handlers() -> Iterator[logging.FileHandler]:
    loggers = [logging.root, *logging.Logger.manager.loggerDict.values()]
    found = {handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers}
    for handler in found:
        # A WatchedFileHandler sees by itself that its file was moved.
        if isinstance(handler, logging.FileHandler) and not isinstance(handler, WatchedFileHandler):
            yield handler


def _apply(path: str) -> None:
    """--log-config: a dictConfig in JSON, YAML or TOML, or the older ini form, by the file's suffix."""
    try:
        settings = _read(Path(path))
        if settings is None:
            logging.config.fileConfig(path, disable_existing_loggers=False)
        else:
            # A configuration that does not name our loggers must not silence them.
            settings.setdefault("disable_existing_loggers", False)
            logging.config.dictConfig(settings)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError([f"--log-config {path}: {error.strerror or error}"]) from None
    except Exception as error:  # noqa: BLE001  # parsers and the handlers' own constructors raise what they like
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise ConfigError([f"--log-config {path}: {type(error).__name__}: {error}{cause}"]) from None


def _read(path: Path) -> dict[str, Any] | None:
    """What the file holds, None if it is of the ini form."""
    match path.suffix.lower():
        case ".json":
            settings = json.loads(path.read_bytes())
        case ".toml":
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        case ".yaml" | ".yml":
            settings = _read_yaml(path)
        case _:
            path.read_bytes()  # fileConfig calls a missing file invalid
            return None
    if not isinstance(settings, dict):
        raise ConfigError([f"--log-config {path}: it holds no mapping"])
    return settings


def _read_yaml(path: Path) -> object:
    try:
        import yaml
    except ImportError:
        raise ConfigError([f"--log-config {path}: YAML needs PyYAML: pip install 'aioserve[yaml]'"]) from None
    settings: object = yaml.safe_load(path.read_bytes())
    return settings
