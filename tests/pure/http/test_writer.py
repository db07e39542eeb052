from __future__ import annotations

from http import HTTPStatus

import pytest

from aioserve.errors import AppError
from aioserve.http.head import Head, read_line
from aioserve.http.server_fields import ServerFields, plain_response
from aioserve.http.writer import DONE, ResponseWriter, Stage

DATE = b"Mon, 23 Nov 2026 12:00:00 GMT"


def fields(**options):
    made = ServerFields(**{"server": None, "extra": [], **options})
    made.set_date(None)
    return made


def writer(line=b"GET / HTTP/1.1", server_fields=None, *, keep_alive=None):
    head = Head(read_line(line), [])
    if keep_alive is not None:
        head.keep_alive = keep_alive
    return ResponseWriter(server_fields or fields(), head)


def start(status=200, *headers):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data=b"", *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


def respond(w, *messages):
    return b"".join(w.send(message) for message in messages)


def test_the_head_waits_for_the_first_body():
    w = writer()
    assert w.send(start(200, (b"content-type", b"text/plain"))) == b""
    assert w.send(body(b"hi")) == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
    assert w.stage is DONE
    assert w.sent == 2


def test_a_length_from_the_application_is_kept():
    assert respond(writer(), start(200, (b"Content-Length", b"2")), body(b"hi")) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    )


def test_a_body_of_unknown_length_goes_out_in_chunks():
    w = writer()
    w.send(start())
    assert w.send(body(b"hello", more=True)) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    assert w.send(body(b"", more=True)) == b""
    assert w.send(body(b"x" * 16)) == b"10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"


def test_an_empty_first_body_flushes_the_head():
    w = writer()
    w.send(start())
    assert w.send(body(more=True)) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert w.send(body()) == b"0\r\n\r\n"


def test_a_body_of_known_length_may_come_in_pieces():
    w = writer()
    sent = respond(w, start(200, (b"content-length", b"4")), body(b"ab", more=True), body(b"cd", more=True), body())
    assert sent.endswith(b"\r\n\r\nabcd")
    assert w.stage is DONE


def test_http_1_0_ends_an_unknown_body_with_the_connection():
    w = writer(b"GET / HTTP/1.0", keep_alive=True)
    sent = respond(w, start(), body(b"a", more=True), body(b"b"))
    assert sent == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"
    assert not w.keep_alive


def test_http_1_0_is_told_that_it_may_stay():
    assert b"connection: keep-alive\r\n" in respond(writer(b"GET / HTTP/1.0", keep_alive=True), start(), body(b"a"))


@pytest.mark.parametrize("line", [b"HEAD / HTTP/1.1"])
def test_head_has_the_head_of_get_and_no_body(line):
    w = writer(line)
    sent = respond(w, start(200, (b"content-length", b"5")), body(b"hello"))
    assert sent == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    assert w.sent == 0


def test_head_without_a_length_claims_none():
    assert respond(writer(b"HEAD / HTTP/1.1"), start(), body(b"hello")) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_204_has_neither_body_nor_length():
    sent = respond(writer(), start(204, (b"content-length", b"0")), body(b"x"))
    assert sent == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_304_keeps_the_length_and_drops_the_body():
    sent = respond(writer(), start(304, (b"content-length", b"9")), body(b"x"))
    assert sent == b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"


def test_a_status_without_a_registered_phrase_is_sent():
    assert respond(writer(), start(299), body()).startswith(b"HTTP/1.1 299 \r\n")


def test_the_application_may_close_but_not_frame():
    w = writer()
    sent = respond(w, start(200, (b"connection", b"Close"), (b"transfer-encoding", b"chunked")), body(b"a"))
    assert sent == b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\na"
    assert not w.keep_alive


def test_connection_keep_alive_from_the_application_is_dropped():
    assert b"connection" not in respond(writer(), start(200, (b"connection", b"keep-alive")), body(b"a"))


def test_the_server_adds_its_fields_once():
    server = fields(server=b"aioserve", extra=[(b"x-a", b"1")])
    server.set_date(DATE)
    sent = respond(writer(server_fields=server), start(), body(b"a"))
    assert b"date: " + DATE + b"\r\nserver: aioserve\r\nx-a: 1\r\n" in sent


def test_the_application_replaces_date_and_server():
    server = fields(server=b"aioserve", extra=[(b"x-a", b"1")])
    server.set_date(DATE)
    sent = respond(writer(server_fields=server), start(200, (b"Server", b"mine"), (b"date", b"never")), body(b"a"))
    assert sent.count(b"server: ") == sent.count(b"date: ") == 1
    assert b"server: mine\r\n" in sent
    assert b"x-a: 1\r\n" in sent


