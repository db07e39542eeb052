"""--tls-processes: where the private key is, and where it is not. Memory is searched, as somebody would who got in."""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.process.servers import Served
from tests.tls import Authority, Certificate

pytestmark = [
    pytest.mark.once,  # what is in memory is OpenSSL's business and the fork's, not Python's
    pytest.mark.skipif(sys.platform != "linux", reason="--tls-processes needs Linux"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into the memory of a terminator"),
]

CHUNK = 1 << 20


class Ordinary(Served):
    """A server of one ordinary user: with root's files, because the interpreter may be one, and none of its rights."""

    def command(self) -> list[str]:
        setpriv = shutil.which("setpriv", path=f"{os.environ.get('PATH', '')}:/usr/bin")
        assert setpriv is not None, "setpriv is not installed (Debian: util-linux)"
        return [setpriv, "--bounding-set=-all", "--inh-caps=-all", *super().command()]


@pytest.fixture
def folder():
    """One that everybody can read, because pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def secrets_of(certificate: Certificate) -> dict[str, bytes]:
    """Everything that would give the key away, in each form in which it may stand in memory."""
    key = serialization.load_pem_private_key(certificate.key, None)
    body = b"".join(line for line in certificate.key.splitlines() if not line.startswith(b"-"))
    found = {f"PEM, line {n}": line for n, line in enumerate(certificate.key.splitlines()) if len(line) == 64}
    found["DER"] = base64.b64decode(body)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        integers = {"p": numbers.p, "q": numbers.q, "d": numbers.d, "dmp1": numbers.dmp1}
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        integers = {"scalar": key.private_numbers().private_value}
    for name, value in integers.items():
        size = (value.bit_length() + 7) // 8
        found[f"{name}, as people write it"] = value.to_bytes(size, "big")
        found[f"{name}, as OpenSSL keeps it"] = value.to_bytes(size, "little")
    return found


def search(pid: int, secrets: dict[str, bytes]) -> set[str]:
    """Which of these are in the memory of a process: all of it, whatever it is for."""
    found = set()
    longest = max(map(len, secrets.values()))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(number, 16) for number in re.match(r"(\w+)-(\w+)", line).groups())
            if not line.split()[1].startswith("r") or "[v" in line:
                continue
            before = b""
            for at in range(begin, end, CHUNK):
                memory.seek(at)
                try:
                    data = before + memory.read(min(CHUNK, end - at))
                except OSError:
                    break
                found |= {name for name, secret in secrets.items() if secret in data}
                before = data[-longest:]
    return found


@pytest.mark.parametrize("rsa", [False, True], ids=["P-256", "RSA"])
@pytest.mark.parametrize("user", ["of the same user", "as nobody, of a master that is root"])
def test_the_private_key_is_in_terminators_and_in_no_worker(folder, user, rsa):
    authority = Authority()
    certificate = authority.server(rsa=rsa)
    certfile, keyfile = certificate.write(folder)
    tls = authority.client_context()
    flags = ["snooping:app", "--ssl-certfile", str(certfile), "--ssl-keyfile", str(keyfile), "--tls-processes", "1"]
    if user == "of the same user":
        served = Ordinary(*flags, "--workers", "2")
    else:
        served = Served(*flags, "--workers", "2", "--user", "nobody")
    keyfile.chmod(0o400)
    secrets = secrets_of(certificate)
    with served as server:
        seen = json.loads(server.get("/", tls=tls).text)
        workers, terminators = server.workers(), server.terminators()
        assert len(workers) == 2
        # The search is one that finds it.
        inside = search(*terminators, secrets)
        assert [name for name in inside if name.endswith("as OpenSSL keeps it")]
        for pid in workers:
            assert search(pid, secrets) == set()
        assert search(server.pid, secrets) == set()
        # And no way leads from the application to where it is.
        assert seen["user"] == (0 if user == "of the same user" else pwd.getpwnam("nobody").pw_uid)
        assert len(workers - set(map(int, seen["found"]))) == 1, "it has looked at all but itself"
        for pid in (server.pid, *terminators):
            assert seen["found"][str(pid)] == []


def test_workers_that_have_no_keys_can_be_traced_as_ever(folder):
    """Debuggers, profilers and cores go on working where there is no secret: one worker may look at the other."""
    authority = Authority()
    certfile, keyfile = authority.server().write(folder)
    flags = ["--ssl-certfile", str(certfile), "--ssl-keyfile", str(keyfile), "--tls-processes", "1"]
    with Ordinary("snooping:app", "--workers", "2", *flags) as server:
        seen = json.loads(server.get("/", tls=authority.client_context()).text)
        (sibling,) = set(map(int, seen["found"])) & server.workers()
        assert "memory" in seen["found"][str(sibling)]
