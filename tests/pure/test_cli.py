"""argv to configuration: what is taken, what is reported, what the help looks like."""

from __future__ import annotations

import re
import sys

import click
import pytest

from aioserve import __version__, cli
from aioserve.config.compat import REFUSED
from aioserve.config.tree import settings
from aioserve.errors import ConfigError


def reader(files):
    def read(path):
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path]

    return read


def configured(argv, environ=None, **files):
    named = {name.replace("_", "."): text for name, text in files.items()}
    return cli.configure(cli.parse(argv), {} if environ is None else environ, reader(named))


def problems(argv, environ=None, **files):
    with pytest.raises(ConfigError) as caught:
        configured(argv, environ, **files)
    return caught.value.problems


def help_text(width):
    command = cli.make_command()
    return command.get_help(click.Context(command, info_name="aioserve", terminal_width=width, max_content_width=width))


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ([], {}),
        (["main:app"], {"app": "main:app"}),
        (
            ["main:app", "-w", "2", "-b", ":80", "--bind", ":81"],
            {"app": "main:app", "workers": "2", "bind": (":80", ":81")},
        ),
        (["--workers=2", "main:app"], {"app": "main:app", "workers": "2"}),
        (["-w2"], {"workers": "2"}),
        (["--reload"], {"reload": True}),
        (["--no-reload"], {"reload": False}),
        (["--no-access-log", "--use-colors"], {"access_log": False, "use_colors": True}),
        (["--reuseport"], {"reuseport": True}),
        (["--host", ""], {"host": ""}),
        (["--port", "-1"], {"port": "-1"}),
        (["--header", "A: b", "--header", "C: d"], {"header": ("A: b", "C: d")}),
        (["--", "main:app"], {"app": "main:app"}),
    ],
)
def test_flags_are_taken_by_their_flat_names(argv, flags):
    call = cli.parse(argv)

    assert (call.flags, call.mistakes) == (flags, [])


@pytest.mark.parametrize("argv", [["-c", "x.toml"], ["--config", "x.toml"], ["--config=x.toml"]])
def test_the_file_is_named(argv):
    assert cli.parse(argv).config_file == "x.toml"


def test_what_to_do_instead_of_serving_is_no_setting():
    call = cli.parse(["--print-config", "--check-config"])

    assert (call.print_config, call.check_config, call.flags) == (True, True, {})


@pytest.mark.parametrize(
    ("argv", "mistakes"),
    [
        (["a:b", "--wrokers", "4"], ["--wrokers: no such option; did you mean --workers?"]),
        (["--wrokers=4", "a:b"], ["--wrokers: no such option; did you mean --workers?"]),
        (["--relaod", "a:b"], ["--relaod: no such option; did you mean --reload?"]),
        (["--frobnicate", "3", "a:b"], ["--frobnicate: no such option"]),
        (["a:b", "-x"], ["-x: no such option"]),
        (["a:b", "--ssl-new", "x"], ["--ssl-new: no such option"]),
        (["a:b", "--port"], ["--port: needs a value"]),
        (["a:b", "-w"], ["-w: needs a value"]),
        (["a:b", "-Dw"], ["-w: needs a value"]),
        (["a:b", "--reload=yes"], ["--reload: takes no value; leave it out"]),
        (["a:b", "c:d"], ["c:d: one word too many; there is one APP (further ones: --mount)"]),
        (["a:b", "--ssl-version=2", "--preload-app"], ["--ssl-version: use --ssl-m", "--preload-app: use --preload"]),
        (["a:b", "-k", "uvicorn.workers.UvicornWorker"], ["-k/--worker-class: there is one kind of worker"]),
        (["a:b", "--reload=1", "--wrokers", "4", "--port"], ["--reload: ", "--port: ", "--wrokers: "]),
    ],
)
def test_every_mistake_is_noted_and_the_rest_is_taken(argv, mistakes):
    call = cli.parse(argv)

    assert call.flags == {"app": "a:b"}
    assert [noted[: len(start)] for noted, start in zip(call.mistakes, mistakes, strict=True)] == mistakes


def test_a_command_of_a_later_version_is_refused():
    assert problems(["ctl", "status"]) == [
        "APP: 'ctl' is not in this version; signal the master instead (HUP reloads, TERM drains and stops)"
    ]


def test_mistakes_of_argv_variables_and_files_are_in_one_report():
    lines = problems(["--wrokers", "2", "--port"], {"AIOSERVE_NO": "1"}, aioserve_toml=b"[log]\nx = 1")

    assert [line.partition(":")[0] for line in lines] == ["--port", "--wrokers", "aioserve.toml", "AIOSERVE_NO", "APP"]


