"""A client that does nothing wrong: so many requests a second, each one's time recorded, every failure kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.process.clients import PATIENCE, Broken, Client

if TYPE_CHECKING:
    from collections.abc import Callable

EXPECTED = "Hello, World!"


@dataclass
class Seen:
    """What the client has seen so far. Times in seconds."""

    times: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.times)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] if ordered else float("nan")


class Healthy:
    """``with Healthy(address, per_second=50) as seen: ...``; half of the requests come on new connections.

    Two threads, each with a timetable. A request counts from the moment it was due if the one before it was still
    unanswered then: a server that stops for a second would else be one slow request among many fast ones.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        per_second: float = 50.0,
        target: str = "/",
        connect: Callable[[tuple[str, int]], Client] = Client,
    ) -> None:
        self.seen = Seen()
        self._address = address
        self._connect = connect
        self._interval = 2 / per_second
        self._target = target
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(fresh,), daemon=True) for fresh in (False, True)]

    def __enter__(self) -> Seen:
        for thread in self._threads:
            thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), "the healthy client hangs"

    def _run(self, fresh: bool) -> None:
        client = None
        due = answered = time.perf_counter()
        while not self._stopping.wait(max(due - time.perf_counter(), 0)):
            began = due if due < answered else time.perf_counter()
            try:
                client = client or self._connect(self._address)
                response = client.get(self._target, close=fresh)
                if (response.status, response.text) != (200, EXPECTED):
                    raise Broken(f"status {response.status}")
            except (OSError, Broken) as error:
                where = "a new connection" if fresh else "an open connection"
                self.seen.errors.append(f"{type(error).__name__} on {where}: {error}")
                broken = True
            else:
                broken = False
            answered = time.perf_counter()
            self.seen.times.append(answered - began)
            if client is not None and (fresh or broken):
                client.close()
                client = None
            due += self._interval
        if client is not None:
            client.close()
