"""What a result must be read with: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tests.bench.servers import ROOT

#: Not servers, but what makes some of them fast.
ACCELERATORS = ("uvloop", "httptools", "gunicorn_h1c")


def describe(peers):
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _say("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        # Only what is served and measured counts: a changed README does not make a result doubtful.
        "dirty": bool(_say("git", "-C", str(ROOT), "status", "--porcelain", "--", "aioserve", "tests/bench")),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "kernel": f"{platform.system()} {platform.release()}",
            "load_average": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "wrk": _wrk_version(),
            **{name: _version(name) for name in ACCELERATORS},
            **{peer.name: peer.version for peer in peers},
        },
    }


def _say(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _wrk_version():
    words = _say("wrk", "--version").split()
    return " ".join(words[1:2]) or None


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