def test_print_config_needs_no_application():
    assert configured(["--print-config"]).config.app.target == ""


def test_the_report_counts_the_mistakes():
    assert cli.report(ConfigError(["a", "b"])) == (
        "aioserve: the configuration has 2 mistakes:\n  a\n  b\nSee aioserve --help."
    )


def test_the_report_of_one_mistake_is_singular():
    assert cli.report(ConfigError(["a"])).startswith("aioserve: the configuration has a mistake:\n  a\n")


def test_variables_from_a_file_count_and_reach_the_application():
    environ = {"MINE": "kept"}
    loaded = configured(
        ["a:b", "--env-file", "my.env"], environ, my_env=b"AIOSERVE_PORT=9\nMINE=lost\nOTHER='x y'\nBARE\n"
    )

    assert (loaded.config.listen.port, loaded.sources["listen.port"]) == (9, "AIOSERVE_PORT")
    assert environ == {"MINE": "kept", "OTHER": "x y", "AIOSERVE_PORT": "9"}


def test_variables_that_are_set_win_over_the_file():
    assert (
        configured(
            ["a:b", "--env-file", "my.env"], {"AIOSERVE_PORT": "1"}, my_env=b"AIOSERVE_PORT=9"
        ).config.listen.port
        == 1
    )


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, "--env-file: 'my.env' cannot be read: No such file or directory"),
        ({"my_env": b"\xff"}, "--env-file: 'my.env' is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_file_of_variables_that_cannot_be_read_is_a_mistake(files, line):
    assert problems(["a:b", "--env-file", "my.env"], **files) == [line]


def test_a_missing_dotenv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dotenv", None)

    assert problems(["a:b", "--env-file", "my.env"], my_env=b"") == [
        "--env-file: 'my.env' needs python-dotenv; pip install 'aioserve[dotenv]'"
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_of_the_help_is_wider_than_the_terminal(width):
    long = [line for line in help_text(width).splitlines() if len(line) > max(width, 100)]

    assert long == []


def test_the_help_is_made_for_a_hundred_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    command = cli.make_command()
    text = command.get_help(command.context_class(command, info_name="aioserve", **command.context_settings))

    assert 90 < max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_the_help_shows_every_setting(setting):
    assert re.search(rf"(^|\s){re.escape(setting.flag)}(\s|$)", help_text(100), re.MULTILINE)


@pytest.mark.parametrize("refused", REFUSED.values(), ids=lambda refused: refused.name)
def test_the_help_does_not_show_what_is_refused(refused):
    assert not re.search(rf"--{refused.name.replace('_', '-')}(\s|$)", help_text(100), re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        "Usage: aioserve [OPTIONS] APP",
        "Timeouts (30, 30s, 500ms, 5m, 1h):",
        "-w, --workers N|auto                  worker processes, up to 1024; auto: ",
        "--reuseport                           the same as --accept reuseport",
        "[repeatable]",
        "Exit statuses:",
    ],
)
def test_the_help_reads_like_this(text):
    assert text in help_text(100)


@pytest.mark.parametrize(
    ("argv", "environ", "status", "out", "err"),
    [
        (["--help"], {}, 0, "Usage: aioserve", ""),
        (["-h", "--port", "x"], {}, 0, "Usage: aioserve", ""),
        (["--version"], {}, 0, f"aioserve {__version__}, ", ""),
        (["--print-config", "--port", "9"], {}, 0, "port = 9  # --port", ""),
        (["--port", "x", "a:b"], {}, 2, "", "--port: 'x' is not a whole number"),
        ([], {}, 2, "", "APP: missing"),
        ([], {"_AIOSERVE_COMPLETE": "bash_source"}, 0, "complete", ""),
        (
            [],
            {"_AIOSERVE_COMPLETE": "bash_complete", "COMP_WORDS": "aioserve --loop uv", "COMP_CWORD": "2"},
            0,
            "uvloop",
            "",
        ),
        (["--check-config", "no_such_module_anywhere:app"], {}, 3, "", "no_such_module_anywhere"),
        (["--check-config", "aioserve.example:app"], {}, 0, "configuration OK", ""),
    ],
)
def test_main_ends_with_its_status(argv, environ, status, out, err, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as ended:
        cli.main(argv)

    written = capfd.readouterr()
    assert ended.value.code == status
    assert out in written.out
    assert err in written.err


def test_versions_are_named_even_of_what_is_missing():
    assert re.fullmatch(
        r"aioserve \S+, CPython [\d.]+\S*, (uvloop \S+|no uvloop), (httptools \S+|no httptools)", cli.version_text()
    )


def test_a_package_that_is_missing_is_said_to_be():
    assert cli._installed("no-such-package-anywhere") == "no no-such-package-anywhere"
