"""Generated streams through the reader with both parsers: well-formed requests with a few mutations each.

They agree on the requests, bodies, trailers, persistence and final status, or the difference is in the list of
``tests/fuzz/agreement.py`` with its reason. Where a stream is cut changes nothing, nothing but ``RequestError`` comes
out, and what the reader keeps is bounded (``Watch.check_memory``, after each piece).

The examples are the same in every run. ``AIOSERVE_EXAMPLES=100000`` tries so many others.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import PARSERS
from tests.fuzz.agreement import DIFFERENCES, TIGHT, check_agreement, check_cut, explanation, observe

EXAMPLES = int(os.environ.get("AIOSERVE_EXAMPLES", "0"))

few = settings(max_examples=EXAMPLES or 150, derandomize=not EXAMPLES, deadline=None, database=None)

#: By kind of token, what a well-formed request has there.
GOOD = {
    "method": [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PURGE"],
    "target": [b"/", b"/a/b?c=d", b"/%41%2f?", b"http://b.example/x", b"*", b"/?a b".replace(b" ", b"%20"), b"//x"],
    "version": [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"],
    "host": [b"a", b"a.example:80", b"[::1]", b"[2001:db8::1]:8080", b"192.0.2.1"],
    "name": [b"X-A", b"Accept", b"x_b", b"!#$%&'*+-.^_`|~", b"X-Forwarded-For", b"Forwarded", b"Cookie"],
    "value": [b"", b"a", b"a b\tc", b"\x80\xff", b'"x, y"', b"keep-alive", b"1, 2;q=0.5"],
    "connection": [b"keep-alive", b"close", b"upgrade", b"Close, TE", b"x", b""],
    "extension": [b"", b"", b";a", b";a=b", b';a="b c";d', b';a="\\""'],
    "data": [b"a", b"hello", b"\r\n", b"0\r\n\r\n", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00\xff\n"],
}

#: By kind of token, what else may come in its place: nearly right, or right for somebody else.
ODD = {
    "blank": [b"\r\n", b"\r\n\r\n", b"\r\n" * 5, b"\n", b"\r", b" ", b"\t\r\n", b"\x00"],
    "method": [b"CONNECT", b"TRACE", b"PRI", b"SETUP", b"FOO", b"get", b"G\x00T", b"G(T", b"", b"GET GET", b"M" * 30],
    "target": [b"", b"x", b"a:1", b"/#f", b"/\xc3\xa9", b"/\x7f", b"/a b", b"/\t", b"/\n", b"http://", b"http://u@b/",
               b"http://b:x/", b"ftp://b/", b"HTTP://b?x", b"https://b", b"http://b.example:99999/", b"/" + b"a" * 99,
               b'/<>"{}|\\^`', b"/\nX:", b"%2f"],
    "version": [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/3.0", b"http/1.1", b"HTTP/1-1", b"RTSP/1.0",
                b"ICE/1.0", b"HTTP/1.", b"", b"HTTP/1.1 ", b"HTTP/01.1"],
    "space": [b"", b"  ", b"\t", b" \t ", b"\x0b", b"\x0c", b"\xa0", b"\r\n ", b"\n\t", b"\x00"],
    "colon": [b" :", b"\t:", b"", b"::", b";", b"\x00:", b"\n:"],
    "end": [b"\n", b"\r", b"", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\x00\r\n", b" \r\n", b"\r\n "],
    "host": [b"", b"a b", b"a, b", b"u@a", b"a/b", b"a:x", b"a:99999", b"[::1", b"a\x80", b"..", b"[1.2.3.4]", b"a%zz"],
    "name": [b"", b"X A", b" X", b"X\x00", b"X\x80", b"Content-Length", b"Transfer-Encoding", b"Host", b"X(",
             b"Upgrade", b"Content_Length", b"Expect", b"Connection"],
    "value": [b"\x00", b"\x7f", b"\x0b", b"a\rb", b"a\nb", b"a\r\n b", b"chunked", b"0", b"a" * 99],
    "connection": [b"close\x00", b"clo se", b"keep-alive, close", b", ,close", b'"close"', b"Upgrade, keep-alive"],
    "expect": [b"100-Continue", b"100-continue, x", b"magic", b"", b"200-ok"],
    "length": [b"+1", b"-1", b"0x1", b"1 1", b"1,1", b"1, 2", b"", b"01", b"1.0", b"1_0", b"\xb2", b"9" * 19, b"9" * 20,
               b"18446744073709551616", b"1\x0b", b"0" * 30, b"0"],
    "coding": [b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"identity, chunked", b"xchunked", b"",
               b",chunked", b"chunked,", b"chunked;q=1", b"CHUNKED", b"chun ked", b"\x0bchunked", b"chunked\x0b",
               b'"chunked"'],
    "size": [b"+1", b"-1", b"0x1", b"1_0", b"", b" 1", b"1 ", b"g", b"f" * 16, b"f" * 17, b"0" * 30 + b"1", b"00",
             b"1;", b"\x00"],
    "extension": [b";", b" ;a", b"; a", b";a =b", b";a=b;", b';a="', b';a="b"c', b';a="\n"', b";a=\x00", b";\xff",
                  b";=b", b"a", b';a="\\\x7f"', b";" + b"x" * 99, b';a=b"c"', b";a==", b";a\r"],
    "data": [b""],
}  # fmt: skip


@st.composite
def requests(draw):
    """One well-formed request as tokens: a kind and its bytes each."""

    def one(kind):
        return kind, draw(st.sampled_from(GOOD[kind]))

    def field(name, kind, value=None):
        return [("name", name), ("colon", b":"), ("space", b" "), (kind, value or one(kind)[1]), ("end", b"\r\n")]

    tokens = [
        ("blank", b""),
        one("method"),
        ("space", b" "),
        one("target"),
        ("space", b" "),
        one("version"),
        ("end", b"\r\n"),
    ]
    tokens += field(b"Host", "host")
    for _ in range(draw(st.integers(0, 3))):
        tokens += field(*draw(st.sampled_from([(one("name")[1], "value"), (b"Connection", "connection")])))
    if draw(st.integers(0, 5)) == 0:
        tokens += field(b"Expect", "expect", b"100-continue")
    framing = draw(st.sampled_from(["none", "length", "chunked", "chunked"]))
    if framing == "length":
        data = one("data")
        tokens += [*field(b"Content-Length", "length", b"%d" % len(data[1])), ("end", b"\r\n"), data]
    elif framing == "chunked":
        tokens += [*field(b"Transfer-Encoding", "coding", b"chunked"), ("end", b"\r\n")]
        for _ in range(draw(st.integers(0, 2))):
            data = one("data")
            tokens += [("size", b"%x" % len(data[1])), one("extension"), ("end", b"\r\n"), data, ("end", b"\r\n")]
        tokens += [("size", b"0"), one("extension"), ("end", b"\r\n")]
        for _ in range(draw(st.integers(0, 2))):
            tokens += field(one("name")[1], "value")
        tokens += [("end", b"\r\n")]
    else:
        tokens += [("end", b"\r\n")]
    return tokens


@st.composite
def streams(draw):
    """One to three requests in a row, after up to three mutations, perhaps cut short."""
    tokens = [token for request in draw(st.lists(requests(), min_size=1, max_size=3)) for token in request]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(tokens) - 1))
        kind, data = tokens[at]
        match draw(st.sampled_from(["replace", "replace", "replace", "drop", "double", "swap", "byte"])):
            case "replace":
                tokens[at] = kind, draw(st.sampled_from(ODD[kind]))
            case "drop":
                tokens[at] = kind, b""
            case "double":
                # The token alone, or the whole line, which makes duplicate fields and chunks.
                tokens[at:at] = tokens[at : at + draw(st.sampled_from([1, 5]))]
            case "swap":
                other = draw(st.integers(0, len(tokens) - 1))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case "byte":
                place = draw(st.integers(0, len(data)))
                tokens[at] = kind, data[:place] + draw(st.binary(min_size=1, max_size=1)) + data[place:]
    raw = b"".join(data for _, data in tokens)
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.integers(0, 4)) == 0 else raw


limits = st.sampled_from([{}, {}, {}, TIGHT])
places = st.lists(st.integers(1, 400), max_size=6)


@few
@given(streams(), limits, places, st.booleans())
def test_both_parsers_say_the_same_however_a_stream_is_cut(raw, limits, places, late):
    whole = {parser: observe(raw, parser, **limits) for parser in PARSERS}
    check_agreement(raw, whole["httptools"], whole["h11"], **limits)
    for parser in PARSERS:
        for cuts in ([place for place in places if place < len(raw)], range(1, len(raw))):
            check_cut(whole[parser], observe(raw, parser, cuts, late=late, **limits))


@few
@given(st.binary(max_size=60), places)
def test_bytes_of_any_kind_are_harmless(raw, places):
    for parser in PARSERS:
        check_cut(observe(raw, parser), observe(raw, parser, [place for place in places if place < len(raw)]))


def test_the_streams_come_to_good_and_bad_ends():
    ends = set()

    @few
    @given(streams())
    def collect(raw):
        outcome = observe(raw, "httptools")
        ends.add((outcome.status, len(outcome.requests)))

    collect()
    assert ends >= {(None, 0), (None, 1), (None, 2), (400, 0), (400, 1), (501, 0)}


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_each_listed_difference_exists(difference):
    raw, limits = difference.example
    llhttp, h11 = observe(raw, "httptools", **limits), observe(raw, "h11", **limits)
    assert llhttp != h11
    assert explanation(raw, llhttp, h11, **limits) is difference
