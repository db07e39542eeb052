"""Coverage-guided fuzzing: ``python -m tests.fuzz reader --seconds 600`` with the extra ``fuzz`` installed.

Runs one target under atheris, beginning with its seeds and with what the last run left in ``--corpus``. ``--merge``
fuzzes nothing: it puts the smallest set of inputs that covers what all known ones cover into ``tests/fuzz/seeds``.
An input that fails is written to the current folder; a file given behind the target is run once.
"""

from __future__ import annotations

import argparse
import importlib
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=seeds.TARGETS)
    parser.add_argument("inputs", nargs="*", type=Path, help="inputs to run once, without fuzzing")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long")
    parser.add_argument("--runs", type=int, default=-1, help="stop after so many executions")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what a run found for the next one")
    parser.add_argument("--merge", action="store_true", help="renew the seeds from themselves and --corpus")
    parser.add_argument("--random", type=int, default=0, help="seed of the random numbers; 0 takes another each time")
    options = parser.parse_args()
    run = importlib.import_module(f"tests.fuzz.{options.target}").run
    with tempfile.TemporaryDirectory() as scratch:
        known = Path(scratch, "seeds")
        known.mkdir()
        for number, data in enumerate(seeds.load(options.target)):
            (known / f"{number:04}").write_bytes(data)
        corpus = options.corpus or Path(scratch, "corpus")
        corpus.mkdir(parents=True, exist_ok=True)
        arguments = [
            sys.argv[0], f"-max_len={LONGEST}", f"-max_total_time={options.seconds}", "-timeout=10",
            "-rss_limit_mb=1024", "-print_final_stats=1", f"-runs={options.runs}", f"-seed={options.random}",
            f"-dict={seeds.FOLDER / options.target}.dict",
        ]  # fmt: skip
        folders = [str(path) for path in options.inputs] or [str(corpus), str(known)]
        if options.merge:
            merged = Path(scratch, "merged")
            merged.mkdir()
            arguments.append("-merge=1")
            folders = [str(merged), *folders]
        atheris.Setup([*arguments, *folders], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
