"""What can be chosen on the command line, seen from outside: mounts, interfaces, parsers, loops, logs."""

from __future__ import annotations

import json
import signal

import pytest

from tests.process.servers import Served, wait_until

pytestmark = pytest.mark.once

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "reuseport": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
    "single": ("--accept", "single"),
    "threads": ("--accept", "threads", "--threads", "2"),
}
MOUNTS = ("--mount", "/api=named:api", "--mount", "/admin=named:admin")


@pytest.mark.parametrize(
    ("options", "path", "seen"),
    [
        ((), "/", {"name": "main", "path": "/", "root_path": ""}),
        ((), "/api", {"name": "api", "path": "/api", "root_path": "/api"}),
        ((), "/api/items", {"name": "api", "path": "/api/items", "root_path": "/api"}),
        ((), "/apis", {"name": "main", "path": "/apis", "root_path": ""}),
        ((), "/admin/", {"name": "admin", "path": "/admin/", "root_path": "/admin"}),
        (("--root-path", "/shop"), "/api/x", {"name": "api", "path": "/shop/api/x", "root_path": "/shop/api"}),
        (("--root-path", "/shop"), "/x", {"name": "main", "path": "/shop/x", "root_path": "/shop"}),
    ],
)
def test_mounted_applications_see_their_own_state_and_place(options, path, seen):
    with Served("named:main", *MOUNTS, *options, "--workers", "2", "--reuseport") as server:
        assert json.loads(server.get(path).body) == {**seen, "state": {"owner": seen["name"]}}


def test_every_mounted_application_has_its_own_lifespan():
    with Served("named:main", *MOUNTS) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        names = ("named:main", "/api (named:api)", "/admin (named:admin)")
        assert all(f"{name}: startup complete" in server.log() for name in names)
        assert all(f"{name}: shutdown complete" in server.log() for name in names)


@pytest.mark.parametrize("mode", MODES)
def test_wsgi_application_is_served(mode):
    with Served("on_wsgi:app", "--interface", "wsgi", *MODES[mode]) as server, server.connect() as client:
        client.request("/form", method="POST", body=bytes(100_000))

        assert client.response().text == "POST /form 100000"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_every_parser_serves_on_every_loop(mode, parser, loop):
    with Served("plain:app", "--http", parser, "--loop", loop, *MODES[mode]) as server:
        with server.connect() as client:
            scope = json.loads(client.get("/scope").body)
            client.request("/echo", method="POST", body=bytes(range(256)) * 1000)
            echoed = client.response().body
        server.signal(signal.SIGTERM)
        status = server.wait()

    assert scope["loop"].partition(".")[0] == loop
    assert (echoed, status) == (bytes(range(256)) * 1000, 0)


@pytest.mark.parametrize("mode", MODES)
def test_usr1_reopens_both_logs(tmp_path, mode):
    log, access = tmp_path / "error.log", tmp_path / "access.log"
    with Served(
        "plain:app", *MODES[mode], "--log-file", log, "--access-log-file", access, "--log-level", "debug", ready=False
    ) as server:
        port = wait_until(lambda: port_in(log), "the server says in its log where it listens")
        assert server.get("/before", port=port).status == 404
        wait_until(lambda: "/before" in text_of(access), "the access log")
        log.rename(tmp_path / "error.log.1")
        access.rename(tmp_path / "access.log.1")

        server.signal(signal.SIGUSR1)
        wait_until(lambda: access.exists() and log.exists(), "the files are there again")

        def logged_anew() -> bool:
            # A worker that has not come to its signal yet still writes to the old file.
            server.get("/after", port=port)
            return "/after" in text_of(access)

        wait_until(logged_anew, "requests are logged to the new file")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "shutdown complete" in text_of(log)
        assert "listening on" in text_of(tmp_path / "error.log.1")
        assert "/before" in text_of(tmp_path / "access.log.1")
        assert server.log() == ""


def test_access_log_goes_to_the_standard_output():
    with Served("plain:app", "--workers", "2") as server:
        server.get("/?a=1")
        wait_until(lambda: '"GET /?a=1 HTTP/1.1" 200 OK 13B' in server.stdout(), "the line of the request")


def text_of(path):
    return path.read_text() if path.exists() else ""


def port_in(path):
    _, found, after = text_of(path).partition("listening on http://127.0.0.1:")
    return int(after.split()[0]) if found and "\n" in after and "ready: " in after else 0
