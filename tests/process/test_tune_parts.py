"""The parts of tune that touch the world: its client against real and broken servers, its children, its waits."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from aioserve.tune.answers import NotAnAnswer, Question
from aioserve.tune.children import Child
from aioserve.tune.client import RENEW, Client, ask
from aioserve.tune.progress import Progress
from aioserve.tune.serving import free_port
from aioserve.tune.waits import Interrupted, Waits
from tests.process.servers import Served, processes, wait_until

ROOT = (Question(path="/"),)


@pytest.fixture(scope="module")
def server():
    with Served("plain:app", "--no-access-log") as served:
        yield "127.0.0.1", served.port


@contextmanager
def answering(*answers):
    """A server of one connection after another: each gets its answer and is closed. None: it is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            held = []
            for answer in answers:
                sock, _ = listener.accept()
                sock.recv(65536)
                if answer is None:
                    held.append(sock)
                else:
                    sock.sendall(answer)
                    sock.close()
            # From here on nobody is let in: listening ends with the last answer.
            listener.close()
            ended.wait()
            for sock in held:
                sock.close()

        ended = threading.Event()
        thread = threading.Thread(target=serve)
        address = listener.getsockname()
        thread.start()
        try:
            yield address
        finally:
            ended.set()
            thread.join()


# The client.


def test_kept_connections_are_kept(server):
    found = Client(server, ROOT, 3).kept(0.2)
    assert found.requests > 10
    assert found.errors == {}
    assert 0 < found.p50 < 0.2
    assert found.seconds >= 0.2
    assert found.client_cpu > 0


def test_fresh_connections_are_one_for_each_request(server):
    found = Client(server, ROOT, 3).fresh(0.2)
    assert found.requests > 10
    assert found.errors == {}


def test_paced_requests_come_as_many_as_are_due(server):
    found = Client(server, ROOT, 3).paced(0.5, 100.0)
    assert (found.requests, found.seconds, found.behind, found.errors) == (50, 0.5, 0, {})


def test_paced_requests_that_find_no_connection_wait_and_their_waiting_counts():
    # The first is answered after all the others were due; on the only connection, they had to wait for it.
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        sock, _ = listener.accept()
        with sock:
            for number in range(4):
                sock.recv(65536)
                if number == 0:
                    time.sleep(0.3)  # the slow answer is what this is about
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    client = Client(listener.getsockname(), ROOT, 1)
    found = client.paced(0.4, 10.0)
    thread.join()
    listener.close()
    assert (found.requests, found.behind) == (4, 0)
    assert sorted(client._latencies)[1] > 0.05  # due after 0.1 and 0.2 s, sent after 0.3


def test_a_server_that_never_answers_leaves_paced_requests_behind():
    with answering(None) as address:
        found = Client(address, ROOT, 1).paced(0.2, 50.0)
    assert (found.requests, found.behind) == (0, 9)


def test_a_paced_connection_is_renewed(server):
    client = Client(server, ROOT, 1)
    asked = []
    connect = client._connect
    client._connect = lambda: asked.append(1) or connect()
    client.paced(1.0, 3.0 * RENEW)
    assert len(asked) == 3


def test_questions_are_asked_in_turns(server):
    found = Client(server, (Question(path="/"), Question(path="/nowhere-at-all")), 2).kept(0.1)
    assert found.requests > 3


def test_a_status_that_refuses_is_an_error_and_an_answer():
    refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(refused, refused) as address:
        found = Client(address, ROOT, 1).kept(5.0)
    assert found.requests == 2
    assert found.errors.pop("status 503") == 2
    # And then nobody was there any more; who had been queued when the listener was closed has a reset.
    assert found.errors
    assert found.errors.keys() <= {"ConnectionRefusedError", "ConnectionResetError"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", "closed without an answer"), (b"nonsense\r\n\r\n", "this is no answer of HTTP/1.1: b'nonsense\\r\\n'")],
)
@pytest.mark.parametrize("kind", ["kept", "fresh"])
def test_what_is_no_answer_is_an_error(answer, error, kind):
    with answering(answer) as address:
        found = getattr(Client(address, ROOT, 1), kind)(5.0)
    assert found.requests == 0
    assert error in found.errors


