"""The configuration as text reads back as the same configuration."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from aioserve.config import render
from aioserve.config.load import load
from aioserve.config.tree import Config, settings

REFERENCE = Path(__file__).parents[3] / "conf" / "aioserve.toml"

FLAGS = {
    "app": "main:app",
    "mount": ["/api=a:b", "/x=c:d"],
    "bind": [":80", "[::]:80"],
    "uds_mode": "600",
    "reuseport": True,
    "workers": "3",
    "header": ['X-Quote: "a\\b"', "X-Tab: a\tb", "X-L: é"],
    "timeout_body": "1.0005",
    "timeout_keep_alive": "90m",
    "limit_header_bytes": "32k",
    "limit_request_line": "1000",
    "forwarded_allow_ips": "10.0.0.0/8,unix:",
    "log_file": "/var/log/größe.log",
    "access_log": False,
    "use_colors": False,
}


def nothing(_path):
    raise FileNotFoundError


def from_text(text):
    return load(flags={}, environ={}, read=lambda _: text.encode(), need_app=False)


def test_the_reference_file_is_not_stale():
    assert REFERENCE.read_text() == render.reference(), "python -m aioserve.config.render > conf/aioserve.toml"


def test_the_reference_file_as_it_stands_changes_nothing():
    assert from_text(render.reference()).config == Config()


def test_the_reference_file_with_everything_uncommented_is_the_defaults():
    text = re.sub(r"^# (\w+ = )", r"\1", render.reference(), flags=re.MULTILINE)

    assert len([line for line in text.splitlines() if re.match(r"\w+ = ", line)]) == len(settings())
    assert from_text(text).config == Config()


def test_the_lines_of_the_reference_file_are_short():
    assert max(map(len, render.reference().splitlines())) <= 100


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_the_reference_file_gives_every_name_of_a_setting(setting):
    for name in (setting.flag, *setting.env):
        assert re.search(rf"(^|[\s/,]){re.escape(name)}($|[\s/,])", render.reference(), re.MULTILINE)


def test_print_config_shows_every_value_and_its_source():
    text = render.printed(load(flags={"app": "a:b", "port": "80"}, environ={"WEB_CONCURRENCY": "2"}, read=nothing))

    assert 'target = "a:b"  # APP' in text.splitlines()
    assert "port = 80  # --port" in text.splitlines()
    assert "workers = 2  # WEB_CONCURRENCY" in text.splitlines()
    assert '# host = "127.0.0.1"  # default' in text.splitlines()
    assert len([line for line in text.splitlines() if " = " in line]) == len(settings())


@pytest.mark.parametrize(
    "flags", [{}, FLAGS, {"uds": "/run/x y.sock"}, {"fd": "3"}, {"reload": True, "workers": "2", "reload_dir": ["x"]}]
)
def test_what_print_config_prints_loads_to_the_same_configuration(flags):
    loaded = load(flags=flags, environ={}, read=nothing, need_app=False)

    assert from_text(render.printed(loaded)).config == loaded.config


def test_print_config_is_toml():
    assert tomllib.loads(render.printed(load(flags=FLAGS, environ={}, read=nothing)))["process"]["workers"] == 3


def test_a_secret_is_not_printed_and_the_rest_is_still_a_configuration():
    flags = {"ssl_certfile": ["a"], "app": "a:b"}
    loaded = load(flags=flags, environ={"AIOSERVE_SSL_KEYFILE_PASSWORD": "xyzzy"}, read=nothing)
    text = render.printed(loaded)

    assert '# keyfile_password = "***"  # AIOSERVE_SSL_KEYFILE_PASSWORD' in text.splitlines()
    assert "xyzzy" not in text
    assert from_text(text).config.ssl == load(flags=flags, environ={}, read=nothing).config.ssl
