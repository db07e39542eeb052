"""Every seed through its target, as fuzzing would run it but without atheris; and a short run of the fuzzer itself."""

from __future__ import annotations

import importlib

import pytest

from tests.fuzz import seeds


@pytest.mark.parametrize("target", seeds.TARGETS)
def test_seeds_pass(target):
    run = importlib.import_module(f"tests.fuzz.{target}").run
    for data in seeds.load(target):
        try:
            run(data)
        except BaseException as failure:
            failure.add_note(f"input: {data!r}")
            raise


@pytest.mark.parametrize("data", [b"", b"'\\\"\t\r\n\x00\x7f\xff", b"b'x'"])
def test_seeds_are_kept_as_text(data):
    assert seeds.read(seeds.write(data)) == data
