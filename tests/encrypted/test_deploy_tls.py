"""The examples in deploy/ that speak TLS: their own commands, with other ports, folders and users."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from aioserve.config.tree import Config
from aioserve.supervise import KILL_MARGIN
from tests.encrypted.ways import SecureClient
from tests.process.clients import Client
from tests.process.servers import REPO, Served, wait_until

DROP_IN = REPO / "deploy" / "aioserve-tls.conf"
UNIT = REPO / "deploy" / "aioserve.service"

HELLO = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    headers = [(b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})
"""

SETPRIV = shutil.which("setpriv")
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


def drop_in() -> dict[str, str]:
    """The last value of each setting, lines that go on joined."""
    lines = DROP_IN.read_text().replace("\\\n", " ").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines if "=" in line and line[0] != "#")}


def deployment() -> dict:
    return next(yaml.safe_load_all((REPO / "deploy" / "kubernetes.yaml").read_text()))


def replaced(words: list[str], changes: dict[str, str]) -> list[str]:
    text = "\n".join(words)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text.split("\n")


def shown(port: int, identities) -> bytes:
    """The certificate that a new connection sees, which serves."""
    with SecureClient(port, identities.authority.client_context()) as client:
        assert client.get("/hello", close=True).text == "Hello, World!"
        return client.sock.getpeercert(binary_form=True)


# systemd and certbot.


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed (Debian: systemd)")
def test_systemd_accepts_the_drop_in_without_a_word(tmp_path):
    there = "/srv/app/venv/bin/aioserve"
    unit, more = tmp_path / UNIT.name, tmp_path / f"{UNIT.name}.d" / "tls.conf"
    more.parent.mkdir()
    for changed, text in ((unit, UNIT.read_text()), (more, DROP_IN.read_text())):
        # The program has to exist on this machine.
        assert there in text
        changed.write_text(text.replace(there, sys.executable))
    done = subprocess.run(
        [str(SYSTEMD_ANALYZE), "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in (done.stdout + done.stderr).splitlines() if UNIT.stem in line] == []
    assert done.returncode == 0, done.stderr


class Addressed(Served):
    """Its arguments say where it listens, in a form that has the name and the value in one word."""

    ADDRESSES = frozenset({"--bind=https://127.0.0.1:0"})


class Bounded(Served):
    """Started as systemd does it: root with the capabilities of the drop-in, and no way to more."""

    def command(self) -> list[str]:
        bounds = ",".join(["-all", *(f"+{name[4:].lower()}" for name in drop_in()["CapabilityBoundingSet"].split())])
        return [str(SETPRIV), "--bounding-set", bounds, "--no-new-privs", *super().command()]


@pytest.mark.skipif(SETPRIV is None, reason="setpriv is not installed (Debian: util-linux)")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_certbots_renewal_is_seen_without_a_hook_by_workers_that_cannot_read_it(identities):
    with tempfile.TemporaryDirectory() as directory:
        # The user may enter this one, and perhaps not the one where this Python is: the application imports nothing.
        Path(directory).chmod(0o755)
        place = Path(directory, "app")
        place.mkdir()
        (place / "main.py").write_text(HELLO)
        # As certbot has it: live/NAME/ leads into archive/, and nobody but root may enter either.
        live, archive = (Path(directory, name) for name in ("live", "archive"))
        for folder in (live, archive):
            folder.mkdir(mode=0o700)
            (folder / "localhost").mkdir()
        first, second = identities.authority.server(), identities.authority.server()
        obtain(live / "localhost", archive / "localhost", 1, first)
        arguments = replaced(
            drop_in()["ExecStart"].split()[1:],
            {
                "--user\naioserve": "--user\nnobody",
                "0.0.0.0:443": "127.0.0.1:0",
                "0.0.0.0:80": "127.0.0.2:0",
                "/etc/letsencrypt/live": str(live),
            },
        )
        with Bounded(*arguments, cwd=place) as server:
            secure, plain = (int(url.rpartition(":")[2]) for url in server.urls)
            assert 0 not in {Path(f"/proc/{pid}").stat().st_uid for pid in server.workers()}
            assert shown(secure, identities) == first.der
            with Client(("127.0.0.2", plain)) as client:
                answer = client.get("/hello?x", close=True, host="localhost")
            assert (answer.status, answer.headers["location"]) == (308, f"https://localhost:{secure}/hello?x")
            obtain(live / "localhost", archive / "localhost", 2, second)
            wait_until(lambda: shown(secure, identities) == second.der, "the renewed certificate is shown")


def obtain(live: Path, archive: Path, number: int, certificate) -> None:
    """Write files of this number, and let the links of live/ lead to them."""
    for name, content in (("fullchain", certificate.chain), ("privkey", certificate.key)):
        target = archive / f"{name}{number}.pem"
        target.write_bytes(content)
        target.chmod(0o600)
        link = live / f"{name}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, live))


# Kubernetes.


def test_kubernetes_waits_longer_than_a_stop_takes():
    pod = deployment()["spec"]["template"]["spec"]
    (delay,) = (word.partition("=")[2] for word in pod["containers"][0]["args"] if word.startswith("--drain-delay"))
    limits = Config().timeout
    longest = float(delay[:-1]) + limits.graceful_shutdown + limits.lifespan_shutdown + KILL_MARGIN
    assert pod["terminationGracePeriodSeconds"] > longest


def test_kubernetes_mounts_the_secret_as_a_folder_that_the_user_of_the_image_may_read():
    pod = deployment()["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (mount["name"], "subPath" in mount) == (volume["name"], False)
    assert f"--ssl-certdir={mount['mountPath']}" in pod["containers"][0]["args"]
    # The volume's files are root's, and the group's by fsGroup: that of the image.
    assert f"USER {pod['securityContext']['fsGroup']}:" in (REPO / "Dockerfile").read_text()
    assert volume["secret"]["defaultMode"] & stat.S_IRGRP


def test_a_renewed_secret_is_shown(tmp_path, identities):
    first, second = identities.authority.server(), identities.authority.server()
    mount(tmp_path, first)
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    arguments = replaced(container["args"], {"0.0.0.0:8443": "127.0.0.1:0", "/run/secrets/tls": str(tmp_path)})
    # The block ends with QUIT, which waits for no --drain-delay.
    with Addressed(*arguments) as server:
        assert shown(server.port, identities) == first.der
        mount(tmp_path, second)
        wait_until(lambda: shown(server.port, identities) == second.der, "the renewed certificate is shown")


def mount(folder: Path, certificate) -> None:
    """As the kubelet does it: a folder of its own for each state, and ``..data`` leads to the present one."""
    state = folder / f"..{time.monotonic_ns()}"
    state.mkdir()
    (state / "tls.crt").write_bytes(certificate.chain)
    (state / "tls.key").write_bytes(certificate.key)
    (folder / "..data_tmp").symlink_to(state.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
