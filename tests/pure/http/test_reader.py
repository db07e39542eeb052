"""The reader with both parsers: every case is fed whole, byte by byte, and cut in two at every place."""

from __future__ import annotations

import pytest

from aioserve.http.parser import ParserPool
from aioserve.http.reader import Limits, RequestReader
from aioserve.http.tables import METHODS
from tests.fakes import PARSERS, RecordingSink

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(params=sorted(PARSERS))
def parser(request):
    return request.param


def read(raw, parser, **limits):
    """Feed ``raw`` in every way; the result must not depend on it."""
    whole = RecordingSink(parser, **limits).feed(raw)
    bytewise = RecordingSink(parser, **limits)
    for at in range(len(raw)):
        bytewise.feed(raw[at : at + 1])
    assert bytewise.summary() == whole.summary()
    for cut in range(1, len(raw)):
        halves = RecordingSink(parser, **limits).feed(raw[:cut]).feed(raw[cut:])
        assert halves.summary() == whole.summary(), raw[:cut]
    return whole


def post(*fields, body=b"", version=b"1.1"):
    return b"POST / HTTP/" + version + b"\r\nHost: a\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body


def test_a_request_without_a_body_is_complete_with_its_head(parser):
    (request,) = read(b"GET /p%20q?x=1 HTTP/1.1\r\nHost: a.example:80\r\nX-A: 1\r\n\r\n", parser).requests
    line = request.head.line
    assert (line.method, line.path, line.raw_path, line.query) == ("GET", "/p q", b"/p%20q", b"x=1")
    assert request.head.headers == [(b"host", b"a.example:80"), (b"x-a", b"1")]
    assert request.head.keep_alive
    assert request.complete


def test_white_space_around_values_is_no_part_of_them(parser):
    (request,) = read(b"GET / HTTP/1.1\r\nHost:  a \t\r\nX: b c \r\n\r\n", parser).requests
    assert request.head.headers == [(b"host", b"a"), (b"x", b"b c")]


def test_bodies_and_the_requests_behind_them_are_told_apart(parser):
    sink = read(post(b"Content-Length: 5", body=b"hello") + post(b"Content-Length: 0") + GET, parser)
    assert [r.body for r in sink.requests] == [b"hello", b"", b""]
    assert sink.error is None


def test_chunks_are_joined_and_trailers_kept_apart(parser):
    raw = post(b"Transfer-Encoding: chunked", body=b"5\r\nhel\r\n\r\n3;x=y\r\n\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n") + GET
    first, second = read(raw, parser).requests
    assert first.body == b"hel\r\n\r\n!"
    assert first.trailers == [(b"x-sum", b"1")]
    assert (b"x-sum", b"1") not in first.head.headers
    assert second.head.line.method == "GET"


def test_leading_blank_lines_are_ignored(parser):
    assert len(read(b"\r\n\r\n" + GET + b"\r\n" + GET, parser).requests) == 2


def test_blank_lines_are_counted_for_each_request_alone(parser):
    sink = RecordingSink(parser)
    for _ in range(3):
        sink.feed(b"\r\n\r\n\r\n").feed(GET)
    assert (len(sink.requests), sink.error) == (3, None)


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_persistence(parser, head, keep_alive):
    (request,) = read(head, parser).requests
    assert request.head.keep_alive is keep_alive


def test_what_follows_a_request_to_close_is_ignored(parser):
    sink = read(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + b"\0garbage" + GET, parser)
    assert len(sink.requests) == 1
    assert sink.error is None


def test_an_absolute_target_replaces_the_host(parser):
    (request,) = read(b"GET http://b.example:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n", parser).requests
    assert request.head.headers == [(b"host", b"b.example:81")]
    assert (request.head.line.raw_path, request.head.line.query) == (b"/x", b"y")


@pytest.mark.parametrize(("target", "raw_path"), [(b"http://b", b"/"), (b"http://b?q", b"/"), (b"HTTP://b/", b"/")])
def test_an_absolute_target_without_a_path_has_the_path_slash(parser, target, raw_path):
    (request,) = read(b"GET " + target + b" HTTP/1.1\r\nHost: b\r\n\r\n", parser).requests
    assert request.head.line.raw_path == raw_path


