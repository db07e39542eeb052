from __future__ import annotations

import time

import pytest

from aioserve.errors import ConfigError
from aioserve.http.forwarded import MOST_HOPS, Forwarded, TrustedProxies, rewrite

PEER = ("127.0.0.1", 40000)
LOCAL = TrustedProxies(["127.0.0.1", "::1", "unix:", "10.0.0.0/8", "2001:db8::/32"], host=True)


def headers(*fields: str, host: str | None = "app.internal") -> list[tuple[bytes, bytes]]:
    pairs = [field.split(": ", 1) for field in fields]
    own = [] if host is None else [(b"host", host.encode())]
    return own + [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]


def seen(*fields: str, trusted: TrustedProxies = LOCAL, host: str | None = "app.internal") -> Forwarded:
    return trusted.apply(PEER, "http", headers(*fields, host=host))


@pytest.mark.parametrize(
    ("entries", "peer", "trusted"),
    [
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.1"], "127.0.0.2", False),
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["2001:db8::/32"], "2001:DB8:0::1", True),
        (["2001:db8::/32"], "10.0.0.1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["::1"], "0:0:0:0:0:0:0:1", True),
        (["unix:"], None, True),
        (["unix:"], "", True),
        (["127.0.0.1"], None, False),
        (["127.0.0.1"], "", False),
        (["*"], "203.0.113.9", True),
        (["*"], None, True),
        ([], "127.0.0.1", False),
        ([" 127.0.0.1 ", ""], "127.0.0.1", True),
        (["127.0.0.1"], "not an address", False),
        (["127.0.0.1"], "1" * 10_000, False),
    ],
)
def test_who_is_trusted(entries, peer, trusted):
    assert TrustedProxies(entries).trusts(peer) is trusted


def test_entries_that_are_none_are_all_reported():
    with pytest.raises(ConfigError) as caught:
        TrustedProxies(["localhost", "10.0.0.1/8", "127.0.0.1"], host=True)
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["'localhost'", "'10.0.0.1/8'"]


def test_the_memory_of_verdicts_is_bounded():
    proxies = TrustedProxies(["10.0.0.0/8"], host=True)
    for number in range(5000):
        proxies.trusts(f"192.0.{number // 256}.{number % 256}")
    assert proxies._verdict.cache_info().currsize <= 4096


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.9", ("203.0.113.9", 0)),
        ("203.0.113.9:4711", ("203.0.113.9", 4711)),
        ("[2003::9]:4711", ("2003::9", 4711)),
        ("[2003::9]", ("2003::9", 0)),
        ("2003::9", ("2003::9", 0)),
        ("2003::A", ("2003::a", 0)),
        ("6.6.6.6, 203.0.113.9", ("203.0.113.9", 0)),
        ("6.6.6.6, 203.0.113.9, 10.0.0.1, 10.0.0.2", ("203.0.113.9", 0)),
        ("203.0.113.9, 2001:db8::7", ("203.0.113.9", 0)),
        ("10.0.0.3, 10.0.0.2", ("10.0.0.3", 0)),
        ("203.0.113.9, , 10.0.0.1,", ("203.0.113.9", 0)),
        ("203.0.113.9, unix:", ("203.0.113.9", 0)),
        # What follows stops the walk at the last address that a trusted proxy has vouched for.
        ("6.6.6.6, unknown", PEER),
        ("6.6.6.6, unknown, 10.0.0.1", ("10.0.0.1", 0)),
        ("6.6.6.6, _hidden", PEER),
        ("", PEER),
        (" , ", PEER),
        ("6.6.6.6, 203.0.113.9:99999", PEER),
        ("6.6.6.6, 203.0.113.9:x", PEER),
        ("6.6.6.6, 203.0.113.9:", PEER),
        ("6.6.6.6, 203.0.113.09", PEER),
        ("6.6.6.6, [2003::9", PEER),
        ("6.6.6.6, [2003::9]4711", PEER),
        ("6.6.6.6, [203.0.113.9]:1", PEER),
        ("6.6.6.6, fe80::1%eth0", PEER),
        ("6.6.6.6, \u00b2", PEER),
        ("6.6.6.6, " + "1" * 5000, PEER),
        ('6.6.6.6, "', PEER),
    ],
)
def test_the_client_is_the_rightmost_that_is_not_trusted(chain, client):
    assert seen(f"X-Forwarded-For: {chain}").client == client


def test_several_lines_are_one_chain():
    assert seen("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9, 10.0.0.1").client == ("203.0.113.9", 0)


def test_everybody_trusted_makes_the_leftmost_the_client():
    assert seen("X-Forwarded-For: 6.6.6.6, 203.0.113.9", trusted=TrustedProxies(["*"], host=True)).client == (
        "6.6.6.6",
        0,
    )


