"""Whether this machine's kernel can encrypt: every answer that a machine may give, and this one's."""

from __future__ import annotations

import errno
import platform
import socket
import ssl

import pytest

from aioserve.tls import ktls


def found(**differing):
    return ktls.Found(
        **{
            "system": "Linux",
            "release": "6.1.0-56-amd64",
            "openssl": (3, 0, 2),
            "version": "OpenSSL 3.0.2",
            "attached": 0,
            "keyed": 0,
            **differing,
        }
    )


def test_nothing_is_in_the_way():
    assert ktls.obstacle(found()) is None


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ({"system": "Darwin"}, "Darwin has no kernel TLS"),
        ({"system": ""}, "this system has no kernel TLS"),
        (
            {"openssl": (1, 1, 1), "version": "OpenSSL 1.1.1w"},
            "this Python has OpenSSL 1.1.1w, and OpenSSL 3.0 was the first that can",
        ),
        (
            {"attached": errno.ENOENT},
            "the kernel has no module tls (modprobe tls on the host; a container cannot load it)",
        ),
        ({"attached": errno.ENOPROTOOPT}, "the kernel has no TCP_ULP"),
        ({"attached": errno.EPERM}, "the kernel refuses TLS for a socket (EPERM)"),
        (
            {"keyed": errno.ENOENT},
            "the kernel has no AES-GCM for TLS (ENOENT; modprobe gcm or aesni_intel on the host)",
        ),
        ({"attached": 9999}, "the kernel refuses TLS for a socket (9999)"),
    ],
)
def test_what_is_in_the_way_is_said(differing, said):
    assert ktls.obstacle(found(**differing)) == said


@pytest.mark.parametrize(
    ("release", "renews"),
    [
        ("6.1.0-56-amd64", False),
        ("6.13.12", False),
        ("6.14.0", True),
        ("6.14-rc1", True),
        ("7.0", True),
        ("10.2.1", True),
        ("5.15.167.4-microsoft-standard-WSL2", False),
        ("", False),
    ],
)
def test_whether_keys_can_be_renewed_is_a_matter_of_the_kernel(release, renews):
    assert ktls.renews_keys(release) is renews


def test_this_machine_is_asked():
    seen = ktls.look()
    assert seen.system == platform.system()
    assert seen.openssl == ssl.OPENSSL_VERSION_INFO[:3]
    assert isinstance(seen.attached, int)


@pytest.mark.skipif(not hasattr(ssl, "OP_ENABLE_KTLS"), reason="Python 3.12 was the first with a name for it")
def test_the_option_is_that_of_openssl():
    assert ktls.OPTION == ssl.OP_ENABLE_KTLS


def test_a_socket_without_tls_is_not_encrypted_by_the_kernel():
    one, other = socket.socketpair()
    with one, other, socket.socket() as tcp:
        assert not ktls.sends(one)
        assert not ktls.sends(tcp)
