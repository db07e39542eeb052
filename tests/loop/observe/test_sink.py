from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
import select
import signal
import socket
import threading

import pytest

from aioserve.errors import BootError
from aioserve.observe import sink as module
from aioserve.observe.sink import BATCH_BYTES, Sink, pieces


class FakeLoop:
    """Timers that run when told to."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def call_later(self, delay, callback):
        assert delay == module.INTERVAL_SECONDS
        self.timers.append(FakeTimer(callback))
        return self.timers[-1]

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer.callback()


class FakeTimer:
    def __init__(self, callback) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = lambda: None


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def pipe():
    """A pipe whose two ends are closed at the end, if they are still open."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


@pytest.fixture(autouse=True)
def capture(caplog):
    caplog.set_level(logging.INFO, "aioserve")


def read_all(fd: int) -> bytes:
    read = b""
    while select.select([fd], [], [], 0)[0]:
        more = os.read(fd, 1 << 20)
        if not more:
            break
        read += more
    return read


def test_lines_are_written_when_the_timer_fires(loop, pipe):
    sink = Sink(pipe[1], loop)
    sink.write("one\n")
    sink.write("two\n")
    assert len(loop.timers) == 1
    loop.fire()
    assert os.read(pipe[0], 100) == b"one\ntwo\n"
    sink.write("three\n")
    loop.fire()
    assert os.read(pipe[0], 100) == b"three\n"
    assert sink.flush_and_close(5)


