from __future__ import annotations

import io
import json
import logging
import re
import time
from dataclasses import dataclass, field

import pytest

from aioserve.config.tree import Log
from aioserve.errors import BootError
from aioserve.observe import access
from aioserve.observe.access import AccessLog, LoggingAccessLog, combined, escape, fields, line, open_access_log

#: 2026-11-23 12:00:00.25 UTC
NOON = 1795435200.25


@dataclass
class Exchange:
    scope: dict
    status: int = 200
    sent_bytes: int = 13
    started: float = 100.0
    first_byte: float = 100.001
    ended: float = 100.0012


def exchange(*, client=("127.0.0.1", 54321), path=b"/path", query=b"", headers=(), method="GET", **kwargs) -> Exchange:
    scope = {
        "type": "http", "client": client, "method": method, "raw_path": path, "query_string": query,
        "http_version": "1.1", "headers": list(headers),
    }  # fmt: skip
    return Exchange(scope, **kwargs)


@dataclass
class Session(Exchange):
    received_bytes: int = 42
    close_code: int | None = 1000


def session(**kwargs) -> Session:
    """A WebSocket: its scope has no method."""
    scope = {**exchange(query=b"q").scope, "type": "websocket"}
    del scope["method"]
    return Session(scope, **{"status": 101, **kwargs})


@dataclass
class Lines:
    lines: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        self.lines.append(text)

    def reopen(self) -> None:
        self.calls.append("reopen")

    def flush_and_close(self, timeout: float) -> bool:
        self.calls.append(f"close {timeout}")
        return True


@pytest.fixture
def in_berlin(monkeypatch):
    def zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()
        access._apache_time.cache_clear()

    yield zone
    monkeypatch.undo()
    time.tzset()
    access._apache_time.cache_clear()


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (exchange(query=b"x"), '127.0.0.1:54321 - "GET /path?x HTTP/1.1" 200 OK 13B 1.2ms'),
        (exchange(client=("::1", 80)), '[::1]:80 - "GET /path HTTP/1.1" 200 OK 13B 1.2ms'),
        (exchange(client=None), 'unix: - "GET /path HTTP/1.1" 200 OK 13B 1.2ms'),
        (exchange(status=299), '127.0.0.1:54321 - "GET /path HTTP/1.1" 299 13B 1.2ms'),
        (exchange(status=404, sent_bytes=0), '127.0.0.1:54321 - "GET /path HTTP/1.1" 404 Not Found 0B 1.2ms'),
    ],
)
def test_the_line_is_uvicorns_with_bytes_and_duration(made, text):
    assert line(made) == text + "\n"


def test_combined_is_apaches_with_the_duration_in_microseconds(in_berlin):
    in_berlin("Europe/Berlin")
    headers = [(b"referer", b"https://a.example/"), (b"user-agent", b"curl/8")]
    assert combined(exchange(headers=headers), NOON) == (
        '127.0.0.1 - - [23/Nov/2026:13:00:00 +0100] "GET /path HTTP/1.1" 200 13 "https://a.example/" "curl/8" 1200\n'
    )


@pytest.mark.parametrize(("zone", "text"), [("UTC", "+0000"), ("America/St_Johns", "-0330"), ("Asia/Kolkata", "+0530")])
def test_combined_knows_the_offset_of_the_time_zone(in_berlin, zone, text):
    in_berlin(zone)
    assert f" {text}] " in combined(exchange(), NOON)


def test_combined_has_dashes_for_what_is_not_there():
    made = combined(exchange(client=None, sent_bytes=0), NOON)
    assert made.startswith("- - - [")
    assert '" 200 - "-" "-" 1200\n' in made


def test_json_has_every_field():
    headers = [(b"host", b"a.example"), (b"referer", b"https://b.example/"), (b"user-agent", b"curl/8")]
    assert fields(exchange(path=b"/a%20b", query=b"c=d", headers=headers), NOON) == {
        "time": "2026-11-23T12:00:00.250Z",
        "client": "127.0.0.1:54321",
        "method": "GET",
        "path": "/a%20b",
        "query": "c=d",
        "http_version": "1.1",
        "status": 200,
        "bytes": 13,
        "duration_ms": 1.2,
        "first_byte_ms": 1.0,
        "referer": "https://b.example/",
        "user_agent": "curl/8",
        "host": "a.example",
    }


def test_json_has_nulls_for_what_is_not_there():
    made = fields(exchange(client=None, first_byte=0.0), NOON)
    assert [name for name, value in made.items() if value is None] == [
        "client", "first_byte_ms", "referer", "user_agent", "host",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain /a?b=%20", "plain /a?b=%20"),
        (b'say "hi"', 'say \\"hi\\"'),
        (b"back\\slash", "back\\\\slash"),
        (b"\r\nforged\x1b[2J\x00\x7f", "\\x0d\\x0aforged\\x1b[2J\\x00\\x7f"),
        ("späti".encode(), "sp\\xc3\\xa4ti"),
        (b"", ""),
    ],
)
def test_what_a_client_sends_is_escaped(raw, text):
    assert escape(raw) == text


