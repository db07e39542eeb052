"""http/reader: from bytes to a head that is pushed, without whoever serves it."""

from __future__ import annotations

from aioserve.http.parser import ParserPool
from aioserve.http.parser_httptools import LlhttpParser
from aioserve.http.reader import Limits, RequestReader
from tests.bench.micro.requests import BROWSER, CHUNKED, HELLO, POST


class Answering:
    """A sink whose response is complete as soon as the request is."""

    def __init__(self):
        self.reader = RequestReader(self, ParserPool(LlhttpParser), Limits())
        self.complete = 0

    def on_request(self, head):
        if not head.length:
            self.complete += 1
            self.reader.proceed()

    def on_body(self, data):
        pass

    def on_end(self, trailers):
        self.complete += 1
        self.reader.proceed()


def feeding(*pieces):
    def run(number):
        sink = Answering()
        feed = sink.reader.feed
        for _ in range(number):
            for piece in pieces:
                feed(piece)
        assert sink.complete == number

    return run


CASES = {
    "hello": feeding(HELLO),
    "browser": feeding(BROWSER),
    "head_in_two_reads": feeding(BROWSER[:300], BROWSER[300:]),
    "post_10k": feeding(POST),
    "chunked_8k": feeding(CHUNKED),
}
