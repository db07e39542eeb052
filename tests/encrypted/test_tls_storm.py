"""Handshakes that are slow, halved, rubbish or endless: others are served as before, and nothing of them remains.

Quiet times and storms take turns in one server, and what others see then is compared.
``python -m tests.encrypted.test_tls_storm`` is a larger one, with a table.
"""

from __future__ import annotations

import json
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.encrypted.programs import NEEDED, REQUEST
from tests.encrypted.records import Told
from tests.encrypted.ways import EACH, WAYS, SecureClient, encrypted
from tests.load.healthy import Healthy
from tests.load.slow import MIB, descriptors, raise_descriptor_limit
from tests.process.identities import Identities
from tests.process.servers import PATIENCE, REPO, memory, wait_until
from tests.tls import TlsClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.load.healthy import Seen
    from tests.process.servers import Served

#: What the server gives a handshake, and a client that is through for its first request, in seconds.
LIMIT = 1
LIMITS = ("--timeout-handshake", str(LIMIT), "--timeout-header", str(LIMIT))

#: After that an attacker that is still open is one too many: limits are looked at once a second, on a busy machine.
CLOSED_WITHIN = 5 * LIMIT


@dataclass
class Weather:
    """What a well-behaved client has seen meanwhile, and the memory of worker and terminator then, in bytes."""

    seen: Seen
    rss: int
    storm: dict


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def endure(server: Served, identities: Identities, count: int, seconds: float) -> Weather:
    """``count`` attackers within ``seconds``; none for a quiet time of the same length."""
    context = identities.authority.client_context()
    # A worker, and a terminator where there is one.
    exposed = server.members() - {server.pid}
    before = sum(map(descriptors, exposed))
    storm: dict = {}
    with Healthy(
        ("127.0.0.1", server.port), per_second=100, connect=lambda address: SecureClient(address[1], context)
    ) as seen:
        if count:
            command = [sys.executable, "-m", "tests.encrypted.storm"]
            command += [str(server.port), str(count), str(seconds), str(CLOSED_WITHIN), str(identities.sites)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
            assert done.returncode == 0, done.stderr
            storm = json.loads(done.stdout)
        else:
            time.sleep(seconds)  # the length of a measurement, nothing is awaited
    assert server.members() - {server.pid} == exposed, f"a process has ended:\n{server.log()}"
    wait_until(lambda: sum(map(descriptors, exposed)) <= before, "all connections are closed")
    return Weather(seen, sum(memory(pid, "VmRSS") for pid in exposed), storm)


@pytest.mark.xdist_group("load")
@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("way", EACH)
def test_a_storm_disturbs_nobody_and_leaves_nothing(identities, way):
    with encrypted(way, identities, *LIMITS, app="plain:app") as server:
        turns = [endure(server, identities, count, 1.0) for count in (0, 160, 0, 160)]
    for weather in turns:
        assert weather.seen.errors == []
    quiet, stormy = turns[::2], turns[1::2]
    for weather in stormy:
        assert sum(weather.storm["opened"].values()) == 160
        assert set(weather.storm["opened"].values()) == {20}
        assert (weather.storm["left"], weather.storm["failed"]) == ({}, {})
    # Pairs, so that a noisy machine is noisy for both, and the better one: a loop that stands still does so each time.
    assert min(ratio(calm, storm, 50) for calm, storm in zip(quiet, stormy, strict=True)) < 10
    assert min(ratio(calm, storm, 99) for calm, storm in zip(quiet, stormy, strict=True)) < 20
    # The first storm grows what the second one uses again.
    assert turns[3].rss - turns[1].rss < 4 * MIB


def ratio(calm: Weather, storm: Weather, percent: float) -> float:
    return storm.seen.percentile(percent) / calm.seen.percentile(percent)


@pytest.mark.skipif(NEEDED["openssl"] is None, reason="openssl is not installed (Debian: openssl)")
@pytest.mark.parametrize("way", EACH)
def test_renegotiation_is_refused(identities, way):
    with encrypted(way, identities) as server:
        command = [NEEDED["openssl"], "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2", "-ign_eof"]
        with subprocess.Popen(
            command[:-1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            # Its commands are lines of their own, once the session is there.
            while b"Extended master secret" not in client.stdout.readline():
                pass
            client.stdin.write(b"R\n")
            client.stdin.flush()
            said, _ = client.communicate(timeout=PATIENCE)
        assert b"RENEGOTIATING" in said
        assert b"no renegotiation" in said or b"handshake failure" in said
        with SecureClient(server.port, identities.authority.client_context()) as other:
            other.send(REQUEST)
            assert other.response().status == 200


def test_made_key_updates_are_what_a_server_takes(identities):
    """Else the storm would only show how mistakes are closed."""
    told = Told(identities.authority.client_context())
    client = TlsClient(told.context)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identities.site)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    while not client.shake_hands():
        incoming.write(client.take())
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        client.feed(outgoing.read())
    incoming.write(client.take())
    server.do_handshake()
    updates = told.updates(client.engine)
    for _ in range(3):
        incoming.write(updates.next())
        with pytest.raises(ssl.SSLWantReadError):
            server.read(1)
    incoming.write(updates.next()[:-1] + b"\0")
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac|record.layer.failure"):
        server.read(1)


def main(count: int = 2000, seconds: float = 20.0) -> None:
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as directory:
        identities = Identities(Path(directory))
        for way in WAYS:
            with encrypted(way, identities, app="plain:app") as server:
                print(way, *("requests", "errors", "p50 ms", "p99 ms", "max ms", "RSS MiB"), sep="\t")
                for name, attackers in (("quiet", 0), ("storm", count)) * 2:
                    weather = endure(server, identities, attackers, seconds)
                    times = [f"{weather.seen.percentile(percent) * 1000:.2f}" for percent in (50, 99, 100)]
                    counts = len(weather.seen.times), len(weather.seen.errors)
                    print(name, *counts, *times, f"{weather.rss / MIB:.1f}", weather.storm or "", sep="\t", flush=True)


if __name__ == "__main__":
    main()