def test_a_full_batch_does_not_wait_for_the_timer(loop, tmp_path):
    path = tmp_path / "log"
    sink = Sink(str(path), loop)
    line = "x" * 1023 + "\n"
    for _ in range(BATCH_BYTES // len(line)):
        sink.write(line)
    assert not sink._lines
    loop.fire()
    assert sink.flush_and_close(5)
    assert path.stat().st_size == BATCH_BYTES


def test_closing_writes_what_is_left_and_closes_the_file(loop, tmp_path):
    path = tmp_path / "log"
    sink = Sink(str(path), loop)
    sink.write("last\n")
    assert sink.flush_and_close(5)
    assert path.read_text() == "last\n"
    assert sink.flush_and_close(5)


def test_closing_what_was_never_used_starts_no_thread(loop, tmp_path):
    before = threading.active_count()
    sink = Sink(str(tmp_path / "log"), loop)
    assert sink.flush_and_close(5)
    assert threading.active_count() == before


def test_lines_after_closing_are_dropped(loop, tmp_path):
    path = tmp_path / "log"
    sink = Sink(str(path), loop)
    sink.write("one\n")
    sink.flush_and_close(5)
    sink.write("two\n")
    assert path.read_text() == "one\n"
    assert not sink._lines


def test_a_file_is_appended_to(loop, tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    sink = Sink(str(path), loop)
    sink.write("after\n")
    sink.flush_and_close(5)
    assert path.read_text() == "before\nafter\n"


def test_a_file_is_reopened_by_its_name_without_losing_a_line(loop, tmp_path):
    path = tmp_path / "log"
    sink = Sink(str(path), loop)
    sink.write("before\n")
    path.rename(tmp_path / "log.1")
    sink.reopen()
    sink.write("after\n")
    assert sink.flush_and_close(5)
    assert (tmp_path / "log.1").read_text() == "before\n"
    assert path.read_text() == "after\n"


def test_a_file_that_cannot_be_reopened_is_written_where_it_is(loop, tmp_path, caplog):
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = Sink(str(folder / "log"), loop)
    folder.rename(tmp_path / "moved")
    sink.reopen()
    sink.write("after\n")
    assert sink.flush_and_close(5)
    assert (tmp_path / "moved" / "log").read_text() == "after\n"
    assert "it is written where it was" in caplog.text


def test_a_descriptor_is_left_alone_by_reopen_and_close(loop, pipe):
    sink = Sink(pipe[1], loop)
    sink.reopen()
    assert sink.flush_and_close(5)
    os.fstat(pipe[1])


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_path_that_cannot_be_written_is_refused_at_once(loop, tmp_path, kind):
    path = tmp_path / "log"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(BootError, match=r"the access log .* cannot be opened"):
        Sink(str(path), loop)


def test_a_reader_that_is_slow_gets_everything(loop, pipe):
    sink = Sink(pipe[1], loop)
    count = 40_000
    for number in range(count):
        sink.write(f"line {number:026d}\n")
    read = bytearray()

    def reader() -> None:
        while len(read) < count * 32:
            read.extend(os.read(pipe[0], 4096))

    thread = threading.Thread(target=reader)
    thread.start()
    assert sink.flush_and_close(20)
    thread.join(20)
    assert bytes(read) == b"".join(b"line %026d\n" % number for number in range(count))


def test_a_pipe_that_is_not_read_bounds_what_waits_and_the_loss_is_told(loop, pipe, caplog):
    sink = Sink(pipe[1], loop, waiting_limit=4 * BATCH_BYTES)
    line = "x" * 1023 + "\n"
    for _ in range(1000):
        sink.write(line)
    assert sink._handed - sink._writer.done <= 4 * BATCH_BYTES
    dropped = sink._writer.overflowed
    assert dropped > 0
    while sink._writer.done < sink._handed:
        read_all(pipe[0])
    read_all(pipe[0])  # what was the last to be written: the rest, which is closed with, has to find room
    sink.write("end\n")
    sink.flush_and_close(20)
    assert b"end\n" in read_all(pipe[0])
    assert f"the access log can be written again: {dropped} lines were lost" in caplog.text


def test_closing_does_not_wait_for_ever_for_a_reader(loop, pipe, caplog):
    sink = Sink(pipe[1], loop)
    for _ in range(1000):
        sink.write("x" * 1023 + "\n")
    assert not sink.flush_and_close(0.01)
    assert "its reader does not read" in caplog.text
    os.close(pipe[0])
    pipe[0] = -1
    sink._writer._thread.join(20)


def test_a_reader_that_has_gone_costs_lines_and_is_told_once(loop, pipe, caplog):
    sink = Sink(pipe[1], loop)
    os.close(pipe[0])
    pipe[0] = -1
    for _ in range(3):
        sink.write("lost\n")
        loop.fire()
    assert not sink.flush_and_close(5)
    assert caplog.messages == [
        "the access log cannot be written (Broken pipe): lines are dropped until it can",
        "3 lines of the access log were lost",
    ]


@pytest.fixture
def small_files():
    """No file may grow beyond 10 bytes: what a full disk looks like to a writer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits[0] if size is None else size, limits[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, old)


def test_a_full_disk_tears_one_line_and_the_next_begins_on_its_own(loop, tmp_path, caplog, small_files):
    path = tmp_path / "log"
    sink = Sink(str(path), loop)
    small_files(10)
    for line in ("first\n", "second\n", "third\n"):
        sink.write(line)
    loop.fire()
    while sink._writer.done < sink._handed:
        os.sched_yield()
    small_files(None)
    sink.write("fourth\n")
    assert not sink.flush_and_close(5)
    assert path.read_text() == "first\nseco\nfourth\n"
    assert f"cannot be written ({os.strerror(errno.EFBIG)})" in caplog.text
    assert "can be written again: 2 lines were lost" in caplog.text


def test_a_descriptor_that_does_not_block_is_waited_for(loop):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        sink = Sink(ours.fileno(), loop)
        count = 2000
        for _ in range(count):
            sink.write("x" * 1023 + "\n")
        loop.fire()
        while select.select([], [ours], [], 0)[1]:
            os.sched_yield()
        received = 0
        while received < count * 1024:
            received += len(theirs.recv(1 << 20))
        assert sink.flush_and_close(5)


def test_a_closed_descriptor_is_an_error_in_the_log_and_no_more(loop, caplog):
    ends = os.pipe()
    for end in ends:
        os.close(end)
    sink = Sink(ends[1], loop)
    sink._writer._fd = -1
    sink.write("lost\n")
    assert not sink.flush_and_close(5)
    assert "Bad file descriptor" in caplog.text


def test_lines_of_two_writers_stay_whole_in_one_pipe(loop, pipe):
    fcntl.fcntl(pipe[1], 1031, 4096)  # F_SETPIPE_SZ: a small pipe makes writers meet
    count = 3000
    sinks = [Sink(pipe[1], loop) for _ in range(2)]
    for number in range(count):
        for name, sink in zip("ab", sinks, strict=True):
            sink.write(name * (20 + number % 300) + "\n")
    read = bytearray()
    expected = 2 * sum(21 + number % 300 for number in range(count))

    def reader() -> None:
        while len(read) < expected:
            read.extend(os.read(pipe[0], 1 << 16))

    thread = threading.Thread(target=reader)
    thread.start()
    closed = [sink.flush_and_close(20) for sink in sinks]
    assert closed == [True, True]
    thread.join(20)
    assert all(len(set(line)) == 1 for line in bytes(read).splitlines())


@pytest.mark.parametrize(
    ("batch", "cut"),
    [
        (b"", []),
        (b"a\n", [b"a\n"]),
        (b"a\nbb\nccc\n", [b"a\nbb\n", b"ccc\n"]),
        (b"a\n" + b"x" * 9 + b"\nb\n", [b"a\n", b"x" * 9 + b"\n", b"b\n"]),
        (b"x" * 9, [b"x" * 9]),
        (b"aaaa\nb\n", [b"aaaa\n", b"b\n"]),
    ],
)
def test_a_batch_is_cut_at_ends_of_lines(batch, cut):
    assert list(pieces(batch, 5)) == cut
