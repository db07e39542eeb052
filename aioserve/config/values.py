"""The kinds of value that a setting can have, and how each is read from text and written back.

Every layer (flag, variable, TOML, keyword) ends in the same text and the same ``Kind.parse``: a native TOML integer is
spelled first and parsed afterwards, so that there is one validator per kind. A parser returns the value or raises
``ValueError`` with a message that completes the sentence ``--flag: 'text' ...`` and says what to write instead.

Sizes are binary throughout: ``64k``, ``64K``, ``64KB`` and ``64KiB`` are all 65,536 bytes. Nobody means 64,000 when
limiting a buffer, and two readings of one letter would be a trap.
"""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioserve.config.addresses import parse_address, parse_mount, parse_network, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: how it is read, what else than text TOML and keywords may give, how it is written."""

    metavar: str
    expects: str
    parse: Callable[[str], Any]
    native: tuple[type, ...] = ()
    spell: Callable[[Any], str] = str
    choices: tuple[str, ...] = ()
    # What parts the elements of a list in one environment variable. Header values contain commas.
    separator: str = ","

    def read(self, raw: object) -> Any:
        """The value that ``raw`` (text, or a native value of TOML or Python) stands for."""
        if isinstance(raw, str):
            return self.parse(raw.strip())
        if isinstance(raw, enum.IntEnum):  # ssl.CERT_REQUIRED
            raw = int(raw)
        # bool is an int in Python; `port = true` must not become 1.
        if type(raw) in self.native:
            return self.parse(self.spell(raw))
        raise ValueError(f"is not {self.expects}")


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that ``word`` was probably meant to be, or an empty string."""
    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)), "")


def suggest(word: str, known: Iterable[str], before: str = "") -> str:
    """``; did you mean X?`` with ``before`` in front of X, or nothing."""
    near = nearest(word, known)
    return f"; did you mean {before}{near}?" if near else ""


_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?", re.ASCII | re.IGNORECASE)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# Beyond a year a duration is a typing error, and timers overflow some way beyond that.
_LONGEST = 365 * 86_400.0


def parse_seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("is not a duration; write 30, 30s, 500ms, 5m, 1h or 1d")
    seconds = float(match[1]) * _UNIT_MS[(match[2] or "s").lower()] / 1000
    if seconds > _LONGEST:
        raise ValueError("is longer than a year; write a shorter duration")
    return seconds


def spell_seconds(value: float) -> str:
    """The shortest spelling that reads back as exactly this value."""
    if value == 0:
        return "0"
    if not 0 < value <= _LONGEST:
        return repr(value)  # for parse_seconds to refuse
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(value * 1000, _UNIT_MS[unit])
        text = f"{int(count)}{unit}"
        # 90 minutes are 90m, and 75 seconds are 75s rather than 1.25m.
        if count and not rest and parse_seconds(text) == value:
            return text
    return f"{value!r}s"


