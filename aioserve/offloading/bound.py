"""Whose call it is: the request that an offloaded call belongs to, so that it ends when the client leaves.

A server sets ``REQUEST`` in the context of a request if the application has ``aioserve.offload``; other requests pay
nothing. One that takes it from its scope is found by its task the first time (``Requests.find``).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Request(Protocol):
    """A request, or a WebSocket, as calls see it. ``gone``: the client has left before it had its response."""

    @property
    def gone(self) -> bool: ...
    @property
    def scope(self) -> Any: ...


class Requests(Protocol):
    """The server of a loop, as far as calls care."""

    def find(self, task: asyncio.Task[Any] | None, /) -> Request | None:
        """The request that ``task`` serves; None for one that has not waited yet."""


#: The request in whose context we are.
REQUEST: Final[ContextVar[Any]] = ContextVar("aioserve.request", default=None)

#: What ends with a request, as long as anything does: looked at when a client leaves, and at no other time.
LEAVING: Final[dict[Any, list[Callable[[], None]]]] = {}

#: Set in the scope of a request that met a full queue: a 500 that comes of it becomes a 503.
OVERLOADED: Final = "aioserve.overloaded"


@final
class Place:
    """Where this process stands."""

    #: In a child there is nothing to offload to.
    in_child = False
    #: Contexts say whose request they are: from when somebody has asked for ``aioserve.offload``, or used it.
    binding = False


def when_gone(request: Request, act: Callable[[], None]) -> None:
    """Call ``act`` in the loop of ``request`` if its client leaves before it has its response."""
    LEAVING.setdefault(request, []).append(act)


def forget(request: Request, act: Callable[[], None]) -> None:
    """``act`` is not wanted any more."""
    acts = LEAVING.get(request)
    if acts is not None and act in acts:
        acts.remove(act)
        if not acts:
            del LEAVING[request]


def left(request: Request) -> None:
    """The client of ``request`` wants no response any more."""
    for act in LEAVING.pop(request, ()):
        act()


def request_id(request: Request | None) -> str:
    """The X-Request-ID that came with the request, or an empty string."""
    if request is None:
        return ""
    for name, value in request.scope.get("headers", ()):
        if name == b"x-request-id":
            return bytes(value[:200]).decode("latin-1")
    return ""