@pytest.mark.parametrize("measure", [lambda c: c.kept(1), lambda c: c.fresh(1), lambda c: c.paced(1, 10)])
def test_a_server_that_is_not_there_ends_the_run(measure):
    found = measure(Client(("127.0.0.1", free_port()), ROOT, 2))
    assert (found.requests, found.errors) == (0, {"ConnectionRefusedError": 1})


def test_one_question_is_answered(server):
    assert ask(server, ROOT[0]).status == 200


def test_one_question_that_is_not_answered_says_so():
    with answering(b"") as address, pytest.raises(NotAnAnswer, match="closed without an answer"):
        ask(address, ROOT[0])


def test_an_answer_may_end_with_its_connection():
    with answering(b"HTTP/1.0 200 OK\r\n\r\nhello") as address:
        assert ask(address, ROOT[0]).size == 24


# Children and waits.


@pytest.fixture
def waits():
    with Waits() as one:
        yield one


def child(waits, run):
    with open(os.devnull, "wb") as null:
        return Child(run, waits, out=null.fileno(), err=null.fileno())


def fail():
    raise ValueError("no")


def leave():
    raise SystemExit(7)


@pytest.mark.parametrize(("run", "status"), [(lambda: 5, 5), (fail, 1), (leave, 7)])
def test_a_child_exits_with_what_it_returns(waits, run, status):
    one = child(waits, run)
    assert waits.until(one.ended, 10)
    assert one.status == status
    one.stop(signal.SIGTERM, 1)  # changes nothing


def test_a_child_that_does_not_want_to_end_is_killed_with_all_its_group(waits):
    def stubborn():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            signal.pause()
        os.write(writing, b".")
        signal.pause()
        return 0

    reading, writing = os.pipe()
    one = child(waits, stubborn)
    assert os.read(reading, 1) == b"."
    group = {pid for pid, (_, session) in processes().items() if session == one.pid}
    one.stop(signal.SIGTERM, 0.1)
    assert one.status == -signal.SIGKILL
    assert len(group) == 2
    wait_until(lambda: not group & processes().keys(), "the whole group has ended")
    os.close(reading)
    os.close(writing)


def test_what_a_child_leaves_behind_in_its_group_is_killed(waits):
    def leave_one():
        pid = os.fork()
        if pid == 0:
            signal.pause()
        os.write(writing, b"%d" % pid)
        return 0

    reading, writing = os.pipe()
    one = child(waits, leave_one)
    left = int(os.read(reading, 20))
    assert waits.until(one.ended, 10)
    wait_until(lambda: left not in processes(), "what was left has ended")
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_wait(waits, number):
    os.kill(os.getpid(), number)
    with pytest.raises(Interrupted):
        waits.until(lambda: False, 10)


def test_who_stops_is_not_interrupted_but_gives_up_when_somebody_insists(waits):
    os.kill(os.getpid(), signal.SIGTERM)
    assert not waits.until(lambda: False, 0.01, stopping=True)
    os.kill(os.getpid(), signal.SIGTERM)
    assert waits.insisted
    assert not waits.until(lambda: False, 1000, stopping=True)


def test_a_wait_ends_with_its_time_and_ticks_meanwhile(waits):
    ticks = []
    waits.tick = lambda: ticks.append(1)
    assert not waits.until(lambda: False, 0.15)
    assert ticks


def test_handlers_are_those_of_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    with Waits():
        pass
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    assert before == after


# What is shown meanwhile.


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_drawn_and_erased():
    screen = Terminal()
    with Progress(screen, 4.0) as progress:
        progress.begin("round 1 of 3: single", 2.0)
        progress.line("not for terminals")
        progress.begin("round 2 of 3: single", 2.0)
    assert "4 s left  round 1 of 3: single" in screen.getvalue()
    assert "2 s left  round 2 of 3: single" in screen.getvalue()
    assert "not for terminals" not in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[1A\r\x1b[2K")


def test_without_a_terminal_there_are_lines_and_no_bar():
    stream = io.StringIO()
    with Progress(stream, 4.0) as progress:
        progress.begin("round 1 of 3: single", 2.0)
        progress.line("round 1: done")
    assert stream.getvalue() == "round 1: done\n"
