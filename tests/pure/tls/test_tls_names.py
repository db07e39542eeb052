"""Which certificate is shown for which name."""

import pytest

from aioserve.tls.findings import Certificate
from aioserve.tls.names import Names


def certificate(*names, kind="ECDSA"):
    return Certificate(
        path="x", names=names, issuer="i", since=0, until=1, kind=kind, pem=" ".join(names), digest=" ".join(names)
    )


SITES = [
    certificate("example.org", "www.example.org", "192.0.2.1"),
    certificate("*.example.org", "Shop.Example.COM"),
    certificate("*.api.example.org"),
]


@pytest.mark.parametrize(
    "name, place",
    [
        ("example.org", 0),
        ("EXAMPLE.org", 0),
        ("example.org.", 0),
        ("www.example.org", 0),
        ("blog.example.org", 1),
        ("shop.example.com", 1),
        ("SHOP.EXAMPLE.COM.", 1),
        ("v1.api.example.org", 2),
        ("api.example.org", 1),
        # A wildcard stands for one label.
        ("a.b.example.org", 0),
        # Nobody has it: the first.
        ("example.net", 0),
        ("localhost", 0),
        ("", 0),
        ("*.example.org", 1),
        # An address is never asked for by name.
        ("192.0.2.1", 0),
        (None, 0),
    ],
)
def test_a_name_is_looked_up(name, place):
    assert Names(SITES).choose(name) == (place,)


def test_keys_of_two_kinds_for_the_same_name_are_shown_together():
    names = Names(
        [
            certificate("a", "b", kind="RSA"),
            certificate("a", kind="ECDSA"),
        ]
    )
    assert names.choose("a") == (0, 1)
    assert names.choose("b") == (0,)
    assert names.default == (0, 1)
    assert names.sets == {(0, 1), (0,)}
    assert names.doubles == []


def test_of_two_with_the_same_name_and_kind_the_first_is_shown():
    names = Names([certificate("x"), certificate("a", "b"), certificate("b", "a", "c")])
    assert names.choose("a") == names.choose("b") == (1,)
    assert names.choose("c") == (2,)
    assert names.doubles == [("b", 1, 2), ("a", 1, 2)]


def test_a_lone_certificate_for_an_address_is_for_everybody():
    names = Names([certificate("127.0.0.1", "::1")])
    assert names.choose("localhost") == names.choose(None) == (0,)
    assert names.sets == {(0,)}


def test_a_certificate_without_names_is_for_nobody_but_the_default():
    names = Names([certificate(), certificate("a")])
    assert names.choose("b") == (0,)
    assert names.choose("a") == (1,)


def test_the_default_of_a_later_kind_has_the_first_ones_name():
    names = Names([certificate("a", kind="RSA"), certificate("b", kind="ECDSA")])
    assert names.default == (0,)


def test_no_certificates_are_nothing_to_choose_from():
    assert Names([]).default == ()
