"""A session that one worker has begun goes on with another: the tickets are everybody's.

Under --reuseport the kernel chooses the worker by the client's port: a client that comes again meets another one
soon. A session counts as resumed when the client says so.
"""

from __future__ import annotations

import signal
import ssl

import pytest

from tests.encrypted.programs import NEEDED, s_client
from tests.encrypted.ways import EACH, VERSIONS, SecureClient, encrypted

pytestmark = pytest.mark.parametrize("way", EACH)

WORKERS = ("--workers", "3", "--reuseport")

#: With three workers the chance to miss one in all of them is one in ten million.
VISITS = 40


def pid_of(client: SecureClient) -> str:
    response = client.get("/pid", close=True)
    assert response.status == 200
    return response.text


def only(identities, version: str) -> ssl.SSLContext:
    number = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    return identities.authority.client_context(minimum_version=number, maximum_version=number)


def begin(port: int, context: ssl.SSLContext) -> tuple[str, ssl.SSLSession]:
    """Who answered first, and the session. The tickets of TLS 1.3 come with the first data."""
    with SecureClient(port, context) as client:
        pid = pid_of(client)
        assert not client.sock.session_reused
        session = client.sock.session
        assert session is not None
        assert session.has_ticket
        return pid, session


@pytest.mark.parametrize("version", VERSIONS)
def test_pythons_session_goes_on_with_every_worker(identities, way, version):
    context = only(identities, version)
    with encrypted(way, identities, *WORKERS, app="plain:app") as server:
        first, session = begin(server.port, context)
        met = {first}
        for _ in range(VISITS):
            with SecureClient(server.port, context, session) as client:
                met.add(pid_of(client))
                assert client.sock.session_reused
            if met == {str(pid) for pid in server.workers()}:
                return
    raise AssertionError(f"{VISITS} connections met only {met}")


@pytest.mark.skipif(NEEDED["openssl"] is None, reason="openssl is not installed (Debian: openssl)")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_in_openssls_file_goes_on_with_another_worker(identities, tmp_path, way, version):
    file = tmp_path / "session"
    with encrypted(way, identities, *WORKERS) as server:
        first, said = s_client(server.port, identities, version, None, "-sess_out", file)
        assert "\nNew, TLSv" in said
        for _ in range(VISITS):
            again, said = s_client(server.port, identities, version, None, "-sess_in", file)
            assert "\nReused, TLSv" in said
            if again["pid"] != first["pid"]:
                return
    raise AssertionError(f"{VISITS} connections met the same worker")


def test_a_session_outlives_a_reload(identities, way):
    context = only(identities, "1.3")
    with encrypted(way, identities, *WORKERS, app="plain:app") as server:
        before = server.workers()
        first, session = begin(server.port, context)
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_for("finished: 3 replaced", since=mark)
        assert not before & server.workers()
        with SecureClient(server.port, context, session) as client:
            assert pid_of(client) != first
            assert client.sock.session_reused
