"""From ``module:attribute`` to an application, or to a sentence that says what is wrong.

Foreign code runs here for the first time, so anything can be raised; everything but KeyboardInterrupt comes out as a
``BootError`` whose message names the cause and whose detail is the traceback without the frames of aioserve and of the
import system. Whether the application speaks ASGI is not judged here but in ``worker/adapters.py``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import stat
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aioserve.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

_HERE: Final = f"{Path(__file__).absolute().parent}{os.sep}"
#: The one module of ours that is somebody's application.
_EXAMPLE: Final = _HERE + "example.py"
_IMPORTLIB: Final = f"{Path(importlib.__file__).absolute().parent}{os.sep}"
_FROZEN: Final = ("<frozen importlib", "<frozen runpy", "<frozen zipimport")
#: What an application is called when it is not called what was asked for.
_USUAL_NAMES: Final = ("app", "application", "api", "asgi", "create_app", "make_app")


def load_app(target: str, *, factory: bool, app_dir: str) -> object:
    """Import what ``target`` names; with ``factory``, call it and return what it returns.

    ``app_dir``, or the working directory if it is empty, becomes the first place where modules are looked for.
    Raises ``BootError``.
    """
    module_name, attribute = _split(target)
    # Not resolved: where a deploy moves a symbolic link, the next worker must follow it.
    place = Path(app_dir).absolute()
    try:
        # Not by Path.is_dir(), to which a place that one may not see is none (from Python 3.14 on).
        there = stat.S_ISDIR(place.stat().st_mode)
    except PermissionError:
        raise BootError(
            f"cannot import {module_name!r}: user {os.geteuid()} may not enter the directory {place}; let it, or name "
            "another (--app-dir, --user)"
        ) from None
    except OSError:
        there = False
    if not there:
        raise BootError(f"cannot import {module_name!r}: there is no directory {place} (--app-dir)")
    if sys.path[:1] != [str(place)]:
        sys.path.insert(0, str(place))
    module = _import(module_name, place)
    found = _attribute(module, attribute, target)
    if not callable(found):
        raise BootError(
            f"{target} is {_a(type(found).__name__)}, which cannot be called: an ASGI application is a callable"
        )
    return _build(found, target) if factory else found


def trim(error: BaseException) -> str:
    """The traceback of ``error`` and of its causes, without the frames of aioserve, importlib and runpy."""
    report = traceback.TracebackException.from_exception(error)
    _drop_frames(report)
    return "".join(report.format()).rstrip("\n")


def headline(error: BaseException) -> str:
    """``error`` in one line, without a module in front of its name; a long one's first line says what it is about."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _split(target: str) -> tuple[str, str]:
    module, colon, attribute = target.partition(":")
    if not target:
        raise BootError("no application was named: pass module:attribute, such as main:app")
    if os.sep in module or module.endswith(".py"):
        stem = module.removesuffix(".py").strip("." + os.sep).replace(os.sep, ".")
        raise BootError(f"{target!r} is a path: name a module instead, such as {stem}:{attribute or 'app'}")
    if not colon or not module or not attribute:
        raise BootError(f"{target!r} is not module:attribute, such as {module or 'main'}:{attribute or 'app'}")
    names = (*module.split("."), *attribute.split("."))
    if not all(name.isidentifier() for name in names):
        raise BootError(f"{target!r} is not module:attribute: both are names with dots, such as package.main:app")
    return module, attribute


