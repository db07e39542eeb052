"""Coverage-guided fuzzing: ``python -m tests.fuzz reader --seconds 600`` with the extra ``fuzz`` installed.

Runs one target under atheris, beginning with its seeds and with what the last run left in ``--corpus``. ``--merge``
fuzzes nothing: it renews the seeds with the fewest inputs of ``--corpus`` (no run may be writing there) that add
coverage. An input that fails is written to the current folder; files given behind the target are run once.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aioserve.http", "h11"]):
    for module in ("forwarded", "proxy_protocol", "reader", "parser_h11", "parser_httptools"):
        importlib.import_module(f"aioserve.http.{module}")

from tests.fuzz import seeds

#: Bytes. Long enough for a head, a chunked body and a request behind them.
LONGEST = 2048

LIMITS = [f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=seeds.TARGETS)
    parser.add_argument("inputs", nargs="*", type=Path, help="inputs to run once, without fuzzing")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long")
    parser.add_argument("--runs", type=int, default=-1, help="stop after so many executions")
    parser.add_argument("--random", type=int, default=0, help="seed of the random numbers; 0 takes another each time")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what a run found for the next one")
    parser.add_argument("--merge", action="store_true", help="renew the seeds from --corpus")
    parser.add_argument("--program", default=sys.argv[0], help=argparse.SUPPRESS)
    options, of_libfuzzer = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        corpus = options.corpus or folder(scratch / "corpus", [])
        corpus.mkdir(parents=True, exist_ok=True)
        if options.merge:
            merge(options.target, corpus, scratch)
            return
        arguments = of_libfuzzer or [
            f"-max_total_time={options.seconds}", f"-runs={options.runs}", f"-seed={options.random}",
            f"-dict={seeds.FOLDER / options.target}.dict", *LIMITS,
        ]  # fmt: skip
        inputs = options.inputs or [corpus, folder(scratch / "seeds", seeds.load(options.target))]
        atheris.Setup([options.program, *arguments, *map(str, inputs)], run(options.target))
        atheris.Fuzz()


def run(target: str):
    return importlib.import_module(f"tests.fuzz.{target}").run


def folder(path: Path, inputs: list[bytes]) -> Path:
    """A new folder of ``inputs``."""
    path.mkdir()
    for number, data in enumerate(inputs):
        (path / f"{number:04}").write_bytes(data)
    return path


def merge(target: str, corpus: Path, scratch: Path) -> None:
    # libFuzzer merges in processes of its own, which it starts by the name that it was called by.
    program = scratch / "fuzz"
    command = shlex.join([sys.executable, "-m", "tests.fuzz", target, "--program", str(program)])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    merged = folder(scratch / "merged", seeds.given(target))
    known = folder(scratch / "known", seeds.kept(target))
    subprocess.run([program, "-merge=1", *LIMITS, merged, known, corpus], check=True)
    found = {path.read_bytes() for path in merged.iterdir()} - set(seeds.given(target))
    seeds.save(target, [*found])
    print(f"{len(found)} seeds are kept")


if __name__ == "__main__":
    main()
