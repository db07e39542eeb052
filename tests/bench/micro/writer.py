"""http/writer: from ASGI messages to bytes."""

from __future__ import annotations

from aioserve.http.head import Seen, interpret
from aioserve.http.server_fields import ServerFields
from aioserve.http.writer import DONE, ResponseWriter
from tests.bench.micro.requests import TEN_KIB

HOST = (b"host", b"127.0.0.1:8000")
PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
MANY = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"vary", b"accept-encoding, cookie"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"set-cookie", b"session=10000001; HttpOnly; Path=/; SameSite=Lax"),
]


def writing(headers, *bodies, length=True):
    fields = ServerFields(server=b"aioserve", extra=[])
    fields.set_date(b"Tue, 15 Nov 1994 08:12:31 GMT")
    head = interpret(b"GET / HTTP/1.1", [HOST], [HOST], Seen())
    size = sum(map(len, bodies))
    headers = [*headers, (b"content-length", b"%d" % size)] if length else headers

    def run(number):
        for _ in range(number):
            send = ResponseWriter(fields, head).send
            send({"type": "http.response.start", "status": 200, "headers": headers})
            left = len(bodies)
            for body in bodies:
                left -= 1
                send({"type": "http.response.body", "body": body, "more_body": left > 0})
        assert send.__self__.stage is DONE

    return run


CASES = {
    "one_body": writing(PLAIN, b"Hello, World!"),
    "one_body_without_length": writing(PLAIN, b"Hello, World!", length=False),
    "one_body_10k": writing(PLAIN, TEN_KIB),
    "eight_headers": writing(MANY, b"Hello, World!"),
    "four_chunks": writing(PLAIN, *[b"x" * 1024] * 3, b"", length=False),
}
