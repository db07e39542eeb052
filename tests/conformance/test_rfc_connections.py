"""What RFC 9110 and RFC 9112 demand of a server's connections: order, endings, interim responses, Date.

With both parsers, the application being a coroutine and the transport a fake. ``requirements`` says which test shows
which requirement.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from aioserve.accept.base import Listener
from tests.fakes import PARSERS
from tests.loop.worker import conftest as loop
from tests.loop.worker.conftest import Client, read_body, settle

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

#: RFC 9110 5.6.7: the one form of a date that a sender may generate.
IMF_FIXDATE = re.compile(
    rb"\r\ndate: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    rb"\d\d:\d\d:\d\d GMT\r\n"
)

# The fixture that opens clients of a server on a fake transport.
connect = loop.connect


@pytest.fixture(params=sorted(PARSERS))
def parser(request):
    return request.param


def with_field(head, field):
    return head.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n", 1)


async def answer(send, body=b"ok", *, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def statuses(written):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", written)]


class App:
    """Answers with the path and the body, and remembers what it was asked."""

    def __init__(self, *, status=200, headers=(), reads=True):
        self.scopes = []
        self.bodies = []
        self.status = status
        self.headers = headers
        self.reads = reads

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if self.reads:
            self.bodies.append(await read_body(receive))
            if self.bodies[-1] is None:
                return
        await answer(send, scope["path"].encode(), status=self.status, headers=self.headers)


# RFC 9112 9.3.2: order.


async def test_responses_come_in_the_order_of_the_requests(connect, parser):
    gates = {"/1": asyncio.Event(), "/2": asyncio.Event()}

    async def app(scope, receive, send):
        await gates[scope["path"]].wait()
        await answer(send, scope["path"].encode())

    client = connect(app, parser=parser)
    client.send(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 "))
    gates["/2"].set()
    await settle()
    assert client.transport.take() == b""
    gates["/1"].set()
    await settle()
    written = client.transport.take()
    assert written.index(b"/1") < written.index(b"/2")


# RFC 9112 9.6 and 9.3: endings.


async def test_a_request_behind_a_wish_to_close_is_not_served(connect, parser):
    app = App()
    client = connect(app, parser=parser)
    written = await client.ask(with_field(GET, b"Connection: close") + GET)
    assert statuses(written) == [200]
    assert b"\r\nconnection: close\r\n" in written
    assert len(app.scopes) == 1
    assert client.state != "open"


async def test_a_request_behind_a_response_that_says_close_is_not_served(connect, parser):
    app = App(headers=[(b"connection", b"close")])
    client = connect(app, parser=parser)
    written = await client.ask(GET + GET)
    assert statuses(written) == [200]
    assert b"\r\nconnection: close\r\n" in written
    assert len(app.scopes) == 1
    assert client.state != "open"
    client.send(GET)
    await settle()
    assert len(app.scopes) == 1


async def test_a_request_behind_one_of_http_1_0_is_not_served(connect, parser):
    app = App()
    client = connect(app, parser=parser)
    assert statuses(await client.ask(GET.replace(b"1.1", b"1.0") + GET)) == [200]
    assert len(app.scopes) == 1
    assert client.state != "open"


async def test_a_client_that_wants_to_close_is_closed_after_its_response(connect, parser):
    client = connect(App(), parser=parser)
    assert statuses(await client.ask(with_field(GET, b"Connection: close"))) == [200]
    assert client.state == "closed"


@pytest.mark.parametrize("size", [5, 10_000_000])
async def test_a_body_that_nobody_reads_is_read_or_the_connection_ends(connect, parser, size):
    app = App(reads=False)
    client = connect(app, parser=parser)
    written = await client.ask(POST.replace(b": 5", b": %d" % size))
    assert statuses(written) == [200]
    # What comes now is the body, however much it looks like a request.
    rest = (GET * (size // len(GET) + 1))[:size]
    for at in range(0, size, 100_000):
        client.send(rest[at : at + 100_000])
    await settle()
    assert len(app.scopes) == 1
    if client.state == "open":
        assert statuses(await client.ask(GET)) == [200]
        assert len(app.scopes) == 2
    else:
        assert size > 5


@pytest.mark.parametrize("raw", [POST + b"he", CHUNKED + b"5\r\nhe", CHUNKED + b"5\r\nhello\r\n", CHUNKED])
async def test_a_body_cut_short_is_not_shown_as_a_whole_one_and_the_connection_ends(connect, parser, raw):
    app = App()
    client = connect(app, parser=parser)
    assert await client.ask(raw) == b""
    if not client.protocol.eof_received():
        client.transport.close()
    await settle()
    assert app.bodies == [None]
    assert client.state != "open"


async def test_a_body_that_stops_coming_is_not_shown_as_a_whole_one_and_the_connection_ends(connect, parser):
    app = App()
    client = connect(app, parser=parser)
    assert await client.ask(POST + b"he") == b""
    client.wait(60)
    await settle()
    written = client.transport.take()
    assert statuses(written) == [408]
    assert b"\r\nconnection: close\r\n" in written
    assert app.bodies == [None]
    assert client.state != "open"


BROKEN = [
    with_field(POST, b"Content-Length: 6"),
    POST.replace(b": 5", b": x"),
    with_field(CHUNKED, b"Content-Length: 5"),
    CHUNKED.replace(b"chunked", b"chunked, gzip"),
    CHUNKED.replace(b"1.1", b"1.0"),
]


@pytest.mark.parametrize("head", BROKEN, ids=["lengths", "length", "both", "not last", "HTTP/1.0"])
async def test_unclear_framing_is_answered_with_400_and_the_connection_ends(connect, parser, head):
    app = App()
    client = connect(app, parser=parser)
    written = await client.ask(head + GET)
    assert statuses(written) == [400]
    assert b"\r\nconnection: close\r\n" in written
    assert not app.scopes
    assert client.state != "open"
    assert await client.ask(GET) == b""


async def test_a_body_that_breaks_after_the_response_gets_no_second_response(connect, parser):
    client = connect(App(reads=False), parser=parser)
    assert statuses(await client.ask(CHUNKED)) == [200]
    assert await client.ask(b"zz\r\n" + GET) == b""
    assert client.state != "open"


# RFC 9110 5.3 and 3.3.


async def test_the_application_starts_when_the_whole_head_has_come(connect, parser):
    app = App()
    client = connect(app, parser=parser)
    head = with_field(GET, b"Authorization: x")
    for at in range(len(head) - 1):
        client.send(head[at : at + 1])
    await settle()
    assert not app.scopes
    await client.ask(head[-1:])
    assert len(app.scopes) == 1


async def test_requests_of_one_connection_may_be_of_different_clients(connect, parser):
    app = App()
    client = connect(app, parser=parser, trusted=("192.0.2.7",))
    for peer in (b"198.51.100.1", b"198.51.100.2"):
        await client.ask(with_field(GET, b"X-Forwarded-For: " + peer))
    await client.ask(GET)
    assert [scope["client"][0] for scope in app.scopes] == ["198.51.100.1", "198.51.100.2", "192.0.2.7"]
    assert len({id(scope["state"]) for scope in app.scopes}) == 3


# RFC 9110 7.4: a target that names https.


async def test_a_target_that_names_https_is_refused_on_a_connection_without_tls(connect, parser):
    app = App()
    client = connect(app, parser=parser)
    assert statuses(await client.ask(GET.replace(b"/ ", b"https://a/ "))) == [421]
    assert not app.scopes


async def test_a_target_that_names_https_is_served_when_a_trusted_proxy_sends_it(connect, parser):
    app = App()
    client = connect(app, parser=parser, trusted=("192.0.2.7",))
    assert statuses(await client.ask(GET.replace(b"/ ", b"HTTPS://a/p "))) == [200]
    assert app.scopes[0]["path"] == "/p"


async def test_a_target_that_names_https_is_served_behind_tls(connect, parser):
    app = App()
    listener = Listener(sock=None, address="https://192.0.2.1", server=("192.0.2.1", 443), scheme="https")
    client = Client(connect(app, parser=parser).server, listener)
    assert statuses(await client.ask(GET.replace(b"/ ", b"https://a/ "))) == [200]


# RFC 9110 9.3.2: HEAD.


@pytest.mark.parametrize(
    "raw",
    [
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HEAD / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"HEAD /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nHEAD / HTTP/1.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20], ids=["bytewise", "whole"])
async def test_a_refused_head_request_gets_no_content(connect, parser, raw, step):
    client = connect(App(), parser=parser)
    for at in range(0, len(raw), step):
        client.send(raw[at : at + step])
    await settle()
    written = client.transport.take()
    assert len(statuses(written)) == 1
    assert written.partition(b"\r\n\r\n")[2] == b""


async def test_a_head_request_that_never_comes_whole_gets_no_content(connect, parser):
    client = connect(App(), parser=parser)
    assert await client.ask(b"HEAD / HTTP/1.1\r\nHost") == b""
    client.wait(20)
    written = client.transport.take()
    assert statuses(written) == [408]
    assert written.partition(b"\r\n\r\n")[2] == b""


async def test_a_head_request_that_fails_or_finds_no_room_gets_no_content(connect, parser):
    async def fails(scope, receive, send):
        raise RuntimeError("oops")

    request = GET.replace(b"GET", b"HEAD")
    failed = await connect(fails, parser=parser).ask(request)
    refused = await connect(App(), parser=parser, limit_concurrency=-1).ask(request)
    assert (statuses(failed), statuses(refused)) == ([500], [503])
    assert failed.endswith(b"\r\n\r\n")
    assert refused.endswith(b"\r\n\r\n")


# RFC 9110 10.1.1 and 15.2: interim responses.


async def test_the_100_is_sent_before_the_content_has_come(connect, parser):
    client = connect(App(), parser=parser)
    assert await client.ask(EXPECTING) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(await client.ask(b"hello")) == [200]


async def test_a_final_status_can_take_the_place_of_the_100(connect, parser):
    client = connect(App(reads=False, status=413), parser=parser)
    assert statuses(await client.ask(EXPECTING)) == [413]


async def test_after_a_100_comes_a_final_status_even_if_the_application_fails(connect, parser):
    async def app(scope, receive, send):
        await read_body(receive)
        raise RuntimeError("oops")

    client = connect(app, parser=parser)
    assert statuses(await client.ask(EXPECTING)) == [100]
    assert statuses(await client.ask(b"hello")) == [500]


async def test_a_client_of_http_1_0_gets_no_interim_response(connect, parser):
    client = connect(App(), parser=parser)
    assert await client.ask(EXPECTING.replace(b"1.1", b"1.0")) == b""
    assert statuses(await client.ask(b"hello")) == [200]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_no_protocol_is_switched_to_that_is_not_spoken(connect, parser, version):
    raw = GET.replace(b"1.1", version)
    for field in (b"Connection: upgrade, keep-alive", b"Upgrade: h2c, foo/1", b"Expect: 100-continue"):
        raw = with_field(raw, field)
    client = connect(App(), parser=parser)
    assert statuses(await client.ask(raw)) == [200]
    assert client.state == "open"


# RFC 9110 6.6.1: Date.


@pytest.mark.parametrize("status", [200, 204, 206, 301, 304, 404, 405, 500])
async def test_responses_of_the_application_are_dated(connect, parser, status):
    client = connect(App(status=status), parser=parser, date_header=True)
    client.server._tick()
    assert len(IMF_FIXDATE.findall(await client.ask(GET))) == 1


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", GET.replace(b"/", b"/" + b"a" * 9000)],
)
async def test_responses_of_the_server_are_dated(connect, parser, raw):
    client = connect(App(), parser=parser, date_header=True)
    client.server._tick()
    assert len(IMF_FIXDATE.findall(await client.ask(raw))) == 1


async def test_without_a_date_of_its_own_the_server_sends_none(connect, parser):
    client = connect(App(), parser=parser, date_header=False)
    assert b"\r\ndate:" not in await client.ask(GET)
