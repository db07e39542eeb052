from __future__ import annotations

import pytest

from aioserve.errors import ConfigError
from aioserve.worker.lifespan import Lifespan
from aioserve.worker.mount import Mounts, clean_prefix, not_found


def entry(prefix: str):
    async def app(scope, receive, send): ...

    app.__name__ = prefix
    lifespan = Lifespan(app, mode="off", startup_timeout=1, shutdown_timeout=1, name=prefix)
    lifespan.state["of"] = prefix
    return prefix, app, lifespan


def scope(path: str) -> dict:
    return {"type": "http", "path": path, "raw_path": path.encode(), "root_path": ""}


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/api/x", "/api"),
        ("/apix", ""),
        ("/api/v2", "/api/v2"),
        ("/api/v2/x", "/api/v2"),
        ("/api/v20", "/api"),
        ("/", ""),
        ("*", ""),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(path, prefix):
    mounts = Mounts([entry(""), entry("/api"), entry("/api/v2")])
    assert mounts.resolve(path).prefix == prefix


def test_nothing_is_found_outside_of_all_mounts():
    mounts = Mounts([entry("/api")])
    assert mounts.resolve("/other") is None
    assert mounts.enter(scope("/other")).app is not_found


def test_path_stays_whole_and_root_path_is_the_mounts():
    mounts = Mounts([entry("/api/")])
    seen = scope("/api/x")
    mounts.enter(seen)
    assert (seen["path"], seen["raw_path"], seen["root_path"]) == ("/api/x", b"/api/x", "/api")


def test_the_servers_root_path_comes_in_front_of_everything():
    mounts = Mounts([entry(""), entry("/api")], root_path="/späti/")
    seen = scope("/api/x")
    mounts.enter(seen)
    assert seen["path"] == "/späti/api/x"
    assert seen["raw_path"] == b"/sp%C3%A4ti/api/x"
    assert seen["root_path"] == "/späti/api"


def test_the_asterisk_of_options_has_no_root_path_in_front():
    seen = scope("*")
    Mounts([entry("")], root_path="/base").enter(seen)
    assert (seen["path"], seen["root_path"]) == ("*", "/base")


def test_each_request_gets_its_own_copy_of_its_mounts_state():
    mounts = Mounts([entry("/a"), entry("/b")])
    one, two = scope("/a"), scope("/a")
    mounts.enter(one)
    one["state"]["of"] = "changed"
    mounts.enter(two)
    assert two["state"] == {"of": "/a"}


def test_an_application_on_its_own_is_the_lone_one():
    lone = Mounts([entry("")]).lone
    assert lone is not None
    assert lone.state == {"of": ""}


@pytest.mark.parametrize(("prefixes", "root_path"), [(["", "/a"], ""), (["/a"], ""), ([""], "/base"), ([], "")])
def test_there_is_no_lone_application_where_paths_tell_something(prefixes, root_path):
    assert Mounts([entry(prefix) for prefix in prefixes], root_path=root_path).lone is None


def test_two_applications_at_one_place_are_refused():
    with pytest.raises(ConfigError, match="two applications have the prefix /api"):
        Mounts([entry("/api"), entry("/api/")])


@pytest.mark.parametrize(("written", "clean"), [("", ""), ("/", ""), ("/api", "/api"), ("/api/", "/api")])
def test_a_prefix_loses_its_last_slash(written, clean):
    assert clean_prefix(written) == clean


def test_a_prefix_that_is_no_path_is_refused():
    with pytest.raises(ConfigError, match="must begin with /"):
        clean_prefix("api")


async def test_not_found_answers_http_with_404_and_websockets_with_a_close():
    sent = []

    async def send(message):
        sent.append(message)

    await not_found({"type": "http"}, None, send)
    await not_found({"type": "websocket"}, None, send)
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body", "websocket.close"]
    assert sent[0]["status"] == 404


def test_a_mount_may_have_a_limit_of_its_own():
    mounts = Mounts([entry(""), entry("/up")], body_limit=10, body_limits={"/up": 1000})
    assert mounts.enter(scope("/")).body_limit == 10
    assert mounts.enter(scope("/up/x")).body_limit == 1000
    assert Mounts([entry("/up")], body_limit=10).enter(scope("/")).body_limit == 10
