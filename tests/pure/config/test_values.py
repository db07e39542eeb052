"""Each kind of value: what it reads, what it refuses and with which words, and how it is written back."""

from __future__ import annotations

import math
import ssl

import pytest

from aioserve.config import values


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        (" 30 s ", 30.0),
        ("0", 0.0),
        ("0.25", 0.25),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1H", 3600.0),
        ("1d", 86400.0),
        (30, 30.0),
        (0.25, 0.25),
        (1.0005, 1.0005),
        (0, 0.0),
    ],
)
def test_a_duration_is_read(raw, seconds):
    assert values.SECONDS.read(raw) == seconds


@pytest.mark.parametrize("raw", ["", "abc", "-1", "5 minutes", "1e3", "٣", -1, -0.5, math.nan, True, None, [1], 1e-9])
def test_what_is_no_duration_is_refused(raw):
    with pytest.raises(ValueError, match="is not a duration"):
        values.SECONDS.read(raw)


@pytest.mark.parametrize("raw", ["366d", 1e12, "99999999999999999999999h"])
def test_a_duration_beyond_a_year_is_refused(raw):
    with pytest.raises(ValueError, match="longer than a year"):
        values.SECONDS.read(raw)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0"), (0.25, "250ms"), (10.0, "10s"), (75.0, "75s"), (120.0, "2m"), (5400.0, "90m"), (86400.0, "1d")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds, text):
    assert values.spell_seconds(seconds) == text


@pytest.mark.parametrize("seconds", [1.0005, 0.1 + 0.2, 1 / 3, 0.001, 0.0011, 12345.678, 31536000.0])
def test_a_duration_survives_being_written(seconds):
    assert values.parse_seconds(values.spell_seconds(seconds)) == seconds


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        ("8190", 8190),
        ("0", 0),
        ("64k", 65536),
        ("64K", 65536),
        ("64KB", 65536),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("10b", 10),
        ("1MiB", 1 << 20),
        ("2g", 2 << 30),
        (8190, 8190),
    ],
)
def test_a_size_is_read_in_binary_units(raw, size):
    assert values.SIZE.read(raw) == size


@pytest.mark.parametrize("raw", ["", "k", "1.5k", "-1", "1 TiB", -1, 1.5, False])
def test_what_is_no_size_is_refused(raw):
    with pytest.raises(ValueError, match="is not a size"):
        values.SIZE.read(raw)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (8190, "8190"), (65536, "64KiB"), (1 << 20, "1MiB"), (3 << 30, "3GiB")]
)
def test_a_size_is_written_in_its_largest_whole_unit(size, text):
    assert values.spell_size(size) == text


@pytest.mark.parametrize(("raw", "number"), [("7", 7), ("-7", -7), ("+7", 7), (" 7 ", 7), (7, 7)])
def test_a_whole_number_is_read(raw, number):
    assert values.COUNT.read(raw) == number


@pytest.mark.parametrize("raw", ["", "x", "1.0", "1_000", "0x10", "٣", "9" * 5000, 1.0, True, None])
def test_what_is_no_whole_number_is_refused(raw):
    with pytest.raises(ValueError, match="is not a whole number"):
        values.COUNT.read(raw)


@pytest.mark.parametrize(("raw", "number"), [("3", 3), (3, 3), ("none", None)])
def test_a_descriptor_is_a_number_or_none(raw, number):
    assert values.DESCRIPTOR.read(raw) == number


@pytest.mark.parametrize("raw", ["660", "0660", "0o660", 0o660])
def test_a_mode_is_octal(raw):
    assert values.MODE.read(raw) == 0o660


@pytest.mark.parametrize("raw", ["", "rw", "680", "1777", "-1", 660, -1])
def test_what_is_no_mode_is_refused(raw):
    with pytest.raises(ValueError, match="is not an octal file mode"):
        values.MODE.read(raw)


@pytest.mark.parametrize(
    ("raw", "truth"),
    [
        ("true", True),
        ("1", True),
        ("YES", True),
        ("on", True),
        ("false", False),
        ("0", False),
        ("No", False),
        ("off", False),
        (True, True),
    ],
)
def test_a_switch_is_read(raw, truth):
    assert values.SWITCH.read(raw) is truth


@pytest.mark.parametrize("raw", ["", "maybe", "auto"])
def test_what_is_no_switch_is_refused(raw):
    with pytest.raises(ValueError, match="is neither true nor false; write true"):
        values.SWITCH.read(raw)


