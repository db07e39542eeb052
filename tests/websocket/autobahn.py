"""The Autobahn test suite, a fuzzing client of the WebSocket protocol, against a real server.

    python -m tests.websocket.autobahn --install      once: the suite, for a Python 2.7 that must be there
    python -m tests.websocket.autobahn                every case; some ten minutes, nearly all of it compression
    python -m tests.websocket.autobahn --cases 7.*,12.1.1

The suite runs on CPython 2.7 alone, with what was current then: ``autobahn.txt`` has the versions that install there.
They are kept in a folder of their own (``AUTOBAHN_HOME``, or .autobahn in the root of the repository), away from the
interpreters that aioserve runs on.

A case is "OK", or it is said in autobahn.toml why it is not. Whatever else the suite says of it is a failure, and so
is a reason that no case needs any more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tests.process.servers import REPO, Served
from tests.websocket.frames import APPS

HERE = Path(__file__).resolve().parent
PINS = HERE / "autobahn.txt"

#: Where the suite is installed, as pip does it for a user (PYTHONUSERBASE): namespace packages work there.
HOME = Path(os.environ.get("AUTOBAHN_HOME", REPO / ".autobahn"))

#: What runs in CI, in three parts of ten to twenty seconds. Of compression (12.* and 13.*, twelve sets of parameters)
#: messages of 16 bytes, 1 KiB, and 8 KiB in fragments; the others are a thousand messages of up to 128 KiB each.
PARTS = {
    "protocol": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
    "limits": ["9.*"],
    "compression": [
        f"{group}.{size}"
        for group in ["12.1", "12.2", "12.3", "12.4", "12.5", "13.1", "13.2", "13.3", "13.4", "13.5", "13.6", "13.7"]
        for size in (1, 4, 11)
    ],
}

EVERYTHING = [*PARTS["protocol"], *PARTS["limits"], "12.*", "13.*"]

#: Longer than any run takes on a machine that is busy with other tests, in seconds.
PATIENCE = 3600


class Absent(Exception):
    """The suite cannot run here. The message says what is missing and how to get it."""


@dataclass(frozen=True)
class Verdict:
    """What the suite says of a case: the behaviour, and how the connection was closed."""

    case: str
    behavior: str
    close: str
    file: Path

    def __str__(self) -> str:
        said = json.loads(self.file.read_text())
        return (
            f"{self.case}: {self.behavior}, close {self.close}: {said['description']}\n"
            f"  wanted: {said['expectation']}\n  result: {said['result']} {said['resultClose']}\n"
            f"  expected {said['expected']}\n  received {said['received']}"
        )


def python2() -> str:
    """A CPython 2.7: one of pyenv's, or the one on PATH."""
    candidates = [*map(str, Path.home().glob(".pyenv/versions/2.7*/bin/python")), shutil.which("python2.7")]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import ssl, zlib"], capture_output=True, check=False).returncode == 0:
            return candidate
    raise Absent("the Autobahn test suite needs a CPython 2.7 (pyenv's, or python2.7 on PATH)")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUSERBASE": str(HOME), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}


def wstest() -> list[str]:
    """The suite's command; ``Absent`` if it cannot run."""
    command = [python2(), "-c", "import sys; from autobahntestsuite.wstest import run; sys.exit(run())"]
    version = subprocess.run([*command, "-a"], env=environment(), capture_output=True, text=True, check=False)
    if version.returncode:
        raise Absent(f"no Autobahn test suite in {HOME}: python -m tests.websocket.autobahn --install")
    return command


def install() -> None:
    """The suite and its dependencies into ``HOME``: half a minute, 66 MB."""
    pip = [python2(), "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--user", "-r", str(PINS)]
    subprocess.run(pip, env={**environment(), "PYTHONWARNINGS": "ignore"}, check=True)


def run(url: str, cases: list[str], directory: Path) -> list[Verdict]:
    """What the suite says of ``cases`` at ``url``; its report is in ``directory``."""
    specification = {
        "outdir": str(directory),
        "servers": [{"agent": "aioserve", "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    spec = directory / "fuzzingclient.json"
    spec.write_text(json.dumps(specification))
    done = subprocess.run(
        [*wstest(), "--mode", "fuzzingclient", "--spec", str(spec)],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=directory,
    )  # fmt: skip
    index = directory / "index.json"
    if done.returncode or not index.exists():
        raise AssertionError(f"wstest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [
        Verdict(case, said["behavior"], said["behaviorClose"], directory / said["reportfile"])
        for case, said in json.loads(index.read_text())["aioserve"].items()
    ]


@cache
def reasons() -> dict[str, dict[str, str]]:
    """By what the suite says: patterns of cases, each with the reason why it is right."""
    said = tomllib.loads((HERE / "autobahn.toml").read_text(encoding="utf-8"))
    return {"NON-STRICT": said["non_strict"], "INFORMATIONAL": said["informational"]}


def reason(verdict: Verdict) -> str | None:
    """Why ``verdict`` is right although it is not "OK"."""
    listed = reasons().get(verdict.behavior, {})
    return next((why for pattern, why in listed.items() if fnmatchcase(verdict.case, pattern)), None)


def stale(verdicts: list[Verdict]) -> list[str]:
    """The patterns of which no case is what they give the reason for any more."""
    return [
        pattern
        for behavior, listed in reasons().items()
        for pattern in listed
        if (matching := [verdict for verdict in verdicts if fnmatchcase(verdict.case, pattern)])
        and all(verdict.behavior != behavior for verdict in matching)
    ]


def failures(verdicts: list[Verdict]) -> list[Verdict]:
    return [
        verdict
        for verdict in verdicts
        if not (verdict.behavior == "OK" or reason(verdict)) or verdict.close not in {"OK", "INFORMATIONAL"}
    ]


def table(verdicts: list[Verdict]) -> str:
    """How many cases of each section ended in which way."""
    counts = Counter((int(verdict.case.partition(".")[0]), verdict.behavior) for verdict in verdicts)
    return "\n".join(f"{section:3} {behavior:14} {count:4}" for (section, behavior), count in sorted(counts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.websocket.autobahn")
    parser.add_argument("--install", action="store_true", help="install the suite and run nothing")
    parser.add_argument("--cases", default=",".join(EVERYTHING), metavar="A,B", help="such as 7.*,12.1.1")
    parser.add_argument("--options", default="", metavar="TEXT", help="more options of the server")
    parser.add_argument("--report", type=Path, metavar="DIR", help="keep the suite's own report, with all frames")
    parser.add_argument("--url", help="a server that runs already, instead of aioserve")
    options = parser.parse_args()
    try:
        if options.install:
            install()
            return
        wstest()
    except Absent as absent:
        sys.exit(str(absent))
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.report or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        if options.url:
            verdicts = run(options.url, options.cases.split(","), directory)
        else:
            with Served("sockets:app", "--no-access-log", *options.options.split(), cwd=APPS) as server:
                verdicts = run(f"ws://127.0.0.1:{server.port}/echo", options.cases.split(","), directory)
        failed = failures(verdicts)
        for verdict in verdicts:
            if verdict.behavior != "OK" and verdict not in failed:
                print(f"{verdict.case}: {verdict.behavior}: {reason(verdict)}")
        print(*failed, table(verdicts), sep="\n")
        for pattern in stale(verdicts):
            print(f"autobahn.toml has a reason for {pattern}, which needs none")
        print(f"{len(verdicts)} cases in {time.monotonic() - began:.0f} s, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
