"""Certificates that change under load: no request fails, and who shakes hands from then on sees the new one.

``python -m tests.encrypted.test_rotation`` changes twenty of them and says how long each took.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self

import pytest

from tests.encrypted.programs import NEEDED
from tests.encrypted.ways import EACH, WAYS, SecureClient, encrypted
from tests.process.clients import PATIENCE, Load
from tests.process.identities import Identities

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.process.servers import Served

WORKERS = ("--workers", "2", "--reuseport")

#: How soon a new certificate has to be seen, in seconds: what administrators are told.
SOON = 2.0

#: New connections that all have to show it. Whose worker they meet is the kernel's choice.
IN_A_ROW = 8


class Repeating:
    """Calls ``once`` again and again beside the test, and keeps what it raises."""

    def __init__(self, once: Callable[[], None]) -> None:
        self.done = 0
        self.errors: list[str] = []
        self._once = once
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive(), "a client hangs"

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._once()
                self.done += 1
            except Exception as error:
                self.errors.append(repr(error))


def curl(port: int, identities: Identities) -> None:
    """A process, a connection and a handshake of its own."""
    command = [NEEDED["curl"], "-sS", "--fail", "--noproxy", "*", "--max-time", PATIENCE, "--cacert", identities.sites]
    done = subprocess.run([*map(str, command), f"https://localhost:{port}/pid"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def rotate(server: Served, identities: Identities, times: int) -> list[float]:
    """Change the certificate so often; how long the old one was still shown after each change, in seconds."""
    context = identities.authority.client_context()
    lasted = []
    for _ in range(times):
        new = identities.authority.server()
        new.write_together(identities.directory, "rotating")
        changed = last_old = time.monotonic()
        fresh = 0
        while fresh < IN_A_ROW:
            assert time.monotonic() < changed + PATIENCE, f"the old one is shown after {PATIENCE:g} s:\n{server.log()}"
            with SecureClient(server.port, context) as client:
                begun = time.monotonic()
                if client.sock.getpeercert(binary_form=True) == new.der:
                    fresh += 1
                else:
                    fresh, last_old = 0, begun
        lasted.append(last_old - changed)
    return lasted


def under_load(way: str, identities: Identities, times: int) -> tuple[list[float], int, list[str]]:
    """How long the old ones were shown, how many requests were answered meanwhile, and what went wrong."""
    site = identities.authority.server().write_together(identities.directory, "rotating")
    context = identities.authority.client_context()
    with ExitStack() as stack:
        server = stack.enter_context(encrypted(way, identities, *WORKERS, app="plain:app", site=site))
        load = stack.enter_context(Load(server, keep_alive=2, fresh=2, tls=context))
        session = stack.enter_context(_session(identities))
        loads = [stack.enter_context(Repeating(lambda: _ask(session, server.port)))]
        if NEEDED["curl"] is not None:
            loads.append(stack.enter_context(Repeating(lambda: curl(server.port, identities))))
        load.progress(5)
        lasted = rotate(server, identities, times)
        load.progress(5)
        assert all(repeating.done for repeating in loads)
    errors = [*map(str, load.failures), *(error for repeating in loads for error in repeating.errors)]
    return lasted, load.answered + sum(repeating.done for repeating in loads), errors


def _session(identities: Identities):
    import requests

    session = requests.Session()
    session.trust_env = False
    session.verify = str(identities.sites)
    return session


def _ask(session, port: int) -> None:
    """On the connection that it keeps."""
    session.get(f"https://localhost:{port}/pid", timeout=PATIENCE).raise_for_status()


@pytest.mark.parametrize("way", EACH)
def test_certificates_change_under_load(identities, way):
    lasted, answered, errors = under_load(way, identities, 5)
    assert errors == []
    assert answered > 100
    # One of five may fall on a moment when the machine does something else.
    assert median(lasted) < SOON


def test_a_connection_that_is_open_goes_on_with_what_it_began_with(identities):
    site = identities.authority.server().write_together(identities.directory, "rotating")
    with encrypted("inline", identities, app="plain:app", site=site) as server:
        with SecureClient(server.port, identities.authority.client_context()) as client:
            pid = client.get("/pid").text
            shown = client.sock.getpeercert(binary_form=True)
            rotate(server, identities, 1)
            assert client.get("/pid").text == pid
            assert client.sock.getpeercert(binary_form=True) == shown
        assert server.workers() == {int(pid)}


@pytest.mark.parametrize("left", ["certificate", "nothing"])
def test_a_bad_file_is_refused_and_the_old_certificate_shown_on(identities, left):
    certificate = identities.authority.server()
    site = certificate.write_together(identities.directory, "rotating")
    with encrypted("inline", identities, app="plain:app", site=site) as server:
        mark = server.mark()
        site.write_bytes(certificate.chain if left == "certificate" else b"")
        server.wait_for("rotating.pem", since=mark)
        with SecureClient(server.port, identities.authority.client_context()) as client:
            assert client.sock.getpeercert(binary_form=True) == certificate.der
        # And the next good one is taken.
        rotate(server, identities, 1)


def main(times: int = 20) -> None:
    with tempfile.TemporaryDirectory() as directory:
        identities = Identities(Path(directory))
        for way in WAYS:
            lasted, answered, errors = under_load(way, identities, times)
            shown = f"median {median(lasted):.2f} s, longest {max(lasted):.2f} s"
            print(f"{way}: {times} rotations, the old one shown for {shown}; {answered} requests, {len(errors)} failed")
            print(*errors[:5], sep="\n")


if __name__ == "__main__":
    main()