def test_the_operator_replaces_server_and_date():
    server = fields(server=b"aioserve", extra=[(b"Server", b"mine"), (b"Date", b"never")])
    server.set_date(DATE)
    sent = respond(writer(server_fields=server), start(), body(b"a"))
    assert sent == b"HTTP/1.1 200 OK\r\nServer: mine\r\nDate: never\r\ncontent-length: 1\r\n\r\na"


def test_a_server_that_leaves_says_so():
    server = fields()
    server.closing = True
    w = writer(server_fields=server)
    assert b"connection: close\r\n" in respond(w, start(), body(b"a"))
    assert not w.keep_alive


@pytest.mark.parametrize("headers", [[[b"x-list", b"1"]], ((b"x-tuple", b"1"),), iter([(b"x-iter", b"1")])])
def test_any_iterable_of_pairs_will_do(headers):
    message = {"type": "http.response.start", "status": 200, "headers": headers}
    assert b": 1\r\n" in respond(writer(), message, body(b"a"))


def test_headers_may_be_left_out():
    assert respond(writer(), {"type": "http.response.start", "status": 200}, {"type": "http.response.body"})


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
def test_other_kinds_of_bytes_are_bytes(data):
    assert respond(writer(), start(), body(data)).endswith(b"ab")


def test_two_equal_lengths_go_out_once():
    sent = respond(writer(), start(200, (b"content-length", b"1"), (b"content-length", b"1")), body(b"a"))
    assert sent.count(b"content-length") == 1


MISTAKES = [
    ([body()], "before http.response.start"),
    ([start(), start()], "sent twice"),
    ([start(), body(), body()], "after the response was complete"),
    ([start(), body(), start()], "sent twice"),
    ([None], "of type NoneType was sent, not a dict"),
    ([start(), {**start(), "type": "http.response.trailers"}], "did not announce trailers"),
    (
        [{**start(), "trailers": True}, body(more=True), {"type": "http.response.trailers"}],
        "before the body was complete",
    ),
    ([{"type": "http.response.early_hint", "links": [b"a\r\nb"]}], "CR, LF or NUL"),
    ([{"type": "http.response.early_hint", "links": ["</a>"]}], "not pairs of bytes"),
    ([start(), body(), {"type": "http.response.early_hint", "links": []}], "after the response was complete"),
    ([{}], "without the key 'type'"),
    ([{"type": "http.response.start"}], "without the key 'status'"),
    ([start(99)], "not a final status"),
    ([start(101)], "not a final status"),
    ([start(600)], "not a final status"),
    ([start("200")], "not a final status"),
    ([start([200])], "not a final status"),
    ([start(200, (b"a b", b"1"))], "not a token"),
    ([start(200, (b"a:", b"1"))], "not a token"),
    ([start(200, (b"a\r\nb", b"1"))], "not a token"),
    ([start(200, (b"", b"1"))], "not a token"),
    ([start(200, ("name", b"1"))], "not a token"),
    ([start(200, (b"x-a", "text"))], "not pairs of bytes"),
    ([start(200, (b"x-a",))], "not pairs of bytes"),
    ([start(200, (b"content-length", 5))], "not pairs of bytes"),
    ([start(200, (b"x-a", b"1\r\nSet-Cookie: a=b"))], "CR, LF or NUL"),
    ([start(200, (b"x-a", b"1\n"))], "CR, LF or NUL"),
    ([start(200, (b"x-a", b"1\r"))], "CR, LF or NUL"),
    ([start(200, (b"x-a", b"1\0"))], "CR, LF or NUL"),
    ([start(200, (b"content-length", b"-1"))], "not a number"),
    ([start(200, (b"content-length", b"1"), (b"content-length", b"2"))], "differ"),
    ([start(200, (b"content-length", b"1")), body(b"ab")], "more bytes"),
    ([start(200, (b"content-length", b"3")), body(b"ab")], "fewer bytes"),
    ([start(200, (b"content-length", b"3")), body(b"ab", more=True), body(b"cd")], "more bytes"),
    ([start(), body("text")], "type str, not bytes"),
    ([start(), body(None)], "type NoneType, not bytes"),
]


@pytest.mark.parametrize(("messages", "words"), MISTAKES)
def test_mistakes_of_the_application_say_what_was_wrong(messages, words):
    with pytest.raises(AppError, match=words):
        respond(writer(), *messages)


def test_names_of_applications_are_learned_within_a_bound():
    for number in range(1000):
        assert respond(writer(), start(200, (b"x-generated-%d" % number, b"1")), body())


def test_a_plain_response_closes_and_counts_its_bytes():
    sent = plain_response(503, "busy", fields())
    assert sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in sent
    assert sent.endswith(b"content-length: 5\r\nretry-after: 1\r\nconnection: close\r\n\r\nbusy\n")


def test_a_plain_response_to_head_has_no_body():
    assert plain_response(400, "bad", fields(), head_request=True).endswith(b"\r\n\r\n")


TE = [(b"te", b"gzip, Trailers;q=0.5")]


