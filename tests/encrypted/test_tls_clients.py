"""Real clients, as their users have them, in every way in which the server speaks TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.encrypted.programs import NEEDED, PROGRAMS, Refused
from tests.encrypted.ways import EACH, VERSIONS, asks, encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process.servers import Served

programs = pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(NEEDED[name] is None, reason=f"{name} is not installed (Debian: {name})")
        )
        for name in PROGRAMS
    ],
)
versions = pytest.mark.parametrize("version", VERSIONS)

#: RFC 8446 6.2 and RFC 5246 7.2.2, as OpenSSL's clients write them.
UNKNOWN_AUTHORITY = "unknown ca"
NONE_GIVEN = {"1.2": "handshake failure", "1.3": "certificate required"}


@pytest.fixture(scope="module", params=EACH)
def way(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def asking(way, identities) -> Iterator[Served]:
    """Takes a client's certificate, and clients without one."""
    with encrypted(way, identities, *asks(identities, required=False)) as server:
        yield server


@pytest.fixture(scope="module")
def demanding(way, identities) -> Iterator[Served]:
    """Takes nobody without a certificate."""
    with encrypted(way, identities, *asks(identities, required=True)) as server:
        yield server


@pytest.fixture(scope="module")
def open_to_all(way, identities) -> Iterator[Served]:
    """Asks nobody for a certificate."""
    with encrypted(way, identities) as server:
        yield server


@programs
@versions
def test_a_client_is_answered(open_to_all, identities, program, version):
    said = PROGRAMS[program](open_to_all.port, identities, version)
    assert (said["scheme"], said["client"][0]) == ("https", "127.0.0.1")
    assert said["server"] == ["127.0.0.1", open_to_all.port]
    tls = said["tls"]
    assert tls["tls_version"] == VERSIONS[version]
    assert tls["cipher_suite"] >> 8 == (0x13 if version == "1.3" else 0xC0) or tls["cipher_suite"] >> 8 == 0xCC
    assert tls["server_cert"].strip() == identities.site_certificate.pem.decode().strip()
    assert (tls["client_cert_name"], tls["client_cert_chain"], tls["client_cert_error"]) == (None, [], None)


@programs
@versions
def test_a_client_that_is_asked_may_give_a_certificate(asking, identities, program, version):
    tls = PROGRAMS[program](asking.port, identities, version, identities.robot)["tls"]
    assert tls["client_cert_name"] == identities.robot_name
    assert tls["client_cert_chain"][0].strip() == identities.robot_certificate.pem.decode().strip()
    assert tls["client_cert_error"] is None


@programs
@versions
def test_a_client_that_is_asked_may_have_none(asking, identities, program, version):
    tls = PROGRAMS[program](asking.port, identities, version)["tls"]
    assert (tls["client_cert_name"], tls["client_cert_chain"]) == (None, [])


@programs
@versions
@pytest.mark.parametrize("manner", ["asking", "demanding"])
def test_a_certificate_of_an_unknown_authority_is_refused(asking, demanding, manner, identities, program, version):
    server = {"asking": asking, "demanding": demanding}[manner]
    with pytest.raises(Refused) as refused:
        PROGRAMS[program](server.port, identities, version, identities.stranger)
    assert UNKNOWN_AUTHORITY in words(refused)


@programs
@versions
def test_a_client_that_has_to_give_a_certificate_and_does_not_is_refused(demanding, identities, program, version):
    with pytest.raises(Refused) as refused:
        PROGRAMS[program](demanding.port, identities, version)
    assert NONE_GIVEN[version] in words(refused)


@programs
@versions
def test_a_client_that_has_to_give_a_certificate_and_does_is_answered(demanding, identities, program, version):
    tls = PROGRAMS[program](demanding.port, identities, version, identities.robot)["tls"]
    assert tls["client_cert_name"] == identities.robot_name


def words(refused) -> str:
    """What the program said, without the differences between their spellings of an alert."""
    return str(refused.value).lower().replace("_", " ")
