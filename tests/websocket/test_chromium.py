"""A real browser against a real server, each test in a page of its own.

What the page says counts: what its WebSockets got, and with which code and reason they were closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process.servers import Served
from tests.websocket.chromium import PROGRAMS, Chromium, Page, program
from tests.websocket.frames import APPS
from tests.websocket.transfer import TRANSFER, flat_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.xdist_group("chromium"),
    pytest.mark.skipif(program() is None, reason=f"none of {', '.join(PROGRAMS)} is installed"),
]

#: ``wait`` keeps what came before anybody asked for it.
TOOLS = """
    self.join = (path, protocols) => new Promise((done, failed) => {
        const socket = new WebSocket(`ws://${location.host}${path}`, protocols);
        const came = [], asked = [];
        socket.binaryType = "arraybuffer";
        socket.onopen = () => done(socket);
        socket.onerror = () => failed(new Error("error"));
        socket.onmessage = event => asked.length ? asked.shift()(event.data) : came.push(event.data);
        socket.hear = () => came.length ? came.shift() : new Promise(done => asked.push(done));
        socket.closed = new Promise(done => socket.onclose = event => done([event.code, event.reason, event.wasClean]));
    });
    self.noise = size => {
        const bytes = new Uint8Array(size);
        for (let at = 0; at < size; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
        return bytes;
    };
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served("sockets:app", "--no-access-log", "--workers", "1", cwd=APPS) as server:
        yield server


@pytest.fixture
def page(browser: Chromium, server: Served) -> Page:
    page = browser.open(f"http://127.0.0.1:{server.port}/page")
    page.run(TOOLS)
    return page


def test_text_and_bytes_come_back(page):
    assert page.run("""
        const socket = await join("/echo");
        const said = ["hello", "", "Käse \\u{1d11e}", "long ".repeat(20000)];
        said.forEach(text => socket.send(text));
        socket.send(new Uint8Array([0, 255, 128]));
        const heard = [];
        for (const text of said) heard.push(await socket.hear() === text);
        return [heard, [...new Uint8Array(await socket.hear())]];
    """) == [[True] * 4, [0, 255, 128]]


def test_compression_is_agreed_on(page):
    assert page.run("return (await join('/echo')).extensions").startswith("permessage-deflate")


def test_a_mebibyte_comes_back(page):
    assert page.run("""
        const socket = await join("/echo"), sent = noise(1 << 20);
        socket.send(sent);
        const heard = new Uint8Array(await socket.hear());
        return heard.length === sent.length && heard.every((byte, at) => byte === sent[at]);
    """)


def test_the_subprotocol_is_the_one_that_the_application_chose(page):
    assert page.run("return (await join('/echo/chosen', ['chat', 'chat.v2'])).protocol") == "chat.v2"


def test_the_page_sees_the_servers_code_and_reason(page):
    assert page.run("""
        const socket = await join("/farewell");
        socket.send("4321 so long, Käse");
        return await socket.closed;
    """) == [4321, "so long, Käse", True]


def test_the_servers_answer_has_the_code_of_the_page(page):
    assert page.run("""
        const socket = await join("/echo");
        socket.close(3210, "enough");
        return await socket.closed;
    """) == [3210, "enough", True]


def test_an_application_that_refuses_is_an_error_in_the_page(page):
    assert page.run("return await join('/refused').catch(error => `${error}`)") == "Error: error"


def test_two_hundred_hear_what_each_says(page):
    assert page.run("""
        const sockets = await Promise.all(Array.from({length: 200}, () => join("/room")));
        const heard = new Set();
        for (let speaker = 0; speaker < 200; speaker += 10) {
            sockets[speaker].send(`I am ${speaker}`);
            for (const text of await Promise.all(sockets.map(socket => socket.hear()))) heard.add(text);
        }
        sockets.forEach(socket => socket.close());
        await Promise.all(sockets.map(socket => socket.closed));
        return [...heard];
    """) == [f"I am {speaker}" for speaker in range(0, 200, 10)]


def test_much_from_the_page_takes_no_memory(page, server):
    with flat_memory(server):
        assert page.run(
            """
            const socket = await join("/sink"), piece = noise(1 << 20);
            for (let sent = 0; sent < args[0]; sent += piece.length) socket.send(piece);
            socket.send("how many");
            return await socket.hear();
            """,
            TRANSFER,
        ) == str(TRANSFER)


def test_much_to_the_page_takes_no_memory(page, server):
    with flat_memory(server):
        assert page.run(
            """
            const socket = await join(`/source?${args[0]}`);
            let heard = 0;
            while (heard < args[0]) heard += (await socket.hear()).byteLength;
            return [heard, await socket.closed];
            """,
            TRANSFER,
        ) == [TRANSFER, [1000, "", True]]