def test_a_unix_hop_counts_only_where_unix_peers_are_trusted():
    assert seen("X-Forwarded-For: 6.6.6.6, unix:", trusted=TrustedProxies(["127.0.0.1"], host=True)).client == PEER


def test_a_unix_peer_without_a_client_stays_without_one():
    assert LOCAL.apply(None, "http", headers("X-Forwarded-For: unknown")).client is None
    assert LOCAL.apply(None, "http", headers("X-Forwarded-For: 203.0.113.9")).client == ("203.0.113.9", 0)


@pytest.mark.parametrize("name", ["X-Forwarded-For: ", "Forwarded: for="])
def test_an_endless_chain_is_walked_only_so_far(name):
    field = name + ", ".join(["10.0.0.9"] + ["10.0.0.1"] * (MOST_HOPS + 5)).replace(", ", f", {name.split(': ')[1]}")
    assert seen(field).client == ("10.0.0.1", 0)


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("wss", "https"),
        ("ws", "http"),
        ("http, https", "https"),
        ("https, http", "http"),
        ("https,", "https"),
        ("ftp", "http"),
        ("javascript:alert(1)", "http"),
        ("", "http"),
    ],
)
def test_the_scheme_is_the_last_value_if_it_is_one(value, scheme):
    assert seen(f"X-Forwarded-Proto: {value}").scheme == scheme


def test_a_bad_scheme_leaves_the_one_of_the_connection():
    assert LOCAL.apply(PEER, "https", headers("X-Forwarded-Proto: gopher")).scheme == "https"


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        (["X-Forwarded-Host: shop.example"], b"shop.example"),
        (["X-Forwarded-Host: evil.example, shop.example"], b"shop.example"),
        (["X-Forwarded-Host: shop.example:8443"], b"shop.example:8443"),
        (["X-Forwarded-Host: [2003::9]"], b"[2003::9]"),
        (["X-Forwarded-Host: shop.example", "X-Forwarded-Port: 8443"], b"shop.example:8443"),
        (["X-Forwarded-Host: [2003::9]", "X-Forwarded-Port: 8443"], b"[2003::9]:8443"),
        (["X-Forwarded-Host: shop.example:1", "X-Forwarded-Port: 8443"], b"shop.example:1"),
        (["X-Forwarded-Host: shop.example", "X-Forwarded-Port: 80"], b"shop.example"),
        (["X-Forwarded-Host: shop.example", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"], b"shop.example"),
        (["X-Forwarded-Host: shop.example", "X-Forwarded-Port: 443"], b"shop.example:443"),
        (["X-Forwarded-Port: 8080"], b"app.internal:8080"),
        (["X-Forwarded-Port: 0"], None),
        (["X-Forwarded-Port: 99999"], None),
        (["X-Forwarded-Port: +80"], None),
        (["X-Forwarded-Port: \u00b2"], None),
        (["X-Forwarded-Host: user@shop.example"], None),
        (["X-Forwarded-Host: shop.example/path"], None),
        (["X-Forwarded-Host: shop example"], None),
        (["X-Forwarded-Host: "], None),
        (["X-Forwarded-Host: shop.example:65536"], None),
        (["X-Forwarded-Host: [2003::9::1]"], None),
        (["X-Forwarded-Host: " + "a" * 300], None),
        (["X-Forwarded-Proto: https"], None),
    ],
)
def test_host_and_port_make_the_host_field(fields, host):
    assert seen(*fields).host == host


def test_a_port_without_any_host_changes_no_host():
    assert seen("X-Forwarded-Port: 8080", host=None) == Forwarded(PEER, "http", None, 8080)