def with_trailers(headers=TE, line=b"GET / HTTP/1.1"):
    w = ResponseWriter(fields(), Head(read_line(line), headers))
    assert w.send({**start(), "trailers": True}) == b""
    return w


def trailers(*headers, more=False):
    return {"type": "http.response.trailers", "headers": list(headers), "more_trailers": more}


def test_trailers_follow_the_last_chunk():
    w = with_trailers()
    assert w.send(body(b"ab")) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"
    assert w.stage is Stage.TRAILERS
    assert w.send(trailers((b"X-Sum", b"1"), more=True)) == b"x-sum: 1\r\n"
    assert w.send(trailers((b"x-more", b"2"))) == b"x-more: 2\r\n\r\n"
    assert w.stage is DONE


def test_trailers_follow_a_body_in_pieces():
    w = with_trailers()
    w.send(body(b"ab", more=True))
    assert w.send(body()) == b"0\r\n"
    assert w.send(trailers()) == b"\r\n"


@pytest.mark.parametrize(
    ("headers", "line"),
    [
        ([], b"GET / HTTP/1.1"),
        ([(b"te", b"deflate")], b"GET / HTTP/1.1"),
        (TE, b"GET / HTTP/1.0"),
        (TE, b"HEAD / HTTP/1.1"),
    ],
)
def test_trailers_that_the_client_cannot_take_are_swallowed(headers, line):
    w = with_trailers(headers, line)
    w.send(body(b"ab"))
    assert w.stage is DONE
    assert w.send(trailers((b"x-sum", b"1"))) == b""


@pytest.mark.parametrize("name", [b"content-length", b"Set-Cookie", b"transfer-encoding", b"a b", "x"])
def test_a_field_that_cannot_stand_in_trailers_is_refused(name):
    w = with_trailers()
    w.send(body(b"ab"))
    with pytest.raises(AppError, match=r"cannot stand there|not pairs of bytes"):
        w.send(trailers((name, b"1")))


def test_an_early_hint_goes_out_before_the_head():
    w = writer()
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}
    sent = w.send(hint)
    assert sent == b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
    w.send(start())
    assert w.send(hint) == sent
    assert w.send(body(b"a")).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0", b"GET / HTTP/1.1"])
def test_an_early_hint_that_comes_too_late_or_would_not_be_understood_is_dropped(line):
    w = writer(line)
    if line.endswith(b"1"):
        respond(w, start(), body(more=True))
    assert w.send({"type": "http.response.early_hint", "links": [b"</a>"]}) == b""


def test_a_response_may_be_started_again_after_a_start_that_was_refused():
    w = writer()
    with pytest.raises(AppError):
        w.send(start(500, (b"content-length", b"99"), (b"date", b"x"), (b"a", b"b\r\n")))
    assert respond(w, start(200), body(b"ok")) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_a_status_may_be_an_enum():
    assert respond(writer(), start(HTTPStatus.NOT_FOUND), body()).startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize(
    ("messages", "more", "before", "behind"),
    [
        ([start()], False, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b""),
        ([start()], True, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n", b"\r\n"),
        ([start(), body(b"a", more=True)], False, b"5\r\n", b"\r\n0\r\n\r\n"),
        ([start(200, (b"content-length", b"6")), body(b"a", more=True)], False, b"", b""),
    ],
)
def test_a_file_is_framed_like_a_piece_of_the_body(messages, more, before, behind):
    w = writer()
    respond(w, *messages)
    assert w.begin_file(5, more=more) == before
    with pytest.raises(AppError, match="while a file is being sent"):
        w.send(body(b"x"))
    assert w.end_file(more=more) == behind
    assert (w.stage is DONE) is not more


def test_a_file_behind_which_trailers_come_leaves_the_end_open():
    w = with_trailers()
    assert w.begin_file(5, more=False).endswith(b"transfer-encoding: chunked\r\n\r\n5\r\n")
    assert w.end_file(more=False) == b"\r\n0\r\n"


def test_a_file_is_not_sent_in_answer_to_head():
    w = writer(b"HEAD / HTTP/1.1")
    w.send(start(200, (b"content-length", b"5")))
    assert w.begin_file(5, more=False) == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    assert w.stage is DONE


@pytest.mark.parametrize(("size", "words"), [(6, "more bytes"), (4, "fewer bytes")])
def test_a_file_keeps_to_the_length_that_was_said(size, words):
    w = writer()
    w.send(start(200, (b"content-length", b"5")))
    with pytest.raises(AppError, match=words):
        w.begin_file(size, more=False)


@pytest.mark.parametrize("messages", [[], [start(), body()]])
def test_a_file_has_its_place_in_the_order(messages):
    w = writer()
    respond(w, *messages)
    with pytest.raises(AppError, match=r"a file was sent (before|after)"):
        w.begin_file(5, more=False)
