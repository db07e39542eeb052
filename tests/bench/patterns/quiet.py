"""What keeps the rest of the machine, and the server's own beginning, out of a measurement."""

from __future__ import annotations

import contextlib
import fcntl
import time
from pathlib import Path

from tests.bench.servers import ServerError

#: Once all processes of a server have used no more CPU time than this for so long, it has started. A tick is 0.01 s.
REST_SECONDS = 0.25
REST_CPU = 0.011
REST_PATIENCE = 15.0


def rest(server):
    """Return once the server does nothing: all of its workers have started, and forgotten whom they served before."""
    deadline = time.monotonic() + REST_PATIENCE
    before = server.processes()
    while True:
        time.sleep(REST_SECONDS)
        now = server.processes()
        if now.keys() == before.keys() and sum(now.values()) - sum(before.values()) <= REST_CPU:
            return
        if time.monotonic() > deadline:
            raise ServerError(f"{server.peer.name} does not come to rest within {REST_PATIENCE:g} s")
        before = now


@contextlib.contextmanager
def exclusively(path):
    """Hold a lock on a file, as flock(1) does, while this lasts; on nothing if there is none."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def preferred(pid, nice):
    """The session of ``pid`` is this nice while this lasts.

    Where sched_autogroup_enabled is 1, as it is by default, the kernel shares the cores among sessions first: nice(1)
    in another session yields to nobody here. Below 0 needs root.
    """
    if not nice:
        yield
        return
    file = Path(f"/proc/{pid}/autogroup")
    before = file.read_text().split()[-1]
    file.write_text(str(nice))
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            file.write_text(before)
