"""The command line: argv becomes a ``Config``, and the configuration a running server.

click parses; every option takes text and ``config.load`` validates, so that a wrong port, an unknown option and a
wrong variable end in one report. The options are made from the tree; nothing here lists settings. ``main`` alone
touches the environment and the file system; ``parse`` and ``configure`` are given both.
"""

from __future__ import annotations

import gc
import io
import os
import platform
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem, shell_complete

from aioserve.config import load, render
from aioserve.config.compat import REFUSED, REFUSED_VALUES, Refused, refusal
from aioserve.config.tree import Setting, sections, settings
from aioserve.config.values import nearest
from aioserve.errors import BootError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence

    from aioserve.config.files import Read
    from aioserve.config.tree import Config

#: The exit status of a command whose output nobody reads.
UNREAD: Final = 1

_INTRODUCTION = (
    "Serve APP, an ASGI application named as module:attribute, over HTTP/1.1.\n\n"
    "Every setting is also a variable (--log-level: AIOSERVE_LOG_LEVEL) and a TOML key (aioserve.toml, or "
    "[tool.aioserve] in pyproject.toml). Defaults < file < variables < flags. Every switch has a --no- form."
)

_EPILOG = """\
\b
Examples:
  aioserve main:app
  aioserve tune main:app      (which accept pattern, how many workers? see aioserve tune --help)
  aioserve main:app --workers 4 --reuseport --bind 0.0.0.0:8000 --bind unix:/run/app.sock
  aioserve shop:create_app --factory --reload
  aioserve site:app --mount /api=api.main:app --print-config

\b
Exit statuses:
  0  stopped as asked          3  the application could not be imported or started
  1  the server failed         4  an address could not be bound
  2  the configuration is wrong"""

# Wide enough for `--proxy-headers / --no-proxy-headers`, with 58 columns of a hundred left for the text.
_FIRST_COLUMN = 36


# A space at which click does not wrap: a short bracket stays in one piece.
_TIED = "\xa0"

# The heading of options that are no settings.
_META = "Configuration and information"


class ServerCommand(click.Command):
    """A click command whose help is grouped by the tree's sections, in one column grid."""

    def get_help(self, ctx: click.Context) -> str:
        return super().get_help(ctx).replace(_TIED, " ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in [*sections().values(), _META]}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                # click measures the first column per group; padding aligns the groups with one another.
                groups[_heading(param)].append((record[0].ljust(_FIRST_COLUMN), record[1]))
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=_FIRST_COLUMN)


def _heading(option: click.Option) -> str:
    setting = load.SETTINGS.get(option.name or "") or load.SWITCHES.get(option.name or "", (None, ""))[0]
    return _META if setting is None else sections()[setting.section]


