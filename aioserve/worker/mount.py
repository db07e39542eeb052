"""Several applications in one server: which of them a path belongs to, and what its scope says about that.

ASGI, HTTP connection scope and WSGI compatibility: ``root_path`` is WSGI's SCRIPT_NAME, and PATH_INFO is derived from
``path`` *and* ``root_path``; ``path`` is the whole path, with ``root_path`` in front. Starlette (since 0.33), Django
and a2wsgi rely on it. So a mounted application sees ``path`` "/api/items" and ``root_path`` "/api".

``--root-path`` names a prefix that a proxy has taken away. It is put back in front of ``path`` and ``raw_path`` and in
front of every mount's ``root_path``, as uvicorn does. Mounts are looked up by the path as it came, before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

from aioserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aioserve.types import ASGIApp, Receive, Scope, Send
    from aioserve.worker.lifespan import Lifespan


@final
@dataclass(frozen=True, slots=True)
class Mount:
    """An application and its place. ``prefix`` is empty for the main application."""

    prefix: str
    app: ASGIApp
    root_path: str
    #: What the log calls it.
    name: str
    state: dict[str, Any] = field(default_factory=dict)
    #: The most bytes that a request's body may have; 0 is no limit.
    body_limit: int = 0


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # the ASGI signature
    """What answers outside of every mount when there is no main application."""
    if scope["type"] == "websocket":
        # Closing before accepting is answered with 403 (ASGI, WebSocket close).
        await send({"type": "websocket.close", "code": 1000})
        return
    body = b"Not Found: no application is mounted here.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@final
class Mounts:
    """Finds the application for a path: the one with the longest prefix that ends at a segment's end."""

    def __init__(
        self,
        entries: Iterable[tuple[str, ASGIApp, Lifespan]],
        *,
        root_path: str = "",
        body_limit: int = 0,
        body_limits: Mapping[str, int] | None = None,
    ) -> None:
        """``body_limits`` are those of single mounts, by prefix; ``body_limit`` is everybody else's."""
        self.root_path: str = clean_prefix(root_path)
        self._raw_root: bytes = quote(self.root_path).encode()
        mounts = []
        limits = body_limits or {}
        for written, app, lifespan in entries:
            prefix = clean_prefix(written)
            limit = limits.get(prefix, body_limit)
            mounts.append(Mount(prefix, app, self.root_path + prefix, lifespan.name, lifespan.state, limit))
        prefixes = [mount.prefix for mount in mounts]
        twice = sorted({prefix or "/" for prefix in prefixes if prefixes.count(prefix) > 1})
        if twice:
            raise ConfigError([f"--mount: two applications have the prefix {prefix}" for prefix in twice])
        # Longest first, so that the first match is the longest. There are a handful: no tree.
        self._mounts: Final = sorted(mounts, key=lambda mount: len(mount.prefix), reverse=True)
        #: Answers what ``resolve`` finds no application for.
        self.outside: Mount = Mount("", not_found, self.root_path, "no application", body_limit=body_limit)

    @property
    def lone(self) -> Mount | None:
        """The one application when every path is its own, as it comes: most servers have nothing to look up."""
        alone = len(self._mounts) == 1 and not self._mounts[0].root_path
        return self._mounts[0] if alone else None

    def resolve(self, path: str) -> Mount | None:
        """The mount that ``path``, percent-decoded and without --root-path, belongs to."""
        for mount in self._mounts:
            prefix = mount.prefix
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/" or not prefix):
                return mount
        return None

    def enter(self, scope: Scope) -> Mount:
        """Complete a scope whose ``path`` and ``raw_path`` are as they came; return the mount that it is for."""
        mount = self.resolve(scope["path"]) or self.outside
        scope["root_path"] = mount.root_path
        if self.root_path and scope["path"] != "*":
            scope["path"] = self.root_path + scope["path"]
            scope["raw_path"] = self._raw_root + scope["raw_path"]
        scope["state"] = mount.state.copy()
        return mount


def clean_prefix(written: str) -> str:
    """A prefix as it stands in front of a path: "/api" of "/api/", and "" of "/"."""
    prefix = written.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise ConfigError([f"{written!r} is not the prefix of a path: it must begin with /"])
    return prefix