def test_the_asterisk_is_a_target_of_options(parser):
    (request,) = read(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", parser).requests
    assert request.head.line.raw_path == b"*"


def test_expectations_are_seen_but_not_in_http_1_0(parser):
    (request,) = read(post(b"Content-Length: 1", b"Expect: 100-Continue"), parser).requests
    assert request.head.expects_continue
    (request,) = read(post(b"Content-Length: 1", b"Expect: 100-continue", version=b"1.0"), parser).requests
    assert not request.head.expects_continue


def test_a_body_that_comes_with_its_head_waits_for_no_100(parser):
    raw = post(b"Content-Length: 1", b"Expect: 100-continue", body=b"x")
    (request,) = RecordingSink(parser).feed(raw).requests
    assert not request.head.expects_continue


@pytest.mark.parametrize(
    "framing", [(b"Content-Length: 3", b"abc"), (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")]
)
def test_an_upgrade_that_is_not_taken_keeps_its_body(parser, framing):
    field, body = framing
    raw = post(b"Connection: upgrade", b"Upgrade: h2c", field, body=body) + GET
    first, second = read(raw, parser).requests
    assert first.body == b"abc"
    assert second.complete


REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400, "no Host"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two Hosts"),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two Hosts in HTTP/1.0"),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "a space in Host"),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "a path in Host"),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "userinfo in Host"),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "an empty Host"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two spaces"),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two spaces behind the target"),
    (b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a fragment"),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "an asterisk without OPTIONS"),
    (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "no path"),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "another scheme"),
    (b"GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a bad authority"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "CONNECT"),
    (b"GET /\nX: HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a line of HTTP/0.9 that hides a field"),
    (b"CONNECT  HTTP/1.1\r\n\r\n", 400, "CONNECT without a target"),
    (b'{"a": 1}', 400, "no request line, and no end of one"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "HTTP/2.0"),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "HTTP/0.9"),
    (b"GET / HTTP/1-1\r\nHost: a\r\n\r\n", 400, "no version at all"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "the HTTP/2 preface"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "a TLS hello"),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bare line feeds"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "obs-fold"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400, "a space before the colon"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400, "NUL"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400, "a control byte"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400, "DEL"),
    (b"\r\n" * 5 + GET, 400, "many blank lines"),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a leading space"),
    (post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), 400, "two lengths"),
    (post(b"Content-Length: +3", body=b"abc"), 400, "a signed length"),
    (post(b"Content-Length: 3, 3", body=b"abc"), 400, "a list of lengths"),
    (post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400, "the same length twice"),
    (post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, "both framings"),
    (post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"0\r\n\r\n"), 400, "both framings, swapped"),
    (post(b"Transfer-Encoding: gzip", body=b""), 400, "gzip without chunked"),
    (post(b"Transfer-Encoding: chunked", version=b"1.0", body=b"0\r\n\r\n"), 400, "chunked in HTTP/1.0"),
    (post(b"Expect: magic", b"Content-Length: 1", body=b"a"), 417, "another expectation"),
    (post(b"Transfer-Encoding: chunked", body=b"x\r\n"), 400, "a bad chunk size"),
    (post(b"Transfer-Encoding: chunked", body=b"-1\r\n"), 400, "a signed chunk size"),
    (post(b"Transfer-Encoding: chunked", body=b"0\r\nT: v\n\r\n" + GET), 400, "a bare line feed in the trailers"),
    (post(b"Transfer-Encoding: chunked", body=b"0\r\n\nT: v\r\n\r\n" + GET), 400, "a bare line feed before them"),
]


@pytest.mark.parametrize(("raw", "status"), [case[:2] for case in REFUSED], ids=[case[2] for case in REFUSED])
def test_refused(parser, raw, status):
    sink = read(raw, parser)
    assert sink.status == status
    # The head of a body that turns out to be broken has been pushed; nothing of a broken head ever is.
    assert not any(request.complete for request in sink.requests)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_known_method_is_passed_on(parser, method):
    (request,) = read(method.encode() + b" / HTTP/1.1\r\nHost: a\r\n\r\n", parser).requests
    assert request.head.line.method == method


# The last three are known to llhttp, for RTSP and for proxies.
@pytest.mark.parametrize("method", [b"FOO", b"get", b"GE", b"GETS", b"M", b"!", b"SETUP", b"FLUSH", b"CONNECT"])
def test_an_unknown_method_is_not_implemented(parser, method):
    assert read(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n", parser).status == 501


def test_the_gzip_coding_in_front_of_chunked_is_not_implemented(parser):
    assert read(post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), parser).status == 501


@pytest.mark.parametrize(
    ("raw", "status", "limits"),
    [
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, {"request_line": 50}),
        (b"GET /" + b"a" * 100, 414, {"request_line": 50}),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5 + b"\r\n", 431, {"header_fields": 5}),
        (GET, None, {"request_line": 14}),
        (GET, 414, {"request_line": 13}),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100 + b"\r\n\r\n", 431, {"header_bytes": 100}),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100, 431, {"header_bytes": 100}),
        (post(b"Content-Length: 11", body=b"01234567890"), 413, {"request_body": 10}),
        (post(b"Transfer-Encoding: chunked", body=b"b\r\n01234567890\r\n0\r\n\r\n"), 413, {"request_body": 10}),
        (post(b"Content-Length: 99999999999999999999"), 400, {}),
    ],
)
def test_limits(raw, status, limits):
    assert read(raw, "httptools", **limits).status == status