class SettingOption(click.Option):
    """An option that shows what the tree knows: choices, range, default."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        name = setting.flag.removeprefix("--")
        declared = [f"-{setting.doc.short}"] if setting.doc.short else []
        switch = setting.is_switch
        super().__init__(
            [
                *declared,
                f"--{name}/--no-{name}" if switch else f"--{name}",
                *(f"--{other}" for other in setting.doc.also),
                setting.flat,
            ],
            type=None if switch else click.UNPROCESSED,
            default=None,
            multiple=setting.doc.repeatable,
            help=setting.doc.help,
            shell_complete=_complete_choice,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:  # noqa: ARG002  click's signature
        setting = self.setting
        term = ", ".join([*(f"-{short}" for short in setting.doc.short), setting.flag])
        if not setting.is_switch:
            term += f" {setting.metavar}"
        elif setting.default is not False:
            term += f" / --no-{setting.flag.removeprefix('--')}"
        facts = []
        if setting.kind.choices and setting.doc.metavar:
            facts.append(", ".join(setting.kind.choices))
        if default := render.default_text(setting):
            facts.append(f"default: {default}")
        facts += filter(None, [render.limits(setting), "repeatable" if setting.doc.repeatable else ""])
        bracket = f"[{'; '.join(facts)}]" if facts else ""
        return term, f"{setting.doc.help}  {bracket.replace(' ', _TIED) if len(bracket) < 40 else bracket}".rstrip()


def _complete_choice(_ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    options = param.setting.kind.choices if isinstance(param, SettingOption) else ()
    return [CompletionItem(option) for option in options if option.startswith(incomplete)]


def _show_version(context: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(version_text())
        context.exit()


def _show_help(context: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(context.get_help())
        context.exit()


def version_text() -> str:
    from aioserve.version import __version__

    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"aioserve {__version__}, {python}, {_installed('uvloop')}, {_installed('httptools')}"


def _installed(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"no {package}"


def make_command(
    kind: type[click.Command] = ServerCommand,
    name: str = "aioserve",
    *,
    introduction: str = _INTRODUCTION,
    epilog: str = _EPILOG,
    further: Sequence[click.Option] = (),
) -> click.Command:
    """The command with every option of the tree, those that are refused (hidden), and those that are no settings.

    ``further`` are options of a command of its own, which takes the server's as well.
    """
    return kind(
        name,
        params=[
            # Everything that is no known option: APP, and what nobody knows.
            click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="APP"),
            *further,
            *(option for setting in settings() if not setting.doc.positional for option in _options(setting)),
            *map(_refused_option, REFUSED.values()),
            *_meta_options(),
        ],
        help=introduction,
        epilog=epilog,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "max_content_width": 100},
    )


def _options(setting: Setting) -> list[click.Option]:
    switches = [
        click.Option([f"--{name}", name], is_flag=True, default=None, help=f"the same as {setting.flag} {value}")
        for name, value in setting.doc.switches
    ]
    return [SettingOption(setting), *switches]


def _refused_option(refused: Refused) -> click.Option:
    names = [f"-{refused.short}"] if refused.short else []
    # click has to know whether a value follows, or the value would be taken for APP.
    return click.Option(
        [*names, f"--{refused.name.replace('_', '-')}", f"refused_{refused.name}"],
        type=click.UNPROCESSED if refused.value else None,
        is_flag=not refused.value,
        default=None,
        hidden=True,
    )


def _meta_options() -> list[click.Option]:
    def action(name: str, callback: Callable[..., None], text: str, *short: str) -> click.Option:
        return click.Option(
            [*short, name], is_flag=True, is_eager=True, expose_value=False, callback=callback, help=text
        )

    return [
        click.Option(["-c", "--config", "config_file"], metavar="FILE", default="", help="the TOML file to read"),
        click.Option(["--print-config"], is_flag=True, help="print every value with its source, and exit"),
        click.Option(["--check-config"], is_flag=True, help="check the settings, import APP, and exit"),
        action("--version", _show_version, "print the versions, and exit"),
        action("--help", _show_help, "print this help, and exit", "-h"),
    ]


@dataclass(frozen=True, slots=True)
class Invocation:
    """What argv says: settings by flat name, the options that are none, and the mistakes made so far.

    ``own`` are the options of a command that has some beside the server's.
    """

    flags: dict[str, object]
    config_file: str
    print_config: bool
    check_config: bool
    mistakes: list[str]
    own: dict[str, Any]


def parse(argv: Sequence[str], command: click.Command | None = None) -> Invocation:
    """Read argv; ends in ``click.exceptions.Exit`` after --help and --version."""
    command = command or make_command()
    args, mistakes = list(argv), list[str]()
    while True:
        try:
            context = command.make_context(command.name, list(args))
            break
        except click.BadOptionUsage as error:
            # A missing value, or one where none belongs: note it, and go on without that word to find the others.
            mistakes.append(f"{error.option_name}: {_reason(error)}")
            del args[_guilty(args, error.option_name)]
    params: dict[str, Any] = dict(context.params)
    for name in REFUSED:
        if params.pop(f"refused_{name}", None) not in {None, False}:
            mistakes.append(f"{REFUSED[name].flag}: {REFUSED[name].sentence}")
    app, unknown = _sort_out(params.pop("words"), command)
    known = {*load.SETTINGS, *load.SWITCHES, "config_file", "print_config", "check_config"}
    own = {name: params.pop(name) for name in params.keys() - known}
    return Invocation(
        config_file=params.pop("config_file"),
        print_config=params.pop("print_config"),
        check_config=params.pop("check_config"),
        # Without an occurrence, a repeatable option is an empty tuple.
        flags={**({"app": app} if app else {}), **{k: v for k, v in params.items() if v is not None and v != ()}},
        mistakes=mistakes + unknown,
        own=own,
    )


def _reason(error: click.BadOptionUsage) -> str:
    return "takes no value; leave it out" if "does not take" in error.message else "needs a value"


def _guilty(args: list[str], name: str) -> int:
    """The index of the last word that holds the option; a cluster of short ones holds its last letter."""
    for index in reversed(range(len(args))):
        word = args[index]
        if word == name or word.startswith(f"{name}="):
            return index
    return len(args) - 1


def _sort_out(words: Sequence[str], command: click.Command) -> tuple[str, list[str]]:
    """APP, and a line for every option that nobody knows and every word too many."""
    options = {name: param for param in command.params for name in param.opts if name.startswith("--")}
    known = {name.removeprefix("--") for name, param in options.items() if not getattr(param, "hidden", False)}
    left, mistakes, positional, doubtful = list(words), [], list[str](), False
    while left:
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        if not name.startswith("-") or name == "-":
            positional.append(word)
            continue
        bare = name.lstrip("-")
        near = nearest(bare, known)
        hint = f"; did you mean --{near}?" if near else ""
        mistakes.append(f"{name}: {refusal(bare.replace('-', '_')) or 'no such option' + hint}")
        takes_value = bool(near) and not getattr(options[f"--{near}"], "is_flag", False)
        if takes_value and not equals and left and not left[0].startswith("-"):
            left.pop(0)
        doubtful = doubtful or not near
    if doubtful:
        # Some of these words may be values of options that nobody knows.
        positional = [word for word in positional if ":" in word][:1]
    if positional and ("app.target", positional[0]) in REFUSED_VALUES:
        del positional[1:]
    mistakes += [f"{extra}: one word too many; there is one APP (further ones: --mount)" for extra in positional[1:]]
    return (positional or [""])[0], mistakes


def configure(call: Invocation, environ: MutableMapping[str, str], read: Read) -> load.Loaded:
    """All layers together. The variables of --env-file are added to ``environ``, for us and for the application."""
    mistakes = list(call.mistakes)
    path = load.env_file(flags=call.flags, environ=environ, read=read, config_file=call.config_file)
    if path:
        mistakes += _read_env_file(path, environ, read)
    return load.load(
        flags=call.flags,
        environ=environ,
        read=read,
        config_file=call.config_file,
        mistakes=mistakes,
        need_app=not call.print_config,
    )


def _read_env_file(path: str, environ: MutableMapping[str, str], read: Read) -> list[str]:
    try:
        from dotenv import dotenv_values
    except ImportError:
        return [f"--env-file: {path!r} needs python-dotenv; pip install 'aioserve[dotenv]'"]
    try:
        text = read(path).decode()
    except OSError as error:
        return [f"--env-file: {path!r} cannot be read: {error.strerror or error}"]
    except UnicodeDecodeError:
        return [f"--env-file: {path!r} is not UTF-8; save it as UTF-8"]
    for name, value in dotenv_values(stream=io.StringIO(text)).items():
        if value is not None:
            environ.setdefault(name, value)
    return []


def report(error: ConfigError, advice: str = "aioserve --help") -> str:
    count = len(error.problems)
    title = "the configuration has a mistake" if count == 1 else f"the configuration has {count} mistakes"
    lines = "\n".join(f"  {line}" for line in error.problems)
    return f"aioserve: {title}:\n{lines}\nSee {advice}."


def complete(command: click.Command) -> None:
    """Exit with what completes the line, if the shell asks for that."""
    if instruction := os.environ.get("_AIOSERVE_COMPLETE"):
        sys.exit(shell_complete(command, {}, "aioserve", "_AIOSERVE_COMPLETE", instruction))


@contextmanager
def printing() -> Iterator[None]:
    """Print within this what a command is for: where nobody reads it (``| head`` has had enough), the process ends."""
    try:
        yield
    except BrokenPipeError:
        # What is still buffered has no place to go, and Python would say so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNREAD)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the server's command line and exit with its status."""
    environ, directory = dict(os.environ), Path.cwd()
    try:
        with printing():
            complete(make_command())
            call = parse(sys.argv[1:] if argv is None else argv)
        loaded = configure(call, os.environ, lambda path: Path(path).read_bytes())
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except ConfigError as error:
        click.echo(report(error), err=True)
        sys.exit(2)
    if call.print_config:
        with printing():
            click.echo(render.printed(loaded), nl=False)
        sys.exit(0)
    for note in loaded.notes:
        click.echo(f"aioserve: note: {note}", err=True)
    sys.exit(_act(call, loaded.config, environ, directory))


