"""testssl.sh against the server as it comes, with a self-signed certificate: it finds nothing to change.

All that it checks is checked, but for two parts that repeat the others slowly: each of 370 ciphers on its own (-e), and
what it thinks that 40 old browsers would have chosen (-c).
"""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.process.identities import self_signed
from tests.process.servers import Served

#: Debian drops the ending.
PROGRAM = shutil.which("testssl") or shutil.which("testssl.sh")

#: Protocols, ciphers, forward secrecy, preferences, what the server says of itself, HTTP headers, vulnerabilities.
CHECKS = "-p -s -f -P -S -h -U"

#: It asks nobody but this server, and waits for nothing for long. Some 30 s in all.
MANNERS = "--warnings batch --nodns none --ip 127.0.0.1 --quiet --color 0 --openssl-timeout 10 --connect-timeout 5"

#: From here on somebody would have to act. FATAL and WARN say that something could not be checked.
GRAVE = {"MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN"}

#: What it has against a certificate that has signed itself, and against nothing else.
SELF_SIGNED = {
    "cert_chain_of_trust",  # nobody vouches for it
    "cert_revocation",  # and so nobody could revoke it
}

#: What this testssl.sh cannot check with this openssl; it says the same of openssl's own s_server.
UNABLE = {
    "engine_problem",  # no GOST
    # Its s_client ends before the tickets of TLS 1.3 have come, and it then has none to show. See test_resumption.
    "sessionresumption_ticket",
}

#: Without these it has not done what it was started for.
LEAST = {
    "SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipherlist_NULL", "cipherlist_3DES_IDEA", "PFS",
    "cipher_order", "cert_trust", "heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego", "secure_client_renego",
    "CRIME_TLS", "BREACH", "POODLE_SSL", "fallback_SCSV", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13",
    "RC4",
}  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.skipif(PROGRAM is None, reason="testssl.sh is not installed (Debian: testssl.sh)")
def test_testssl_finds_nothing_above_low(tmp_path):
    """One way is all ways: the same contexts shake hands in each. It takes half a minute."""
    certificate = self_signed("localhost", "127.0.0.1").write_together(tmp_path)
    report = tmp_path / "report.json"
    with Served("aioserve.example:app", "--ssl-certfile", str(certificate)) as server:
        command = [str(PROGRAM), *MANNERS.split(), *CHECKS.split(), "--jsonfile", str(report)]
        done = subprocess.run(
            [*command, f"https://localhost:{server.port}"], capture_output=True, text=True, check=False, cwd=tmp_path,
            timeout=240,
        )  # fmt: skip
    findings = {finding["id"]: finding for finding in json.loads(report.read_text())}
    assert findings.keys() >= LEAST, done.stdout
    grave = {name: f"{found['severity']}: {found['finding']}" for name, found in findings.items()
             if found["severity"] in GRAVE and name not in SELF_SIGNED | UNABLE}  # fmt: skip
    assert grave == {}
    # It did look at the certificate.
    assert {findings[name]["severity"] for name in SELF_SIGNED} <= {"HIGH", "CRITICAL"}
