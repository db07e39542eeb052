"""Clients that are not ours: curl, openssl s_client, and Python's requests, each asking for one page.

Every one verifies the server's certificate against its authority and its name. It returns what the application said, as
JSON, or raises ``Refused`` with what the program has to say about the failure.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

from tests.process.servers import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.identities import Identities

CURL = shutil.which("curl")
OPENSSL = shutil.which("openssl")

REQUEST = b"GET /seen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Refused(Exception):
    """The program got no answer."""


def curl(port: int, identities: Identities, version: str, identity: Path | None = None) -> dict:
    command = [
        str(CURL), "--silent", "--show-error", "--noproxy", "*", "--max-time", str(PATIENCE), "--fail",
        "--cacert", identities.sites, f"--tlsv{version}", "--tls-max", version,
        *(["--cert", identity] if identity else []), f"https://localhost:{port}/seen",
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return json.loads(done.stdout)


def s_client(
    port: int, identities: Identities, version: str, identity: Path | None = None, *more: object
) -> tuple[dict, str]:
    """What the application said, and what s_client did about the connection. Besides, ALPN is asked for."""
    command = [
        OPENSSL, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-verify_hostname",
        "localhost", "-CAfile", identities.sites, "-verify_return_error", f"-tls{version.replace('.', '_')}",
        "-alpn", "http/1.1", "-ign_eof", *(["-cert", identity] if identity else []), *more,
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], input=REQUEST, capture_output=True, check=False, timeout=PATIENCE)
    said = (done.stdout + done.stderr).decode()
    answer = re.search(r"HTTP/1\.1 200 .*?\r\n\r\n", said, re.DOTALL)
    if answer is None:
        # Behind what it says of certificates and sessions.
        raise Refused(said[-2000:])
    assert "ALPN protocol: http/1.1" in said
    assert "Verify return code: 0 (ok)" in said
    # It writes what it says of sessions and what it has received past each other.
    return json.JSONDecoder().raw_decode(said, answer.end())[0], said


def openssl(port: int, identities: Identities, version: str, identity: Path | None = None) -> dict:
    return s_client(port, identities, version, identity)[0]


def requests(port: int, identities: Identities, version: str, identity: Path | None = None) -> dict:
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """With the one version of TLS; all else is as requests has it."""

        def init_poolmanager(self, *arguments, **options):
            context = ssl.create_default_context(cafile=str(identities.sites))
            number = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
            context.minimum_version = context.maximum_version = number
            return super().init_poolmanager(*arguments, ssl_context=context, **options)

    with requests.Session() as session:
        session.mount("https://", Adapter())
        session.trust_env = False
        session.verify = str(identities.sites)
        session.cert = identity and str(identity)
        try:
            answers = [session.get(f"https://localhost:{port}/seen", timeout=PATIENCE) for _ in range(2)]
        except requests.ConnectionError as error:
            raise Refused(repr(error)) from error
    assert [answer.status_code for answer in answers] == [200, 200]
    said, again = (answer.json() for answer in answers)
    # The second request came on the same connection.
    assert again == said
    return said


PROGRAMS = {"curl": curl, "openssl": openssl, "requests": requests}

#: What has to be installed, and by which name Debian has it. requests comes with the test dependencies.
NEEDED = {"curl": CURL, "openssl": OPENSSL, "requests": True}
