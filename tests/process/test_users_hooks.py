"""The user's functions at turning points of a real server."""

from __future__ import annotations

import os
import signal

import pytest

from tests.process.servers import APPS, Served, wait_until

HOOKS = """
import os

def note(moment):
    line = f"{moment.hook} {os.getpid()} {moment.pid} {moment.slot} {moment.generation} {moment.status}"
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(line + "\\n")

def fails(moment):
    raise ValueError("a mistake in a hook")
"""

EVERY = [
    word
    for name in ("on-master-start", "on-worker-start", "on-worker-ready", "on-worker-exit", "on-reload")
    for word in (f"--{name}", "ops_hooks:note")
]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "ops_hooks.py").write_text(HOOKS)
    return tmp_path


def serve(place, *arguments, **options):
    return Served("plain:app", *arguments, app_dir=place, env={"NOTES": str(place / "notes")}, **options)


def notes(place):
    """Every line as words."""
    path = place / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def of(place, hook):
    return [words for words in notes(place) if words[0] == hook]


def test_each_hook_is_called_in_its_process_at_its_time(place):
    with serve(place, "--workers", "1", *EVERY) as server:
        master, [first] = str(server.pid), map(str, server.workers())
        wait_until(lambda: of(place, "on_worker_ready"), "the first worker's hook")
        assert notes(place) == [
            ["on_master_start", master, master, "None", "1", "None"],
            ["on_worker_start", first, first, "0", "1", "None"],
            ["on_worker_ready", first, first, "0", "1", "None"],
        ]

        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2 finished")
        [second] = map(str, server.workers())
        wait_until(lambda: len(of(place, "on_worker_ready")) == 2, "the second worker's hook")
        assert of(place, "on_reload") == [["on_reload", master, master, "None", "2", "None"]]
        assert of(place, "on_worker_start")[1:] == [["on_worker_start", second, second, "0", "2", "None"]]
        wait_until(lambda: of(place, "on_worker_exit"), "the hook of the first worker's end")
        assert of(place, "on_worker_exit") == [["on_worker_exit", master, first, "0", "1", "0"]]

        server.signal(signal.SIGKILL, int(second))
        wait_until(lambda: len(of(place, "on_worker_exit")) == 2, "the hook of a worker that was killed")
        assert of(place, "on_worker_exit")[1] == ["on_worker_exit", master, second, "0", "2", "-9"]


def test_without_a_master_the_hooks_of_workers_are_called(place):
    with serve(place, "--accept", "single", *EVERY) as server:
        wait_until(lambda: of(place, "on_worker_ready"), "the hook")
        assert [(words[0], words[1]) for words in notes(place)] == [
            ("on_worker_start", str(server.pid)),
            ("on_worker_ready", str(server.pid)),
        ]
        server.wait_for("--on-reload has no effect with single (--accept), which has no master")


@pytest.mark.parametrize("hook", ["on-master-start", "on-worker-start", "on-worker-ready"])
def test_a_hook_that_fails_is_logged_by_its_name_and_the_server_serves(place, hook):
    with serve(place, f"--{hook}", "ops_hooks:fails", tracebacks=1) as server:
        server.wait_for(f"the hook {hook.replace('-', '_')} (ops_hooks:fails) has failed")
        server.wait_for("ValueError: a mistake in a hook")
        assert server.get().text == "Hello, World!"


def test_a_hook_that_is_not_there_ends_the_server_with_3(place):
    with serve(place, "--on-reload", "ops_hooks:nothing_here", ready=False) as server:
        assert server.wait() == 3
    assert "--on-reload: " in server.log()


def test_a_hook_that_is_only_the_workers_ends_the_server_with_3_too(place):
    with serve(place, "--on-worker-start", "nowhere:hook", ready=False) as server:
        assert server.wait() == 3
    assert "could not start: --on-worker-start: there is no module 'nowhere'" in server.log()


def test_an_application_that_comes_along_with_a_hook_is_a_warning(place):
    (place / "both.py").write_text("from plain import app\ndef note(moment): ...\n")
    path = os.pathsep.join([str(place), str(APPS)])
    with Served("both:app", "--on-reload", "both:note", app_dir=path) as server:
        server.wait_for("both is imported together with the hooks that run in the master: a reload cannot load new")
