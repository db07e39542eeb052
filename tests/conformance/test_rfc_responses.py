"""What RFC 9110 and RFC 9112 demand of a sender of responses, as far as the writer can see to it.

``requirements`` says which test shows which requirement.
"""

from __future__ import annotations

import pytest

from aioserve.errors import AppError
from aioserve.http.head import Head, read_line
from aioserve.http.server_fields import ServerFields
from aioserve.http.tables import STATUS_LINES
from aioserve.http.writer import ResponseWriter

DATE = b"Mon, 23 Nov 2026 12:00:00 GMT"


def respond(status, headers=(), pieces=(b"",), *, request=b"GET / HTTP/1.1", keep_alive=None, server=None):
    """The bytes of a response whose body comes in ``pieces``."""
    fields = ServerFields(server=server, extra=[])
    fields.set_date(DATE if server else None)
    head = Head(read_line(request), [])
    if keep_alive is not None:
        head.keep_alive = keep_alive
    writer = ResponseWriter(fields, head)
    sent = writer.send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for number, piece in enumerate(pieces, 1):
        sent += writer.send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})
    return sent


def names(response):
    """The names of the fields of a response, as often as they stand there."""
    head = response.partition(b"\r\n\r\n")[0]
    return [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]


def content(response):
    return response.partition(b"\r\n\r\n")[2]


def test_every_status_line_has_our_version_three_digits_and_a_second_space():
    for status, line in STATUS_LINES.items():
        assert line.startswith(b"HTTP/1.1 %d " % status)
        assert line.endswith(b"\r\n")
        assert line.count(b"\r") == line.count(b"\n") == 1


def test_a_status_line_without_a_phrase_ends_in_the_space():
    assert respond(299).startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 102, 103, 199, 600, 999, 1000, True, None, "200"])
def test_only_final_statuses_of_three_digits_start_a_response(status):
    with pytest.raises(AppError):
        respond(status)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_version_is_ours_whatever_the_request_had(version):
    assert respond(200, request=b"GET / HTTP/" + version).startswith(b"HTTP/1.1 ")


# Framing.


@pytest.mark.parametrize("pieces", [[b"a"], [b"a", b"b"], [b"", b""]])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"2")], [(b"transfer-encoding", b"chunked")]])
def test_a_204_has_neither_content_nor_framing(pieces, headers):
    response = respond(204, headers, pieces)
    assert not {b"content-length", b"transfer-encoding"} & set(names(response))
    assert content(response) == b""


@pytest.mark.parametrize(
    ("headers", "pieces"), [([], [b"a"]), ([], [b"a", b"b"]), ([], [b""]), ([(b"content-length", b"1")], [b"a"])]
)
def test_a_205_has_no_content_and_says_so(headers, pieces):
    response = respond(205, headers, pieces)
    assert response == b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("pieces", [[b"a"], [b"a", b"b"]])
def test_a_304_has_no_content_and_the_length_that_the_application_gave(pieces):
    response = respond(304, [(b"content-length", b"77"), (b"etag", b'"x"')], pieces)
    assert b"\r\ncontent-length: 77\r\n" in response
    assert content(response) == b""


def test_a_304_without_a_length_claims_none():
    assert b"content-length" not in names(respond(304, [], [b""]))


@pytest.mark.parametrize("status", [200, 206, 301, 404, 500])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]])
@pytest.mark.parametrize("pieces", [[b"hello"], [b"hel", b"lo"], [b""]])
def test_head_gets_no_content(status, headers, pieces):
    assert content(respond(status, headers, pieces, request=b"HEAD / HTTP/1.1")) == b""


def test_head_gets_the_fields_of_get():
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"etag", b'"x"')]
    head, get = (respond(200, headers, [b"hello"], request=m + b" / HTTP/1.1", server=b"s") for m in (b"HEAD", b"GET"))
    assert names(head) == names(get)
    assert get == head + b"hello"


@pytest.mark.parametrize("keep_alive", [True, False])
def test_http_1_0_never_gets_a_transfer_encoding(keep_alive):
    headers = [(b"transfer-encoding", b"chunked")]
    response = respond(200, headers, [b"a", b"b"], request=b"GET / HTTP/1.0", keep_alive=keep_alive)
    assert b"transfer-encoding" not in names(response)
    assert content(response) == b"ab"
    assert b"\r\nconnection: close\r\n" in response