def _import(name: str, place: Path) -> ModuleType:
    # A reload may come within the granularity of the directory's mtime, by which importlib's caches go.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and _names(name, error.name) and not _own_frames(error):
            raise BootError(_not_found(name, error.name, place)) from None
        missing = f"it imports {error.name!r}, which is not installed" if error.name else str(error)
        raise BootError(f"cannot import {name!r}: {missing}", trim(error)) from None
    except SyntaxError as error:
        where = f" in {error.filename}, line {error.lineno}" if error.filename else ""
        raise BootError(f"cannot import {name!r}: syntax error{where}", trim(error)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code: whatever it raises is the report
        raise BootError(f"cannot import {name!r}: {headline(error)}", trim(error)) from None


def _attribute(module: ModuleType, dotted: str, target: str) -> object:
    found: object = module
    path = module.__name__
    for name in dotted.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = f" ({module.__file__})" if found is module and getattr(module, "__file__", None) else ""
            raise BootError(f"{path}{where} has no attribute {name!r}{_suggest(name, found)}") from None
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a module's __getattr__ is foreign code
            raise BootError(f"cannot get {name!r} of {target}: {headline(error)}", trim(error)) from None
        path = f"{path}.{name}"
    return found


def _build(factory: Callable[[], object], target: str) -> object:
    try:
        app = factory()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code: whatever it raises is the report
        raise BootError(f"the factory {target} failed: {headline(error)}", trim(error)) from None
    if inspect.iscoroutine(app):
        app.close()
        raise BootError(
            f"{target} is an async function: a factory is called before there is an event loop, so make it a plain one "
            "and move what it awaits into the lifespan, or drop --factory if it is the application itself"
        )
    if not callable(app):
        raise BootError(
            f"the factory {target} returned {_a(type(app).__name__)}, which cannot be called: "
            "an ASGI application is a callable"
        )
    return app


def _not_found(name: str, missing: str, place: Path) -> str:
    """The named module, or a package on the way to it, does not exist."""
    parent, _, leaf = missing.rpartition(".")
    if parent in sys.modules and not hasattr(sys.modules[parent], "__path__"):
        return f"there is no module {name!r}: {parent!r} is a module, not a package"
    searched = [Path(entry) for entry in sys.modules[parent].__path__] if parent in sys.modules else [place]
    present = {entry.stem for directory in searched for entry in _entries(directory)}
    message = f"there is no module {missing!r} in {', '.join(map(str, searched))}"
    if parent == "":
        message += " or where else Python looks"
    close = difflib.get_close_matches(leaf, sorted(present), 1)
    if close:
        whole = name.split(".")
        whole[missing.count(".")] = close[0]
        return f"{message}; did you mean {'.'.join(whole)!r}?"
    file = f"{name.replace('.', os.sep)}.py"
    for entry in _entries(place):
        if os.path.isfile(entry / file):
            return f"{message}; {entry.name}{os.sep}{file} exists: pass --app-dir {entry.name}"
    return message


def _entries(directory: Path) -> list[Path]:
    """What could be a module or hold one."""
    try:
        return sorted(entry for entry in directory.iterdir() if entry.suffix == ".py" or entry.is_dir())
    except OSError:
        return []


def _suggest(name: str, owner: object) -> str:
    names = [n for n in dir(owner) if not n.startswith("__")]
    close = difflib.get_close_matches(name, names, 1) or [n for n in _USUAL_NAMES if n in names][:1]
    return f"; did you mean {close[0]!r}?" if close else ""


def _names(name: str, missing: str) -> bool:
    return name == missing or name.startswith(missing + ".")


def _own_frames(error: BaseException) -> bool:
    return any(_is_foreign(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__))


def _a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _drop_frames(report: traceback.TracebackException) -> None:
    """Trim ``report`` and what it is caused by or made of, which it holds once each and without a circle."""
    queue = [report]
    while queue:
        one = queue.pop()
        one.stack[:] = [frame for frame in one.stack if _is_foreign(frame.filename)]
        nested: Iterable[traceback.TracebackException | None] = (
            one.__cause__,
            one.__context__,
            *(one.exceptions or ()),
        )
        queue.extend(other for other in nested if other is not None)


def _is_foreign(filename: str) -> bool:
    """Whether a frame of this file says something to the author of the application."""
    if filename.startswith(_FROZEN):
        return False
    path = str(Path(filename).absolute())
    if path.startswith(_IMPORTLIB):
        return False
    return path == _EXAMPLE or not path.startswith(_HERE)
