"""What RFC 9110 and RFC 9112 demand of a recipient of requests. ``requirements`` says which test shows what.

With both parsers; each request is fed whole and byte by byte, which must not make a difference.
"""

from __future__ import annotations

import pytest

from tests.fakes import PARSERS, RecordingSink

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(params=sorted(PARSERS))
def parser(request):
    return request.param


def read(raw, parser, **limits):
    whole = RecordingSink(parser, **limits).feed(raw)
    bytewise = RecordingSink(parser, **limits)
    for at in range(len(raw)):
        bytewise.feed(raw[at : at + 1])
    assert bytewise.summary() == whole.summary()
    return whole


def get(*fields, target=b"/", version=b"1.1"):
    lines = [b"GET " + target + b" HTTP/" + version, b"Host: a", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(*fields, body=b"", version=b"1.1"):
    lines = [b"POST / HTTP/" + version, b"Host: a", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def refused(raw, parser, status=400, **limits):
    """Whether ``raw`` is refused with ``status`` and nothing of it is taken for a complete request."""
    sink = read(raw, parser, **limits)
    return sink.status == status and not any(request.complete for request in sink.requests)


# RFC 9112 2.2: parsing.


def test_octets_that_no_character_set_explains_are_passed_on_as_they_came(parser):
    # U+2028 and NEL are line ends to a parser of characters; 0xFF is no UTF-8.
    value = b"\xe2\x80\xa8x\x85\xff"
    (request,) = read(get(b"X: " + value), parser).requests
    assert request.head.headers[1] == (b"x", value)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
        get(b"X\r: y"),
        get(b"X: y\rz"),
        get(b"X: y\r"),
        post(CHUNKED, body=b"1\r;\r\na\r\n0\r\n\r\n"),
        post(CHUNKED, body=b"1\r\na\r\n0\r\nT: x\ry\r\n\r\n"),
    ],
    ids=["target", "name", "value", "end of a value", "chunk size", "trailer"],
)
def test_a_bare_cr_makes_a_message_invalid(parser, raw):
    assert refused(raw, parser)


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n"])
def test_white_space_in_front_of_the_first_field_is_refused(parser, raw):
    assert refused(raw, parser)


# RFC 9112 3: the request line and Host.


def test_a_target_longer_than_the_limit_is_414(parser):
    assert refused(get(target=b"/" + b"a" * 9000), parser, 414)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nHost: b\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n",
        b"GET / HTTP/1.1\r\nHost: a, b\r\nHost: c\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n",
        b"GET / HTTP/1.1\r\nHost: u@a\r\n",
        b"GET / HTTP/1.1\r\nHost: a:80:80\r\n",
        b"GET / HTTP/1.1\r\nHost: a:x\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n",
        b"GET / HTTP/1.1\r\nHost: http://a\r\n",
        b"GET / HTTP/1.0\r\nHost: a/b\r\n",
        b"GET http://b/ HTTP/1.1\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: b\r\nHost: b\r\n",
    ],
)
def test_a_host_field_that_is_missing_repeated_or_invalid_is_400(parser, head):
    assert refused(head + b"\r\n", parser)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_host_of_an_absolute_target_replaces_the_host_field(parser, version):
    (request,) = read(get(b"X: y", target=b"http://b.example:81/p?q", version=version), parser).requests
    assert request.head.headers == [(b"host", b"b.example:81"), (b"x", b"y")]
    assert (request.head.line.raw_path, request.head.line.query) == (b"/p", b"q")


@pytest.mark.parametrize("target", [b"http:///p", b"https:///p", b"http://:80/p", b"http://?q", b"http://"])
def test_an_absolute_target_without_a_host_is_refused(parser, target):
    assert refused(get(target=target), parser)


