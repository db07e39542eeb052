"""A real aioserve process for a test: started in its own session, watched through its log, always cleaned up.

Nothing here waits for a time to pass. ``wait_for`` wakes when a line of the log comes, ``wait_until`` looks again and
again until what it was asked for is so; both give up at a deadline and then show the log.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from tests.process.clients import Client, Response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

REPO = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"

#: How long anything may take on a machine that is busy with other tests, in seconds.
PATIENCE = 20.0

#: Between two looks of ``wait_until``, in seconds.
INTERVAL = 0.02

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, timeout: float = PATIENCE) -> T:
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(INTERVAL)
    return answer


def state_of(pid: int) -> str:
    """proc(5), /proc/pid/stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def freeze(pid: int) -> None:
    """Stop a process. It has stopped when this returns: the signal alone leaves it time for what it is about to do."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", f"{pid} has stopped")


class Served:
    """``with Served("plain:app", "--workers", "2") as server: server.get("/")``.

    It binds port 0 unless ``arguments`` say where to listen, finds the applications of tests/process/apps, and runs in
    ``cwd``. The end of the block stops it quickly, and fails if it did not stop, if a process was left over, or if its
    log holds another number of tracebacks than ``tracebacks``.
    """

    #: Options after which the test looks after addresses itself.
    ADDRESSES = frozenset({"--port", "-b", "--bind", "--uds", "--fd"})

    def __init__(
        self,
        *arguments: str,
        cwd: Path | str = APPS,
        app_dir: Path | str | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        tracebacks: int = 0,
        ready: bool = True,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        if not self.ADDRESSES.intersection(self.arguments):
            self.arguments += ["--port", "0"]
        self.tracebacks = tracebacks
        self._cwd = cwd
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIOSERVE_")},
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (REPO, app_dir)))),
            # Two edits of a file within a second are one to Python's cache of bytecode.
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        for name in {"WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"} - set(env or {}):
            self._env.pop(name, None)
        self._pass_fds = pass_fds
        self._wait_ready = ready
        self._log = b""
        self._closed = False
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        self._stdout = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command(),
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=subprocess.PIPE,
            pass_fds=self._pass_fds,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="log of the server", daemon=True)
        self._reader.start()
        if self._wait_ready:
            try:
                self.wait_ready()
            except BaseException:
                self._kill()
                raise
        return self

    def command(self) -> list[str]:
        """What is executed; a test may start the server in another way."""
        return [sys.executable, "-m", "aioserve", *self.arguments]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        left: set[int] = set()
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
            left = self.members()
        finally:
            self._kill()
        if kind is None:
            assert not left, f"processes {sorted(left)} did not stop:\n{self.log()}"
            assert self.log().count("Traceback") == self.tracebacks, self.log()
        else:
            print(self.log())  # pytest shows it with the failure

    # Processes.

    @property
    def pid(self) -> int:
        return self.process.pid

    def members(self) -> set[int]:
        """Every process of the server's session that is not a zombie."""
        return {pid for pid, (_, session) in processes().items() if session == self.pid}

    def workers(self) -> set[int]:
        """The children of the master, but for a dispatcher."""
        return workers_of(self.pid)

    def dispatcher(self) -> int:
        """The process that accepts for all workers, if there is one and not two."""
        found = named(children_of(self.pid), "dispatcher")
        return found.pop() if len(found) == 1 else 0

    def terminators(self) -> set[int]:
        """The processes that speak TLS for the workers."""
        return named(children_of(self.pid), "terminator")

    def signal(self, number: int, pid: int | None = None) -> None:
        os.kill(pid or self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status, once it has ended and its log is complete."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s:\n{self.log()}") from None
        self._reader.join(timeout)
        return status

    def _kill(self) -> None:
        for pid in self.members() | ({self.pid} if self.process.poll() is None else set()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        if not self._reader.is_alive() and self.process.stderr is not None:
            self.process.stderr.close()
        self._stdout.close()

    # The log.

    def log(self) -> str:
        with self._news:
            return self._log.decode("utf-8", "backslashreplace")

    def mark(self) -> int:
        """A place in the log: give it to ``wait_for`` to see only what comes after it."""
        return len(self.log())

    def wait_for(self, text: str, *, since: int = 0, timeout: float = PATIENCE) -> str:
        """The line of the log in which ``text`` stands, once it has come."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                log = self._log.decode("utf-8", "backslashreplace")
                at = log.find(text, since)
                if at >= 0 and (end := log.find("\n", at)) >= 0:
                    return log[log.rfind("\n", 0, at) + 1 : end]
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    why = "ended" if self._closed else f"waited for {timeout:g} s"
                    raise AssertionError(f"{why} without {text!r} in the log:\n{log}")
                self._news.wait(left)

    def wait_ready(self) -> None:
        """Until every worker serves."""
        self.wait_for(" ready: ")

    def stdout(self) -> str:
        """What was written to the standard output so far."""
        return os.pread(self._stdout.fileno(), 1 << 26, 0).decode()

    def _read(self) -> None:
        pipe = self.process.stderr
        assert pipe is not None
        while data := os.read(pipe.fileno(), 65536):
            with self._news:
                self._log += data
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    # As a client sees it.

    @property
    def urls(self) -> list[str]:
        """Every address, in the order of the log."""
        self.wait_for("listening on ")
        return re.findall(r"listening on (\S+)", self.log())

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, *, port: int = 0, timeout: float = PATIENCE, tls: ssl.SSLContext | None = None) -> Client:
        return Client(("127.0.0.1", port or self.port), timeout=timeout, tls=tls)

    def get(self, target: str = "/", *, port: int = 0, tls: ssl.SSLContext | None = None) -> Response:
        """One GET on a connection of its own."""
        with self.connect(port=port, tls=tls) as client:
            return client.get(target, close=True)


def children_of(master: int) -> set[int]:
    return {pid for pid, (parent, _) in processes().items() if parent == master}


def workers_of(master: int) -> set[int]:
    """Its children, but for those that have another name: dispatchers, and those that speak TLS."""
    found = children_of(master)
    return found - named(found, "dispatcher") - named(found, "terminator")


def named(pids: set[int], name: str) -> set[int]:
    """Those that have this name; proc(5), /proc/pid/comm."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.add(pid)
    return found


def processes() -> dict[int, tuple[int, int]]:
    """The parent and the session of every process that is not a zombie; proc(5), /proc/pid/stat."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                state, parent, _, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z":
                    found[int(entry)] = int(parent), int(session)
    return found


def memory(pid: int, field: str = "Pss") -> int:
    """Bytes of ``pid``: its proportional share ("Pss") or, from its status, "VmRSS" or the peak "VmHWM"."""
    file = "smaps_rollup" if field == "Pss" else "status"
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak(pid: int) -> int:
    """Let the peak of ``pid``'s resident memory begin anew, and return what is resident; proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "VmHWM")
