"""Kernel TLS for real, in a virtual machine whose kernel has it: what ``inside.py`` has seen there.

The machine boots once for all of these; where the processor is emulated all of it takes the better part of a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tls import Authority

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
SIZE, COUNT = 100 * 1024 * 1024, 3_000_001
VERSIONS = ("TLSv1.2", "TLSv1.3")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.xdist_group("ktls"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no Debian, whose kernel it is"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What was seen in the machine."""
    folder = tmp_path_factory.mktemp("ktls")
    authority = Authority()
    authority.write(folder)
    for name in ("one", "two"):
        authority.server(f"{name}.example").write(folder, name)
    fetched = subprocess.run([HERE / "vm.sh", "--fetch"], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"Debian's kernel cannot be had: {fetched.stderr.strip()}")
    run = subprocess.run(
        [HERE / "vm.sh", folder, "env", f"PYTHONPATH={REPO}", sys.executable, HERE / "inside.py"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATIENCE": "250"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(("version", "status", "length"), [("TLSv1.2", 206, COUNT), ("TLSv1.3", 200, SIZE)])
def test_a_file_is_encrypted_by_the_kernel_and_arrives_as_it_is(seen, version, status, length):
    visit = seen["ktls"][version]
    assert visit["file"] == {"status": status, "length": length, "same": True}
    assert visit["kernel"] == 1, "connections whose sending the kernel encrypts, as it says itself"
    assert "GCM" in visit["cipher"]
    if length == SIZE:
        # A file that is read and written is encrypted in user mode.
        assert visit["user"] < visit["system"]


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_heads_and_other_responses_follow_on_the_same_connection(seen, version):
    visit = seen["ktls"][version]
    assert visit["again"] == visit["last"] == {"status": 200, "length": 5, "same": True}
    assert visit["part"] == {"status": 206, "length": COUNT, "same": True}
    assert visit["head"] == {"status": 200, "length": SIZE, "same": True}
    assert visit["clean"], "no close_notify behind the last response"


def test_a_client_may_leave_within_the_file(seen):
    assert seen["ktls"]["abort"]["got"] > 0
    assert seen["ktls"]["abort"]["quiet"]


def test_it_is_the_same_with_a_certificate_that_sni_has_chosen(seen):
    assert seen["sni"]["certificate"] == "two.example"
    assert seen["sni"]["kernel"] == 1
    assert seen["sni"]["part"]["same"]


def test_other_ciphers_stay_in_the_process(seen):
    visit = seen["chacha20"]
    assert "CHACHA20" in visit["cipher"]
    assert visit["kernel"] == 0
    assert visit["hello"]["same"]
    assert visit["part"]["same"]


def test_without_the_flag_the_kernel_has_no_part_in_it(seen):
    assert seen["without"]["kernel"] == 0
    assert seen["without"]["part"]["same"]


def test_connections_are_counted(seen):
    # Two versions, one that left, one with SNI, one with new keys; and the other cipher.
    assert (seen["ktls"]["handshakes"], seen["ktls"]["by_kernel"]) == (6, 5)
    assert (seen["plain"]["handshakes"], seen["plain"]["by_kernel"]) == (2, 0)


def test_the_log_says_what_it_comes_to(seen):
    for name in ("ktls", "plain"):
        assert seen[name]["status"] == 0
        assert "Traceback" not in seen[name]["log"]
        assert ("--ktls: Linux 6." in seen[name]["log"]) is (name == "ktls")
    assert seen["ktls"]["log"].count("KeyUpdate") == 1
    assert "has not given the kernel the key" not in seen["ktls"]["log"]


def test_a_client_that_renews_its_keys_is_lost(seen):
    """As README says. Whoever has a kernel here that can follow has to change that."""
    assert seen["ktls"]["renewal"] == 1
    assert seen["plain"]["renewal"] == 2
