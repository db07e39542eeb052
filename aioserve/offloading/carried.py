"""What goes along with a call so that its log lines can be found: the request's id and the context's plain values.

A context variable cannot be sent, but it can be named: it is the attribute of some module, in the child too. Values
are sent if they are plain and short (texts, numbers, a UUID), which is what a log line shows; a database session or a
request in the context stays where it is.
"""

from __future__ import annotations

import importlib
import logging
import sys
from contextvars import Context, ContextVar, copy_context
from types import ModuleType
from typing import Any, Final, TypeAlias
from uuid import UUID

from aioserve.offloading.bound import REQUEST
from aioserve.offloading.foreign import shown

log = logging.getLogger("aioserve")

#: Values of these types go along, texts up to a length that fits a line of a log.
_PLAIN: Final = (str, int, float, bool, bytes, UUID, type(None))
_LONGEST: Final = 1024

#: The request's id, in the child: the attribute ``request_id`` of log records, and there for the application as well.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("aioserve.request_id", default="")

#: (module, attribute, value), and the request's id.
Carried: TypeAlias = tuple[tuple[tuple[str, str, Any], ...], str]

#: Where each variable lives, once it has been looked for; None: in no module.
_homes: Final[dict[ContextVar[Any], tuple[str, str] | None]] = {}


def pack(request_id: str) -> Carried | None:
    """What the current context gives a call to take along; None if that is nothing."""
    found = []
    for variable, value in copy_context().items():
        if variable is REQUEST or not isinstance(value, _PLAIN):
            continue
        if isinstance(value, (str, bytes)) and len(value) > _LONGEST:
            continue
        home = _homes[variable] if variable in _homes else _find_home(variable)
        if home is not None:
            found.append((*home, value))
    return (tuple(found), request_id) if found or request_id else None


def unpack(carried: Carried | None) -> Context:
    """A context for one call, in the child."""
    context = copy_context()
    if carried is not None:
        variables, request_id = carried
        context.run(_set, variables, request_id)
    return context


def _set(variables: tuple[tuple[str, str, Any], ...], request_id: str) -> None:
    REQUEST_ID.set(request_id)
    for module, name, value in variables:
        try:
            variable = getattr(importlib.import_module(module), name, None)
        except Exception as error:  # noqa: BLE001  # the worker has it in another way; the call itself may not need it
            log.debug("offload: %s.%s does not go along: %s", module, name, shown(error))
            continue
        if isinstance(variable, ContextVar):
            variable.set(value)


def _find_home(variable: ContextVar[Any]) -> tuple[str, str] | None:
    """The module that has ``variable`` as an attribute. Looked for once: it takes some milliseconds."""
    home = None
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or name == "__main__":
            continue
        for attribute, value in list(vars(module).items()):
            if value is variable:
                home = name, attribute
                break
        if home is not None:
            break
    _homes[variable] = home
    return home
