"""What is tried, and for how long: the candidates, the configuration of each, the schedule. It performs no action.

A candidate is an accept pattern with a number of workers (or threads). It runs with every setting of the user but those
that would disturb the user (files and addresses that a server in production may hold) or the measurement; each setting
that is left out is said.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from aioserve.config.tree import Listen, Ssl, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioserve.config.tree import Config

HOST: Final = "127.0.0.1"

#: A machine may change its speed at any time. Three visits to every candidate, in turns, are the fewest that show it.
ROUNDS: Final = 3

#: What a run should take when nobody says how long, less what plotting and a slow machine take on top: two minutes.
BUDGET: Final = 100.0

#: Seconds under load per candidate, all rounds together, when nobody says: fewer say too little, more is for who asks.
FEWEST, MOST = 3.0, 10.0

#: How a candidate's time is shared out: requests on kept connections, on new connections, and paced ones.
KEPT, FRESH, PACED = 0.45, 0.2, 0.35

#: As many connections as keep any application busy, without queues that hide the latency of a request.
CONNECTIONS: Final = 64
#: A path that computes for long has fewer, and at least these.
FEWEST_CONNECTIONS: Final = 8
#: Seconds that one worker may need to answer all connections once, so that they go round often in a visit.
TURN: Final = 0.25
#: Seconds of one request at a time, before anything else, which show how long it computes.
ALONE: Final = 0.3

#: Before it is measured: caches fill, code is specialised.
WARM_UP: Final = 0.25

#: Seconds that a visit costs beyond load and boot: to stop, to start clients. Measured, with room.
STOP: Final = 0.4


@final
@dataclass(frozen=True, slots=True)
class Pattern:
    """An accept pattern as a candidate. ``counts`` is the field of [process] that says how many; "": there is one."""

    accept: str
    counts: str
    #: With fewer it is the same as another pattern.
    least: int
    #: What choosing it costs, beyond what the table shows; empty for the default.
    caution: str = ""
    #: Only where threads run Python at the same time.
    free_threaded: bool = False


#: Every pattern of the server, in the order in which they are recommended when nothing else tells them apart.
PATTERNS: Final = (
    Pattern("shared", "workers", 1),
    Pattern("reuseport", "workers", 2),
    Pattern("dispatch", "workers", 2, "one more process, which hands out the connections"),
    Pattern("threads", "threads", 2, "a crash takes all threads with it", free_threaded=True),
    Pattern("single", "", 1, "no supervisor: nothing restarts it, reloads it or replaces it when it hangs"),
)


def known_patterns() -> tuple[str, ...]:
    """The accept patterns of this version."""
    return next(setting.kind.choices for setting in settings() if setting.path == "process.accept")


@final
@dataclass(frozen=True, slots=True)
class Candidate:
    pattern: Pattern
    count: int

    @property
    def label(self) -> str:
        """``reuseport x 2``: for tables."""
        return f"{self.pattern.accept} x {self.count}" if self.pattern.counts else self.pattern.accept

    @property
    def flags(self) -> str:
        """What to write on the command line: all of it, whatever the configuration says."""
        return " ".join([f"--accept {self.pattern.accept}", *(f"--{name} {count}" for name, count in self.counts)])

    @property
    def toml(self) -> str:
        """The same for [process] in aioserve.toml."""
        counts = "".join(f", {name} = {count}" for name, count in self.counts)
        return f'accept = "{self.pattern.accept}"{counts}'

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """The fields of [process] with the numbers of this candidate."""
        return tuple(({"workers": 1} | ({self.pattern.counts: self.count} if self.pattern.counts else {})).items())

    @property
    def rank(self) -> tuple[int, int]:
        """The smaller, the simpler."""
        return self.count if self.pattern.counts else 1, PATTERNS.index(self.pattern)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user has fixed on the command line: an accept pattern, a number of workers (or threads), or neither."""

    accept: str = ""
    count: int = 0