def test_a_body_at_its_limit_passes(parser):
    assert read(post(b"Content-Length: 3", body=b"abc"), parser, request_body=3).error is None


def test_endless_chunk_extensions_are_refused():
    sink = RecordingSink().feed(post(b"Transfer-Encoding: chunked", body=b"1;"))
    for _ in range(20):
        sink.feed(b"x" * 1000)
    assert sink.status == 400


def test_one_byte_chunks_are_no_attack():
    sink = RecordingSink().feed(post(b"Transfer-Encoding: chunked"))
    for _ in range(10_000):
        sink.feed(b"1\r\nx\r\n")
    assert sink.feed(b"0\r\n\r\n").requests[0].complete


def test_empty_lines_inside_a_chunk_are_not_pushed_one_by_one(parser):
    pieces = []
    sink = RecordingSink(parser)
    sink.on_body = pieces.append
    blank = b"\r\n\r\n" * 10_000
    sink.feed(post(b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(blank), blank)) + GET)
    assert b"".join(pieces) == blank
    assert len(pieces) <= 20_000 // 512 + 2
    assert len(sink.requests) == 2


def test_a_second_request_waits_until_the_first_is_answered():
    sink = RecordingSink(answer=False).feed(GET + b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(sink.requests) == 1
    assert sink.reader.rest.startswith(b"GET /two")
    assert sink.reader.proceed()
    sink.feed(b"")
    assert sink.requests[1].head.line.path == "/two"


def test_an_error_behind_a_good_request_is_found_after_its_answer():
    sink = RecordingSink(answer=False).feed(GET + b"\0\0\0\0")
    assert sink.error is None
    sink.reader.proceed()
    assert sink.feed(b"").status == 400


def test_a_long_pipeline_is_served_in_turns():
    sink = RecordingSink()
    assert sink.reader.feed(GET * 100)
    assert 1 <= len(sink.requests) < 100
    while sink.reader.rest:
        sink.reader.feed(b"")
    assert len(sink.requests) == 100


def test_a_dead_reader_ignores_everything():
    sink = RecordingSink().feed(b"\0\0\0\0")
    error = sink.error
    assert sink.feed(GET).error is error
    assert not sink.requests


def test_an_idle_reader_holds_no_parser():
    pool = ParserPool(PARSERS["httptools"])
    sink = RecordingSink()
    sink.reader = RequestReader(sink, pool, Limits())
    sink.feed(GET).feed(post(b"Content-Length: 1", body=b"x")).feed(GET)
    assert len(pool.spare) == 1
    assert not sink.reader.head_begun


def test_a_parser_that_was_told_to_close_is_not_used_again():
    pool = ParserPool(PARSERS["httptools"])
    sink = RecordingSink()
    sink.reader = RequestReader(sink, pool, Limits())
    sink.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert not pool.spare


def test_detaching_lets_go_of_the_sink():
    sink = RecordingSink()
    sink.reader.detach()
    assert sink.reader.sink is None
    assert sink.reader.feed(GET) is False


@pytest.mark.parametrize("cut", range(1, len(GET)))
def test_connections_that_share_a_pool_share_nothing_else(cut):
    pool = ParserPool(PARSERS["httptools"])
    one, two = RecordingSink(), RecordingSink()
    for sink in (one, two):
        sink.reader = RequestReader(sink, pool, Limits())
    one.feed(GET[:cut]).feed(GET[cut:])
    two.feed(GET[:cut])
    one.feed(b"GET /mine HTTP/1.1\r\nX-Mine: yes\r\n")
    two.feed(GET[cut:])
    assert two.requests[0].head.headers == [(b"host", b"a")]
    assert one.feed(b"Host: a\r\n\r\n").requests[1].head.line.path == "/mine"


def test_only_a_part_of_a_head_or_bytes_behind_a_request_are_left_hanging():
    sink = RecordingSink(answer=False)
    assert sink.reader.feed(GET[:5])
    assert not sink.reader.feed(GET[5:])
    assert sink.reader.feed(b"next")
    sink = RecordingSink(answer=False)
    sink.feed(post(b"Transfer-Encoding: chunked"))
    assert not any(sink.reader.feed(bytes([byte])) for byte in b"5\r\nhello\r\n0\r\n\r\n")
