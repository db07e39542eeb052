"""The Dockerfile, built and run for real: PID 1, not root, a read-only root, 256 MiB, one CPU.

The laboratory of containers that lies beside the repository installs and builds (podman, buildah, a base image); where
it is not, every test here is skipped and says so.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parents[2]
LAB = REPO.parent / "shared" / "tools" / "container-lab.sh"
LOCK = Path(tempfile.gettempdir()) / "aioserve-container-lab.lock"

#: A stand-in for the Dockerfile's base image, and what is made on it: names that no other run on this machine has.
BASE = "localhost/python-base:1"
IMAGE = f"localhost/aioserve-test-{os.getpid()}:1"
EXTENDED = f"localhost/aioserve-test-{os.getpid()}-extended:1"

#: As a careful operator runs it. The two limits are what the container runtime would set by itself, and may not here.
CONFINED = (
    "--runtime", "runc", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096",
    "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--memory", "256m", "--cpus", "1",
)  # fmt: skip
#: On the network of the host the kernel chooses the port; no two runs meet.
REACHABLE = ("--network", "host", "--env", "AIOSERVE_PORT=0")
MEMORY = 256 * 1024 * 1024

#: The base image may have to be made first, from Debian packages.
PATIENCE = 900.0

pytestmark = [
    pytest.mark.container,
    pytest.mark.slow,
    pytest.mark.timeout(PATIENCE),
    # One process builds for all tests of this file.
    pytest.mark.xdist_group("container"),
    pytest.mark.skipif(not LAB.exists(), reason=f"there is no container laboratory at {LAB}"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/etc/debian_version").exists(), reason="containers need root on Debian here"
    ),
]


def lab(*arguments: str) -> str:
    # Test processes side by side would install Debian's packages at the same time, which only one may.
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["bash", str(LAB), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def podman(*arguments: str) -> str:
    done = subprocess.run(
        ["podman", *arguments], capture_output=True, text=True, check=False, env={**os.environ, "STORAGE_DRIVER": "vfs"}
    )
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
    # "podman logs" keeps the two streams of the server apart.
    return done.stdout + done.stderr if arguments[0] == "logs" else done.stdout


class Container:
    """A container that runs; ``stop`` sends TERM and answers the exit status."""

    def __init__(self, image: str, *command: str, network: tuple[str, ...]) -> None:
        self.id = podman("run", "--detach", *CONFINED, *network, image, *command).strip()

    def log(self) -> str:
        return podman("logs", self.id)

    def wait_for(self, pattern: str) -> str:
        """The first group of ``pattern``, once it is in the log."""
        deadline = time.monotonic() + 30
        while not (found := re.search(pattern, self.log())):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.log()}"
        return found[1]

    @property
    def url(self) -> str:
        port = self.wait_for(r"listening on http://0\.0\.0\.0:(\d+)")
        self.wait_for("(ready): ")
        return f"http://127.0.0.1:{port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return response.read()

    @property
    def pid(self) -> int:
        """The process id of its first process, outside."""
        return int(podman("inspect", self.id, "--format", "{{.State.Pid}}"))

    def inspect(self) -> dict:
        return json.loads(podman("inspect", self.id))[0]

    def status(self) -> dict[str, str]:
        """proc(5), /proc/pid/status of its first process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stop(self) -> int:
        podman("stop", "--time", "30", self.id)
        return self.exit_status()

    def exit_status(self) -> int:
        """Wait for its end."""
        return int(podman("wait", self.id))


@contextmanager
def running(image: str, *command: str, network: tuple[str, ...] = REACHABLE) -> Iterator[Container]:
    container = Container(image, *command, network=network)
    try:
        yield container
    finally:
        print(container.log())  # pytest shows it if the test has failed
        podman("rm", "--force", container.id)


@pytest.fixture(scope="module")
def image():
    lab("base")
    # Where pip of this machine looks for packages, if it was told by a variable, is where pip of the builder looks.
    index = [f"--build-arg=PIP_INDEX_URL={url}"] if (url := os.environ.get("PIP_INDEX_URL")) else []
    lab("build", str(REPO), IMAGE, f"--build-arg=BASE={BASE}", *index)
    yield IMAGE
    podman("rmi", "--force", IMAGE)


@pytest.fixture(scope="module")
def example(image):
    """One container for the tests that only look."""
    with running(image) as container:
        yield container


def test_image_serves_the_example(example):
    assert json.loads(example.get("/json"))["message"] == "Hello, World!"


def test_first_process_is_the_server_without_a_shell(example):
    assert example.status()["NSpid"].split()[1] == "1"
    command = Path(f"/proc/{example.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:3] == [b"/opt/aioserve/bin/aioserve", b"aioserve.example:app"]


def test_server_is_nobody_and_may_do_nothing(example):
    status = example.status()
    assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    # Kubernetes can check that a number is not root's.
    assert example.inspect()["Config"]["User"] == "10001:10001"


def test_root_is_read_only_and_nobody_minds(example):
    mounts = [line.split() for line in Path(f"/proc/{example.pid}/mounts").read_text().splitlines()]
    options = next(fields[3] for fields in mounts if fields[1] == "/")
    assert "ro" in options.split(",")
    example.get("/hello")
    assert "ERROR" not in example.log()


def test_memory_stays_far_below_the_limit(example):
    body = bytes(64 * 1024 * 1024)
    with urllib.request.urlopen(example.url + "/upload", data=body, timeout=30) as response:
        assert json.load(response)["bytes"] == len(body)
    # With a word in front, because the plain form means something else to podman.
    stats = json.loads(podman("stats", "--no-stream", "--format", "of {{json .}}", example.id).removeprefix("of "))
    assert stats["MemLimit"] == MEMORY
    assert 0 < stats["MemUsage"] < MEMORY / 2


def test_term_lets_requests_in_flight_finish_and_exits_with_0(image):
    with running(image) as container, urllib.request.urlopen(f"{container.url}/stream", timeout=30) as response:
        assert response.readline() == b"chunk 0\n"
        assert container.stop() == 0
        # The kernel has kept for us what was sent before the end.
        assert response.read().splitlines()[-1] == b"chunk 9"


def test_flags_win_over_the_address_of_the_image(image):
    with running(image, "aioserve.example:app", "--bind", "127.0.0.1:0") as container:
        container.wait_for(r"listening on (http://127\.0\.0\.1:)")
        assert "0.0.0.0" not in container.log()
        assert container.stop() == 0


def test_wrong_flag_ends_the_container_with_2(image):
    with running(image, "aioserve.example:app", "--worker", "2") as container:
        assert container.exit_status() == 2
        assert "--workers" in container.log()


def test_two_lines_extend_the_image_and_it_needs_no_network(image, tmp_path):
    (tmp_path / "app.py").write_text(
        "async def main(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n"
        "        raise NotImplementedError\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'mine'})\n"
    )
    (tmp_path / "Dockerfile").write_text(f'FROM {image}\nCOPY app.py .\nCMD ["app:main"]\n')
    lab("build", str(tmp_path), EXTENDED)
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').read().decode())"
    try:
        with running(EXTENDED, network=("--network", "none")) as container:
            container.wait_for("(ready): ")
            assert podman("exec", container.id, "python", "-c", ask).strip() == "mine"
            assert container.stop() == 0
    finally:
        podman("rmi", "--force", EXTENDED)
