"""slowhttptest: clients that send or read so slowly that each of them holds a connection.

A connection that the server ends is not opened again by slowhttptest, and without connections it stops. So it is
started again until the time is over: the attack lasts, whatever the server does about it.
"""

from __future__ import annotations

import csv
import math
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("slowhttptest")

#: What each mode asks for, and how slow it is: ``-i`` seconds between pieces of up to ``-x`` bytes; for reading, ``-n``
#: seconds between reads of ``-z`` bytes with a window of ``-w`` to ``-y`` bytes.
MODES = {
    "header": ("/", "-H -i 5 -x 24"),
    "body": ("/echo", "-B -i 5 -x 24 -s 65536"),
    "read": ("/large?1", "-X -n 5 -z 32 -w 512 -y 1024 -k 3"),
}

#: A round that would be shorter than this is not begun; slowhttptest counts in whole seconds.
SHORTEST_ROUND = 2.0


@dataclass
class Attack:
    """One kind of attack on one address. ``run`` returns when it is over."""

    mode: str
    url: str
    connections: int
    seconds: float
    #: New connections per second; a burst is part of the attack.
    rate: int = 1000

    rounds: int = 0
    opened: int = 0
    #: By the server, while slowhttptest still ran.
    closed: int = 0
    #: Connections that could not be opened, as slowhttptest counts them.
    failed: int = 0
    #: The most that were open at once.
    peak: int = 0

    def run(self) -> None:
        end = time.monotonic() + self.seconds
        while not self.rounds or end - time.monotonic() > SHORTEST_ROUND:
            self.rounds += 1
            self._round(max(math.ceil(end - time.monotonic()), 1))

    def _round(self, seconds: int) -> None:
        assert PROGRAM is not None
        target, options = MODES[self.mode]
        with tempfile.TemporaryDirectory() as folder:
            command = [PROGRAM, *options.split(), "-u", self.url + target, "-c", str(self.connections)]
            command += ["-r", str(self.rate), "-l", str(seconds), "-g", "-o", f"{folder}/report", "-v", "1"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            report = Path(folder, "report.csv")
            if not report.exists():
                raise RuntimeError(f"slowhttptest gave no report:\n{done.stdout}{done.stderr}")
            with report.open() as file:
                rows = [(int(row["Connected"]), int(row["Closed"])) for row in csv.DictReader(file)]
        self.opened += max(connected + closed for connected, closed in rows)
        self.closed += max(closed for _, closed in rows)
        self.peak = max(self.peak, *(connected for connected, _ in rows))
        plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout)
        self.failed += int(re.findall(r"error:\s+(\d+)", plain)[-1])
