"""The load: clients of every kind, each with a pace of its own, in one thread with one loop.

    keep      keeps its connection busy; the pauses are far below the second after which a draining worker may close
    fresh     a new connection for each request
    waiting   requests that take the application a while, one after another on a connection
    stream    an answer that takes seconds, checked to its last byte
    upload    a body of up to a mebibyte, with a length or chunked; its digest comes back
    slow      head and body trickle in, on a connection of their own or a kept one
    pausing   keeps its connection and pauses for about as long as a draining worker waits: what it loses is a race
              that HTTP/1.1 cannot win (RFC 9112 9.6), and is counted apart
    unix      as keep and fresh, on a unix socket

A client goes on after a loss, with a new connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tests.chaos.app import content
from tests.chaos.ledger import Ledger, Loss
from tests.chaos.wire import PATIENCE, Wire, Wrong, chunked, request, split
from tests.process.servers import wait_until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator

    from tests.bench.servers import Running
    from tests.chaos.wire import Address
    from tests.process.servers import Served

#: What a draining worker waits before it closes a quiet connection is 1 s. From here on a loss may be that race.
QUIET = 0.9

#: Between two looks at how far behind the client's own loop is, in seconds.
LAG_INTERVAL = 0.05

#: How long a lag of the client's own loop is remembered, in seconds.
LAG_MEMORY = 3.0

COUNTS = {"keep": 10, "fresh": 8, "waiting": 4, "stream": 6, "upload": 4, "slow": 5, "pausing": 6, "unix": 4}


@dataclass(frozen=True)
class Pace:
    """How much of everything."""

    stream_seconds: float = 1.5
    scale: float = 1.0  # of the number of clients


@dataclass(frozen=True)
class Task:
    """One request and the answer that it must have."""

    pieces: list[bytes]
    expected: bytes
    pause: float = 0.0


class Load:
    """``with Load(ledger, server) as load: ...``; ``calm()`` closes all connections, ``resume()`` goes on."""

    def __init__(
        self,
        ledger: Ledger,
        server: Served | Running,
        *,
        unix: str | None = None,
        seed: int = 0,
        pace: Pace | None = None,
        counts: dict[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._ledger = ledger
        self._server = server
        self._address: Address = ""
        self._unix = unix
        self._tls = tls
        self._seed = seed
        self._pace = pace or Pace()
        self._counts = counts or COUNTS
        self._thread = threading.Thread(target=self._main, name="chaos load", daemon=True)
        self._error: BaseException | None = None
        self._stopping = False
        self._calm = threading.Event()
        self._busy = 0
        self._late = 0.0
        self._late_at = 0.0
        self._serial = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._address = ("127.0.0.1", self._server.port)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive(), "a client hangs"
        if self._error is not None:
            raise AssertionError(f"a client has failed by itself: {self._error!r}") from self._error

    def calm(self) -> None:
        """Until every client has finished what it had begun, and closed."""
        self._calm.set()
        wait_until(lambda: not self._busy, "every client has come to rest", timeout=1.5 * PATIENCE)
        assert self._thread.is_alive(), self._error

    def resume(self) -> None:
        self._calm.clear()

    @contextmanager
    def crowd(self, count: int) -> Iterator[None]:
        """So many clients more, all at once; each asks, holds its connection within, then asks again and goes."""
        assert self._loop is not None
        over = threading.Event()
        plan = Plan(_echo, most=2, hold=over)
        try:
            for number in range(count):
                rng = random.Random(f"{self._seed} crowd {number}")
                asyncio.run_coroutine_threadsafe(self._one_of_a_crowd(rng, plan), self._loop)
            yield
        finally:
            over.set()

    # In the thread.

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._error = error

    async def _one_of_a_crowd(self, rng: random.Random, plan: Plan) -> None:
        self._busy += 1
        try:
            await self._connection("crowd", self._address, plan, rng)
        finally:
            self._busy -= 1

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_lag())
            for kind, client in self._clients():
                group.create_task(client, name=kind)

    def _clients(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        for kind, count in self._counts.items():
            if kind == "unix" and self._unix is None:
                continue
            for number in range(max(round(count * self._pace.scale), 1)):
                rng = random.Random(f"{self._seed} {kind} {number}")
                yield kind, self._client(kind, rng, PLANS[kind](number, rng, self._pace))

    async def _watch_lag(self) -> None:
        while not self._stopping:
            due = time.monotonic() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            late = time.monotonic() - due
            if late > self._late or time.monotonic() > self._late_at + LAG_MEMORY:
                self._late, self._late_at = late, time.monotonic()

    async def _client(self, kind: str, rng: random.Random, plan: Plan) -> None:
        address = self._unix if kind == "unix" and self._unix else self._address
        await asyncio.sleep(rng.uniform(0, 0.5))
        while not self._stopping:
            if self._calm.is_set():
                await asyncio.sleep(LAG_INTERVAL)
                continue
            self._busy += 1
            try:
                await self._connection(kind, address, plan, rng)
            finally:
                self._busy -= 1
            await asyncio.sleep(plan.between(rng))

    async def _connection(self, kind: str, address: Address, plan: Plan, rng: random.Random) -> None:
        """One connection from its beginning to its end, whoever makes it."""
        ledger, wire = self._ledger, Wire()
        began, quiet = time.monotonic(), 0.0
        try:
            async with asyncio.timeout(PATIENCE):
                await wire.connect(address, self._tls)
            ledger.connections[kind] += 1
            for number in itertools.count():
                if number and (self._stopping or self._calm.is_set() or number >= plan.most):
                    return
                pause = plan.pause(rng)
                if number or plan.late_first:
                    await asyncio.sleep(pause)
                while number and plan.hold is not None and not plan.hold.is_set():
                    await asyncio.sleep(LAG_INTERVAL)
                # The server has written its answer before the client has seen it, by as much as the client is late.
                quiet = time.monotonic() - wire.quiet_since + self._late
                if wire.is_over():
                    if quiet < QUIET:
                        raise Wrong("closed, and it was not said")
                    ledger.closed_idle += 1
                    return
                task = plan.task(f"{kind}-{next(self._serial)}", last=number + 1 >= plan.most)
                began = time.monotonic()
                async with asyncio.timeout(PATIENCE):
                    answer = await wire.exchange(task.pieces, expected=task.expected, pause=task.pause)
                ledger.answer(kind, answer.pid, time.monotonic() - began)
                if answer.closes:
                    await wire.see_close()
                    ledger.told[kind] += 1
                    return
        except (OSError, EOFError, Wrong, ValueError, KeyError, asyncio.LimitOverrunError) as error:
            race = quiet >= QUIET and wire.stage == "head"
            ledger.lose(self._loss(kind, wire, error, began, quiet, race))
        finally:
            await wire.close()

    def _loss(self, kind: str, wire: Wire, error: Exception, began: float, quiet: float, race: bool) -> Loss:
        return Loss(
            kind=kind,
            stage=wire.stage,
            error=f"{type(error).__name__} {error}".strip(),
            began=began,
            at=time.monotonic(),
            opened=wire.opened,
            port=wire.port,
            pid=wire.pid,
            quiet=quiet,
            race=race,
        )


@dataclass(frozen=True)
class Plan:
    """What a kind of client does on a connection."""

    task: Callable[..., Task]
    pauses: tuple[float, float] = (0.0, 0.0)
    most: float = 50  # requests on a connection
    late_first: bool = False  # the first pause is before the first request
    hold: threading.Event | None = None  # nothing is asked after the first request until this is set
    rest: tuple[float, float] = (0.0, 0.02)  # between two connections

    def pause(self, rng: random.Random) -> float:
        return rng.uniform(*self.pauses)

    def between(self, rng: random.Random) -> float:
        return rng.uniform(*self.rest)


def _echo(token: str, *, last: bool, wait: str = "", close: bool = False) -> Task:
    headers = ["Connection: close"] if close and last else []
    return Task([request(f"/echo?token={token}{wait}", headers=headers)], token.encode())


def _keep(number: int, rng: random.Random, pace: Pace) -> Plan:
    return Plan(_echo, pauses=(0.0, 0.08), most=200)


def _fresh(number: int, rng: random.Random, pace: Pace) -> Plan:
    # Every other one closes by itself, without having said so.
    close = number % 2 == 0
    return Plan(lambda token, *, last: _echo(token, last=last, close=close), most=1)


def _waiting(number: int, rng: random.Random, pace: Pace) -> Plan:
    def task(token: str, *, last: bool) -> Task:
        return _echo(token, last=last, wait=f"&wait={rng.uniform(0.01, 0.6):.3f}")

    return Plan(task, pauses=(0.0, 0.05), most=20)


def _stream(number: int, rng: random.Random, pace: Pace) -> Plan:
    def task(token: str, *, last: bool) -> Task:
        size, pieces = rng.randrange(1, 200_000), rng.randrange(2, 40)
        seconds = rng.uniform(0.2, pace.stream_seconds)
        framing = "length" if number % 2 else "chunked"
        target = f"/stream?seed={token}&size={size}&pieces={pieces}&pause={seconds / pieces:.4f}&framing={framing}"
        return Task([request(target)], content(token, size))

    return Plan(task, pauses=(0.0, 0.1), most=10)


def _upload(number: int, rng: random.Random, pace: Pace) -> Plan:
    def task(token: str, *, last: bool) -> Task:
        size = rng.choice([rng.randrange(1, 4096), rng.randrange(1, 100_000), rng.randrange(1, 1 << 20)])
        body = content(token, size)
        expected = f"{size} {hashlib.sha256(body).hexdigest()}".encode()
        count = rng.randrange(1, 12)
        if number % 2:
            pieces = chunked("/upload", body, [-(-size // count)] * count)
        else:
            pieces = split(request("/upload", method="POST", body=body), count)
        return Task(pieces, expected, pause=rng.uniform(0, 0.05))

    return Plan(task, pauses=(0.0, 0.1), most=20)


def _slow(number: int, rng: random.Random, pace: Pace) -> Plan:
    def task(token: str, *, last: bool) -> Task:
        body = content(token, rng.randrange(1, 300))
        expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        pieces = split(request("/upload", method="POST", body=body, headers=[f"X-Filler: {'x' * 200}"]), 12)
        return Task(pieces, expected, pause=rng.uniform(0.02, pace.stream_seconds / 8))

    return Plan(task, most=1 if number % 2 else 5)


def _pausing(number: int, rng: random.Random, pace: Pace) -> Plan:
    return Plan(_echo, pauses=(0.7, 2.0), late_first=number % 3 == 0)


def _unix(number: int, rng: random.Random, pace: Pace) -> Plan:
    return _fresh(number, rng, pace) if number % 2 else _keep(number, rng, pace)


PLANS: dict[str, Callable[[int, random.Random, Pace], Plan]] = {
    "keep": _keep,
    "fresh": _fresh,
    "waiting": _waiting,
    "stream": _stream,
    "upload": _upload,
    "slow": _slow,
    "pausing": _pausing,
    "unix": _unix,
}
