from __future__ import annotations

import sys

import pytest

from aioserve.errors import BootError
from aioserve.worker.loops import loop_name, new_loop


@pytest.mark.parametrize(("kind", "name"), [("auto", "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio")])
def test_the_loop_is_the_one_asked_for(kind, name):
    loop = new_loop(kind)
    try:
        assert loop_name(loop) == name
    finally:
        loop.close()


def test_auto_without_uvloop_is_asyncio(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_loop("auto")
    try:
        assert loop_name(loop) == "asyncio"
    finally:
        loop.close()


def test_uvloop_that_is_missing_is_an_error_when_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(BootError, match="--loop uvloop"):
        new_loop("uvloop")
