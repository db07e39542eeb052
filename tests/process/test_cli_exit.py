"""The exit statuses that an operator's scripts rely on, from the real command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIOSERVE_", "WEB_CONCURRENCY"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def ended(directory, *argv, stdout=subprocess.PIPE):
    return subprocess.run(
        [sys.executable, "-m", "aioserve", *argv],
        cwd=directory,
        env=environment(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(("accept", "word"), [("shared", "ready"), ("reuseport", "ready"), ("single", "ready")])
def test_a_server_that_is_asked_to_stop_ends_with_0(tmp_path, accept, word):
    argv = [sys.executable, "-m", "aioserve", "aioserve.example:app", "--port", "0", "--accept", accept]
    server = subprocess.Popen(argv, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        assert any(word in line for line in server.stderr)
        server.terminate()
        rest = server.communicate(timeout=20)[1]
    finally:
        server.kill()
        server.communicate()

    assert (server.returncode, "Traceback" in rest) == (0, False)


def test_a_note_goes_to_standard_error(tmp_path):
    result = ended(tmp_path, "no_such_module:app", "--port", "0", "--reload-dir", "x")

    assert result.stderr.startswith("aioserve: note: --reload-dir has no effect without --reload\n")


def test_a_wrong_configuration_ends_with_2_and_starts_nothing(tmp_path):
    result = ended(tmp_path, "aioserve.example:app", "--port", "x", "--wrokers", "2")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "aioserve: the configuration has 2 mistakes:",
        "  --wrokers: no such option; did you mean --workers?",
        "  --port: 'x' is not a whole number",
        "See aioserve --help.",
    ]


@pytest.mark.parametrize("argv", [[], ["--check-config"], ["--accept", "single"]], ids=" ".join)
def test_an_application_that_cannot_be_imported_ends_with_3_and_its_own_frames(tmp_path, argv):
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")

    result = ended(tmp_path, "broken:app", "--port", "0", *argv)

    assert result.returncode == 3
    assert "broken.py" in result.stderr
    assert "importlib" not in result.stderr


def test_an_address_in_use_ends_with_4(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ended(tmp_path, "aioserve.example:app", "--port", str(port))

    assert result.returncode == 4
    assert f"127.0.0.1:{port}" in result.stderr


def test_settings_are_read_from_the_current_directory(tmp_path):
    (tmp_path / "aioserve.toml").write_text("[process]\nworkers = 3\n")

    assert "workers = 3  # aioserve.toml: process.workers" in ended(tmp_path, "--print-config").stdout


def test_a_file_of_variables_reaches_the_application(tmp_path):
    (tmp_path / "my.env").write_text("AIOSERVE_APP=probe:app\nPROBE=seen\n")
    (tmp_path / "probe.py").write_text("import os\nassert os.environ['PROBE'] == 'seen'\nasync def app(*_): ...\n")

    result = ended(tmp_path, "--env-file", "my.env", "--check-config")

    assert (result.returncode, result.stdout) == (0, "configuration OK\n")


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["--print-config"], ["--check-config", "aioserve.example:app"], ["tune", "--help"]],
    ids=" ".join,
)
def test_output_that_nobody_reads_is_no_crash(tmp_path, argv):
    unread, out = os.pipe()
    os.close(unread)
    with open(out, "wb") as pipe:
        result = ended(tmp_path, *argv, stdout=pipe)

    assert (result.returncode, result.stderr) == (1, "")