EVERY_BYTE = bytes(range(256))


def test_no_form_lets_a_byte_of_the_clients_out_of_its_place():
    headers = [(b"referer", EVERY_BYTE), (b"user-agent", EVERY_BYTE), (b"host", EVERY_BYTE)]
    made = exchange(path=EVERY_BYTE, query=EVERY_BYTE, headers=headers)
    sink = Lines()
    for form in ("line", "combined", "json"):
        AccessLog(form, sink).record(made)
    for text in sink.lines:
        assert re.fullmatch(r"[\x20-\x7e]+\n", text)
    assert len(re.findall(r'(?<!\\)(?:\\\\)*"', sink.lines[1])) == 6
    assert json.loads(sink.lines[2])["path"].startswith("\x00\x01")


def test_json_goes_out_as_one_line_dated_when_the_request_came_in():
    sink = Lines()
    AccessLog("json", sink, clock=lambda: NOON + 0.0012).record(exchange())
    assert json.loads(sink.lines[0])["time"] == "2026-11-23T12:00:00.250Z"


def test_reopen_and_close_go_to_the_sink():
    sink = Lines()
    log = AccessLog("line", sink)
    log.reopen()
    assert log.close(0.5)
    assert sink.calls == ["reopen", "close 0.5"]


@pytest.fixture
def logger():
    """A logger of its own, with a stream."""
    one = logging.Logger("aioserve.access.test")  # noqa: LOG001  # one that no other test sees
    one.stream = io.StringIO()
    one.addHandler(logging.StreamHandler(one.stream))
    return one


def test_through_logging_message_and_arguments_are_uvicorns(logger):
    LoggingAccessLog(logger).record(exchange(query=b'"'))
    assert logger.stream.getvalue() == '127.0.0.1:54321 - "GET /path?\\" HTTP/1.1" 200\n'


def test_through_logging_every_field_is_an_attribute(logger):
    logger.handlers[0].setFormatter(logging.Formatter("%(status)d %(duration_ms).1f %(user_agent)s"))
    LoggingAccessLog(logger).record(exchange())
    assert logger.stream.getvalue() == "200 1.2 None\n"


def test_a_logger_that_is_not_interested_costs_nothing_more(logger):
    logger.setLevel(logging.ERROR)
    log = LoggingAccessLog(logger)
    log.record(None)
    log.record_session(None)
    log.reopen()
    assert log.close()


@pytest.mark.parametrize(
    ("form", "end"),
    [
        ("line", '"GET /path?q HTTP/1.1" 101 Switching Protocols 13B 1.2ms, closed with 1000, 42B received\n'),
        ("combined", '"GET /path?q HTTP/1.1" 101 13 "-" "-" 1200 1000 42\n'),
        ("json", '"close_code":1000,"received_bytes":42}\n'),
    ],
)
def test_a_websocket_has_its_code_and_both_directions_at_the_end_of_its_line(form, end):
    lines = Lines()
    AccessLog(form, lines).record_session(session())
    assert lines.lines[0].endswith(end)


@pytest.mark.parametrize(("form", "end"), [("line", "403 Forbidden 13B 1.2ms\n"), ("combined", '"-" 1200\n')])
def test_a_handshake_that_was_refused_has_the_line_of_a_request(form, end):
    lines = Lines()
    AccessLog(form, lines).record_session(session(status=403, close_code=None))
    assert lines.lines[0].endswith(end)


def test_a_websocket_goes_through_logging_too(logger):
    logger.handlers[0].setFormatter(logging.Formatter("%(message)s %(close_code)d"))
    LoggingAccessLog(logger).record_session(session())
    assert logger.stream.getvalue() == '127.0.0.1:54321 - "GET /path?q HTTP/1.1" 101 1000\n'


def test_no_access_log_is_opened_when_it_is_off():
    assert open_access_log(Log(access=False), None) is None


def test_the_access_log_opens_its_file(tmp_path):
    path = tmp_path / "access.log"
    log = open_access_log(Log(access_file=str(path)), None)
    assert path.exists()
    assert log.close()


def test_a_file_that_cannot_be_opened_ends_the_boot(tmp_path):
    with pytest.raises(BootError, match="cannot be opened: No such file"):
        open_access_log(Log(access_file=str(tmp_path / "gone" / "access.log")), None)


def test_a_logging_configuration_takes_the_access_log_over():
    logger = logging.getLogger("aioserve.access")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        assert isinstance(open_access_log(Log(config="log.ini"), None), LoggingAccessLog)
        assert isinstance(open_access_log(Log(), None), AccessLog)
    finally:
        logger.removeHandler(handler)
