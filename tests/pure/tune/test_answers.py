"""What the built-in client sends, and how it finds the end of an answer, however it is cut."""

from __future__ import annotations

import pytest

from aioserve.tune.answers import Answer, NotAnAnswer, Question

ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "length in small letters": b"HTTP/1.1 404 Not Found\r\ncontent-length:5\r\n\r\nhello",
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "chunks and trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
}


@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_ends_with_its_last_byte_and_not_before(raw):
    answer = Answer()
    assert [answer.feed(raw[place : place + 1]) for place in range(len(raw))] == [False] * (len(raw) - 1) + [True]
    assert answer.size == len(raw)


@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_in_one_piece_is_complete(raw):
    assert Answer().feed(raw)


@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_in_two_pieces_is_complete(raw):
    for cut in range(1, len(raw)):
        answer = Answer()
        assert (answer.feed(raw[:cut]), answer.feed(raw[cut:])) == (False, True)


def test_the_status_is_the_final_one():
    answer = Answer()
    answer.feed(ANSWERS["early hints"])
    assert answer.status == 200


def test_without_a_length_the_end_of_the_connection_is_the_end():
    answer = Answer()
    assert not answer.feed(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert answer.end()


def test_the_end_of_the_connection_completes_nothing_else():
    answer = Answer()
    assert not answer.end()
    answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell")
    assert not answer.end()


@pytest.mark.parametrize(("field", "closes"), [("Connection: close", True), ("Connection: keep-alive", False)])
def test_whether_the_connection_is_kept_is_known(field, closes):
    answer = Answer()
    answer.feed(f"HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.closes is closes


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        ANSWERS["length"] + b"x",
        ANSWERS["chunks"] + b"x",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_answer_is_refused(raw):
    with pytest.raises(NotAnAnswer):
        Answer().feed(raw)


def test_a_question_is_a_whole_request():
    assert (
        Question(path="/a?b=c").encode("h:1")
        == b"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\nUser-Agent: aioserve-tune\r\n\r\n"
    )


def test_a_question_with_a_body_is_a_post():
    request = Question(path="/", body=b"abc").encode("h:1", closes=True)
    assert request.startswith(b"POST / HTTP/1.1\r\n")
    assert request.endswith(b"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")


def test_headers_that_are_given_replace_those_that_would_be_sent():
    request = Question(path="/", headers=("Host: shop.example", "user-agent: me", "Accept: */*")).encode("h:1")
    assert request == b"GET / HTTP/1.1\r\nHost: shop.example\r\nuser-agent: me\r\nAccept: */*\r\n\r\n"
