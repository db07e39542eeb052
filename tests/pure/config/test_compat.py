"""Flags of others: each is ours too, or refused with a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest

from aioserve import cli
from aioserve.config.compat import REFUSED, REFUSED_VALUES, refusal
from aioserve.config.load import SETTINGS, SWITCHES


@cache
def uvicorn_flags():
    """Every flag in the help that the installed uvicorn prints, with whether it takes a value."""
    run = subprocess.run([sys.executable, "-m", "uvicorn", "--help"], capture_output=True, text=True, check=True)
    lines = re.findall(r"^  (--[\w-]+)( / --[\w-]+)?( [A-Z\[])?", run.stdout, re.MULTILINE)
    return [(flag, bool(value)) for flag, _, value in lines] + [
        (other.removeprefix(" / "), False) for _, other, _ in lines if other
    ]


def test_the_list_of_uvicorns_flags_is_not_empty():
    assert len(uvicorn_flags()) > 50


@pytest.mark.parametrize(("flag", "value"), uvicorn_flags(), ids=[flag for flag, _ in uvicorn_flags()])
def test_every_flag_of_uvicorn_is_taken_or_refused_with_a_sentence(flag, value):
    if flag in {"--help", "--version"}:
        return
    call = cli.parse(["main:app", flag, *(["1"] if value else [])])

    taken = set(call.flags) - {"app"}
    assert len(taken) + len(call.mistakes) == 1
    assert call.flags["app"] == "main:app"
    assert taken or len(call.mistakes[0].removeprefix(f"{flag}: ")) > 20
    assert not any("no such option" in mistake for mistake in call.mistakes)


@pytest.mark.parametrize(
    "argument",
    [
        "-k x",
        "--worker-class x",
        "--timeout 3",
        "-t 3",
        "--preload-app",
        "--graceful-timeout 3",
        "--keep-alive 3",
        "--reuse-port",
        "--daemon",
        "-D",
        "--worker-connections 3",
        "--admin-bind x",
        "--proxy-allow-from x",
        "--certfile x",
        "--keyfile x",
        "--ca-certs x",
        "--cert-reqs 2",
        "--ciphers x",
        "--ssl-version 17",
        "--do-handshake-on-connect",
        "--suppress-ragged-eofs",
        "--verify-mode CERT_REQUIRED",
        "--insecure-bind x",
        "--ssl-certificate x",
        "--ssl-client-verify",
        "--tls-transport x",
    ],
)
def test_habits_from_others_and_flags_of_later_versions_are_refused(argument):
    call = cli.parse([*argument.split(), "main:app"])

    assert call.flags == {"app": "main:app"}
    assert len(call.mistakes) == 1
    assert "no such option" not in call.mistakes[0]


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("--pid=x", "pid"),
        ("-p x", "pid"),
        ("--user x", "user"),
        ("-u x", "user"),
        ("--group x", "group"),
        ("-g x", "group"),
        ("--umask 7", "umask"),
        ("-m 7", "umask"),
        ("--chdir x", "chdir"),
        ("--preload", "preload"),
        ("--max-requests 5", "limit_max_requests"),
        ("--max-requests-jitter 5", "limit_max_requests_jitter"),
    ],
)
def test_habits_from_gunicorn_are_settings(argument, name):
    call = cli.parse([*argument.split(), "main:app"])

    assert (set(call.flags), call.mistakes) == ({"app", name}, [])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_no_setting_is_refused(name):
    assert name not in SETTINGS
    assert name not in SWITCHES


@pytest.mark.parametrize("sentence", sorted({refused.sentence for refused in REFUSED.values()}))
def test_a_flag_named_as_a_remedy_exists(sentence):
    for flag in re.findall(r"--([\w-]+)", sentence.replace("--memory of the container", "")):
        assert flag.replace("-", "_") in {**SETTINGS, **SWITCHES}


def test_a_refused_value_belongs_to_a_setting():
    assert {path for path, _ in REFUSED_VALUES} <= {setting.path for setting in SETTINGS.values()}


def test_an_unknown_name_has_no_sentence():
    assert refusal("frobnicate") == ""
