"""The package as pip installs it: what is in it, and that its command works away from the source tree."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.process.servers import PATIENCE

COMMAND = Path(sys.executable).parent / "aioserve"

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="aioserve is not installed here, only its source is")

#: Without what would lead Python back to the source tree.
ENVIRON = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("AIOSERVE_")
}


def test_command_serves_the_example_from_an_empty_directory(tmp_path):
    server = subprocess.Popen(
        [COMMAND, "aioserve.example:app", "--port", "0"], cwd=tmp_path, env=ENVIRON, stderr=subprocess.PIPE, text=True
    )
    log = ""
    with server:
        while " ready: " not in log:
            line = server.stderr.readline()
            assert line, log
            log += line
        url = re.search(r"listening on (\S+)", log)[1]
        with urllib.request.urlopen(f"{url}/hello", timeout=PATIENCE) as response:
            assert response.read() == b"Hello, World!"
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


def test_module_is_the_command(tmp_path):
    said = [
        subprocess.run(
            [*command, "--version"], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, check=True
        ).stdout
        for command in ([COMMAND], [sys.executable, "-m", "aioserve"])
    ]
    assert said[0] == said[1]
    assert importlib.metadata.version("aioserve") in said[0]


def test_types_and_licence_come_along():
    files = {str(path) for path in importlib.metadata.files("aioserve") or []}
    assert "aioserve/py.typed" in files
    assert any(name.endswith("licenses/LICENSE") for name in files)
    # Nothing that pip would put beside other people's packages.
    assert {name.split("/")[0] for name in files if not name.startswith("..")} <= {
        "aioserve",
        f"aioserve-{importlib.metadata.version('aioserve')}.dist-info",
    }


def test_plugin_costs_nothing_until_a_test_wants_a_server(tmp_path):
    code = "import aioserve.pytest_plugin, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, check=True
    )
    assert not {"aioserve.embed", "aioserve.worker", "uvloop", "httptools"} & set(done.stdout.split())
