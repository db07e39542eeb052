"""An ASGI application without a framework, to try the server with and to read: ``aioserve aioserve.example:app``.

The contract in short. The server calls ``app(scope, receive, send)`` once per request. ``scope`` is a dict of what is
known when the request begins; ``await receive()`` gives the body in pieces, and later ``http.disconnect``; the response
goes out through ``await send(...)``: first ``http.response.start`` with status and headers, then any number of
``http.response.body``. A WebSocket is one call as well: ``websocket.connect`` is answered with ``websocket.accept``,
then ``websocket.receive`` and ``websocket.send`` carry messages until ``websocket.disconnect``. Once per process, and
before the first request, the same callable is called with a scope of type ``lifespan``; what it puts into
``scope["state"]`` then is in the scope of every request.

The functions below are the routes; they use nothing but the three arguments, the standard library, and ``offload``
where there is work for a processor.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from aioserve import offload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from aioserve.types import Message, Receive, Scope, Send

    Route = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The type of a response is what its header says, and no guess from its bytes: what /echo sends back is a client's.
NO_GUESSING: Final = (b"x-content-type-options", b"nosniff")

#: A body that is held in memory, and one that only passes through.
ECHO_LIMIT: Final = 1024 * 1024
UPLOAD_LIMIT: Final = 1024 * 1024 * 1024

LONGEST_SLEEP_SECONDS: Final = 60.0
MOST_ROUNDS: Final = 10_000_000
MOST_ROWS: Final = 500
EVENT_SECONDS: Final = 1.0
STREAM_CHUNKS: Final = 10
CHAT_LIMIT: Final = 1000

#: Everybody who is connected to /chat in this process: their ``send``.
ROOM: Final[set[Send]] = set()


class Refused(Exception):
    """Raised by a route to answer with another status."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Where the server enters."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    if scope["type"] == "websocket":
        await chat(scope, receive, send)
        return
    if scope["type"] != "http":
        # How an application says so of a type that it does not know (ASGI 3, "Applications").
        raise ValueError(f"this application serves no {scope['type']}")
    try:
        await find_route(scope)(scope, receive, send)
    except Refused as refused:
        body = json.dumps({"error": refused.reason}).encode() + b"\n"
        await respond(send, body, status=refused.status, content_type=b"application/json", extra=refused.headers)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Open what all requests share, say so, wait for the end, close it."""
    await receive()  # lifespan.startup
    scope["state"]["started"] = time.time()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


# The routes.


async def index(scope: Scope, receive: Receive, send: Send) -> None:  # every route has the ASGI signature
    """This page."""
    # Links work behind a proxy and under --mount as well: root_path is the prefix under which the application lives.
    root = html.escape(scope["root_path"])
    rows = []
    for method, path in ROUTES:
        # Every route's docstring is its description here.
        text = html.escape((ROUTES[method, path].__doc__ or "").partition("\n")[0])
        target = html.escape(EXAMPLES.get(path, path))
        link = f'<a href="{root}{target}">{target}</a>' if method == "GET" else target
        rows.append(f"<tr><td>{method}</td><td><code>{link}</code></td><td>{text}</td></tr>")
    page = PAGE.format(rows="\n".join(rows), pid=os.getpid())
    await respond(send, page.encode(), content_type=b"text/html; charset=utf-8")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Thirteen bytes: the least that a response can be."""
    await respond(send, b"Hello, World!")


async def show_json(scope: Scope, receive: Receive, send: Send) -> None:
    """A JSON document, with the state from the lifespan and the process that answered."""
    started = scope.get("state", {}).get("started")
    uptime = None if started is None else round(time.time() - started, 3)
    await respond_json(send, {"message": "Hello, World!", "pid": os.getpid(), "uptime_seconds": uptime})


