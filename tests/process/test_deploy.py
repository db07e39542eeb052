"""The systemd unit and the compose file: accepted by their programs, and in step with the server's defaults."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml

from aioserve.config.load import load
from aioserve.config.tree import Config
from aioserve.supervise import KILL_MARGIN
from tests.process.servers import REPO

UNIT = REPO / "deploy" / "aioserve.service"
SOCKET = REPO / "deploy" / "aioserve.socket"
COMPOSE = REPO / "deploy" / "compose.yaml"
TLS = REPO / "deploy" / "tls.toml"
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")

#: The longest time that a stop takes before the master itself kills what is left.
LONGEST_STOP = Config().timeout.graceful_shutdown + Config().timeout.lifespan_shutdown + KILL_MARGIN


def unit() -> dict[str, str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    return {name: value for name, _, value in lines}


def compose() -> dict:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit_without_a_word(tmp_path):
    # The program has to exist on this machine for the unit to be right.
    text = UNIT.read_text().replace("ExecStart=/srv/app/venv/bin/aioserve", f"ExecStart={sys.executable}")
    changed, socket = tmp_path / UNIT.name, tmp_path / SOCKET.name
    changed.write_text(text)
    socket.write_text(SOCKET.read_text())
    done = subprocess.run(
        [str(SYSTEMD_ANALYZE), "verify", "--man=no", str(changed), str(socket)],
        capture_output=True,
        text=True,
        check=False,
    )
    # It also reads the machine's own units, about which it may have something to say.
    assert [line for line in (done.stdout + done.stderr).splitlines() if UNIT.stem in line] == []
    assert done.returncode == 0, done.stderr


def test_systemd_hears_of_the_start_and_of_a_new_master():
    assert (unit()["Type"], unit()["NotifyAccess"]) == ("notify", "all")
    # The master sends at half of it, and a worker's heart beats more often than that.
    assert float(unit()["WatchdogSec"]) >= 10


def test_systemd_waits_longer_than_a_stop_takes():
    assert float(unit()["TimeoutStopSec"]) > LONGEST_STOP


def test_systemd_signals_the_master_alone():
    assert unit()["KillMode"] == "mixed"
    assert unit()["ExecReload"].endswith("kill -HUP $MAINPID")


def test_command_of_the_unit_is_right(tmp_path):
    (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...\n")
    arguments = unit()["ExecStart"].split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "aioserve", *arguments, "--check-config"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_compose_waits_longer_than_a_stop_takes():
    for service in compose()["services"].values():
        assert float(service["stop_grace_period"].removesuffix("s")) > LONGEST_STOP


def test_compose_trusts_the_network_that_it_makes():
    subnet = compose()["networks"]["backend"]["ipam"]["config"][0]["subnet"]
    assert compose()["services"]["app"]["environment"]["AIOSERVE_FORWARDED_ALLOW_IPS"] == subnet


def test_the_configuration_with_tls_has_nothing_to_say_about():
    loaded = load(flags={"app": "main:app"}, environ={}, read=lambda _: TLS.read_bytes(), config_file=TLS.name)
    assert loaded.notes == ()
    assert [(str(one), one.speaks) for one in loaded.config.addresses()] == [
        ("0.0.0.0:443", "https"),
        ("[::]:443", "https"),
        ("0.0.0.0:80", "redirect"),
        ("[::]:80", "redirect"),
    ]