def candidates(
    config: Config, choice: Choice, *, cpus: int, free_threaded: bool, known: Iterable[str] = ()
) -> tuple[list[Candidate], list[str]]:
    """What to try, and a line for each pattern that is left out. ``known`` is for tests."""
    found: list[Candidate] = []
    notes: list[str] = []
    known = tuple(known) or known_patterns()
    for pattern in PATTERNS:
        if pattern.accept not in known or (choice.accept and choice.accept != pattern.accept):
            continue
        why = _left_out(pattern, config, choice, free_threaded=free_threaded)
        if why:
            notes.append(f"{pattern.accept} is left out: {why}")
            continue
        if not pattern.counts:
            counts = [1]
        elif choice.count:
            counts = [choice.count]
        else:
            # Fewer than CPUs leave some to others, as many use them all, more help where requests block their worker.
            counts = sorted({max(cpus // 2, 1), cpus, 2 * cpus})
            mine = config.process.workers
            if pattern.accept == config.process.accept and pattern.counts == "workers" and mine > 0:
                counts = sorted({*counts, mine})
        least = 1 if choice.accept or choice.count else pattern.least
        found += [Candidate(pattern, count) for count in counts if count >= least]
    return found, notes


def _left_out(pattern: Pattern, config: Config, choice: Choice, *, free_threaded: bool) -> str:
    asked = choice.accept == pattern.accept
    if pattern.free_threaded and not free_threaded and not asked:
        return "with a GIL, threads take turns (--accept threads tries them all the same)"
    if pattern.accept == "single" and config.process.preload:
        return "it contradicts --preload"
    if pattern.accept == "single" and choice.count > 1:
        return f"it is one process, and {choice.count} are asked for"
    return ""


def is_current(candidate: Candidate, config: Config) -> bool:
    """Whether this is what the configuration says without tune."""
    process: Any = config.process
    return candidate.pattern.accept == process.accept and all(
        getattr(process, name) == count for name, count in candidate.counts
    )


def prepare(config: Config) -> tuple[Config, list[str]]:
    """The configuration of every candidate but for its pattern and port, and what was left out of it."""
    notes = []
    limit = config.limit
    if limit.max_requests or limit.worker_age or limit.worker_memory:
        notes.append("workers are not recycled while they are measured (--limit-max-requests, -worker-age, -memory)")
        limit = dataclasses.replace(limit, max_requests=0, max_requests_jitter=0, worker_age=0.0, worker_memory=0)
    proxy = config.proxy
    if proxy.protocol != "off":
        notes.append("connections do not begin with a header of the PROXY protocol (--proxy-protocol)")
        proxy = dataclasses.replace(proxy, protocol="off")
    if config.ssl.enabled:
        notes.append(
            "plain HTTP is measured, and the application is told http: what TLS costs comes on top of every candidate "
            "(--ssl-certfile, -certdir)"
        )
    if config.reload.enabled:
        notes.append("files are not watched (--reload)")
    if config.log.access_file or config.log.file:
        notes.append("nothing is written to your log files; the access log is written to /dev/null")
    if config.log.config:
        notes.append("your logging is not set up, which may write to files of a running server (--log-config)")
    if any(dataclasses.astuple(config.hooks)):
        # An application may need what they prepare.
        notes.append("your hooks run whenever a candidate starts or stops (--on-...)")
    prepared = dataclasses.replace(
        config,
        limit=limit,
        proxy=proxy,
        ssl=Ssl(),
        # Not the user's address, file or user's log: a server that runs there must not notice.
        listen=dataclasses.replace(config.listen, host=HOST, bind=(), uds="", fd=None),
        process=dataclasses.replace(config.process, pid=""),
        log=dataclasses.replace(config.log, config="", file="", access_file="", colors=False),
        reload=dataclasses.replace(config.reload, enabled=False, dirs=()),
        timeout=dataclasses.replace(config.timeout, drain_delay=0.0),
    )
    return prepared, notes


def configure(prepared: Config, candidate: Candidate, port: int) -> Config:
    """The configuration of one candidate."""
    counts: Any = dict(candidate.counts)
    process: Any = dataclasses.replace(
        prepared.process,
        accept=candidate.pattern.accept,  # type: ignore[arg-type]  # one of known_patterns(), which mypy cannot see
        **counts,
    )
    listen: Listen = dataclasses.replace(prepared.listen, port=port)
    return dataclasses.replace(prepared, process=process, listen=listen)


def connections(cpu: float) -> int:
    """How many suit a path that takes so many CPU seconds per request."""
    return CONNECTIONS if cpu <= 0 else min(max(int(TURN / cpu), FEWEST_CONNECTIONS), CONNECTIONS)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Seconds of each measurement in one visit. Paced ones begin in the second round, when the best rate is known."""

    kept: float
    fresh: float
    paced: float
    total: float

    def visit(self, number: int) -> float:
        """Seconds under load in a visit of this round, counted from 1."""
        return self.kept + self.fresh + (self.paced if number > 1 else 0.0)


def schedule(candidates: int, *, boot: float, seconds: float | None) -> Schedule:
    """``boot`` is how long a start takes, ``seconds`` how long each candidate is under load; None: what time allows."""
    around = ROUNDS * (boot + WARM_UP + STOP)
    if seconds is None:
        seconds = min(max(BUDGET / candidates - around, FEWEST), MOST)
    return Schedule(
        kept=seconds * KEPT / ROUNDS,
        fresh=seconds * FRESH / ROUNDS,
        paced=seconds * PACED / (ROUNDS - 1),
        total=candidates * (seconds + around),
    )