def test_hosts_are_left_alone_when_told_so():
    proxies = TrustedProxies(["*"], host=False)
    assert seen("X-Forwarded-Host: shop.example", "X-Forwarded-Port: 1", trusted=proxies).host is None
    assert seen("Forwarded: host=shop.example;proto=https", trusted=proxies) == Forwarded(PEER, "https")


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("for=203.0.113.9", (("203.0.113.9", 0), "http", None)),
        ("For=203.0.113.9;Proto=HTTPS;Host=shop.example", (("203.0.113.9", 0), "https", b"shop.example")),
        ('for="203.0.113.9:4711";by=10.0.0.1', (("203.0.113.9", 4711), "http", None)),
        ('for="[2003::9]:4711"', (("2003::9", 4711), "http", None)),
        ('for="[2003::9]:_port"', (("2003::9", 0), "http", None)),
        ("for=203.0.113.9:4711", (("203.0.113.9", 4711), "http", None)),
        ('for="203.0.113\\.9"', (("203.0.113.9", 0), "http", None)),
        ("for=6.6.6.6, for=203.0.113.9, for=10.0.0.1", (("203.0.113.9", 0), "http", None)),
        (
            "for=203.0.113.9;proto=https;host=a.example, for=10.0.0.1;proto=http",
            (("203.0.113.9", 0), "https", b"a.example"),
        ),
        ("for=6.6.6.6;proto=https;host=evil.example, for=203.0.113.9", (("203.0.113.9", 0), "http", None)),
        (" ;for=203.0.113.9 ; proto=https; , ", (("203.0.113.9", 0), "https", None)),
        ('for=203.0.113.9;ext="a,b;c"', (("203.0.113.9", 0), "http", None)),
        # Hidden clients: what the trusted proxy says of the rest still holds.
        ("for=6.6.6.6, for=unknown;proto=https", (PEER, "https", None)),
        ("for=6.6.6.6, for=_gazonk", (PEER, "http", None)),
        ('for=6.6.6.6, for="_gazonk:_p"', (PEER, "http", None)),
        ("for=6.6.6.6, proto=https", (PEER, "https", None)),
        ("for=6.6.6.6, for=_hidden, for=10.0.0.1", (("10.0.0.1", 0), "http", None)),
        # Malformed: ignored from there on.
        ("for=6.6.6.6, nonsense", (PEER, "http", None)),
        ("for=6.6.6.6, for=", (PEER, "http", None)),
        ("for=6.6.6.6, for=1.1.1.1;for=2.2.2.2", (PEER, "http", None)),
        ('for=6.6.6.6, for="203.0.113.9', (PEER, "http", None)),
        ('for=6.6.6.6, for="a\\"b"', (PEER, "http", None)),
        ("for=203.0.113.9;proto=ftp;host=a/b", (("203.0.113.9", 0), "http", None)),
        ("", (PEER, "http", None)),
        # An open quote of the client's does not swallow what the proxy has appended.
        ('for="6.6.6.6, for=203.0.113.9', (("203.0.113.9", 0), "http", None)),
        ('for="6.6.6.6, for="[2003::9]"', (("2003::9", 0), "http", None)),
        ('x=", for="6.6.6.6", for=203.0.113.9;host="shop.example"', (("203.0.113.9", 0), "http", b"shop.example")),
    ],
)  # fmt: skip
def test_forwarded_is_walked_from_the_right(chain, expected):
    found = seen(f"Forwarded: {chain}")
    assert (found.client, found.scheme, found.host) == expected


@pytest.mark.parametrize("name", ["For: 203.0.113.9", "Proto: https", "Host: shop.example", "Port: 8080"])
def test_forwarded_is_not_read_beside_the_other_family(name):
    both = seen(f"X-Forwarded-{name}", "Forwarded: for=6.6.6.6;proto=https;host=evil.example")
    assert both == seen(f"X-Forwarded-{name}")


def test_an_unknown_member_of_the_family_does_not_hide_forwarded():
    assert seen("X-Forwarded-Prefix: /a", "Forwarded: for=203.0.113.9").client == ("203.0.113.9", 0)


def test_without_any_such_field_nothing_changes():
    assert seen("Accept: */*") == Forwarded(PEER, "http")


@pytest.mark.parametrize(
    "value",
    ['for="' + "," * 60_000, '",' * 30_000, "a=b;" * 15_000, ", " * 30_000, 'a="' + "\\" * 60_000, "[" * 60_000],
)
@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For"])
def test_no_header_takes_long(name, value):
    began = time.process_time()
    seen(f"{name}: {value}")
    assert time.process_time() - began < 0.2


def scope(*fields: str, kind: str = "http", scheme: str = "http") -> dict:
    return {"type": kind, "client": PEER, "scheme": scheme, "headers": headers(*fields)}


def test_rewrite_changes_client_scheme_and_host_and_keeps_the_rest():
    request = scope(
        "Accept: */*", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: a.example"
    )
    before = request["headers"]
    rewrite(request, LOCAL)
    assert request["client"] == ("203.0.113.9", 0)
    assert request["scheme"] == "https"
    assert request["headers"] == [(b"host", b"a.example"), *before[1:]]


def test_rewrite_leaves_the_headers_alone_without_a_new_host():
    request = scope("X-Forwarded-For: 203.0.113.9")
    before = request["headers"]
    rewrite(request, LOCAL)
    assert request["headers"] is before


@pytest.mark.parametrize(("said", "scheme"), [("https", "wss"), ("wss", "wss"), ("http", "ws"), ("ftp", "ws")])
def test_rewrite_speaks_of_websockets_to_websockets(said, scheme):
    request = scope(f"X-Forwarded-Proto: {said}", kind="websocket", scheme="ws")
    rewrite(request, LOCAL)
    assert request["scheme"] == scheme
