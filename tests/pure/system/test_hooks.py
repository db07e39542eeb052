"""The user's own functions: found, called, and kept from doing harm."""

import asyncio
import contextlib
import signal
import time

import pytest

from aioserve.config.load import from_settings
from aioserve.errors import BootError
from aioserve.system import hooks
from aioserve.system.hooks import Hook, Moment, imported_too_early, load

MOMENT = Moment(hook="on_reload", pid=7)


def hook(function):
    return Hook("on_reload", "ops:reloaded", function)


def test_a_hook_is_told_the_moment():
    told = []
    hook(told.append).run(MOMENT)
    assert told == [MOMENT]


@pytest.mark.parametrize("error", [ValueError("no such table"), SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_an_error_is_logged_with_the_name_of_the_hook_and_goes_no_further(caplog, error):
    def fails(_moment):
        raise error

    hook(fails).run(MOMENT)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.message.startswith("the hook on_reload (ops:reloaded) has failed:\nTraceback")
    assert type(error).__name__ in record.message


def test_a_hook_that_hangs_is_interrupted(caplog):
    hook(lambda _: time.sleep(60)).run(MOMENT, longest=0.01)
    [record] = caplog.records
    assert "the hook on_reload (ops:reloaded) was interrupted after 0.01 s" in record.message


def test_a_hook_that_takes_every_error_for_its_own_is_interrupted_too(caplog):
    def stubborn(_moment):
        for _ in range(2):
            with contextlib.suppress(BaseException):
                time.sleep(60)
        time.sleep(60)

    hook(stubborn).run(MOMENT, longest=0.01)
    assert "was interrupted" in caplog.text


def test_the_alarm_is_as_it_was(caplog):
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        hook(lambda _: None).run(MOMENT)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (rang, caplog.records) == ([1], [])


def test_a_hook_that_takes_long_is_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(hooks, "LONG", 0.0)
    hook(lambda _: None).run(MOMENT)
    [record] = caplog.records
    assert (record.levelname, "do what takes long in a process of its own" in record.message) == ("WARNING", True)


@pytest.fixture
def ops(tmp_path, monkeypatch):
    (tmp_path / "ops_of_hooks.py").write_text("def done(moment): ...\nasync def later(moment): ...\nnothing = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    return str(tmp_path)


def test_hooks_are_found_by_their_names(ops):
    config = from_settings(on_reload="ops_of_hooks:done", on_worker_start="ops_of_hooks:done", app_dir=ops)
    assert set(load(config, hooks.MASTER)) == {"on_reload"}
    assert set(load(config, hooks.WORKER)) == {"on_worker_start"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:done", "--on-reload: there is no module 'no_such_module'"),
        ("ops_of_hooks:nothing", "--on-reload: ops_of_hooks:nothing is a NoneType, which cannot be called"),
        ("ops_of_hooks:later", "--on-reload: ops_of_hooks:later is a coroutine function; a hook is a plain function"),
    ],
)
def test_what_is_no_hook_is_refused_by_its_flag(ops, target, message):
    with pytest.raises(BootError, match=f"^{message}"):
        load(from_settings(on_reload=target, app_dir=ops), hooks.MASTER)


def test_an_application_that_came_along_is_noticed(ops):
    assert imported_too_early(from_settings(app="json:loads")) == "json"
    assert imported_too_early(from_settings(mount=["/x=json.decoder:a"])) == "json.decoder"
    assert imported_too_early(from_settings(app="not_imported_yet:app")) == ""
