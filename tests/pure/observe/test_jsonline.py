from __future__ import annotations

import json
import runpy
import sys

import pytest

from aioserve.observe import jsonline
from aioserve.observe.jsonline import FAST, dump


@pytest.mark.parametrize("fast", [FAST, None])
def test_a_document_is_one_line(fast):
    text = dump({"a": 'x\n"y"', "b": 1.5, "c": None}, fast=fast)
    assert "\n" not in text
    assert json.loads(text) == {"a": 'x\n"y"', "b": 1.5, "c": None}


def test_the_standard_library_does_where_there_is_no_orjson(monkeypatch):
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert runpy.run_path(jsonline.__file__)["FAST"] is None


def test_strings_that_are_not_text_go_through_the_standard_library():
    assert json.loads(dump({"a": "\udcff"})) == {"a": "\udcff"}


def test_objects_that_are_no_json_are_written_as_text():
    assert json.loads(dump({"a": 1j})) == {"a": "1j"}