async def show_headers(scope: Scope, receive: Receive, send: Send) -> None:
    """What the server saw of the request: client, scheme, path, headers."""
    keys = ("http_version", "method", "scheme", "path", "root_path", "client", "server")
    seen: dict[str, Any] = {key: scope[key] for key in keys}
    # Bytes as they came: header values are not text in any one encoding.
    seen["raw_path"] = scope["raw_path"].decode("latin-1")
    seen["query_string"] = scope["query_string"].decode("latin-1")
    seen["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    await respond_json(send, seen)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Ten lines, each sent on its own; without a Content-Length the server uses chunks."""
    headers = [(b"content-type", b"text/plain"), NO_GUESSING]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(STREAM_CHUNKS):
        await send({"type": "http.response.body", "body": b"chunk %d\n" % number, "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body"})


async def events(scope: Scope, receive: Receive, send: Send) -> None:
    """Server-sent events, one a second, until the client leaves (try curl -N)."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), NO_GUESSING]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # An empty body with more to come sends the head at once: a browser then knows that the stream is open.
    await send({"type": "http.response.body", "more_body": True})
    gone = asyncio.create_task(disconnected(receive))
    number = 0
    try:
        while not gone.done():
            event = f"id: {number}\ndata: {json.dumps({'time': time.time()})}\n\n"
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            number += 1
            await asyncio.wait((gone,), timeout=EVENT_SECONDS)
    except OSError:
        # ASGI 2.4: send() raises it once the client has gone, which may be noticed here first. It is nobody's error.
        pass
    finally:
        gone.cancel()


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Counts the body's bytes and hashes them without holding them (up to 1 GiB)."""
    size = 0
    digest = hashlib.sha256()
    async for piece in body_of(scope, receive, UPLOAD_LIMIT):
        size += len(piece)
        digest.update(piece)
    await respond_json(send, {"bytes": size, "sha256": digest.hexdigest()})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the body back as it came (up to 1 MiB)."""
    body = b"".join([piece async for piece in body_of(scope, receive, ECHO_LIMIT)])
    content_type = dict(scope["headers"]).get(b"content-type", b"application/octet-stream")
    await respond(send, body, content_type=content_type)


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits without work: thousands of these go on at once (seconds=, up to 60)."""
    seconds = number_in(scope, "seconds", default=0.5, most=LONGEST_SLEEP_SECONDS)
    await asyncio.sleep(seconds)
    await respond_json(send, {"slept_seconds": seconds})


async def cpu(scope: Scope, receive: Receive, send: Send) -> None:
    """Works beside the event loop, in a process of its own (n= rounds, up to 10,000,000)."""
    rounds = int(number_in(scope, "n", default=100_000, most=MOST_ROUNDS))
    began = time.perf_counter()
    # A function at the top level of a module, and plain data: a child finds the one by its name and has the other sent.
    # It is stopped after 30 s, or when the client leaves; with too many waiting it is not begun, and that is a 503.
    total, pid = await offload(work, rounds, timeout=30.0)
    took = time.perf_counter() - began
    await respond_json(send, {"rounds": rounds, "result": total, "pid": pid, "took_seconds": round(took, 6)})


async def cpu_in_loop(scope: Scope, receive: Receive, send: Send) -> None:
    """The same work in the event loop, for comparison: nothing else in this process moves meanwhile."""
    rounds = int(number_in(scope, "n", default=100_000, most=MOST_ROUNDS))
    began = time.perf_counter()
    total, pid = work(rounds)
    took = time.perf_counter() - began
    document = {"rounds": rounds, "result": total, "pid": pid, "blocked_the_loop_for_seconds": round(took, 6)}
    await respond_json(send, document)


async def rows(scope: Scope, receive: Receive, send: Send) -> None:
    """A picture of the Mandelbrot set, row by row as each is worked out beside the loop (n= rows, up to 500)."""
    size = int(number_in(scope, "n", default=30, most=MOST_ROWS))
    headers = [(b"content-type", b"text/plain"), NO_GUESSING]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for row in offload.stream(mandelbrot, size, timeout=30.0):
        await send({"type": "http.response.body", "body": row, "more_body": True})
    await send({"type": "http.response.body"})


def work(rounds: int) -> tuple[int, int]:
    """What takes a processor's time, and who did it."""
    total = 0
    for number in range(rounds):
        total = (total * 31 + number) % 1_000_000_007
    return total, os.getpid()


def mandelbrot(size: int) -> Iterator[bytes]:
    for y in range(size):
        marks = []
        for x in range(2 * size):
            c = complex(1.5 * x / size - 2.2, 2.4 * y / size - 1.2)
            z, steps = 0j, 0
            while abs(z) < 2 and steps < 100:
                z, steps = z * z + c, steps + 1
            marks.append(" .:-=+*#%@"[steps // 11])
        yield "".join(marks).encode() + b"\n"


async def show_chat(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket: what one says, all hear who are connected to this process."""
    await respond(send, CHAT_PAGE.encode(), content_type=b"text/html; charset=utf-8")


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    """The other end of that page. Whoever does not read what the others say is the last to hold them up."""
    await receive()  # websocket.connect
    if below_mount(scope) != "/chat":
        # Before websocket.accept this is answered with 403.
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    ROOM.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            said = str(message.get("text"))[:CHAT_LIMIT]
            # A send() waits for a slow client, and raises an OSError for one that has gone: so all at once.
            await asyncio.gather(
                *(other({"type": "websocket.send", "text": said}) for other in ROOM), return_exceptions=True
            )
    finally:
        ROOM.discard(send)


ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("GET", "/"): index,
    ("GET", "/hello"): hello,
    ("GET", "/json"): show_json,
    ("GET", "/headers"): show_headers,
    ("GET", "/stream"): stream,
    ("GET", "/events"): events,
    ("GET", "/chat"): show_chat,
    ("POST", "/upload"): upload,
    ("POST", "/echo"): echo,
    ("GET", "/slow"): slow,
    ("GET", "/cpu"): cpu,
    ("GET", "/cpu-in-loop"): cpu_in_loop,
    ("GET", "/rows"): rows,
}

#: What the page links to, where the bare path shows less.
EXAMPLES: Final = {"/slow": "/slow?seconds=0.5", "/cpu": "/cpu?n=1000000", "/cpu-in-loop": "/cpu-in-loop?n=1000000"}

PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>aioserve works</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
td {{ padding: .4rem .8rem .4rem 0; border-top: 1px solid #ddd; vertical-align: top }}
</style>
<h1>aioserve works</h1>
<p>This is <code>aioserve.example:app</code>, answered by process {pid}.</p>
<table>
{rows}
</table>
"""

CHAT_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>aioserve: a WebSocket</title>
<form><input autofocus placeholder="say something"> <button>send</button></form>
<pre></pre>
<script>
const log = line => document.querySelector("pre").append(line + "\\n");
const socket = new WebSocket(location.href.replace(/^http/, "ws"));
socket.onopen = () => log("open");
socket.onmessage = event => log(event.data);
socket.onclose = event => log(`closed: ${event.code} ${event.reason}`);
document.querySelector("form").onsubmit = event => {
  event.preventDefault();
  const input = document.querySelector("input");
  socket.send(input.value);
  input.value = "";
};
</script>
"""


# What the routes share.


def find_route(scope: Scope) -> Route:
    """The route for a request, which is looked up below the place where the application is mounted."""
    path = below_mount(scope)
    # HEAD is GET whose body the server leaves out.
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    route = ROUTES.get((method, path))
    if route is None:
        allowed = ", ".join(method for method, other in ROUTES if other == path).replace("GET", "GET, HEAD")
        if allowed:
            # RFC 9110 15.5.6: a 405 must say what is allowed.
            raise Refused(405, f"{path} is for {allowed}", (b"allow", allowed.encode()))
        raise Refused(404, f"there is nothing at {path}")
    return route


def below_mount(scope: Scope) -> str:
    """The path, without that under which the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"]) or "/"


async def body_of(scope: Scope, receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """The pieces of the body. One longer than ``limit`` is refused, before it is read where its length is known."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if int(length) > limit:
        raise Refused(413, f"the body may have {limit} bytes")
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError("the client left in the middle of its body")
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise Refused(413, f"the body may have {limit} bytes")
        yield piece
        if not message.get("more_body", False):
            return


async def disconnected(receive: Receive) -> None:
    """Return once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def number_in(scope: Scope, name: str, *, default: float, most: float) -> float:
    """A number from 0 to ``most`` in the query string."""
    written = parse_qs(scope["query_string"].decode("latin-1")).get(name)
    if written is None:
        return default
    try:
        number = float(written[-1])
    except ValueError:
        raise Refused(400, f"{name} is not a number") from None
    if not 0 <= number <= most:
        raise Refused(400, f"{name} is not from 0 to {most:g}")
    return number


async def respond_json(send: Send, document: object) -> None:
    await respond(send, json.dumps(document, indent=2).encode() + b"\n", content_type=b"application/json")


async def respond(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = b"text/plain; charset=utf-8",
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """A whole response. Because its length is given, it goes out without chunks."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), NO_GUESSING, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
