"""``aioserve tune``: the server's command line and a few options more, which say what to measure.

The options are read like the server's, as text, and every mistake ends in the same report.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aioserve.cli import Invocation, ServerCommand, configure, make_command, parse, report
from aioserve.config import load, values
from aioserve.errors import ConfigError
from aioserve.tune.answers import Question
from aioserve.tune.plan import CONNECTIONS, PATTERNS, Choice
from aioserve.tune.run import Wishes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioserve.config.files import Read
    from aioserve.config.load import Loaded
    from aioserve.config.tree import Config

_INTRODUCTION: Final = (
    "Put real load on APP under each accept pattern and several worker counts, and say which flags to use and why.\n\n"
    "Every candidate is a whole server on 127.0.0.1 and a free port, with all your settings: flags (aioserve --help), "
    "variables and aioserve.toml count as they do without tune. --workers N tries that count only, --accept PATTERN "
    "that pattern only. It takes about two minutes; Ctrl-C stops everything that was started."
)

_EPILOG: Final = """\
\b
Examples:
  aioserve tune main:app
  aioserve tune main:app --path /products --path '/search?q=tea'
  aioserve tune main:app --path /me --request-header 'Authorization: Bearer abc'
  aioserve tune shop:create_app --factory --workers 4 --plot tune.svg --json tune.json

\b
What the table says (> is recommended, (now) is how it is configured):
  kept connections   each client sends its next request at once
  new connections    the same, on a new connection for each request
  paced              the same rate for all, half of the middle one's; latencies are measured here

