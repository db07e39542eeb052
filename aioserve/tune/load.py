"""Puts load on a server: with wrk where it is installed, which costs least, and with the built-in client.

Every measurement is a child that is waited for. wrk counts its duration in whole seconds, so it is told to stop
instead: after SIGINT it reports what it has measured.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, final

from aioserve.tune.answers import Answer, NotAnAnswer
from aioserve.tune.children import Child
from aioserve.tune.client import PATIENCE, Client, ask
from aioserve.tune.measured import BEYOND, Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.tune.answers import Question
    from aioserve.tune.waits import Waits

SCRIPT: Final = Path(__file__).with_name("wrk.lua")

#: Seconds that a client may take to start, to report and to end, on top of its measurement.
GRACE: Final = 10.0

#: Seconds between two SIGINTs to wrk, whose threads look for it every tenth of a second.
AGAIN: Final = 0.25

_REPORT: Final = re.compile(rb"^aioserve (\{.*\})$", re.MULTILINE)


class NoMeasurement(Exception):
    """A client has not reported; the message says why."""


@final
class Load:
    """The clients for one server. ``wrk`` is its path, or empty: then the built-in client does everything."""

    def __init__(
        self, address: tuple[str, int], questions: Sequence[Question], connections: int, *, wrk: str, waits: Waits
    ) -> None:
        self._address: Final = address
        self._questions: Final = questions
        self._connections: Final = connections
        self._wrk: Final = wrk
        self._waits: Final = waits

    def probe(self) -> list[tuple[int, int]]:
        """Status and size of one answer to each question. Raises ``NoMeasurement``."""

        def run() -> bytes:
            answers = []
            for question in self._questions:
                try:
                    answer: Answer = ask(self._address, question)
                except (OSError, NotAnAnswer) as error:
                    return json.dumps(f"{question.method} {question.path}: {error}").encode()
                answers.append((answer.status, answer.size))
            return json.dumps(answers).encode()

        found = json.loads(self._in_child(run, len(self._questions) * PATIENCE))
        if isinstance(found, str):
            raise NoMeasurement(found)
        return [(status, size) for status, size in found]

    def alone(self, seconds: float) -> Measured:
        """One request at a time."""
        return self._client(lambda client: client.kept(seconds), seconds, connections=1)

    def warm_up(self, seconds: float) -> None:
        self._client(lambda client: client.kept(seconds), seconds)

    def kept(self, seconds: float) -> Measured:
        if self._wrk:
            return self._run_wrk(seconds, closes=False)
        return self._client(lambda client: client.kept(seconds), seconds)

    def fresh(self, seconds: float) -> Measured:
        if self._wrk:
            return self._run_wrk(seconds, closes=True)
        return self._client(lambda client: client.fresh(seconds), seconds)

    def paced(self, seconds: float, rate: float) -> Measured:
        return self._client(lambda client: client.paced(seconds, rate), 2 * seconds)

    # The built-in client.

    def _client(self, measure: Callable[[Client], Measured], seconds: float, *, connections: int = 0) -> Measured:
        def run() -> bytes:
            # It makes no circles, and a collection in the middle of a measurement would be the server's delay.
            gc.disable()
            return measure(Client(self._address, self._questions, connections or self._connections)).encode()

        return Measured.decode(self._in_child(run, seconds))

    def _in_child(self, run: Callable[[], bytes], seconds: float) -> bytes:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

            def write() -> int:
                out.write(run())
                out.flush()
                return 0

            child = Child(write, self._waits, out=err.fileno(), err=err.fileno())
            try:
                self._waits.until(child.ended, seconds + GRACE)
            finally:
                child.stop(signal.SIGKILL, GRACE)
            return _read(out, child, err)

    # wrk.

    def _run_wrk(self, seconds: float, *, closes: bool) -> Measured:
        host = f"{self._address[0]}:{self._address[1]}"
        requests = [question.encode(host, closes=closes) for question in self._questions]
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.writelines(b"%010d%b" % (len(request), request) for request in requests)
            given.seek(0)
            command = [
                self._wrk, "--threads", "1", "--connections", str(self._connections),
                "--duration", f"{math.ceil(seconds) + math.ceil(GRACE)}s", "--timeout", f"{PATIENCE:.0f}s",
                "--script", str(SCRIPT), f"http://{host}/", "--", f"/dev/fd/{given.fileno()}",
            ]  # fmt: skip

            def run() -> int:
                os.set_inheritable(given.fileno(), True)
                os.execv(command[0], command)  # noqa: S606 - there is nothing for a shell to do

            child = Child(run, self._waits, out=out.fileno(), err=err.fileno())
            try:
                self._waits.until(child.ended, seconds)
                # It ignores SIGINT until it has made its connections, so one may not be enough.
                for _ in range(round(GRACE / AGAIN)):
                    child.signal(signal.SIGINT)
                    if self._waits.until(child.ended, AGAIN):
                        break
            finally:
                child.stop(signal.SIGKILL, GRACE)
            return read_wrk(_read(out, child, err), child.cpu)


def read_wrk(out: bytes, cpu: float) -> Measured:
    """What wrk's script has reported. Raises ``NoMeasurement``."""
    found = _REPORT.search(out)
    if found is None:
        raise NoMeasurement(f"wrk said: {out.decode(errors='replace').strip()[-300:] or 'nothing'}")
    report = json.loads(found[1])
    requests = report["requests"]
    kinds = ("connect", "read", "write", "timeout", "status")
    errors = {f"{kind} errors" if kind != "status" else "status >= 400": report[kind] for kind in kinds if report[kind]}
    return Measured(
        requests=requests,
        seconds=report["seconds"],
        p50=report["p50"] if requests * 0.5 >= BEYOND else None,
        p99=report["p99"] if requests * 0.01 >= BEYOND else None,
        p999=report["p999"] if requests * 0.001 >= BEYOND else None,
        client_cpu=cpu,
        errors=errors,
    )


def _read(out: IO[bytes], child: Child, err: IO[bytes]) -> bytes:
    """What the child has written, if it has ended well."""
    # Shared with the child, and so is where it stands.
    written, said = (os.pread(file.fileno(), 1 << 24, 0) for file in (out, err))
    if child.status != 0:
        raise NoMeasurement(f"the client ended with {child.status}: {said.decode(errors='replace').strip()[-300:]}")
    return written