@pytest.mark.parametrize(
    "headers", [[(b"content-length", b"2")], [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")]]
)
@pytest.mark.parametrize("pieces", [[b"ab"], [b"a", b"b"], [b"", b"ab", b""]])
def test_a_response_with_a_length_has_no_transfer_encoding(headers, pieces):
    response = respond(200, headers, pieces)
    assert names(response).count(b"content-length") == 1
    assert b"transfer-encoding" not in names(response)
    assert content(response) == b"ab"


@pytest.mark.parametrize("value", [b"chunked", b"gzip", b"gzip, chunked", b"identity"])
def test_a_transfer_encoding_of_the_application_is_not_passed_on(value):
    assert b"transfer-encoding" not in names(respond(200, [(b"Transfer-Encoding", value)], [b"a"]))
    response = respond(200, [(b"Transfer-Encoding", value)], [b"a", b"b"])
    assert names(response) == [b"transfer-encoding"]
    assert content(response) == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize("value", [b"-1", b"+1", b"1, 1", b"0x1", b"", b"1 ", b"\xb2"])
def test_a_length_of_the_application_that_is_no_number_is_refused(value):
    with pytest.raises(AppError):
        respond(200, [(b"content-length", value)], [b"a"])


@pytest.mark.parametrize(("length", "pieces"), [(1, [b"ab"]), (3, [b"ab"]), (1, [b"a", b"b"]), (3, [b"a", b"b"])])
def test_a_length_that_the_content_does_not_have_is_refused(length, pieces):
    with pytest.raises(AppError):
        respond(200, [(b"content-length", b"%d" % length)], pieces)


# Fields.


@pytest.mark.parametrize(
    "value", [b"a\r\nb: c", b"a\rb", b"a\nb", b"a\r", b"a\n", b"a\r\n b", b"a\r\n\tb", b"a\0b", b"\0"]
)
def test_a_value_with_cr_lf_or_nul_is_refused(value):
    with pytest.raises(AppError):
        respond(200, [(b"x", value)])


@pytest.mark.parametrize("octet", [octet for octet in (*range(32), 127) if octet not in b"\t\r\n\0"])
def test_a_value_with_another_control_byte_is_refused(octet):
    with pytest.raises(AppError):
        respond(200, [(b"x", b"a" + bytes([octet]) + b"b")])


def test_values_may_have_tabs_and_high_bytes():
    value = b"a\tb \x80\xff"
    assert b"\r\nx: " + value + b"\r\n" in respond(200, [(b"x", value)])


@pytest.mark.parametrize(
    "name", [b"", b" x", b"x ", b"\tx", b"x:", b"x y", b"x\r", b"x\nz", b"\0", b"\xe9", b"x\x7f", b"(x)"]
)
def test_a_name_that_is_no_token_is_refused(name):
    with pytest.raises(AppError):
        respond(200, [(name, b"y")])


def test_fields_follow_the_status_line_at_once():
    assert respond(200, [(b"x", b"y")]).startswith(b"HTTP/1.1 200 OK\r\nx: y\r\n")


@pytest.mark.parametrize("headers", [[], [(b"Date", b"x"), (b"SERVER", b"y")], [(b"content-length", b"0")] * 2])
def test_no_field_of_the_server_stands_twice(headers):
    found = names(respond(200, headers, server=b"s"))
    assert len(found) == len(set(found))
    assert {b"date", b"server", b"content-length"} == set(found)


@pytest.mark.parametrize("option", [b"Upgrade", b"upgrade, x-hop", b"X-Hop"])
def test_connection_options_that_the_application_lists_are_sent(option):
    response = respond(426, [(b"upgrade", b"h2c"), (b"x-hop", b"1"), (b"connection", option)])
    assert b"\r\nconnection: " + option + b"\r\n" in response


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive", b"close, keep-alive", b", keep-alive,", b""])
def test_persistence_is_said_once_and_by_the_server(value):
    response = respond(200, [(b"connection", value)])
    assert names(response).count(b"connection") == (b"close" in value.lower())


# Trailers and interim responses.


def with_trailers(trailers, *, request=b"GET / HTTP/1.1", te=b"trailers", status=200, headers=()):
    """The bytes of a response that announces ``trailers`` and sends them behind its content."""
    head = Head(read_line(request), [(b"te", te)] if te else [])
    writer = ResponseWriter(ServerFields(server=None, extra=[]), head)
    start = {"type": "http.response.start", "status": status, "headers": list(headers), "trailers": True}
    body = {"type": "http.response.body", "body": b"ab"}
    return b"".join(
        writer.send(message) for message in (start, body, {"type": "http.response.trailers", "headers": trailers})
    )


def test_trailers_follow_chunks():
    assert with_trailers([(b"X-Sum", b"1")]).endswith(b"\r\n\r\n2\r\nab\r\n0\r\nx-sum: 1\r\n\r\n")


@pytest.mark.parametrize(
    "options",
    [
        {"te": b""},
        {"te": b"gzip"},
        {"request": b"GET / HTTP/1.0"},
        {"request": b"HEAD / HTTP/1.1"},
        {"status": 204},
        {"status": 304},
        {"headers": [(b"content-length", b"2")]},
    ],
)
def test_trailers_are_sent_to_those_only_who_can_take_them(options):
    assert b"x-sum" not in with_trailers([(b"X-Sum", b"1")], **options)


@pytest.mark.parametrize(
    "name",
    [
        b"content-length",
        b"Transfer-Encoding",
        b"host",
        b"authorization",
        b"set-cookie",
        b"content-type",
        b"trailer",
        b"date",
    ],
)
def test_a_field_that_frames_routes_or_controls_is_no_trailer(name):
    with pytest.raises(AppError):
        with_trailers([(name, b"1")])


@pytest.mark.parametrize(
    ("name", "value"), [(b"x y", b"1"), (b"", b"1"), (b"x", b"1\r\ny: 2"), (b"x", b"\0"), (b"x", b"\x01")]
)
def test_a_trailer_that_is_no_field_is_refused(name, value):
    with pytest.raises(AppError):
        with_trailers([(name, value)])


def hint(request):
    writer = ResponseWriter(ServerFields(server=b"s", extra=[]), Head(read_line(request), []))
    return writer.send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})


def test_an_interim_response_has_neither_content_nor_framing():
    assert hint(b"GET / HTTP/1.1") == b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"


def test_no_interim_response_is_made_for_http_1_0():
    assert hint(b"GET / HTTP/1.0") == b""
