"""Chromium over TLS: a page, what the page fetches, and a WebSocket.

It trusts the site's key by its pin. The headless shell has no certificates of its own to show, so that it is a client
without one; and no way to be told the version, so that the server's OpenSSL is: by its own configuration file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.encrypted.ways import EACH, VERSIONS, asks, encrypted
from tests.websocket.chromium import PROGRAMS, Chromium, Trouble, program
from tests.websocket.frames import APPS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.xdist_group("chromium"),
    pytest.mark.skipif(program() is None, reason=f"none of {', '.join(PROGRAMS)} is installed"),
]

#: openssl's config(5): what every context begins with.
ONLY = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
MinProtocol = TLSv{version}
MaxProtocol = TLSv{version}
"""


@pytest.fixture(scope="module")
def browser(identities) -> Iterator[Chromium]:
    with Chromium(f"--ignore-certificate-errors-spki-list={identities.site_pin}") as browser:
        yield browser


@pytest.mark.parametrize("way", EACH)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_page_and_what_it_fetches(browser, identities, tmp_path, way, version):
    conf = tmp_path / "openssl.cnf"
    conf.write_text(ONLY.format(version=version))
    with encrypted(way, identities, *asks(identities, required=False), env={"OPENSSL_CONF": str(conf)}) as server:
        page = browser.open(f"https://localhost:{server.port}/seen")
        seen = page.run("return [document.body.innerText, isSecureContext, location.protocol]")
        fetched = page.run("""
            const answers = await Promise.all(Array.from({length: 20}, (_, at) => fetch(`/fetched?${at}`)));
            return await Promise.all(answers.map(async answer => [answer.status, await answer.json()]));
        """)
    said = json.loads(seen[0])
    assert (said["scheme"], said["tls"]["tls_version"], seen[1:]) == ("https", VERSIONS[version], [True, "https:"])
    assert said["tls"]["client_cert_chain"] == []
    assert [status for status, _ in fetched] == [200] * 20
    assert {answer["tls"]["cipher_suite"] for _, answer in fetched} == {said["tls"]["cipher_suite"]}


@pytest.mark.parametrize("way", EACH)
def test_a_page_without_the_certificate_that_is_asked_for_is_refused(browser, identities, way):
    with encrypted(way, identities, *asks(identities, required=True)) as server:
        # Chromium has the second name for it if the FIN is there when it has read the alert.
        with pytest.raises(Trouble, match=r"ERR_BAD_SSL_CLIENT_AUTH_CERT|ERR_SOCKET_NOT_CONNECTED"):
            browser.open(f"https://localhost:{server.port}/seen")
        server.wait_for("the client has shown no certificate")


@pytest.mark.parametrize("way", EACH)
def test_a_mebibyte_through_a_websocket(browser, identities, way):
    with encrypted(way, identities, app="sockets:app", cwd=APPS) as server:
        page = browser.open(f"https://localhost:{server.port}/page")
        assert page.run("""
            const socket = new WebSocket(`wss://${location.host}/echo`);
            socket.binaryType = "arraybuffer";
            await new Promise((done, failed) => { socket.onopen = done; socket.onerror = failed; });
            const sent = new Uint8Array(1 << 20);
            for (let at = 0; at < sent.length; at += 65536) crypto.getRandomValues(sent.subarray(at, at + 65536));
            const heard = new Promise(done => socket.onmessage = event => done(new Uint8Array(event.data)));
            socket.send(sent);
            const back = await heard;
            const closed = new Promise(done => socket.onclose = event => done([event.code, event.wasClean]));
            socket.close(1000);
            return [back.length === sent.length && back.every((byte, at) => byte === sent[at]), ...await closed];
        """) == [True, 1000, True]
