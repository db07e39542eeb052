"""Application files that change while they are served: by HUP, and by themselves under --reload."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.process.servers import Served, wait_until

GOOD = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"{answer}"}})
"""
BROKEN = "def app(:\n"


class Service:
    """An application's file that a test edits; it answers "one" at first."""

    def __init__(self, folder):
        self.folder = folder
        self.answer("one")

    def answer(self, answer):
        self._write(GOOD.format(answer=answer))

    def break_it(self):
        self._write(BROKEN)

    def _write(self, text):
        # As editors do it: nobody reads half a file.
        draft = self.folder / "draft.txt"
        draft.write_text(text)
        draft.replace(self.folder / "service.py")

    def serve(self, *options, **how):
        return Served("service:app", *options, cwd=self.folder, **how)


def test_reload_with_a_broken_file_leaves_the_old_generation_serving_until_it_is_mended(tmp_path):
    service = Service(tmp_path)
    with service.serve("--workers", "2", "--reuseport") as server:
        workers = server.workers()
        service.break_it()
        server.signal(signal.SIGHUP)
        failed = server.wait_for("reload to generation 2 failed")
        assert "syntax error" in failed
        assert "0 of 2 replaced, the others serve on" in failed
        assert server.get("/").text == "one"
        assert server.workers() == workers

        service.answer("two")
        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 3 finished: 2 replaced")
        assert {server.get("/").text for _ in range(8)} == {"two"}
        assert not server.workers() & workers


def test_crashed_worker_with_a_broken_file_is_tried_again_until_it_is_mended(tmp_path):
    service = Service(tmp_path)
    with service.serve("--workers", "2") as server:
        service.break_it()
        server.signal(signal.SIGKILL, min(server.workers()))
        server.wait_for("starts again in ")
        assert server.get("/").text == "one"

        mark = server.mark()
        service.answer("two")
        server.wait_for("is ready", since=mark)
        assert len(server.workers()) == 2


def test_edit_is_served_without_being_asked(tmp_path):
    service = Service(tmp_path)
    with service.serve("--reload") as server:
        wait_for_watcher(server)
        assert server.get("/").text == "one"
        service.answer("two")
        wait_until(lambda: server.get("/").text == "two", "the new code is served")
        assert "service.py changed: reload to generation 2" in server.log()


def test_kept_connection_meets_the_new_code_soon(tmp_path):
    service = Service(tmp_path)
    with service.serve("--reload") as server, server.connect() as client:
        wait_for_watcher(server)
        assert client.get("/").text == "one"
        service.answer("two")
        server.wait_for("finished: 1 replaced")

        assert client.rest() == b""  # closed, so that a browser comes back on a new one


def test_syntax_error_is_reported_and_the_old_code_serves_on(tmp_path):
    service = Service(tmp_path)
    with service.serve("--reload") as server:
        wait_for_watcher(server)
        service.break_it()
        assert "syntax error" in server.wait_for("reload to generation 2 failed")
        assert "def app(:" in server.log()
        assert server.get("/").text == "one"

        service.answer("three")
        wait_until(lambda: server.get("/").text == "three", "the mended code is served")


def test_first_start_with_a_syntax_error_waits_for_it_to_be_mended(tmp_path):
    service = Service(tmp_path)
    service.break_it()
    with service.serve("--reload", ready=False) as server:
        server.wait_for("stays empty until the next reload")
        wait_for_watcher(server)
        assert server.process.poll() is None

        service.answer("four")
        server.wait_ready()
        assert server.get("/").text == "four"


def wait_for_watcher(server):
    """Until a child has asked the kernel to be told of changes; an edit before that is nobody's news."""
    wait_until(lambda: any(map(watches, server.workers())), "the files are watched")


def watches(pid):
    """Whether it has an inotify descriptor with a watch; proc(5), /proc/pid/fdinfo."""
    try:
        return any("inotify wd:" in entry.read_text() for entry in Path(f"/proc/{pid}/fdinfo").iterdir())
    except OSError:
        return False
