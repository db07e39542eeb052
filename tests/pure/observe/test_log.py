from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from dataclasses import replace

import pytest

from aioserve.config.tree import Log
from aioserve.errors import ConfigError
from aioserve.observe.log import TRACE, configure, reopen

logger = logging.getLogger("aioserve")
access = logging.getLogger("aioserve.access")


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    kept = [(one, one.handlers[:], one.level, one.propagate, one.disabled) for one in (logger, access)]
    yield
    for one, handlers, level, propagate, disabled in kept:
        for handler in one.handlers:
            if handler not in handlers:
                handler.close()
        one.handlers[:], one.propagate, one.disabled = handlers, propagate, disabled
        one.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def no_opinion_on_colour(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_line_has_time_pid_level_and_message(stream):
    configure(Log(), stream=stream)
    logger.info("it %s", "works")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \[{os.getpid()}\] INFO     it works\n", stream.getvalue())


def test_less_severe_messages_are_left_out(stream):
    configure(Log(level="warning"), stream=stream)
    logger.info("quiet")
    logger.warning("loud")
    assert stream.getvalue().endswith("WARNING  loud\n")
    assert "quiet" not in stream.getvalue()


def test_trace_is_below_debug_and_has_a_name(stream):
    configure(Log(level="trace"), stream=stream)
    logger.log(TRACE, "every byte")
    assert "TRACE    every byte" in stream.getvalue()


def test_nothing_goes_to_the_root_logger_as_well(stream, caplog):
    configure(Log(), stream=stream)
    logger.error("once")
    assert not caplog.records


def test_configuring_again_replaces(stream):
    configure(Log(), stream=io.StringIO())
    configure(Log(), stream=stream)
    logger.info("once")
    assert stream.getvalue().count("once") == 1
    assert len(logger.handlers) == 1


@pytest.mark.parametrize(
    ("terminal", "colors", "environ", "coloured"),
    [
        (True, None, {}, True),
        (False, None, {}, False),
        (True, False, {}, False),
        (False, True, {}, True),
        (True, None, {"NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_unless_told_otherwise(monkeypatch, terminal, colors, environ, coloured):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    configure(Log(colors=colors), stream=stream)
    logger.error("red")
    assert ("\x1b[31mERROR   \x1b[0m red" in stream.getvalue()) is coloured


def test_a_level_without_a_colour_is_written_plain():
    stream = Terminal()
    configure(Log(), stream=stream)
    logger.log(35, "between")
    assert "\x1b" not in stream.getvalue()


def test_control_characters_do_not_reach_the_terminal(stream):
    configure(Log(), stream=stream)
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logger.exception("bad \x07\x9b path\n\tkept")
    text = stream.getvalue()
    assert "bad \\x07\\x9b path\n\tkept" in text
    assert "ValueError: \\x1b[2J" in text


def test_json_has_one_object_per_line(stream):
    configure(Log(format="json"), stream=stream)
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception('line\n"two"')
    document = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert document["message"] == 'line\n"two"'
    assert document["level"] == "error"
    assert document["pid"] == os.getpid()
    assert document["exception"].endswith("ValueError: no")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["time"])


def test_json_names_the_request_whose_work_it_was(stream):
    configure(Log(format="json"), stream=stream)
    logging.getLogger("aioserve").info("done", extra={"request_id": "r-42"})
    assert json.loads(stream.getvalue())["request_id"] == "r-42"


def test_json_without_an_exception_has_none(stream):
    configure(Log(format="json"), stream=stream)
    logger.info("fine")
    assert "exception" not in json.loads(stream.getvalue())


def test_a_file_is_reopened_by_its_name(tmp_path):
    path = tmp_path / "server.log"
    configure(Log(file=str(path)))
    logger.info("before \udcff")
    path.rename(tmp_path / "server.log.1")
    logger.info("still before")
    reopen()
    logger.info("after")
    assert (tmp_path / "server.log.1").read_text().count("before") == 2
    assert path.read_text().endswith("after\n")


def test_a_file_that_cannot_be_opened_is_a_mistake_in_the_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"--log-file .*: No such file or directory"):
        configure(Log(file=str(tmp_path / "gone" / "server.log")))


def test_a_file_that_cannot_be_reopened_is_written_where_it_is(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    configure(Log(file=str(folder / "server.log")))
    folder.rename(tmp_path / "moved")
    reopen()
    assert "cannot reopen" in (tmp_path / "moved" / "server.log").read_text()


def test_reopening_empties_no_file_and_leaves_streams_and_watched_files_alone(tmp_path, stream):
    path, watched = tmp_path / "own.log", tmp_path / "watched.log"
    logger.addHandler(logging.FileHandler(path, mode="w"))
    logger.addHandler(logging.handlers.WatchedFileHandler(watched))
    logger.addHandler(logging.StreamHandler(stream))
    logger.setLevel(logging.INFO)
    logger.info("before")
    reopen()
    logger.info("after")
    for text in (path.read_text(), watched.read_text(), stream.getvalue()):
        assert text == "before\nafter\n"


def test_reopening_opens_a_file_that_was_not_open_yet(tmp_path):
    path = tmp_path / "late.log"
    logger.addHandler(logging.FileHandler(path, delay=True))
    reopen()
    assert path.exists()


CONFIGS = {
    "log.json": """{"version": 1, "handlers": {"h": {"class": "logging.FileHandler", "filename": "@"}},
                    "loggers": {"aioserve": {"handlers": ["h"], "level": "DEBUG"}}}""",
    "log.yaml": """
version: 1
handlers: {h: {class: logging.FileHandler, filename: "@"}}
loggers: {aioserve: {handlers: [h], level: DEBUG}}
""",
    "log.toml": """
version = 1
[handlers.h]
class = "logging.FileHandler"
filename = "@"
[loggers.aioserve]
handlers = ["h"]
level = "DEBUG"
""",
    "log.ini": """
[loggers]
keys = root, aioserve
[handlers]
keys = h
[formatters]
keys =
[logger_root]
handlers =
[logger_aioserve]
qualname = aioserve
handlers = h
level = DEBUG
[handler_h]
class = FileHandler
args = ("@",)
""",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_logging_configuration_takes_over_in_every_format(tmp_path, name):
    root = logging.root.handlers[:]
    target = tmp_path / "out.log"
    (tmp_path / name).write_text(CONFIGS[name].replace("@", str(target)))
    try:
        configure(Log(config=str(tmp_path / name), level="error"))
    finally:
        logging.root.handlers[:] = root
    logger.debug("configured")
    assert "configured" in target.read_text()


def test_loggers_that_a_configuration_does_not_name_go_on_and_have_our_level(tmp_path):
    root, level = logging.root.handlers[:], logging.root.level
    logger.setLevel(logging.NOTSET)
    (tmp_path / "log.json").write_text('{"version": 1}')
    try:
        configure(Log(config=str(tmp_path / "log.json"), level="error"))
    finally:
        logging.root.handlers[:] = root
        logging.root.setLevel(level)
    assert not logger.disabled
    assert logger.level == logging.ERROR


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("log.json", None, "No such file or directory"),
        ("log.ini", None, "No such file or directory"),
        ("log.json", "{", "JSONDecodeError"),
        ("log.json", "[]", "it holds no mapping"),
        ("log.toml", "a =", "TOMLDecodeError"),
        ("log.yaml", "a: [", "ParserError"),
        ("log.ini", "[loggers]", "Error"),
        ("log.json", '{"version": 1, "handlers": {"h": {"class": "no.Such"}}}', "No module named 'no'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path, name, text, part):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        configure(Log(config=str(path)))
    assert str(caught.value).startswith(f"--log-config {path}: ")
    assert part in str(caught.value)


def test_yaml_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "log.yml").write_text("version: 1")
    with pytest.raises(ConfigError, match=r"aioserve\[yaml\]"):
        configure(replace(Log(), config=str(tmp_path / "log.yml")))