def rereader(
    call: Invocation, environ: Mapping[str, str], directory: Path, live: MutableMapping[str, str]
) -> Callable[[], Config]:
    """Reads all layers again: argv and the variables of the start, the files as they are now.

    ``live`` is the environment of the application: it has the variables of --env-file, which may be others by now.
    """
    added = {name for name in live if name not in environ}

    def reread() -> Config:
        nonlocal added
        fresh = dict(environ)
        config = configure(call, fresh, lambda path: (directory / path).read_bytes()).config
        now = {name: value for name, value in fresh.items() if name not in environ}
        for name in added - now.keys():
            live.pop(name, None)
        live.update(now)
        added = set(now)
        return config

    return reread


def _act(call: Invocation, config: Config, environ: Mapping[str, str], directory: Path) -> int:
    """Check or serve; the exit status. ``environ`` and ``directory`` are those of the start."""
    from aioserve.boot import check, run
    from aioserve.master.upgrade import Origin

    # All that was imported by now is there for ever, and so are the pages that workers share of it.
    gc.freeze()
    gc.enable()
    try:
        if not call.check_config:
            origin = Origin(sys.executable, tuple(sys.orig_argv), dict(environ), str(directory))
            return run(config, origin=origin, reread=rereader(call, environ, directory, os.environ))
        check(config)
    except ConfigError as error:
        click.echo(report(error), err=True)
        return 2
    except BootError as error:
        click.echo(f"aioserve: {error}\n{error.detail}".rstrip(), err=True)
        return 3
    with printing():
        click.echo("configuration OK")
    return 0
