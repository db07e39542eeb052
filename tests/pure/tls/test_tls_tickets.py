"""Keys of session tickets: shared by a fork, and overwritten where they must not be."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from aioserve.tls.tickets import can_be_forgotten, forget, keys_of
from tests.tls import Authority, TlsClient, shake_hands

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="it knows CPython's objects")

#: A parent with keys, and a child that was forked from it and forgets them. The keys go to stdout, and leave no copy.
PROGRAM = """
import ctypes, os, ssl, sys
from aioserve.tls import tickets
front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
done, tell = os.pipe()
pid = os.fork()
if pid == 0:
    tickets.forget(front)
    os.write(tell, b"!")
else:
    os.read(done, 1)
    keys = ctypes.create_string_buffer(80)
    assert tickets._ctrl()(tickets._address(front), 58, 80, keys) == 1
    os.write(1, keys.raw)
    os.write(1, b"%d." % pid)
    ctypes.memset(keys, 0, 80)
sys.stdin.read()
"""


def test_it_works_in_this_interpreter():
    assert can_be_forgotten()


def test_a_session_of_before_is_not_resumed():
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.server().load_into(context)
    client = authority.client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    first = TlsClient(client)
    shake_hands(context, first)
    again = TlsClient(client, session=first.engine.session)
    shake_hands(context, again)
    assert again.engine.session_reused
    forget(context)
    assert keys_of(context) == bytes(80)
    late = TlsClient(client, session=first.engine.session)
    shake_hands(context, late)
    assert not late.engine.session_reused


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_keys_are_nowhere_in_a_process_that_has_forgotten_them():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as process:
        found = b""
        while len(found) <= 80 or not found.endswith(b"."):
            found += process.stdout.read1(4096)
        keys, child = found[:80], int(found[80:-1])
        try:
            for secret in (keys[16:48], keys[48:80]):
                assert secret in memory(process.pid)
                assert secret not in memory(child)
        finally:
            process.stdin.close()


def memory(pid: int) -> bytes:
    """All that a process can write to, which is where a secret may be."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            if rights.startswith("rw") and "[v" not in line:
                begin, end = (int(number, 16) for number in place.split("-"))
                file.seek(begin)
                found.append(file.read(end - begin))
    return b"\0".join(found)
