"""argv to what is to be measured; that it is measured is shown by tests/process/test_tune.py."""

from __future__ import annotations

import os

import click
import pytest

from aioserve import cli_tune, commands
from aioserve.config.tree import settings
from aioserve.errors import ConfigError
from aioserve.tune.answers import Question
from aioserve.tune.plan import Choice


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A directory without a configuration file, and no variables that would count."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("AIOSERVE_") or name == "WEB_CONCURRENCY":
            monkeypatch.delenv(name)


def problems(*argv):
    with pytest.raises(ConfigError) as caught:
        cli_tune.read(argv)
    return caught.value.problems


def wishes(*argv):
    return cli_tune.read(("shop:app", *argv))[1]


def test_without_options_the_root_is_asked_for():
    assert wishes().questions == (Question(path="/"),)
    assert (wishes().connections, wishes().seconds, wishes().plot, wishes().json) == (None, None, "", "")


def test_settings_of_the_server_count():
    config, _ = cli_tune.read(["shop:create", "--factory", "--mount", "/api=api:app", "--no-access-log"])
    assert (config.app.target, config.app.factory, config.app.mount) == ("shop:create", True, ("/api=api:app",))
    assert not config.log.access


def test_options_say_what_to_measure(tmp_path):
    (tmp_path / "order.json").write_bytes(b"{}")
    found = wishes(
        *("--path", "/a", "--path", "/b?c=d", "--request-header", "Accept: */*", "--data", "@order.json"),
        *("--connections", "9", "--seconds", "500ms", "--plot", "x.svg", "--json", "-"),
    )
    assert found.questions == tuple(
        Question(path=path, headers=("Accept: */*",), body=b"{}") for path in ("/a", "/b?c=d")
    )
    assert (found.connections, found.seconds, found.plot, found.json) == (9, 0.5, "x.svg", "-")


def test_a_body_can_be_written_on_the_command_line():
    assert wishes("--data", "a=b").questions[0].body == b"a=b"


@pytest.mark.parametrize(
    ("argv", "choice"),
    [
        ([], Choice()),
        (["--workers", "4"], Choice(count=4)),
        (["--reuseport"], Choice(accept="reuseport")),
        (["--accept", "shared", "-w", "2"], Choice(accept="shared", count=2)),
    ],
)
def test_a_flag_for_workers_or_pattern_fixes_them(argv, choice):
    assert wishes(*argv).choice == choice


def test_a_file_and_a_variable_fix_nothing(monkeypatch, tmp_path):
    (tmp_path / "aioserve.toml").write_text('[process]\naccept = "reuseport"\n')
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    config, found = cli_tune.read(["shop:app"])
    assert (config.process.accept, config.process.workers, found.choice) == ("reuseport", 3, Choice())


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--path", "products"], "--path: 'products' is not a path; write /products (the load stays on this machine)"),
        (["--path", "http://x/"], "--path: 'http://x/' is not a path; write /http://x/"),
        (["--path", "/a b"], "--path: '/a b' has characters that a request line cannot carry"),
        (["--path", "/ä"], "--path: '/ä' has characters that a request line cannot carry"),
        (["--request-header", "nope"], "--request-header: 'nope' is not a header"),
        (["--data", "@nowhere"], "--data: '@nowhere' cannot be read: No such file or directory"),
        (["--connections", "0"], "--connections: '0' is out of range; write 1 to 10000"),
        (["--connections", "many"], "--connections: 'many' is not a whole number"),
        (["--seconds", "0"], "--seconds: '0' is out of range; write 0.3 to 3600"),
        (["--seconds"], "--seconds: needs a value"),
        (["--pth", "/"], "--pth: no such option; did you mean --path?"),
        (["--plot", "no/x.svg"], "--plot: 'no/x.svg' cannot be written: there is no directory 'no'; make it"),
        (["--json", "."], "--json: '.' is a directory; name a file"),
        (["--print-config"], "--print-config: it measures nothing; write it without tune: aioserve APP --print-config"),
        (["--check-config"], "--check-config: it measures nothing"),
    ],
)
def test_every_mistake_is_named(argv, problem):
    (line,) = problems("shop:app", *argv)
    assert line.startswith(problem)


def test_a_file_that_may_not_be_written_is_named_before_anything_is_measured(monkeypatch):
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    assert problems("shop:app", "--plot", "x.svg") == ["--plot: 'x.svg' cannot be written: permission denied"]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["shop:app", "--path", "/a", "--accept", "shared", "-w", "2"], "aioserve shop:app"),
        (["shop:app", "--reuseport"], "aioserve shop:app"),
        (["shop:create", "--factory", "--workers", "2"], "aioserve shop:create ..."),
        (["--mount", "/api=api:app"], "aioserve ..."),
        (["-c", "site.toml", "shop:app"], "aioserve shop:app ..."),
    ],
)
def test_the_command_to_start_the_server_is_known(argv, command, tmp_path):
    (tmp_path / "site.toml").write_text("")
    assert cli_tune.read(argv)[1].command == command


def test_mistakes_of_the_server_and_of_tune_are_in_one_report():
    lines = problems("--port", "x", "--path", "x", "--wrokers", "2")
    assert [line.partition(":")[0] for line in lines] == ["--wrokers", "--port", "APP", "--path"]


def test_notes_of_the_configuration_are_shown(capfd):
    cli_tune.read(["shop:app", "--limit-max-requests-jitter", "3"])
    assert "note: --limit-max-requests-jitter has no effect without --limit-max-requests" in capfd.readouterr().err


def test_the_help_shows_what_is_tunes_own():
    command = cli_tune.make_tune_command()
    text = command.get_help(click.Context(command, info_name=command.name, terminal_width=100, max_content_width=100))
    assert text.startswith("Usage: aioserve tune [OPTIONS] APP")
    assert all(f"  {name}" in text for name in ("--path", "--seconds", "--plot", "--json", "-c, --config"))
    options = text[text.index("Options:") : text.index("Examples:")]
    assert not [setting.flag for setting in settings() if f"{setting.flag} " in options]
    assert max(map(len, text.splitlines())) <= 100


def test_options_of_tune_are_none_of_the_servers():
    assert not cli_tune._NAMES & {setting.flat for setting in settings()}


@pytest.mark.parametrize(
    ("argv", "status", "out", "err"),
    [
        (["tune", "--help"], 0, "Usage: aioserve tune [OPTIONS] APP", ""),
        (
            ["tune"],
            2,
            "",
            "APP: missing; name the application as module:attribute, such as main:app\nSee aioserve tune",
        ),
        (["--help"], 0, "aioserve tune main:app", ""),
        (["main:app", "tune"], 2, "", "tune: one word too many"),
        (["--port", "1", "tune", "main:app"], 2, "", "APP: 'tune' is a command, which comes first: aioserve tune APP"),
    ],
)
def test_a_line_is_for_one_command(argv, status, out, err, capfd):
    with pytest.raises(SystemExit) as ended:
        commands.main(argv)
    written = capfd.readouterr()
    assert ended.value.code == status
    assert out in written.out
    assert err in written.err


@pytest.mark.parametrize(("line", "answer"), [("aioserve tune --pa", "--path"), ("aioserve --prel", "--preload")])
def test_the_shell_completes_the_options_of_either(line, answer, monkeypatch, capfd):
    monkeypatch.setenv("_AIOSERVE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit):
        commands.main([])
    assert answer in capfd.readouterr().out
