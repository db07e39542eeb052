from __future__ import annotations

import logging
import sys

import pytest

from aioserve.worker import gil


@pytest.mark.parametrize(
    ("threads", "after"), [(1, True), (4, False)], ids=["one loop needs no second core", "threads run side by side"]
)
def test_there_is_nothing_to_say(threads, after):
    assert gil.shortfall(threads, free_threaded=True, before=False, after=after) == ""


@pytest.mark.parametrize(
    ("free_threaded", "before", "cause"),
    [
        (False, True, "because this Python has a global interpreter lock"),
        (True, True, "because the global interpreter lock is on (PYTHON_GIL, -X gil, "),
        (True, False, "because the application imports an extension that is not made for threads"),
    ],
)
def test_each_cause_is_named_with_what_to_do(free_threaded, before, cause):
    text = gil.shortfall(4, free_threaded=free_threaded, before=before, after=True)
    assert text.startswith(f"--accept threads: 4 loops share one core, {cause}")
    assert "use --workers for more" in text


def test_the_warning_is_that_of_this_interpreter(caplog):
    with caplog.at_level(logging.WARNING, logger="aioserve"):
        gil.say_shortfall(2)
    assert bool(caplog.messages) is gil.has_gil()


def test_a_python_that_cannot_be_asked_has_the_lock():
    assert gil.has_gil() or hasattr(sys, "_is_gil_enabled")
