from __future__ import annotations

import asyncio
import hashlib
import json
import os

import pytest

from aioserve import example


class Exchange:
    """One request to the example and what it sent."""

    def __init__(self, method="GET", path="/", *, query=b"", headers=(), body=(), root_path="", leaves=False):
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": root_path + path, "raw_path": (root_path + path).encode(), "query_string": query,
            "root_path": root_path, "headers": list(headers), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            "state": {"started": 0.0},
        }  # fmt: skip
        pieces = list(body) or [b""]
        self.incoming = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1 or leaves}
            for number, piece in enumerate(pieces)
        ]
        self.leaves = leaves
        self.leave = asyncio.Event()
        self.sent = asyncio.Queue()
        self.messages = []

    async def receive(self):
        if self.incoming:
            return self.incoming.pop(0)
        if not self.leaves:
            await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)
        self.sent.put_nowait(message)

    async def run(self):
        await example.app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages[1:])


async def test_the_page_lists_every_path():
    page = (await Exchange().run()).body.decode()
    assert all(f"{path}" in page for _, path in example.ROUTES)


async def test_links_carry_the_root_path_escaped():
    page = (await Exchange(root_path='/a"b').run()).body.decode()
    assert 'href="/a&quot;b/hello"' in page


async def test_hello_is_hello():
    exchange = await Exchange(path="/hello").run()
    assert (exchange.status, exchange.body) == (200, b"Hello, World!")
    assert exchange.headers[b"content-length"] == b"13"


async def test_head_finds_the_route_of_get():
    assert (await Exchange("HEAD", "/hello").run()).status == 200


async def test_json_shows_the_lifespans_state():
    assert json.loads((await Exchange(path="/json").run()).body)["uptime_seconds"] > 0


async def test_json_does_without_a_state():
    exchange = Exchange(path="/json")
    del exchange.scope["state"]
    assert json.loads((await exchange.run()).body)["uptime_seconds"] is None


async def test_headers_shows_what_the_server_saw():
    seen = json.loads((await Exchange(path="/headers", query=b"a=\xff", headers=[(b"x-a", b"\xe9")]).run()).body)
    assert seen["client"] == ["127.0.0.1", 1]
    assert seen["headers"] == [["x-a", "é"]]
    assert seen["query_string"] == "a=ÿ"


async def test_stream_sends_its_lines_one_by_one(monkeypatch):
    monkeypatch.setattr(example, "STREAM_CHUNKS", 1)
    exchange = await Exchange(path="/stream").run()
    assert b"content-length" not in exchange.headers
    assert [m.get("more_body", False) for m in exchange.messages[1:]] == [True, False]


async def test_events_end_when_the_client_leaves():
    exchange = Exchange(path="/events")
    task = asyncio.create_task(exchange.run())
    for _ in range(3):
        await exchange.sent.get()
    exchange.leave.set()
    await task
    assert exchange.messages[1] == {"type": "http.response.body", "more_body": True}
    assert exchange.messages[2]["body"].startswith(b"id: 0\ndata: {")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_events_end_when_send_says_that_the_client_left():
    exchange = Exchange(path="/events")

    async def send(message):
        if message.get("body"):
            raise ConnectionResetError

    exchange.send = send
    await exchange.run()


async def test_upload_counts_and_hashes():
    exchange = await Exchange("POST", "/upload", body=[b"ab", b"", b"c"]).run()
    assert json.loads(exchange.body) == {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


async def test_a_client_that_leaves_in_its_upload_gets_no_answer():
    exchange = Exchange("POST", "/upload", body=[b"ab"], leaves=True)
    with pytest.raises(OSError, match="left"):
        await exchange.run()
    assert not exchange.messages


async def test_echo_returns_body_and_content_type():
    exchange = await Exchange("POST", "/echo", body=[b"a", b"b"], headers=[(b"content-type", b"x/y")]).run()
    assert (exchange.body, exchange.headers[b"content-type"]) == (b"ab", b"x/y")


async def test_a_body_that_is_announced_too_long_is_refused_unread():
    exchange = Exchange("POST", "/echo", headers=[(b"content-length", b"9999999")], body=[b"unread"])
    assert (await exchange.run()).status == 413
    assert exchange.incoming


async def test_a_body_that_grows_too_long_is_refused():
    piece = bytes(example.ECHO_LIMIT)
    assert (await Exchange("POST", "/echo", body=[piece, b"x"]).run()).status == 413


async def test_slow_waits_as_long_as_asked():
    assert json.loads((await Exchange(path="/slow", query=b"seconds=0").run()).body) == {"slept_seconds": 0.0}


async def test_cpu_is_another_process_and_the_loops_own_work_is_not():
    beside = json.loads((await Exchange(path="/cpu", query=b"n=3").run()).body)
    within = json.loads((await Exchange(path="/cpu-in-loop", query=b"n=3").run()).body)
    assert beside["rounds"] == within["rounds"] == 3
    assert beside["result"] == within["result"]
    assert beside["pid"] != within["pid"] == os.getpid()
    assert within["blocked_the_loop_for_seconds"] >= 0


async def test_rows_come_one_by_one():
    exchange = await Exchange(path="/rows", query=b"n=5").run()
    assert len(exchange.messages) == 1 + 5 + 1
    assert b"@" in exchange.body


@pytest.mark.parametrize("query", [b"n=x", b"n=-1", b"n=1e99", b"n=nan"])
async def test_numbers_out_of_range_are_refused(query):
    assert (await Exchange(path="/cpu", query=query).run()).status == 400


async def test_defaults_stand_in_for_missing_numbers():
    assert json.loads((await Exchange(path="/cpu").run()).body)["rounds"] == 100_000


async def test_unknown_paths_are_404_and_wrong_methods_405_with_allow():
    assert (await Exchange(path="/nothing").run()).status == 404
    exchange = await Exchange("DELETE", "/hello").run()
    assert (exchange.status, exchange.headers[b"allow"]) == (405, b"GET, HEAD")


async def test_routes_are_found_below_a_mount():
    assert (await Exchange(path="/hello", root_path="/demo").run()).status == 200
    assert (await Exchange(path="", root_path="/demo").run()).status == 200


async def test_unknown_protocols_are_refused_by_raising():
    with pytest.raises(ValueError, match="webtransport"):
        await example.app({"type": "webtransport"}, None, None)


async def test_what_one_says_all_hear_at_chat():
    def visitor():
        said, heard = asyncio.Queue(), []
        said.put_nowait({"type": "websocket.connect"})

        async def send(message):
            heard.append(message.get("text", message["type"]))

        scope = {"type": "websocket", "path": "/demo/chat", "root_path": "/demo"}
        return said, heard, asyncio.ensure_future(example.app(scope, said.get, send))

    (say, first, one), (leave, second, other) = visitor(), visitor()
    while len(example.ROOM) < 2:
        await asyncio.sleep(0)
    say.put_nowait({"type": "websocket.receive", "text": "hello"})
    while "hello" not in second:
        await asyncio.sleep(0)
    for said in (say, leave):
        said.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await asyncio.gather(one, other)
    assert first == second == ["websocket.accept", "hello"]
    assert not example.ROOM


async def test_there_is_no_other_websocket():
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    await example.app({"type": "websocket", "path": "/", "root_path": ""}, receive, send)
    assert sent == ["websocket.close"]


async def test_its_lifespan_runs_from_startup_to_shutdown():
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent, state = [], {}

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message["type"])

    await example.app({"type": "lifespan", "state": state}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert state["started"] > 0
