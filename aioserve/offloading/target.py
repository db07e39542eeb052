"""The function of a call: which one is meant, what it is called, and one run of it inside an executor.

This goes to wherever an executor runs what it is given. It imports little, and nothing that an interpreter beside the
main one refuses to load (``faulthandler`` is such a module).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioserve.offloading import carried

if TYPE_CHECKING:
    from collections.abc import Callable


def target_of(function: Any) -> Callable[..., Any]:
    """The plain function that is meant: what the decorator has wrapped, or ``function`` itself."""
    found: Callable[..., Any] = getattr(function, "__offloaded__", function)
    return found


def name_of(function: object) -> str:
    """A function as messages name it."""
    inner = getattr(function, "func", function)  # functools.partial
    module, name = getattr(inner, "__module__", None), getattr(inner, "__qualname__", None)
    return f"{module}.{name}" if module and name else repr(function)


def run(function: Any, arguments: Any, keywords: Any, along: carried.Carried | None) -> Any:
    """In the executor: one call."""
    return carried.unpack(along).run(target_of(function), *arguments, **keywords)


def run_to_the_end(function: Any, arguments: Any, keywords: Any, along: carried.Carried | None) -> list[Any]:
    """In the executor: a generator, to its end."""
    context = carried.unpack(along)
    return context.run(lambda: list(target_of(function)(*arguments, **keywords)))