def test_a_number_is_no_switch():
    with pytest.raises(ValueError, match="is not true or false"):
        values.SWITCH.read(1)


@pytest.mark.parametrize(("raw", "number"), [("auto", 0), ("AUTO", 0), ("1", 1), (1024, 1024)])
def test_workers_are_a_number_or_auto(raw, number):
    assert values.WORKERS.read(raw) == number


@pytest.mark.parametrize("raw", ["0", "1025", -1])
def test_a_number_of_workers_has_limits(raw):
    with pytest.raises(ValueError, match="is out of range; write 1 to 1024, or auto"):
        values.WORKERS.read(raw)


@pytest.mark.parametrize(("number", "text"), [(0, "auto"), (3, "3")])
def test_a_number_of_workers_is_written(number, text):
    assert values.WORKERS.spell(number) == text


@pytest.mark.parametrize(("raw", "umask"), [("none", None), ("022", 0o22), (0o27, 0o27)])
def test_a_umask_is_a_mode_or_none(raw, umask):
    assert values.UMASK.read(raw) == umask


@pytest.mark.parametrize(("umask", "text"), [(None, "none"), (0o22, "0o022")])
def test_a_umask_is_written(umask, text):
    assert values.UMASK.spell(umask) == text


@pytest.mark.parametrize(("raw", "state"), [("auto", None), ("Auto", None), ("off", False), (True, True)])
def test_a_tristate_is_true_false_or_auto(raw, state):
    assert values.TRISTATE.read(raw) is state


@pytest.mark.parametrize(("state", "text"), [(True, "true"), (False, "false"), (None, "auto")])
def test_a_switch_is_written(state, text):
    assert values.spell_switch(state) == text


def test_a_choice_ignores_case():
    assert values.choice("auto", "uvloop").read("UVLOOP") == "uvloop"


def test_a_wrong_choice_names_the_right_ones_and_the_nearest():
    with pytest.raises(ValueError, match=r"is not one of auto, uvloop, asyncio; did you mean uvloop\?"):
        values.choice("auto", "uvloop", "asyncio").read("uvlop")


def test_a_choice_far_from_all_suggests_nothing():
    with pytest.raises(ValueError, match=r"is not one of auto, uvloop$"):
        values.choice("auto", "uvloop").read("trio")


@pytest.mark.parametrize("raw", ["a\nb", "a\0b"])
def test_text_has_no_control_characters(raw):
    with pytest.raises(ValueError, match="control characters"):
        values.TEXT.read(raw)


@pytest.mark.parametrize(
    ("raw", "host"), [("localhost", "localhost"), ("::1", "::1"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_a_host_is_read(raw, host):
    assert values.HOST.read(raw) == host


@pytest.mark.parametrize(
    ("raw", "message"), [("", "is empty"), ("a b", "not an address"), ("host:80", "no IPv6 address")]
)
def test_what_is_no_host_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        values.HOST.read(raw)


@pytest.mark.parametrize(("raw", "path"), [("", ""), ("/run/x.sock", "/run/x.sock"), ("x.sock", "x.sock")])
def test_a_socket_path_is_read(raw, path):
    assert values.UDS.read(raw) == path


@pytest.mark.parametrize(
    ("raw", "path"), [("", ""), ("/", ""), ("/api", "/api"), ("/api/", "/api"), ("/a/b//", "/a/b")]
)
def test_a_root_path_loses_its_trailing_slash(raw, path):
    assert values.ROOT_PATH.read(raw) == path


def test_a_root_path_starts_with_a_slash():
    with pytest.raises(ValueError, match="write /api"):
        values.ROOT_PATH.read("api")


@pytest.mark.parametrize("target", ["", "main:app", "shop.web:app", "shop.web:factory.make", "größe:app"])
def test_a_target_is_read(target):
    assert values.TARGET.read(target) == target


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("main", "is not of the form module:attribute"),
        ("main:", "is not of the form"),
        (":app", "is not of the form"),
        ("a-b:app", "is not of the form"),
        ("a:b:c", "is not of the form"),
        ("shop/web.py", "is a file; name module and attribute: shop.web:app"),
        ("main:make()", "write main:make --factory"),
    ],
)
def test_what_is_no_target_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        values.TARGET.read(raw)


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        ("X-A: b", "X-A: b"),
        ("X-A:b", "X-A: b"),
        ("X-A:  b, c: d ", "X-A: b, c: d"),
        ("X-Empty:", "X-Empty: "),
        ("x!#$%&'*+.^_`|~9: é", "x!#$%&'*+.^_`|~9: é"),
    ],
)
def test_a_header_is_normalised(raw, header):
    assert values.HEADER.read(raw) == header


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("X-A", "is not a header"),
        (": b", "is not a header"),
        ("X A: b", "is not a header"),
        ("X-A : b", "is not a header"),
        ("X-Ä: b", "is not a header"),
        ("X-A: b\r\nX-B: c", "line break"),
        ("X-A: b\0c", "control character"),
        ("X-A: b\x7fc", "control character"),
        ("X-A: €", "outside ISO-8859-1"),
        ("Content-Length: 4", "the server sets itself"),
        ("transfer-encoding: chunked", "the server sets itself"),
    ],
)
def test_a_header_that_could_break_a_response_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        values.HEADER.read(raw)


