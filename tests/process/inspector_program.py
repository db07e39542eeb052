"""The master's inspector, with an inspection of the kind that argv names. What it says is on standard output.

A program, because it forks, and a test runner has threads.
"""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

from aioserve.config.tree import Ssl
from aioserve.master.inspector import Inspection, in_child
from aioserve.tls.findings import Finding, Report, Weight
from aioserve.tls.material import copy
from aioserve.tls.places import look

PR_GET_DUMPABLE = 3


def good(_copied, _now):
    return Report()


def hanging(_copied, _now):
    threading.Event().wait()


def dying(_copied, _now):
    os._exit(1)


def wordy(_copied, _now):
    return Report(findings=(Finding(Weight.DOUBTFUL, "x", "word" * 100_000),))


def hidden(_copied, _now):
    return Report(findings=(Finding(Weight.DOUBTFUL, "dumpable", str(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE))),))


def main():
    folder, kind = sys.argv[1:]
    material, _ = copy(look(Ssl(certfile=(f"{folder}/server.crt",), keyfile=(f"{folder}/server.key",))))
    if kind == "left":
        print(Inspection(material, limit=60, look=hanging).pid, flush=True)
        os._exit(0)
    if kind == "real":
        report = in_child(material)
    else:
        inspection = Inspection(material, limit=0.3, look=globals()[kind])
        began = time.monotonic()
        while (report := inspection.hear(time.monotonic())) is None and time.monotonic() < began + 10:
            time.sleep(0.01)
        inspection.end()
        inspection.reaped()
    print([str(finding)[-80:] for finding in report.findings], [one.names for one in report.certificates])
    print("children:", Path("/proc/self/task", str(os.getpid()), "children").read_text())


main()
