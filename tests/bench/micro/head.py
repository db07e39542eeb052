"""http/head: what a head means, given its line and fields."""

from __future__ import annotations

from aioserve.http.head import Seen, interpret
from aioserve.http.tables import REQUEST_FIELDS
from tests.bench.micro.requests import BROWSER, HELLO, POST


def interpreting(request, *, fresh=False):
    """``fresh`` lines have not been seen before, so that no table knows them."""
    line, *lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (field.partition(b":") for field in lines)]
    noticed = [field for field in fields if field[0] in REQUEST_FIELDS]

    seen = Seen()

    def run(number):
        for count in range(number):
            interpret(b"GET /items/%d?page=1 HTTP/1.1" % count if fresh else line, fields, noticed, seen)

    return run


CASES = {
    "hello": interpreting(HELLO),
    "browser": interpreting(BROWSER),
    "new_line": interpreting(HELLO, fresh=True),
    "post": interpreting(POST),
}