@pytest.mark.parametrize(
    ("header", "pair"), [("X-A: b: c", (b"X-A", b"b: c")), ("X-E: ", (b"X-E", b"")), ("X-L: é", (b"X-L", b"\xe9"))]
)
def test_a_header_is_split_into_bytes(header, pair):
    assert values.split_header(values.HEADER.read(header)) == pair


@pytest.mark.parametrize("raw", [True, 5, None, {}, ["x"]])
def test_text_is_not_made_of_other_things(raw):
    with pytest.raises(ValueError, match="is not text"):
        values.TEXT.read(raw)


def test_a_suggestion_is_made_for_a_near_word():
    assert values.suggest("wokers", ["workers", "backlog"]) == "; did you mean workers?"


def test_no_suggestion_is_made_for_a_strange_word():
    assert values.suggest("zzz", ["workers"]) == ""


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("none", "none"),
        (0, "none"),
        ("1", "optional"),
        (2, "required"),
        ("CERT_REQUIRED", "required"),
        ("Optional", "optional"),
        (ssl.CERT_REQUIRED, "required"),
    ],
)
def test_client_certificates_are_asked_for_in_words_or_in_pythons_numbers(raw, value):
    assert values.CLIENT_CERTIFICATES.read(raw) == value


@pytest.mark.parametrize("raw", ["3", 3, True, "always", 1.0])
def test_client_certificates_are_asked_for_in_no_other_way(raw):
    with pytest.raises(ValueError, match="is not one of none, optional, required"):
        values.CLIENT_CERTIFICATES.read(raw)


@pytest.mark.parametrize(("raw", "version"), [("1.2", "1.2"), (1.3, "1.3"), ("TLSv1.3", "1.3"), ("tls1.2", "1.2")])
def test_a_version_of_tls_is_read(raw, version):
    assert values.TLS_VERSION.read(raw) == version


@pytest.mark.parametrize("raw", ["1.4", "TLS", 2, "17"])
def test_what_is_no_version_of_tls_is_refused(raw):
    with pytest.raises(ValueError, match=r"is not one of 1\.2, 1\.3"):
        values.TLS_VERSION.read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "max-age=0",
        "max-age=31536000; includeSubDomains",
        'Max-Age = "31536000" ;preload;',
        ";; max-age=1;; INCLUDESUBDOMAINS",
        'max-age=1; x="a b"; y=z',
    ],
)
def test_a_policy_of_strict_transport_security_is_taken_as_it_is(raw):
    assert values.HSTS.read(raw) == raw.strip()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("31536000", "no max-age with a number"),
        ("includeSubDomains", "no max-age with a number"),
        ("max-age", "no max-age with a number"),
        ("max-age=", "'max-age=', which is no directive"),
        ("max-age=1y", "no max-age with a number"),
        ("max-age=-1", "no max-age with a number"),
        ("max-age=٣", "no directive"),
        ("max-age=1 includeSubDomains", "no directive"),
        ("max-age=1, preload", "no directive"),
        ("max-age=1; max-age=2", "has max-age twice"),
        ("max-age=1; preload; Preload", "has Preload twice"),
        ("max-age=1; includeSubDomains=1", "a value for includeSubDomains"),
        ("max-age=1\r\nx: y", "no directive"),
    ],
)
def test_what_browsers_would_ignore_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        values.HSTS.read(raw)
