"""A run of tune: every candidate in turns, what was found, and its end, be it interrupted.

    probe: one candidate, one request each -> the schedule -> rounds of visits -> table, recommendation, files

This process has no event loop and no thread, because it forks every server from itself.
"""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Final, final

import click

from aioserve.tune import plan, processes, report
from aioserve.tune.load import Load, NoMeasurement
from aioserve.tune.plot import draw
from aioserve.tune.progress import Progress
from aioserve.tune.results import Visit, rows
from aioserve.tune.serving import NotServing, Serving
from aioserve.tune.verdict import judge
from aioserve.tune.waits import Interrupted, Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.config.tree import Config
    from aioserve.observe.scoreboard import Scoreboard
    from aioserve.tune.answers import Question
    from aioserve.tune.plan import Candidate, Choice
    from aioserve.tune.verdict import Verdict

#: Exit statuses of their own; 2, 3 and 4 are those of the server that could not start.
CLEAN, NOT_MEASURED, INTERRUPTED = 0, 1, 130

#: The paced load is this part of what the middle candidate does, and no more than the built-in client sends in time.
PACE: Final = 0.5
MOST_PACED: Final = 8000.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is to be measured, and where the results go besides the terminal."""

    questions: tuple[Question, ...]
    choice: Choice
    seconds: float | None = None
    #: None: as many as suit the path.
    connections: int | None = None
    plot: str = ""
    #: A file; "-" is the standard output, and then the report goes to stderr.
    json: str = ""
    #: How the server is started, but for the flags that are recommended.
    command: str = "aioserve"


def run(config: Config, wishes: Wishes, serve: Callable[[Config, Scoreboard], int], *, cpus: int) -> int:
    """Measure, report, and return the exit status. ``serve`` runs a server in the process that calls it."""
    with Waits() as waits:
        tuning = _Tuning(config, wishes, serve, waits, cpus)
        try:
            return tuning.run()
        except Interrupted:
            return tuning.interrupted()


@final
class _Tuning:
    def __init__(
        self,
        config: Config,
        wishes: Wishes,
        serve: Callable[[Config, Scoreboard], int],
        waits: Waits,
        cpus: int,
    ) -> None:
        self._wishes: Final = wishes
        self._serve: Final = serve
        self._waits: Final = waits
        self._cpus: Final = cpus
        self._prepared, notes = plan.prepare(config)
        self._candidates, left_out = plan.candidates(
            config, wishes.choice, cpus=cpus, free_threaded=not getattr(sys, "_is_gil_enabled", lambda: True)()
        )
        self._notes: Final = [*notes, *left_out]
        self._current: Final = next((one for one in self._candidates if plan.is_current(one, config)), None)
        self._visits: Final[list[Visit]] = []
        #: What servers that failed have said, by the candidate's label.
        self._logs: Final[dict[str, str]] = {}
        self._wrk: Final = shutil.which("wrk") or ""
        self._setup = report.Setup(
            app=config.app.target or ", ".join(config.app.mount),
            command=wishes.command,
            requests=(),
            client="wrk" if self._wrk else "the built-in client",
            connections=wishes.connections or plan.CONNECTIONS,
            cpus=cpus,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            seconds=0.0,
            rounds=plan.ROUNDS,
        )

    def run(self) -> int:
        try:
            boot = self._probe()
        except (NotServing, NoMeasurement) as error:
            return self._cannot(error)
        schedule = plan.schedule(len(self._candidates), boot=boot, seconds=self._wishes.seconds)
        self._setup = replace(self._setup, seconds=schedule.total)
        self._introduce(schedule)
        with Progress(sys.stderr, schedule.total) as progress:
            self._waits.tick = progress.tick
            try:
                self._rounds(schedule, boot, progress)
            finally:
                self._waits.tick = lambda: None
        return self._finish()

    def interrupted(self) -> int:
        """Show what there is. Every process has been stopped by those who had started it."""
        click.echo("aioserve tune: interrupted; every process has been stopped", err=True)
        self._setup = replace(self._setup, interrupted=True)
        # A table of half a visit says nothing; one round of some candidates does.
        if any(visit.kept is not None for visit in self._visits):
            self._show(best=None)
            self._write(None)
        return INTERRUPTED

    # Measuring.

    def _probe(self) -> float:
        """Ask each question once; how long a candidate takes to start. Raises what says why it cannot be measured."""
        # With one process, whatever is wrong with the application is said once.
        first = min(self._candidates, key=lambda candidate: candidate.rank)
        click.echo(f"aioserve tune: starting {self._setup.app} ...", err=True)
        with self._serving(first) as server:
            load = self._load(server)
            answers = load.probe()
            boot = server.boot
            if self._wishes.connections is None:
                before = server.usage()
                alone = load.alone(plan.ALONE)
                cpu = _spent(before, server.usage())
                suitable = plan.connections(cpu / alone.requests if cpu and alone.requests else 0.0)
                self._setup = replace(self._setup, connections=suitable)
        told = []
        for question, (status, size) in zip(self._wishes.questions, answers, strict=True):
            told.append(f"{question.method} {question.path}: {status}, {size:,} bytes")
            if status >= 400:
                raise NoMeasurement(
                    f"{question.method} {question.path} is answered with {status}; name a path that answers as your "
                    "users expect, with --path (and --request-header, --data)"
                )
            if status >= 300:
                self._notes.append(f"{question.path} is a redirection ({status}); --path names where it leads to")
        self._setup = replace(self._setup, requests=tuple(told))
        return boot

    def _rounds(self, schedule: plan.Schedule, boot: float, progress: Progress) -> None:
        for number in range(1, plan.ROUNDS + 1):
            for candidate in self._candidates:
                progress.begin(f"round {number} of {plan.ROUNDS}: {candidate.label}", boot + plan.WARM_UP + plan.STOP)
                visit = Visit(candidate=candidate, round=number)
                try:
                    with self._serving(candidate) as server:
                        visit = self._visit(visit, server, schedule, progress)
                except (NotServing, NoMeasurement) as error:
                    visit = replace(visit, problem=str(error))
                    if isinstance(error, NotServing):
                        self._logs.setdefault(candidate.label, error.log)
                self._visits.append(visit)
                progress.line(report.visited(visit))
            if self._setup.paced_rate is None:
                rates = [visit.kept.rate for visit in self._visits if visit.kept is not None]
                middle = median(rates) if rates else 0.0
                self._setup = replace(self._setup, paced_rate=min(middle * PACE, MOST_PACED) or None)

    def _visit(self, visit: Visit, server: Serving, schedule: plan.Schedule, progress: Progress) -> Visit:
        load, label = self._load(server), visit.candidate.label
        load.warm_up(plan.WARM_UP)
        progress.begin(f"round {visit.round} of {plan.ROUNDS}: {label}", schedule.visit(visit.round))
        first = {row.pid for row in server.rows()}
        before, began = server.usage(), processes.machine()
        kept = load.kept(schedule.kept)
        between, ended = server.usage(), processes.machine()
        kept_cpu = _spent(before, between)
        fresh = load.fresh(schedule.fresh)
        after = server.usage()
        server.look()
        rate = self._setup.paced_rate
        paced = load.paced(schedule.paced, rate) if visit.round > 1 and rate else None
        server.look()
        workers = server.rows()
        served = [row.requests_total for row in workers]
        total = sum(served)
        return replace(
            visit,
            kept=kept,
            fresh=fresh,
            paced=paced,
            kept_cpu=kept_cpu,
            fresh_cpu=_spent(between, after),
            others=None if kept_cpu is None else processes.others(began, ended, kept_cpu + kept.client_cpu),
            memory=server.memory(),
            share=max(served) / total if len(served) > 1 and total else None,
            lag=max((row.lag_worst_ns for row in workers), default=0) / 1e9,
            problem="" if {row.pid for row in workers} == first else "a worker was replaced while it was measured",
        )

    def _serving(self, candidate: Candidate) -> Serving:
        return Serving(self._serve, self._prepared, candidate, self._waits)

    def _load(self, server: Serving) -> Load:
        return Load(server.address, self._wishes.questions, self._setup.connections, wrk=self._wrk, waits=self._waits)

    # Telling.

    @property
    def _out(self) -> IO[str]:
        return sys.stderr if self._wishes.json == "-" else sys.stdout

    def _cannot(self, error: NotServing | NoMeasurement) -> int:
        click.echo(f"aioserve tune: {error}", err=True)
        if isinstance(error, NotServing):
            click.echo(error.log, err=True)
            return error.status or NOT_MEASURED
        return NOT_MEASURED

    def _introduce(self, schedule: plan.Schedule) -> None:
        shared = f"on {self._cpus} CPU{'' if self._cpus == 1 else 's'} that client and server share"
        labels = ", ".join(candidate.label for candidate in self._candidates)
        time = f"{plan.ROUNDS} rounds: about {schedule.total:.0f} s. Ctrl-C stops all of it."
        lines = [
            f"{', '.join(self._setup.requests)}; {self._setup.client}, {self._setup.connections} connections, {shared}",
            *(f"note: {note}" for note in self._notes),
            f"{len(self._candidates)} candidate{'' if len(self._candidates) == 1 else 's'} ({labels}), {time}",
        ]
        for line in lines:
            click.echo(f"aioserve tune: {line}", err=True)

    def _finish(self) -> int:
        table = rows(self._candidates, self._visits)
        verdict = judge(table, cpus=self._cpus, connections=self._setup.connections)
        self._show(best=verdict.best.candidate if verdict is not None else None)
        if verdict is not None:
            click.echo(f"\n{report.recommendation(verdict, self._setup, current=self._current)}", file=self._out)
        else:
            why = "no candidate was measured without errors"
            if not any(row.errors for row in table):
                why = "too few answers came in the time; take longer (--seconds 30), or fewer --connections"
            click.echo(f"\nNothing is recommended: {why}.", file=self._out)
        written = self._write(verdict)
        return CLEAN if verdict is not None and written else NOT_MEASURED

    def _show(self, *, best: Candidate | None) -> None:
        table = rows(self._candidates, self._visits)
        click.echo(f"\n{report.table(table, self._setup, best=best, current=self._current)}\n", file=self._out)
        for line in report.explanations(table, self._setup):
            click.echo(line, file=self._out)
        for label, log in self._logs.items():
            click.echo(f"\naioserve tune: the log of {label}:\n{log}", err=True)

    def _write(self, verdict: Verdict | None) -> bool:
        """Write the files that are wanted; whether all could be written."""
        table = rows(self._candidates, self._visits)
        best = verdict.best.candidate if verdict is not None else None
        texts = {}
        if self._wishes.plot:
            texts[self._wishes.plot] = draw(table, self._setup, best=best)
        if self._wishes.json:
            texts[self._wishes.json] = report.dump(report.document(self._setup, table, self._visits, verdict))
        failed = False
        for name, text in texts.items():
            if name == "-":
                click.echo(text, nl=False)
                continue
            try:
                Path(name).write_text(text, encoding="utf-8")
            except OSError as error:
                failed = True
                click.echo(f"aioserve tune: {name}: {error.strerror or error}", err=True)
            else:
                click.echo(f"aioserve tune: {name} is written", err=True)
        return not failed


def _spent(before: dict[int, float], after: dict[int, float]) -> float | None:
    """CPU seconds between two looks at the same processes; None where nobody can say, or a process has gone."""
    if not before or before.keys() - after.keys():
        return None
    return sum(after.values()) - sum(before.values())