\b
Exit statuses:
  0    there is a recommendation      3    the application could not be imported or started
  1    it could not be measured       130  interrupted
  2    the configuration is wrong"""

#: The exit status for a wrong configuration.
WRONG: Final = 2

#: What the recommended flags take the place of.
_CHOSEN: Final = frozenset({*(pattern.counts for pattern in PATTERNS if pattern.counts), "accept", *load.SWITCHES})

#: wrk and the built-in client are one process each.
_MOST_CONNECTIONS: Final = 10_000
#: Less says nothing, and more is a patience that nobody has by intention.
_SHORTEST, _LONGEST = 0.3, 3600.0


class TuneCommand(ServerCommand):
    """Shows its own options; the server's have a help of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [option for option in self.get_params(ctx) if option.name in _NAMES or option.name in _SHOWN]
        records = [record for option in own if (record := option.get_help_record(ctx)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(records)


def _options() -> list[click.Option]:
    def option(name: str, metavar: str, text: str, *, multiple: bool = False) -> click.Option:
        return click.Option([name], metavar=metavar, type=click.UNPROCESSED, multiple=multiple, help=text)

    return [
        option("--path", "PATH", "what to ask for, with its query  [default: /; repeatable: in turns]", multiple=True),
        option("--request-header", "'NAME: VALUE'", "send this with every request  [repeatable]", multiple=True),
        option("--data", "TEXT|@FILE", "send this body, with POST"),
        option(
            "--connections",
            "N",
            f"as many clients at once  [default: {CONNECTIONS}, fewer where a request computes for long]",
        ),
        option("--seconds", "TIME", "under load, per candidate  [default: what two minutes in all allow]"),
        option("--plot", "FILE", "draw the table as SVG"),
        option("--json", "FILE|-", "write everything that was measured; -: to stdout, and the report to stderr"),
    ]


_NAMES: Final = frozenset(option.name for option in _options())
_SHOWN: Final = frozenset({"config_file", "help"})


def make_tune_command() -> click.Command:
    return make_command(TuneCommand, "aioserve tune", introduction=_INTRODUCTION, epilog=_EPILOG, further=_options())


def read_wishes(call: Invocation, loaded: Loaded | None, read: Read) -> tuple[Wishes, list[str]]:
    """What is to be measured, and the mistakes in how that was said."""
    own, mistakes = call.own, list[str]()

    def take(name: str, parse_value: Callable[[str], Any], default: Any = None) -> Any:
        text = own.get(name)
        if text is None:
            return default
        return _read_one(f"--{name.replace('_', '-')}", text, parse_value, mistakes)

    def take_all(name: str, parse_value: Callable[[str], Any]) -> tuple[Any, ...]:
        flag = f"--{name.replace('_', '-')}"
        return tuple(_read_one(flag, text, parse_value, mistakes) for text in own.get(name) or ())

    headers = take_all("request_header", values.parse_header)
    body = take("data", lambda text: _body(text, read))
    paths = take_all("path", _path) or ("/",)
    wishes = Wishes(
        questions=tuple(Question(path=path, headers=headers, body=body) for path in paths),
        choice=choice_of(loaded) if loaded is not None else Choice(),
        seconds=take("seconds", _within(values.parse_seconds, _SHORTEST, _LONGEST)),
        connections=take("connections", _within(values.parse_integer, 1, _MOST_CONNECTIONS)),
        plot=take("plot", _file, ""),
        json=take("json", lambda text: text if text == "-" else _file(text), ""),
        command=_command(call),
    )
    for name in ("print_config", "check_config"):
        if getattr(call, name):
            flag = f"--{name.replace('_', '-')}"
            mistakes.append(f"{flag}: it measures nothing; write it without tune: aioserve APP {flag}")
    return wishes, mistakes


def choice_of(loaded: Loaded) -> Choice:
    """What flags say is meant; what files and variables say is how it is now."""
    config, sources = loaded.config, loaded.sources
    said = [
        name for name in {pattern.counts for pattern in PATTERNS} if sources.get(f"process.{name}", "").startswith("--")
    ]
    accept = config.process.accept if sources["process.accept"].startswith("--") else ""
    return Choice(accept=accept, count=next((getattr(config.process, name) for name in said), 0))


def _read_one(flag: str, text: str, parse_value: Callable[[str], Any], mistakes: list[str]) -> Any:
    try:
        return parse_value(text.strip())
    except ValueError as error:
        mistakes.append(f"{flag}: {text!r} {error}")
        return None


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"is not a path; write /{text.lstrip('/')} (the load stays on this machine)")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("has characters that a request line cannot carry; percent-encode them, such as %20")
    return text


def _body(text: str, read: Read) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    try:
        return read(text[1:])
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None


def _file(text: str) -> str:
    """Where something is to be written: who has waited for two minutes is not to hear then that it cannot be."""
    path = Path(values.parse_text(text))
    if os.path.isdir(path):
        raise ValueError("is a directory; name a file")
    if not os.path.isdir(path.parent):
        raise ValueError(f"cannot be written: there is no directory {str(path.parent)!r}; make it, or name another")
    if not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise ValueError("cannot be written: permission denied")
    return text


def _command(call: Invocation) -> str:
    """How the server is started with what has been measured; "..." for flags that are no business of tune's."""
    words = ["aioserve"]
    if "app" in call.flags:
        words.append(shlex.quote(str(call.flags["app"])))
    if call.config_file or call.flags.keys() - _CHOSEN - {"app"}:
        words.append("...")
    return " ".join(words)


def _within(parse_value: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = parse_value(text)
        if not low <= value <= high:
            raise ValueError(f"is out of range; write {low:g} to {high:g}")
        return value

    return read


def main(argv: Sequence[str]) -> int:
    """Run ``aioserve tune``; the exit status."""
    try:
        config, wishes = read(argv)
        from aioserve.boot import tune

        return tune(config, wishes)
    except ConfigError as error:
        click.echo(report(error, "aioserve tune --help"), err=True)
        return WRONG
    except click.exceptions.Exit as done:
        return done.exit_code


def read(argv: Sequence[str]) -> tuple[Config, Wishes]:
    """The configuration and what is to be measured. Raises ``ConfigError`` with all mistakes."""
    call = parse(argv, make_tune_command())
    loaded, mistakes = None, list[str]()
    try:
        loaded = configure(call, os.environ, _read_file)
    except ConfigError as error:
        mistakes += error.problems
    wishes, further = read_wishes(call, loaded, _read_file)
    if loaded is None or further:
        raise ConfigError([*mistakes, *further])
    for note in loaded.notes:
        click.echo(f"aioserve: note: {note}", err=True)
    return loaded.config, wishes


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()
