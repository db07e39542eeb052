"""Servers that cannot start, and what they say and exit with."""

from __future__ import annotations

import os
import socket

import pytest

from tests.process.servers import APPS, Served

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "reuseport": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
    "single": ("--accept", "single"),
}


def written(folder, text):
    (folder / "site.py").write_text(text)
    (folder / "service.py").write_text(text)
    return "service:app"


@pytest.mark.parametrize("mode", MODES)
def test_application_that_cannot_be_imported_ends_with_3_and_its_own_frames_once(tmp_path, mode):
    app = written(tmp_path, "def connect():\n    raise RuntimeError('no database')\n\n\nconnect()\n")

    with Served(app, *MODES[mode], cwd=tmp_path, ready=False, tracebacks=1) as server:
        assert server.wait() == 3

    log = server.log()
    assert "cannot import 'service': RuntimeError: no database" in log
    assert log.count("line 2, in connect") == 1
    assert "importlib" not in log
    assert f"{os.sep}aioserve{os.sep}" not in log


@pytest.mark.parametrize("mode", MODES)
def test_application_whose_startup_fails_ends_with_3(tmp_path, mode):
    app = written(
        tmp_path,
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'the cache is cold'})\n",
    )

    with Served(app, *MODES[mode], cwd=tmp_path, ready=False) as server:
        assert server.wait() == 3

    assert "service:app: startup failed: the cache is cold" in server.log()


@pytest.mark.parametrize("mode", MODES)
def test_address_in_use_ends_with_4_and_says_so(mode):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Served("plain:app", *MODES[mode], "--port", port, ready=False) as server:
            assert server.wait() == 4

    assert f"127.0.0.1:{port}: another process is listening there" in server.log()


def test_mistakes_in_the_configuration_are_reported_together_and_end_with_2():
    with Served("plain:app", "--port", "99999", "--worker", "2", "--http", "3", ready=False) as server:
        assert server.wait() == 2

    log = server.log()
    assert "the configuration has 3 mistakes" in log
    assert "did you mean --workers?" in log
    assert all(option in log for option in ("--port", "--http"))


def test_application_is_found_in_the_folder_that_app_dir_names(tmp_path):
    with Served("plain:app", "--app-dir", APPS, cwd=tmp_path) as server:
        assert server.get("/").text == "Hello, World!"
