"""Micro benchmarks of the hot modules: ``python -m tests.bench.micro [reader] [writer::one_body] ...``."""

from __future__ import annotations

import argparse

from tests.bench.micro import cycle, head, reader, websocket, writer
from tests.bench.micro.timing import nanoseconds

#: "module::case" -> run(number).
CASES = {
    f"{module.__name__.rpartition('.')[2]}::{name}": run
    for module in (reader, head, writer, cycle, websocket)
    for name, run in module.CASES.items()
}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.bench.micro", description="CPU time of the hot modules")
    parser.add_argument("chosen", nargs="*", metavar="NAME", help=f"modules or cases, of {', '.join(CASES)}")
    chosen = parser.parse_args(argv).chosen
    for name, run in CASES.items():
        if not chosen or name in chosen or name.partition("::")[0] in chosen:
            print(f"{name:32} {nanoseconds(run):10,.0f} ns", flush=True)


if __name__ == "__main__":
    main()
