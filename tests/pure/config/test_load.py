"""Layers: which one wins, where each value came from, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioserve.config.load import env_file, from_settings, load
from aioserve.config.tree import Config
from aioserve.errors import ConfigError


def loaded(flags=None, environ=None, files=None, **rest):
    return load(flags={"app": "main:app", **(flags or {})}, environ=environ or {}, read=reader(files), **rest)


def reader(files):
    def read(path):
        if path not in (files or {}):
            raise FileNotFoundError(path)
        return files[path].encode()

    return read


def problems(*args, **rest):
    with pytest.raises(ConfigError) as caught:
        loaded(*args, **rest)
    return caught.value.problems


def test_nothing_given_is_the_defaults():
    result = loaded({"app": None}, need_app=False)

    assert result.config == Config()
    assert set(result.sources.values()) == {"default"}


LAYERS = {
    "files": {"aioserve.toml": "[timeout]\nbody = 1\nheader = 1\nwrite = 1"},
    "environ": {"AIOSERVE_TIMEOUT_HEADER": "2", "AIOSERVE_TIMEOUT_WRITE": "2s"},
    "flags": {"timeout_write": "3"},
}


@pytest.mark.parametrize(
    ("field", "value", "source"),
    [
        ("keep_alive", 75.0, "default"),
        ("body", 1.0, "aioserve.toml: timeout.body"),
        ("header", 2.0, "AIOSERVE_TIMEOUT_HEADER"),
        ("write", 3.0, "--timeout-write"),
    ],
)
def test_defaults_file_variables_and_flags_win_in_this_order(field, value, source):
    result = loaded(**LAYERS)

    assert getattr(result.config.timeout, field) == value
    assert result.sources[f"timeout.{field}"] == source


@pytest.mark.parametrize(
    ("environ", "workers", "source"),
    [
        ({"WEB_CONCURRENCY": "3"}, 3, "WEB_CONCURRENCY"),
        ({"WEB_CONCURRENCY": "3", "AIOSERVE_WORKERS": "4"}, 4, "AIOSERVE_WORKERS"),
        ({"WEB_CONCURRENCY": "3", "AIOSERVE_WORKERS": ""}, 3, "WEB_CONCURRENCY"),
        ({"WEB_CONCURRENCY": ""}, 1, "default"),
    ],
)
def test_our_variable_wins_over_the_general_one_and_an_empty_one_is_not_set(environ, workers, source):
    result = loaded(environ=environ)

    assert (result.config.process.workers, result.sources["process.workers"]) == (workers, source)


def test_an_empty_list_in_a_variable_is_an_empty_list():
    assert loaded(environ={"FORWARDED_ALLOW_IPS": ""}).config.proxy.forwarded_allow_ips == ()


def test_a_list_in_a_variable_is_parted_by_commas():
    assert loaded(environ={"AIOSERVE_BIND": ":80, unix:/run/x"}).config.listen.bind == ("0.0.0.0:80", "unix:/run/x")


def test_headers_in_a_variable_are_parted_by_lines():
    assert loaded(environ={"AIOSERVE_HEADER": "A: b, c\nD: e\n"}).config.http.header == ("A: b, c", "D: e")


def test_a_repeatable_flag_is_not_parted():
    assert loaded({"header": ("A: b, c",)}).config.http.header == ("A: b, c",)


def test_a_comma_flag_is_parted():
    assert loaded({"forwarded_allow_ips": "10.0.0.0/8,*"}).config.proxy.forwarded_allow_ips == ("10.0.0.0/8", "*")


def test_a_higher_layer_replaces_a_list_as_a_whole():
    files = {"aioserve.toml": '[http]\nheader = ["A: b"]'}

    assert loaded({"header": ["C: d"]}, files=files).config.http.header == ("C: d",)


TOML = """
[app]
target = "shop:app"
[listen]
uds_mode = 0o600
backlog = 64
[log]
access = false
colors = "auto"
[limit]
request_body = "1MiB"
[timeout]
body = 2.5
"""


def test_toml_gives_native_values_and_text():
    config = load(flags={}, environ={}, read=reader({"aioserve.toml": TOML})).config

    assert (config.app.target, config.listen.uds_mode, config.listen.backlog) == ("shop:app", 0o600, 64)
    assert (config.log.access, config.log.colors) == (False, None)
    assert (config.limit.request_body, config.timeout.body) == (1 << 20, 2.5)


PROJECT = {"pyproject.toml": "[tool.aioserve.listen]\nport = 1"}


@pytest.mark.parametrize(
    ("files", "config_file", "environ", "port", "source"),
    [
        (PROJECT, "", {}, 1, "pyproject.toml: listen.port"),
        ({**PROJECT, "aioserve.toml": "[listen]\nport = 2"}, "", {}, 2, "aioserve.toml: listen.port"),
        ({**PROJECT, "x.toml": "[listen]\nport = 3"}, "x.toml", {}, 3, "x.toml: listen.port"),
        ({**PROJECT, "x.toml": "[listen]\nport = 3"}, "", {"AIOSERVE_CONFIG": "x.toml"}, 3, "x.toml: listen.port"),
        (
            {"sub/pyproject.toml": PROJECT["pyproject.toml"]},
            "sub/pyproject.toml",
            {},
            1,
            "sub/pyproject.toml: listen.port",
        ),
        ({"pyproject.toml": "[tool.other]\nx = 1"}, "", {}, 8000, "default"),
        ({"pyproject.toml": "tool = 1"}, "", {}, 8000, "default"),
    ],
)
def test_the_file_is_the_one_named_or_the_first_that_is_there(files, config_file, environ, port, source):
    result = loaded(files=files, config_file=config_file, environ=environ)

    assert (result.config.listen.port, result.sources["listen.port"]) == (port, source)


def test_the_switch_stands_for_a_value():
    result = loaded({"reuseport": True})

    assert (result.config.process.accept, result.sources["process.accept"]) == ("reuseport", "--reuseport")


def test_the_switch_works_as_a_variable():
    result = loaded(environ={"AIOSERVE_REUSEPORT": "1"})

    assert (result.config.process.accept, result.sources["process.accept"]) == ("reuseport", "AIOSERVE_REUSEPORT")


def test_the_switch_wins_over_a_lower_layer():
    assert loaded({"reuseport": True}, environ={"AIOSERVE_ACCEPT": "shared"}).config.process.accept == "reuseport"


@pytest.mark.parametrize("value", ["0", ""])
def test_a_switch_that_is_off_says_nothing(value):
    assert loaded(environ={"AIOSERVE_REUSEPORT": value}).config.process.accept == "shared"


def test_variables_of_a_kubernetes_service_are_none_of_ours():
    environ = {
        "AIOSERVE_SERVICE_HOST": "10.0.0.1",
        "AIOSERVE_SERVICE_PORT": "80",
        "AIOSERVE_SERVICE_PORT_HTTP": "80",
        "AIOSERVE_PORT": "tcp://10.0.0.1:80",
        "AIOSERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "AIOSERVE_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert loaded(environ=environ).config.listen.port == 8000


FILE = "aioserve.toml"


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("[wrokers]\nx = 1", "wrokers: no such section"),
        ("[timeouts]\nx = 1", "timeouts: no such section; did you mean timeout?"),
        ("workers = 2", "workers: no such section; write workers in [process]"),
        ("log-level = 'info'", "log-level: no such section; write level in [log]"),
        ("log = 1", "log: 1 is not a table; write [log] and the settings below it"),
        ("[timeout]\nkeep_alvie = 1", "timeout.keep_alvie: no such setting; did you mean keep_alive?"),
        ("[timeout]\nkeep-alive = 1", "timeout.keep-alive: no such setting; did you mean keep_alive?"),
        ("[process]\nreuseport = true", 'process.reuseport: no such setting; write accept = "reuseport" in [process]'),
        ("[process]\nport = 1", "process.port: no such setting here; write port in [listen]"),
        ("[listen]\nport = true", "listen.port: True is not a whole number"),
        ("[listen]\nport = 70000", "listen.port: 70000 is out of range; write 0 to 65535"),
        ("[listen]\nbind = 1", "listen.bind: 1 is not a list, each element an address such as 0.0.0.0:8000"),
        ("[listen]\nbind = [1]", "listen.bind: 1 is not an address such as 0.0.0.0:8000"),
        ("[limit]\nconcurrency = -1", "limit.concurrency: -1 is too small; write 0 or more"),
        ("[timeout]\nbody = 0", "timeout.body: 0 is too small; write 1ms or more"),
        ("[process]\npreload_app = true", "process.preload_app: use --preload"),
        ("[ws]\nmode = 'wsproto'", "ws.mode: 'wsproto' is not needed: there is one implementation"),
        ("[ssl]\nkeyfile = ['x']", "ssl.keyfile: a key and no certificate for it; add --ssl-certfile"),
        ("[ssl]\nminimum_version = 1.1", "ssl.minimum_version: 1.1 is broken, and browsers refuse it"),
        ("[ssl]\nversion = 17", "ssl.version: use --ssl-minimum-version"),
        ("[timeout]\nworker_healthcheck = 1", "timeout.worker_healthcheck: use --timeout-worker"),
    ],
)
def test_a_mistake_in_the_file_names_file_key_and_remedy(toml, line):
    (problem,) = problems(files={FILE: toml})

    assert problem.startswith(f"{FILE}: {line}")


@pytest.mark.parametrize(
    ("files", "config_file", "start"),
    [
        ({}, "no.toml", "no.toml: no such file"),
        ({}, "gunicorn.conf.py", "gunicorn.conf.py: is a Python file; write the settings in TOML"),
        ({"x.toml": "a ="}, "x.toml", "x.toml: is not TOML: "),
        ({"pyproject.toml": "a = 1"}, "pyproject.toml", "pyproject.toml: has no [tool.aioserve]"),
        ({"pyproject.toml": "tool.aioserve = 1"}, "", "pyproject.toml: tool.aioserve: 1 is not a table"),
    ],
)
def test_a_mistaken_file_is_named(files, config_file, start):
    (problem,) = problems(files=files, config_file=config_file)

    assert problem.startswith(start)


def test_a_file_that_is_not_utf_8_is_named():
    with pytest.raises(ConfigError, match=r"^aioserve\.toml: is not UTF-8"):
        load(flags={"app": "a:b"}, environ={}, read=lambda _: b"\xff")


def test_a_file_that_cannot_be_read_is_named():
    def read(_path):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(ConfigError, match=r"^aioserve\.toml: cannot be read: Permission denied$"):
        load(flags={"app": "a:b"}, environ={}, read=read)


@pytest.mark.parametrize(
    ("environ", "start"),
    [
        ({"AIOSERVE_WROKERS": "1"}, "AIOSERVE_WROKERS: no such variable; did you mean AIOSERVE_WORKERS?"),
        ({"AIOSERVE_XYZZY": "1"}, "AIOSERVE_XYZZY: no such variable"),
        ({"AIOSERVE_WS": "websockets"}, "AIOSERVE_WS: 'websockets' is not needed: there is one implementation"),
        ({"AIOSERVE_CERTFILE": "x"}, "AIOSERVE_CERTFILE: use --ssl-certfile"),
        ({"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY: 'many' is not a whole number"),
        ({"AIOSERVE_WORKERS": "0"}, "AIOSERVE_WORKERS: '0' is out of range; write 1 to 1024"),
        ({"AIOSERVE_PORT": "tpc://x"}, "AIOSERVE_PORT: 'tpc://x' is not a whole number"),
        ({"AIOSERVE_REUSEPORT": "maybe"}, "AIOSERVE_REUSEPORT: 'maybe' is neither true nor false"),
    ],
)
def test_a_mistaken_variable_is_named(environ, start):
    (problem,) = problems(environ=environ)

    assert problem.startswith(start)


@pytest.mark.parametrize(
    ("flags", "start"),
    [
        ({"app": "main"}, "APP: 'main' is not of the form module:attribute"),
        ({"timeout_body": "soon"}, "--timeout-body: 'soon' is not a duration; write 30, 30s"),
        ({"http": "zttp"}, "--http: 'zttp' is not supported; use httptools"),
        ({"log_level": "warn"}, "--log-level: 'warn' is not one of"),
        ({"header": ["x" * 500]}, "--header: '" + "x" * 99 + "... is not a header"),
        ({"accept": "shared", "reuseport": True}, "--reuseport means --accept reuseport, but --accept says shared"),
        ({"accept": "dispatch", "reuseport": True}, "--reuseport means --accept reuseport, but --accept says dispatch"),
        ({"wokers": "2"}, "wokers=: no such setting; did you mean workers?"),
    ],
)
def test_a_mistaken_flag_is_named(flags, start):
    (problem,) = problems(flags)

    assert problem.startswith(start)


def test_all_mistakes_of_all_layers_are_in_one_report_in_their_order():
    lines = problems(
        {"port": "x", "bind": ["8000"], "mount": ["/a=b:c", "/a=d:e"]},
        {"AIOSERVE_NO": "1", "WEB_CONCURRENCY": "0"},
        {FILE: "[log]\nlevel = 'loud'\nx = 1"},
        mistakes=["--no: no such option"],
    )

    assert [line.split(": ")[0] for line in lines] == [
        "--no",
        FILE,
        FILE,
        "WEB_CONCURRENCY",
        "AIOSERVE_NO",
        "--port",
        "--bind",
        "--mount",
    ]


def test_without_an_application_the_report_says_so():
    assert problems({"app": None}) == ["APP: missing; name the application as module:attribute, such as main:app"]


def test_mounts_are_enough_of_an_application():
    assert loaded({"app": None, "mount": ["/api=a:b"]}).config.app.mount == ("/api=a:b",)


def test_keywords_take_python_values():
    config = from_settings(
        workers=2, port="9000", timeout_body=1.5, log_file=Path("/x/y"), bind=None, header=["A: b"], access_log=False
    )

    assert (config.process.workers, config.listen.port, config.timeout.body) == (2, 9000, 1.5)
    assert (config.log.file, config.http.header, config.log.access) == ("/x/y", ("A: b",), False)


def test_keywords_take_paths_in_lists():
    assert from_settings(reload_dir=[Path("a"), "b"]).reload.dirs == ("a", "b")


def test_mistaken_keywords_are_all_named():
    with pytest.raises(ConfigError) as caught:
        from_settings(worker=2, port=-1, ws="sansio", reuseport=True, accept="single")

    assert [line.split(":")[0] for line in caught.value.problems] == [
        "worker=",
        "port=",
        "ws=",
        "reuseport= means --accept reuseport, but accept= says single; leave one out",
    ]


@pytest.mark.parametrize(
    ("flags", "environ", "files", "path"),
    [
        ({}, {}, {}, ""),
        ({"env_file": "a"}, {"AIOSERVE_ENV_FILE": "b"}, {FILE: "[app]\nenv_file = 'c'"}, "a"),
        ({}, {"AIOSERVE_ENV_FILE": "b"}, {FILE: "[app]\nenv_file = 'c'"}, "b"),
        ({}, {}, {FILE: "[app]\nenv_file = 'c'"}, "c"),
        ({}, {}, {FILE: "a ="}, ""),
    ],
)
def test_the_file_of_variables_is_found_before_the_variables_count(flags, environ, files, path):
    assert env_file(flags=flags, environ=environ, read=reader(files)) == path
