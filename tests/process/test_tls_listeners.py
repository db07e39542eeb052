"""Listeners that speak TLS, plain HTTP, or redirect the one to the other, side by side in every accept pattern."""

from __future__ import annotations

import os
import signal

import httpx
import pytest

from tests.process.clients import Client
from tests.process.servers import Served, freeze, wait_until
from tests.process.test_upgrading import drain, leaving_nobody, upgrade
from tests.tls import Authority

MODES = {
    "dispatch": ("--workers", "2", "--accept", "dispatch"),
    "late": ("--workers", "2", "--reuseport"),
    "shared": ("--workers", "2"),
    "single": ("--accept", "single"),
    "threads": ("--accept", "threads", "--threads", "2"),
}
AUTHORITY = Authority()
POLICY = "max-age=60"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    certfile, keyfile = AUTHORITY.server("localhost", "127.0.0.1", "127.0.0.3").write(tmp_path_factory.mktemp("tls"))
    return ("--ssl-certfile", certfile, "--ssl-keyfile", keyfile)


@pytest.fixture
def client():
    with httpx.Client(verify=AUTHORITY.client_context(), trust_env=False) as one:
        yield one


def scope(client, url):
    """The scheme that the application was told, and the response."""
    response = client.get(f"{url}/scope", headers={"connection": "close"})
    return response.json()["scheme"], response


@pytest.mark.parametrize("mode", MODES)
def test_each_address_speaks_what_it_says(mode, certificate, client):
    addresses = ("-b", "https://127.0.0.1:0", "-b", "http://127.0.0.2:0", "--ssl-redirect", "127.0.0.3:0")
    with Served("plain:app", *MODES[mode], *certificate, *addresses, "--ssl-hsts", POLICY) as server:
        secure, plain, redirect = server.urls
        assert secure.startswith("https://127.0.0.1:")
        for _ in range(4):  # so that every worker has its turn
            scheme, response = scope(client, secure)
            assert (scheme, response.headers["strict-transport-security"]) == ("https", POLICY)
            scheme, response = scope(client, plain)
            assert scheme == "http"
            assert "strict-transport-security" not in response.headers

            moved = client.get(f"{redirect}/a?b", headers={"host": "localhost"})
            assert (moved.status_code, moved.headers["location"]) == (308, f"https://localhost:{server.port}/a?b")
            assert "strict-transport-security" not in moved.headers
            mistaken = client.get(f"http://127.0.0.1:{server.port}/a?b")
            assert (mistaken.status_code, mistaken.headers["location"]) == (308, f"{secure}/a?b")

        with server.connect() as garbage:
            garbage.send(b"\x80\x01nonsense")
            assert garbage.rest() == b""
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert '"GET /a?b HTTP/1.1" 308 Permanent Redirect' in server.stdout()


@pytest.mark.once
def test_a_redirect_keeps_method_and_body_and_is_followed(certificate, client):
    with Served("plain:app", *certificate, "-b", "0.0.0.0:0", "--ssl-redirect", "127.0.0.3:0") as server:
        response = client.post(f"{server.urls[1]}/echo", content=b"x" * 300_000, follow_redirects=True)
    assert (len(response.history), str(response.url)) == (1, f"https://127.0.0.3:{server.port}/echo")
    assert response.content == b"x" * 300_000


@pytest.mark.once
def test_a_worker_that_is_added_speaks_tls_and_so_do_those_that_accept_for_it(certificate, client):
    with Served("plain:app", "--workers", "1", "--reuseport", "--steal", "always", *certificate) as server:
        mark = server.mark()
        server.signal(signal.SIGTTIN)
        server.wait_for("worker 1 (pid ", since=mark)
        first, second = sorted(server.workers())
        answers = [client.get(f"{server.url}/pid", headers={"connection": "close"}).text for _ in range(20)]
        assert set(answers) <= {str(first), str(second)}

        # Whatever the kernel gives to a worker that stands still, its sibling takes.
        freeze(second)
        try:
            for _ in range(10):
                assert client.get(f"{server.url}/pid", headers={"connection": "close"}).text == str(first)
        finally:
            os.kill(second, signal.SIGCONT)


@pytest.mark.once
def test_unix_sockets_speak_tls_too(certificate, tmp_path):
    plain, secure = tmp_path / "plain", tmp_path / "secure"
    with Served("plain:app", *certificate, "-b", f"http://unix:{plain}", "-b", f"unix:{secure}") as server:
        assert server.urls == [f"unix:{plain}", f"https://unix:{secure}"]
        with Client(str(plain)) as client:
            assert client.get("/", close=True).text == "Hello, World!"
        transport = httpx.HTTPTransport(uds=str(secure), verify=AUTHORITY.client_context())
        with httpx.Client(transport=transport) as client:
            assert client.get("https://localhost/scope").json()["scheme"] == "https"


@pytest.mark.once
@pytest.mark.parametrize("mode", ["shared", "late"])
def test_a_new_master_may_speak_tls_where_the_old_one_did_not(mode, certificate, client, tmp_path):
    file = tmp_path / "aioserve.toml"
    file.write_text("")
    with Served("plain:app", *MODES[mode], "-c", file) as server, leaving_nobody(server):
        assert scope(client, server.url)[0] == "http"
        file.write_text(f'[ssl]\ncertfile = ["{certificate[1]}"]\nkeyfile = ["{certificate[3]}"]\n')

        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_for("needs a restart; until then it is []", since=mark)
        server.wait_for("reload to generation 2 finished", since=mark)
        assert scope(client, server.url)[0] == "http"

        heir = upgrade(server)
        drain(server, heir)
        secure = server.urls[-1]
        assert secure == server.url.replace("http://", "https://")
        assert scope(client, secure)[0] == "https"
        server.signal(signal.SIGQUIT)
        wait_until(lambda: server.process.poll() is not None, "the old master has gone")
        assert scope(client, secure)[0] == "https"


def test_an_introduced_client_is_redirected_and_may_speak_tls(certificate):
    proxied = ("--proxy-protocol", "v1", "--proxy-protocol-from", "127.0.0.1")
    line = b"PROXY TCP4 203.0.113.9 198.51.100.1 50000 443\r\n"
    with Served("plain:app", *certificate, *proxied, "-b", "127.0.0.1:0", "--ssl-redirect", "127.0.0.3:0") as server:
        with Client(("127.0.0.3", int(server.urls[1].rpartition(":")[2]))) as client:
            client.send(line + b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert client.response().headers["location"] == f"https://a.example:{server.port}/"
        with server.connect() as client:
            client.send(line + b"GET / HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
            assert client.response().headers["location"] == "https://a.example/"
        with server.connect() as client:
            client.send(line)
            client.sock = AUTHORITY.client_context().wrap_socket(client.sock, server_hostname="localhost")
            client.sock.sendall(b"GET /scope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.sock.recv(65536), b""))
            assert b'"scheme": "https"' in answer
            assert b'"client": "203.0.113.9"' in answer
