"""The tree: every setting has its names, and no two share one."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from aioserve.config.addresses import FdAddress, TcpAddress, UnixAddress
from aioserve.config.tree import Config, Listen, sections, settings


def by_path(path):
    return next(setting for setting in settings() if setting.path == path)


def test_every_field_of_every_section_is_a_setting():
    fields = [
        f"{section.name}.{leaf.name}"
        for section in dataclasses.fields(Config)
        for leaf in dataclasses.fields(getattr(Config(), section.name))
    ]

    assert [setting.path for setting in settings()] == fields


def test_no_two_settings_share_a_flat_name():
    assert [name for name, count in Counter(setting.flat for setting in settings()).items() if count > 1] == []


def test_no_two_settings_share_a_short_flag():
    shorts = Counter(setting.doc.short for setting in settings() if setting.doc.short)

    assert shorts == dict.fromkeys("bgmpuw", 1)


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_every_default_is_a_value_that_its_own_kind_reads(setting):
    elements = setting.default if setting.many else (setting.default,)

    assert [setting.kind.read(setting.kind.spell(value)) for value in elements] == list(elements)


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_every_setting_explains_itself_in_a_phrase(setting):
    assert setting.doc.help
    assert not setting.doc.help.endswith(".")
    assert setting.is_switch or setting.metavar


@pytest.mark.parametrize(
    ("path", "flag", "env"),
    [
        ("timeout.keep_alive", "--timeout-keep-alive", ("AIOSERVE_TIMEOUT_KEEP_ALIVE",)),
        ("app.target", "APP", ("AIOSERVE_APP",)),
        ("process.workers", "--workers", ("AIOSERVE_WORKERS", "WEB_CONCURRENCY")),
        ("proxy.forwarded_allow_ips", "--forwarded-allow-ips", ("AIOSERVE_FORWARDED_ALLOW_IPS", "FORWARDED_ALLOW_IPS")),
        ("http.parser", "--http", ("AIOSERVE_HTTP",)),
        ("log.access", "--access-log", ("AIOSERVE_ACCESS_LOG",)),
        ("reload.dirs", "--reload-dir", ("AIOSERVE_RELOAD_DIR",)),
    ],
)
def test_names_follow_from_the_place_in_the_tree(path, flag, env):
    assert (by_path(path).flag, by_path(path).env) == (flag, env)


def test_every_section_has_a_heading():
    assert list(sections()) == [field.name for field in dataclasses.fields(Config)]
    assert all(sections().values())


@pytest.mark.parametrize(
    ("listen", "addresses"),
    [
        (Listen(), [TcpAddress("127.0.0.1", 8000)]),
        (Listen(host="::1", port=0), [TcpAddress("::1", 0)]),
        (Listen(bind=("[::]:80", "unix:/run/x")), [TcpAddress("::", 80), UnixAddress("/run/x")]),
        (Listen(uds="/run/x", port=9), [UnixAddress("/run/x")]),
        (Listen(fd=3, uds="/run/x"), [FdAddress(3)]),
    ],
)
def test_one_way_to_listen_wins(listen, addresses):
    assert listen.addresses() == addresses


def test_the_tree_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().listen.port = 1