_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNIT_SIZE = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes; all units are binary (see the module's docstring)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("is not a size; write bytes (8190) or a binary unit (64KiB, 64k, 1MiB, 1GiB)")
    return int(match[1]) * _UNIT_SIZE[match[2].lower()]


def spell_size(value: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value and value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)


_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


def parse_integer(text: str) -> int:
    # Eighteen digits fit every counter; int() refuses thousands of them with a message about itself.
    if _INTEGER.fullmatch(text) is None or len(text) > 18:
        raise ValueError("is not a whole number")
    return int(text)


def parse_descriptor(text: str) -> int | None:
    return None if text.lower() == "none" else parse_integer(text)


#: As the number of workers: as many as this machine, or this container, has CPUs.
AUTO = 0
# More loops than this no machine keeps busy.
_MOST_WORKERS = 1024


def parse_workers(text: str) -> int:
    if text.lower() == "auto":
        return AUTO
    number = parse_integer(text)
    if not 1 <= number <= _MOST_WORKERS:
        raise ValueError(f"is out of range; write 1 to {_MOST_WORKERS}, or auto")
    return number


def parse_threads(text: str) -> int:
    return AUTO if text == "0" else parse_workers(text)


def spell_workers(number: int) -> str:
    return "auto" if number == AUTO else str(number)


_MODE = re.compile(r"(?:0o)?([0-7]{1,4})", re.ASCII)


def parse_mode(text: str) -> int:
    match = _MODE.fullmatch(text)
    if match is None or int(match[1], 8) > 0o777:
        raise ValueError("is not an octal file mode; write 660, 0660 or 0o660 (0 to 777)")
    return int(match[1], 8)


def parse_umask(text: str) -> int | None:
    return None if text.lower() == "none" else parse_mode(text)


def spell_mode(mode: int | None) -> str:
    return "none" if mode is None else f"0o{mode:03o}"


_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_switch(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE and word not in _FALSE:
        raise ValueError("is neither true nor false; write true, 1, yes, on or false, 0, no, off")
    return word in _TRUE


def parse_tristate(text: str) -> bool | None:
    return None if text.lower() == "auto" else parse_switch(text)


def spell_switch(value: bool | None) -> str:
    return "auto" if value is None else str(value).lower()


def parse_text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("contains control characters; remove them")
    return text


def parse_host(text: str) -> str:
    if not text:
        raise ValueError("is empty; write 0.0.0.0 or :: for all interfaces")
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    parse_address(f"[{host}]:1" if ":" in host else f"{host}:1")
    return host


def parse_bind(text: str) -> str:
    return spell(parse_address(text))


def parse_redirect(text: str) -> str:
    address = parse_address(text)
    if address.speaks == "https":
        raise ValueError(f"speaks TLS, and only plain HTTP has to be redirected; write {address}")
    return str(address)


def parse_uds(text: str) -> str:
    return parse_bind(f"unix:{text}").removeprefix("unix:") if text else ""


def parse_root_path(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError(f"does not start with a slash; write /{text}")
    # A trailing slash would double the one that every path begins with.
    return parse_text(text).rstrip("/")


def parse_target(text: str) -> str:
    """``module:attribute``; whether it can be imported is found out by importing it, later."""
    if not text:
        return ""
    module, colon, attribute = text.partition(":")
    if not colon and module.endswith(".py"):
        module = module.removesuffix(".py").replace("/", ".")
        raise ValueError(f"is a file; name module and attribute: {module}:app")
    if attribute.endswith("()"):
        raise ValueError(f"calls the factory; write {text.removesuffix('()')} --factory")
    if not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        raise ValueError("is not of the form module:attribute, such as main:app or shop.web:app")
    return text


#: Ways to run offloaded calls that need no address and no code of the user's.
_ENGINES = ("process", "thread", "interpreter")


def parse_engine(text: str) -> str:
    """``process``, ``thread``, ``interpreter``, ``dask://HOST:PORT``, or ``module:attribute``."""
    if text in _ENGINES:
        return text
    if text.startswith("dask://"):
        parse_address(text.removeprefix("dask://"))
        return text
    if ":" not in text:
        raise ValueError(
            f"is no engine; write {', '.join(_ENGINES)}, dask://HOST:PORT, or MODULE:FACTORY of a "
            f"concurrent.futures.Executor{suggest(text, _ENGINES)}"
        )
    return parse_target(text)


def parse_module(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError("is not the name of a module, such as shop.reports")
    return text


# RFC 9110 5.6.2: token.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 5.5: no control characters but the tab; ISO-8859-1 is what a header can carry.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What frames the message is the server's to say; a constant one would desynchronise every response.
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade"})


def parse_header(text: str) -> str:
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if not colon or _TOKEN.fullmatch(name) is None:
        raise ValueError("is not a header; write 'Name: value', the name of letters, digits and hyphens")
    if _FIELD_VALUE.fullmatch(value) is None:
        raise ValueError("has a line break, a control character or one outside ISO-8859-1 in the value; remove it")
    if name.lower() in _FRAMING:
        raise ValueError("is a header that the server sets itself for each response; leave it out")
    return f"{name}: {value}"


def split_header(header: str) -> tuple[bytes, bytes]:
    """Name (as written) and value of a header that ``parse_header`` has accepted."""
    name, _, value = header.partition(":")
    return name.encode("ascii"), value.strip().encode("latin-1")


def parse_size_at(text: str) -> str:
    """``PREFIX=SIZE``, the prefix normalised as ``parse_mount`` does it."""
    prefix, equals, size = text.rpartition("=")
    if not equals or not prefix.startswith("/"):
        raise ValueError("is not of the form PREFIX=SIZE, such as /upload=1GiB")
    return f"{prefix.rstrip('/') or '/'}={spell_size(parse_size(size))}"


def split_size_at(text: str) -> tuple[str, int]:
    """Prefix (empty for the root) and bytes of a text that ``parse_size_at`` has accepted."""
    prefix, _, size = text.rpartition("=")
    return prefix.rstrip("/"), parse_size(size)


# RFC 6797 6.1: directives between semicolons, each a token or a token with a value, which may be quoted.
_DIRECTIVE = re.compile(rf'({_TOKEN.pattern})(?:[ \t]*=[ \t]*({_TOKEN.pattern}|"[\t\x20\x21\x23-\x7e]*"))?', re.ASCII)


def parse_hsts(text: str) -> str:
    """The value of Strict-Transport-Security, or nothing."""
    if not text:
        return ""
    found: dict[str, str | None] = {}
    # An empty directive is nothing. A semicolon within quotes has no use that anybody knows of.
    for directive in filter(None, (part.strip(" \t") for part in text.split(";"))):
        match = _DIRECTIVE.fullmatch(directive)
        if match is None:
            raise ValueError(f"has {directive!r}, which is no directive; write max-age=31536000; includeSubDomains")
        name = match[1].lower()
        if name in found:
            raise ValueError(f"has {match[1]} twice, and browsers would ignore all of it; leave one out")
        found[name] = match[2]
    age = (found.get("max-age") or "").strip('"')
    if not age.isascii() or not age.isdecimal():
        raise ValueError("has no max-age with a number of seconds; write max-age=31536000 for a year, 0 to forget it")
    if found.get("includesubdomains") is not None:
        raise ValueError("has a value for includeSubDomains, which takes none")
    return text


def choice(*options: str, also: Mapping[str, str] | None = None, native: tuple[type, ...] = ()) -> Kind:
    """One of ``options``. ``also`` are other spellings (in lower case) of some of them, which are known elsewhere."""

    def parse(text: str) -> str:
        word = (also or {}).get(text.lower(), text.lower())
        if word not in options:
            raise ValueError(f"is not one of {', '.join(options)}{suggest(word, options)}")
        return word

    return Kind("|".join(options), f"one of {', '.join(options)}", parse, native=native, choices=options)


TEXT = Kind("TEXT", "text", parse_text)
TARGET = Kind("APP", "text of the form module:attribute", parse_target)
ENGINE = Kind("ENGINE", "the name of an engine", parse_engine)
MODULE = Kind("MODULE", "the name of a module", parse_module)
ROOT_PATH = Kind("PATH", "a path", parse_root_path)
MOUNT = Kind("PREFIX=APP", "text of the form PREFIX=module:attribute", parse_mount)
HOST = Kind("HOST", "a host name or address", parse_host)
BIND = Kind("ADDRESS", "an address such as 0.0.0.0:8000", parse_bind)
REDIRECT = Kind("ADDRESS", "an address such as 0.0.0.0:80", parse_redirect)
UDS = Kind("PATH", "a path", parse_uds)
HEADER = Kind("'NAME: VALUE'", "text of the form Name: value", parse_header, separator="\n")
HSTS = Kind("VALUE", "text such as max-age=31536000", parse_hsts)
#: The numbers and the names are those of Python's ssl module, which uvicorn, gunicorn and hypercorn take.
CLIENT_CERTIFICATES = choice(
    "none", "optional", "required",
    also={
        "0": "none", "1": "optional", "2": "required",
        "cert_none": "none", "cert_optional": "optional", "cert_required": "required",
    },
    native=(int,),
)  # fmt: skip
TLS_VERSION = choice(
    "1.2", "1.3",
    also={f"{prefix}{version}": version for prefix in ("tls", "tlsv") for version in ("1.2", "1.3")},
    native=(float,),
)  # fmt: skip
NETWORK = Kind("NETS", "an address, a network, unix: or *", parse_network)
COUNT = Kind("N", "a whole number", parse_integer, native=(int,))
DESCRIPTOR = Kind(
    "N", "a whole number", parse_descriptor, native=(int,), spell=lambda n: "none" if n is None else str(n)
)
SECONDS = Kind("TIME", "a duration", parse_seconds, native=(int, float), spell=spell_seconds)
SIZE = Kind("SIZE", "a size", parse_size, native=(int,), spell=spell_size)
SIZE_AT = Kind("PREFIX=SIZE", "text of the form PREFIX=SIZE", parse_size_at)
WORKERS = Kind("N|auto", "a whole number or auto", parse_workers, native=(int,), spell=spell_workers)
THREADS = Kind("N|auto", "a whole number or auto", parse_threads, native=(int,), spell=spell_workers)
MODE = Kind("MODE", "an octal file mode", parse_mode, native=(int,), spell=spell_mode)
UMASK = Kind("MODE", "an octal file mode", parse_umask, native=(int,), spell=spell_mode)
SWITCH = Kind("", "true or false", parse_switch, native=(bool,), spell=spell_switch)
TRISTATE = Kind("", "true, false or auto", parse_tristate, native=(bool,), spell=spell_switch)
# With a value on the command line, as uvicorn has it for some.
YES_OR_NO = Kind("BOOLEAN", "true or false", parse_switch, native=(bool,), spell=spell_switch)
