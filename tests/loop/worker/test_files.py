"""Files in responses, through real sockets of both loops: what the transport buffers and the kernel sends is theirs."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

import aioserve
from aioserve.errors import ClientDisconnected
from aioserve.worker import files

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB, above what a socket takes at once


@pytest.fixture
def ask(run):
    """Serve an application in a loop, and say what a client gets that sends ``raw`` and reads to the end."""

    def serve(app, raw=GET, *, read=None, **settings):
        async def client():
            shutdown, started = asyncio.Event(), asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(
                aioserve.serve(app, port=0, access_log=False, shutdown=shutdown, started=started, **settings)
            )
            running = await started
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1 << 16)
            writer.write(raw)
            try:
                return await asyncio.wait_for((read or all_of)(reader, writer), 30)
            finally:
                writer.transport.abort()
                shutdown.set()
                await asyncio.wait_for(task, 30)

        async def all_of(reader, writer):
            return await reader.read()

        return run(client())

    return serve


def responding(*messages, headers=()):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        for message in messages:
            await send(message)

    return app


def pathsend(path):
    return {"type": "http.response.pathsend", "path": str(path)}


def zerocopysend(file, **rest):
    return {"type": "http.response.zerocopysend", "file": file, **rest}


@pytest.mark.parametrize("size", [0, 1, files.SMALL, files.SMALL + 1, len(LARGE)])
def test_a_path_is_sent_whole_behind_its_head(ask, tmp_path, size):
    (tmp_path / "file").write_bytes(LARGE[:size])
    head, _, body = ask(responding(pathsend(tmp_path / "file"))).partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % size in head
    assert body == LARGE[:size]


def test_parts_of_a_file_and_bytes_may_be_mixed(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    with (tmp_path / "file").open("rb") as file:
        app = responding(
            {"type": "http.response.body", "body": b"<", "more_body": True},
            zerocopysend(file, offset=100, count=200_000, more_body=True),
            {"type": "http.response.body", "body": b"|", "more_body": True},
            zerocopysend(file, offset=10, count=10, more_body=True),
            {"type": "http.response.body", "body": b">"},
            headers=[(b"content-length", b"200013")],
        )
        body = ask(app).partition(b"\r\n\r\n")[2]
    assert body == b"<" + LARGE[100:200_100] + b"|" + LARGE[10:20] + b">"


def test_a_part_of_unknown_place_is_a_chunk(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE[:100_000])
    with (tmp_path / "file").open("rb") as file:
        app = responding(zerocopysend(file, more_body=True), {"type": "http.response.body"})
        received = ask(app)
    assert received.endswith(b"\r\n\r\n186a0\r\n" + LARGE[:100_000] + b"\r\n0\r\n\r\n")


def test_without_an_offset_the_position_of_the_file_counts_and_moves(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    with (tmp_path / "file").open("rb") as file:
        assert file.read(7) == LARGE[:7]
        first = zerocopysend(file, count=100_000, more_body=True)
        app = responding(first, zerocopysend(file, count=10), headers=[(b"content-length", b"100010")])
        assert ask(app).endswith(LARGE[7:100_017])


def test_a_descriptor_will_do(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        os.lseek(descriptor, 5, os.SEEK_SET)
        assert ask(responding(zerocopysend(descriptor))).endswith(b"\r\n\r\n" + LARGE[5:])
    finally:
        os.close(descriptor)


def test_head_is_answered_without_the_file(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    app = responding(pathsend(tmp_path / "file"), headers=[(b"content-length", b"%d" % len(LARGE))])
    received = ask(app, GET.replace(b"GET", b"HEAD"))
    assert received.endswith(b"\r\n\r\n")
    assert b"content-length: %d" % len(LARGE) in received


def test_the_connection_goes_on_after_a_file(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    received = ask(responding(pathsend(tmp_path / "file")), GET.replace(b"Connection: close\r\n", b"") + GET)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.count(LARGE) == 2


@pytest.mark.parametrize("reason", [errno.EINVAL, errno.EIO, errno.ECONNRESET])
def test_a_file_that_the_kernel_does_not_send_is_read(ask, caplog, monkeypatch, tmp_path, reason):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "sendfile", refuse)
    (tmp_path / "file").write_bytes(LARGE)
    assert ask(responding(pathsend(tmp_path / "file"))).endswith(b"\r\n\r\n" + LARGE)
    assert not caplog.records


def test_a_file_that_can_neither_be_sent_nor_read_is_an_error_in_the_log(ask, caplog, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(errno.EIO, "the disk is broken")

    async def read(reader, writer):
        with pytest.raises(ConnectionResetError):
            while await reader.read(1 << 16):
                pass

    monkeypatch.setattr(os, "sendfile", fail)
    monkeypatch.setattr(os, "pread", fail)
    (tmp_path / "file").write_bytes(LARGE)
    ask(responding(pathsend(tmp_path / "file")), read=read)
    assert [record.exc_info[1].strerror for record in caplog.records] == ["the disk is broken"]


def test_a_file_that_shrinks_while_it_is_sent_breaks_the_connection(ask, caplog, tmp_path):
    (tmp_path / "file").write_bytes(LARGE * 4)

    async def read(reader, writer):
        received = await reader.readuntil(b"\r\n\r\n")
        os.truncate(tmp_path / "file", len(LARGE))
        with pytest.raises(ConnectionResetError):
            while data := await reader.read(1 << 16):
                received += data
        return received

    received = ask(responding(pathsend(tmp_path / "file")), read=read)
    assert len(received) < 4 * len(LARGE)
    assert "it has become shorter while it was sent" in caplog.text


def test_a_client_that_does_not_read_a_file_is_reset(ask, caplog, tmp_path):
    (tmp_path / "file").write_bytes(LARGE * 16)

    left = asyncio.Event()

    async def app(scope, receive, send):
        try:
            await responding(pathsend(tmp_path / "file"))(scope, receive, send)
        except ClientDisconnected:
            left.set()
            raise

    async def read(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        await left.wait()

    caplog.set_level("INFO")
    ask(app, read=read, timeout_write=0.2)
    assert "closed: it has read next to nothing" in caplog.text


def test_a_client_that_leaves_while_a_file_is_sent_is_told_to_the_application_alone(ask, caplog, tmp_path):
    (tmp_path / "file").write_bytes(LARGE * 16)
    seen = []
    left = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send(pathsend(tmp_path / "file"))
        except OSError as error:
            seen.append(type(error).__name__)
            left.set()
            raise

    async def read(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await left.wait()

    ask(app, read=read)
    assert seen == ["ClientDisconnected"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pathsend("relative"), "no absolute path"),
        ({"type": "http.response.pathsend"}, "no absolute path"),
        (pathsend("/"), "no regular file"),
        (pathsend("/dev/null"), "no regular file"),
        (zerocopysend(None), "no open file"),
        (zerocopysend(-1), "no open file"),
        (zerocopysend(0, offset=-1), "no number of bytes"),
        (zerocopysend(0, count=True), "no number of bytes"),
        ({"type": "http.response.oops"}, "no part of an HTTP response"),
    ],
)
def test_what_is_no_file_is_a_500_and_a_line_in_the_log(ask, caplog, message, words):
    assert ask(responding(message)).startswith(b"HTTP/1.1 500")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == 1
    assert "the application: GET '/': " in lines[0]
    assert words in lines[0]


def test_a_pipe_is_no_file_of_length_0(ask, caplog):
    reader, writer = os.pipe()
    try:
        assert ask(responding(zerocopysend(reader, offset=0))).startswith(b"HTTP/1.1 500")
    finally:
        os.close(reader)
        os.close(writer)
    assert "no regular file" in caplog.text


def test_more_than_the_file_has_is_a_500(ask, caplog, tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file:
        assert ask(responding(zerocopysend(file, offset=1, count=3))).startswith(b"HTTP/1.1 500")
    assert "asks for 3 bytes where the file has 2" in caplog.text


def test_a_path_that_is_not_there_is_a_500(ask, caplog, tmp_path):
    assert ask(responding(pathsend(tmp_path / "missing"))).startswith(b"HTTP/1.1 500")
    assert "FileNotFoundError" in caplog.text


def test_no_descriptor_is_left_behind(ask, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    before = len(os.listdir("/proc/self/fd"))
    ask(responding(pathsend(tmp_path / "file")), GET.replace(b"Connection: close\r\n", b"") * 3 + GET)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_the_access_log_knows_when_the_head_of_a_file_left(connect, tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    client = connect(responding(pathsend(tmp_path / "file")))
    await client.ask(GET.replace(b"GET", b"HEAD"))
    (cycle,) = client.server.access.cycles
    assert cycle.started < cycle.first_byte < cycle.ended