@pytest.mark.parametrize("target", [b"*", b"a:80", b"a.example:443"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
def test_the_targets_of_options_and_connect_are_refused_with_other_methods(parser, method, target):
    assert refused(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", parser)


@pytest.mark.parametrize("target", [b"a:", b"a:x", b"a:99999", b"a:443", b"/"])
def test_connect_is_refused_whatever_its_port(parser, target):
    sink = read(b"CONNECT " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", parser)
    assert sink.status in {400, 501}
    assert not sink.requests


# RFC 9112 5 and RFC 9110 5: fields.


@pytest.mark.parametrize("field", [b"X : y", b"X\t: y", b"Host : b", b"Content-Length : 1", b"X  : y"])
def test_white_space_between_name_and_colon_is_400(parser, field):
    assert refused(get(field), parser)


@pytest.mark.parametrize("fold", [b"\r\n ", b"\r\n\t", b"\r\n   ", b" \r\n "])
@pytest.mark.parametrize("name", [b"X", b"Host", b"Transfer-Encoding"])
def test_a_folded_line_is_400(parser, name, fold):
    assert refused(get(name + b": y" + fold + b"z"), parser)


def test_white_space_around_a_value_is_no_part_of_it(parser):
    raw = b"GET / HTTP/1.1\r\nHost: \t a \t\r\nX:y\r\nY: \t\r\n\r\n"
    (request,) = read(raw, parser).requests
    assert request.head.headers == [(b"host", b"a"), (b"x", b"y"), (b"y", b"")]


@pytest.mark.parametrize("octet", [b"\0", b"\r", b"\n"])
def test_nul_cr_and_lf_in_a_value_are_refused(parser, octet):
    assert refused(get(b"X: y" + octet + b"z"), parser)


@pytest.mark.parametrize(
    "fields", [[b"X: " + b"y" * 70_000], [b"X: y"] * 101, [b"X%d: " % n + b"y" * 900 for n in range(80)]]
)
def test_fields_larger_than_the_limits_are_431(parser, fields):
    sink = RecordingSink(parser).feed(get(*fields))
    assert (sink.status, sink.requests) == (431, [])


def test_nothing_is_told_before_the_head_is_complete(parser):
    raw = get(b"X: y")
    sink = RecordingSink(parser)
    for at in range(len(raw) - 1):
        sink.feed(raw[at : at + 1])
        assert not sink.requests
    assert len(sink.feed(raw[-1:]).requests) == 1


def test_empty_elements_of_a_list_are_ignored(parser):
    (request,) = read(get(b"Connection: , close,,"), parser).requests
    assert not request.head.keep_alive


@pytest.mark.parametrize("value", [b",100-continue", b"100-continue, ", b" ,, 100-Continue ,\t,"])
def test_empty_elements_of_expectations_are_ignored(parser, value):
    (request,) = read(post(b"Expect: " + value, b"Content-Length: 1"), parser).requests
    assert request.head.expects_continue


# RFC 9112 6: framing.


@pytest.mark.parametrize(
    "value", [b", chunked", b"chunked,", b"chunked, ,", b"chunked, chunked", b"chunked,\tchunked", b"gzip, chunked"]
)
def test_a_transfer_encoding_that_is_not_one_chunked_is_refused(parser, value):
    sink = read(post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n"), parser)
    assert sink.status in {400, 501}
    assert not sink.requests


@pytest.mark.parametrize(
    "value",
    [b"gzip", b"identity", b"chunked, gzip", b"chunked, identity", b"xchunked", b"gzip, xchunked", b"chunked;q=1", b""],
)
def test_a_last_coding_that_is_not_chunked_is_400(parser, value):
    assert refused(post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n"), parser)


@pytest.mark.parametrize("length", [b"Content-Length: 3", b"Content-Length: 5"])
@pytest.mark.parametrize("length_first", [True, False])
def test_a_length_beside_chunks_is_refused(parser, length, length_first):
    fields = [length, CHUNKED] if length_first else [CHUNKED, length]
    assert refused(post(*fields, body=b"0\r\n\r\n"), parser)


@pytest.mark.parametrize("fields", [[CHUNKED], [CHUNKED, b"Content-Length: 5"], [b"Transfer-Encoding: gzip"]])
def test_a_transfer_encoding_in_http_1_0_is_refused(parser, fields):
    assert refused(post(*fields, body=b"0\r\n\r\n", version=b"1.0"), parser)


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1 1", b"0x1", b"1_0", b"1.0", b"1;", b"one", b"1, 2", b"1,", b"\xb9", b"9" * 30]
)
def test_an_invalid_length_is_400(parser, value):
    assert refused(post(b"Content-Length: " + value, body=b"x"), parser)


def test_two_lengths_that_differ_are_400(parser):
    assert refused(post(b"Content-Length: 1", b"Content-Length: 2", body=b"xx"), parser)


@pytest.mark.parametrize(
    "raw",
    [
        post(b"Content-Length: 18446744073709551617", body=b"x"),
        post(b"Content-Length: 4294967297", body=b"x"),
        post(CHUNKED, body=b"10000000000000001\r\nx\r\n0\r\n\r\n"),
        post(CHUNKED, body=b"100000001\r\nx\r\n0\r\n\r\n"),
    ],
    ids=["length, 64 bits", "length, 32 bits", "chunk, 64 bits", "chunk, 32 bits"],
)
def test_a_size_beyond_a_machine_word_is_not_taken_for_a_small_one(parser, raw):
    assert not any(request.complete for request in read(raw, parser).requests)


def test_a_length_of_more_digits_than_needed_is_the_number_it_is(parser):
    (request,) = read(post(b"Content-Length: 0000000001", body=b"x"), parser).requests
    assert request.body == b"x"


def test_a_message_without_its_last_byte_is_not_complete(parser):
    for raw in (post(b"Content-Length: 3", body=b"abc"), post(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n")):
        (request,) = RecordingSink(parser).feed(raw[:-1]).requests
        assert not request.complete


# RFC 9112 7: chunks.


def test_chunks_of_all_sizes_are_decoded(parser):
    body = b"1\r\na\r\n0000A\r\n0123456789\r\n0f\r\n" + b"x" * 15 + b"\r\n1F\r\n" + b"y" * 31 + b"\r\n00\r\n\r\n"
    (request,) = read(post(CHUNKED, body=body), parser).requests
    assert request.body == b"a0123456789" + b"x" * 15 + b"y" * 31


@pytest.mark.parametrize("extension", [b";x", b";x=y", b';x="a b"', b';x="a\\"b"', b';x="a;b=c"', b";x=y;z"])
def test_chunk_extensions_are_ignored(parser, extension):
    body = b"1" + extension + b"\r\na\r\n0" + extension + b"\r\n\r\n"
    first, second = read(post(CHUNKED, body=body) + GET, parser).requests
    assert (first.body, second.complete) == (b"a", True)


@pytest.mark.parametrize("extension", [b" ;x", b"; x", b";x =y", b";x= y", b" ; x = y", b" "])
def test_bad_white_space_in_a_chunk_extension_is_refused_or_removed(parser, extension):
    sink = read(post(CHUNKED, body=b"1" + extension + b"\r\na\r\n0\r\n\r\n"), parser)
    assert sink.status == 400 or sink.requests[0].body == b"a"


def test_trailers_are_no_header_fields(parser):
    trailers = [(b"host", b"b"), (b"authorization", b"x"), (b"content-length", b"9"), (b"etag", b'"x"')]
    section = b"".join(name + b": " + value + b"\r\n" for name, value in trailers)
    (request,) = read(post(CHUNKED, body=b"1\r\na\r\n0\r\n" + section + b"\r\n"), parser).requests
    assert request.head.headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    assert request.head.line.authority is None


# RFC 9110 7.8 and 10.1.1: upgrades and expectations of HTTP/1.0.


def test_an_upgrade_in_http_1_0_is_ignored(parser):
    raw = post(
        b"Connection: upgrade, keep-alive", b"Upgrade: websocket", b"Content-Length: 1", body=b"x", version=b"1.0"
    )
    first, second = read(raw + GET, parser).requests
    assert (first.body, second.complete) == (b"x", True)


def test_an_expectation_in_http_1_0_is_ignored(parser):
    (request,) = read(post(b"Expect: 100-continue", b"Content-Length: 1", version=b"1.0"), parser).requests
    assert not request.head.expects_continue
