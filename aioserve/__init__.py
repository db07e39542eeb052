"""aioserve: a production HTTP/1.1 server for ASGI applications.

Public are the names in ``__all__`` and nothing else.

The package, from the top down; imports point down only:

    commands   which command it is                   cli, cli_tune  the command lines
    boot       puts the parts together               tune       measures accept patterns on the application
    embed      serve() in a running loop, run()      testing    a real server inside a test
    supervise  from a configuration to a master      surroundings, system  user, limits, pid file, hooks
    master     supervises: machine and its parts decide, shell and hands fork and kill
    terminator speaks TLS for the workers, and relays
    worker     serves: connection, cycle, lifespan, mounts, the life of one process
    offloading offload(): a supervised pool of processes for CPU-heavy work
    accept     listening sockets, one class per accept pattern
    tls        certificates: where they are, what is wrong with them, which one is shown, on which terms
    http       bytes to requests and messages to bytes, without a socket or a clock
    observe    logs, the access log, the scoreboard
    config     every setting, declared once; flags, variables, TOML and help are derived from it
    importer, types, errors

Words, used for one thing each: a *worker* is a process that serves; a *slot* is the numbered place that one worker
after another holds; a *seat* is one of the two rows that a slot has on the *scoreboard*; a *generation* is all workers
started by one start or reload; a *rollout* replaces workers slot by slot, the successor first; the *heir* is a new
master that takes over the sockets; to *drain* is to finish what has begun and take nothing new; to *pause* is to accept
no more for a while; a *listener* is a socket that accepts, the *backlog* its queue in the kernel; a *dispatcher* is a
process that accepts for all workers, and a *feed* the pair of sockets by which it passes connections to a slot; a
*terminator* is a process that speaks TLS for the workers, and *introduces* each client to one of them; the
*siblings* of a worker are those of the other slots, and one that lets connections wait is *late*; a *door* is what a
worker accepts from: its own listener, a sibling's, or a feed; a *cycle* is one request and its response; a *head* is a
start line and its fields; a *peer* is whoever is at the other end of the connection, the *client* whoever the request
comes from; the *usher* of a worker with several loops accepts for them, and a *lane* is one of those who get
connections, as whoever passes them on sees it; the *front* is the TLS context that handshakes begin with, a *leaf* one
with a certificate, a *set* all certificates that were found good together.
"""

from typing import TYPE_CHECKING

from aioserve.errors import (
    BindError,
    BootError,
    ClientDisconnected,
    ConfigError,
    OffloadClosed,
    OffloadCrashed,
    OffloadError,
    OffloadFull,
    OffloadTimeout,
    OffloadUnfit,
)
from aioserve.version import __version__

if TYPE_CHECKING:
    from aioserve.offloading.api import offload as offload

__all__ = [
    "BindError",
    "BootError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "OffloadClosed",
    "OffloadCrashed",
    "OffloadError",
    "OffloadFull",
    "OffloadTimeout",
    "OffloadUnfit",
    "Running",
    "__version__",
    "offload",
    "run",
    "serve",
]


def __getattr__(name: str) -> object:
    # The server's parts are imported when they are asked for: ``from aioserve import ClientDisconnected`` in an
    # application should not cost the import of a server.
    if name in {"Running", "run", "serve"}:
        from aioserve import embed

        return getattr(embed, name)
    if name == "offload":
        from aioserve.offloading.api import offload
        from aioserve.offloading.bound import Place

        Place.binding = True
        return offload
    if name == "Config":
        from aioserve.config.tree import Config

        return Config
    raise AttributeError(f"module 'aioserve' has no attribute {name!r}")
