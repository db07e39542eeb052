"""Real terminators and balancers in front of the server: what the application then knows of the client and its TLS."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.encrypted.in_front import HITCH, STREAM, Hitch, NginxStream, Passthrough
from tests.encrypted.ways import EACH, VERSIONS, SecureClient, asks, encrypted
from tests.process.front_ends import CLIENT, HAPROXY, NGINX
from tests.process.servers import Served

needs_hitch = pytest.mark.skipif(HITCH is None, reason="hitch is not installed (Debian: hitch)")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (Debian: haproxy)")
needs_stream = pytest.mark.skipif(
    NGINX is None or not Path(STREAM).exists(), reason="nginx has no stream module (Debian: libnginx-mod-stream)"
)


def seen(port: int, context) -> dict:
    """What the application says of a client that comes from CLIENT, twice on one connection."""
    with SecureClient(port, context, source=CLIENT) as client:
        client.request("/seen")
        first = client.response()
        second = client.get("/seen", close=True)
    assert (first.status, second.status) == (200, 200)
    assert first.text == second.text
    return json.loads(first.text)


def only(identities, version: str, certificate=None):
    context = identities.authority.client_context(certificate)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


# hitch.


@pytest.fixture
def meeting_place():
    """A folder that hitch may enter as well, which serves as another user."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield directory


@needs_hitch
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_the_application_sees_what_hitch_knows(tmp_path, meeting_place, identities, way, version):
    path = f"{meeting_place}/s"
    listen = ["--port", "0"] if way == "tcp" else ["--uds", path, "--uds-mode", "666"]
    with Served("proxied:app", *listen, "--proxy-protocol", "v2") as server:
        upstream = f"[127.0.0.1]:{server.port}" if way == "tcp" else path
        with Hitch(tmp_path, identities, upstream) as hitch:
            said = seen(hitch.port, only(identities, version))
    assert (said["client"][0], said["scheme"]) == (CLIENT, "https")
    assert said["server"] == ["127.0.0.1", hitch.port]
    tls = said["tls"]
    assert tls["tls_version"] == VERSIONS[version]
    assert tls["cipher_suite"] in ({0x1301, 0x1302, 0x1303} if version == "1.3" else {0xC02B, 0xC02C, 0xCCA9})
    assert (tls["client_cert_name"], tls["client_cert_chain"], tls["client_cert_error"]) == (None, [], None)
    assert said["names"]["alpn"] in ("", "http/1.1")


@needs_hitch
def test_version_1_has_no_word_about_tls(tmp_path, identities):
    with (
        Served("proxied:app", "--proxy-protocol", "v1") as server,
        Hitch(tmp_path, identities, f"[127.0.0.1]:{server.port}", header="write-proxy-v1") as hitch,
    ):
        said = seen(hitch.port, only(identities, "1.3"))
    assert (said["client"][0], said["scheme"], said["tls"]) == (CLIENT, "http", None)


@needs_hitch
@pytest.mark.parametrize("verify", ["optional", "required"])
def test_hitch_looks_at_the_clients_certificate(tmp_path, identities, verify):
    with (
        Served("proxied:app", "--proxy-protocol", "auto") as server,
        Hitch(tmp_path, identities, f"[127.0.0.1]:{server.port}", verify=verify) as hitch,
    ):
        said = seen(hitch.port, only(identities, "1.2", identities.robot_certificate))
    # It was shown and verified; hitch names nobody.
    assert (said["scheme"], said["tls"]["client_cert_error"], said["tls"]["client_cert_name"]) == ("https", None, None)


@needs_hitch
def test_hitch_accepts_the_shipped_file(tmp_path, identities):
    hitch = Hitch(tmp_path, identities, "[127.0.0.1]:8000")
    hitch.close()
    done = subprocess.run([*hitch.command, "--test"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Those that pass TLS on: the header comes first, and TLS is the server's own.


@needs_haproxy
@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", EACH)
def test_tls_that_haproxy_passes_on(tmp_path, identities, way, version, sends):
    options = (*asks(identities, required=False), "--proxy-protocol", "auto")
    with (
        encrypted(way, identities, *options) as server,
        Passthrough(tmp_path, f"127.0.0.1:{server.port}", sends=sends) as haproxy,
    ):
        said = seen(haproxy.port, only(identities, version, identities.robot_certificate))
    assert (said["client"][0], said["scheme"]) == (CLIENT, "https")
    assert said["server"] == ["127.0.0.1", haproxy.port]
    assert said["tls"]["tls_version"] == VERSIONS[version]
    assert said["tls"]["client_cert_name"] == identities.robot_name


@needs_stream
@pytest.mark.parametrize("way", EACH)
def test_tls_that_nginx_passes_on(tmp_path, identities, way):
    with (
        encrypted(way, identities, "--proxy-protocol", "v1") as server,
        NginxStream(tmp_path, f"127.0.0.1:{server.port}") as nginx,
    ):
        said = seen(nginx.port, only(identities, "1.3"))
    assert (said["client"][0], said["scheme"]) == (CLIENT, "https")
    assert said["server"] == ["127.0.0.1", nginx.port]
    assert said["tls"]["tls_version"] == VERSIONS["1.3"]


@needs_stream
def test_nginx_accepts_the_shipped_file_without_a_warning(tmp_path):
    nginx = NginxStream(tmp_path, "127.0.0.1:8443")
    nginx.close()
    done = subprocess.run([*nginx.command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize("way", EACH)
def test_a_listener_that_wants_a_header_takes_no_bare_handshake(identities, way):
    with encrypted(way, identities, "--proxy-protocol", "auto") as server:
        with pytest.raises(OSError, match=r"(?i)eof|reset|closed|unexpected"):
            SecureClient(server.port, identities.authority.client_context())
        server.wait_for(" - closed: ")
