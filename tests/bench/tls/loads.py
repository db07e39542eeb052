"""The workloads: wrk for requests, paced requests and whole handshakes, ``openssl s_time`` for resumed ones.

wrk never resumes a session, and s_time does not look at the answer. So the answer is looked at before, over Python's
ssl, and what is negotiated with openssl s_client. wrk and openssl have the configuration of openssl.cnf.
"""

from __future__ import annotations

import http.client
import re
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.app import HELLO, TEN_KIB
from tests.bench.servers import HOST, ServerError
from tests.bench.visit import Wrk, run_wrk
from tests.bench.workloads import Workload, exchange

CONFIGURED = ["env", f"OPENSSL_CONF={Path(__file__).parent / 'openssl.cnf'}"]

NEGOTIATED = "TLSv1.3", "TLS_AES_256_GCM_SHA384"

#: Clients with one connection at a time each. More of them only wait for each other on their core.
RESUMING = 4


@dataclass(frozen=True, slots=True)
class Encrypted:
    """``plain`` over TLS. ``load`` puts it on a server; ``unit`` is what is counted."""

    plain: Workload
    unit: str = "requests"
    load: object = run_wrk

    @property
    def name(self):
        return self.plain.name

    @property
    def title(self):
        return self.plain.title

    @property
    def connections(self):
        return self.plain.connections

    def wrk(self, port, seconds):
        return CONFIGURED + [word.replace("http://", "https://") for word in self.plain.wrk(port, seconds)]


def resume(_workload, port, seconds):
    """As many resumed handshakes as ``RESUMING`` clients manage, each with one request."""
    command = [
        *CONFIGURED, "openssl", "s_time", "-connect", f"{HOST}:{port}", "-www", "/", "-reuse", "-time", str(seconds),
    ]  # fmt: skip
    began = time.perf_counter()
    clients = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(RESUMING)
    ]
    said = [client.communicate(timeout=seconds + 30)[0] for client in clients]
    return parse_s_time(said, time.perf_counter() - began)


def parse_s_time(said, seconds):
    """Read the outputs of ``openssl s_time -reuse``, with a letter for each handshake; ``ValueError`` if it is none.

    Its own seconds are whole ones, so that ``seconds`` is what somebody else has measured.
    """
    resumed = whole = unread = 0
    for text in said:
        marks = re.search(r"^starting\n([r*t]+)$", text, re.MULTILINE)
        ends = re.search(r"(\d+) connections in \d+ real seconds, (\d+) bytes read per connection", text)
        if marks is None or ends is None:
            raise ValueError(f"this is no output of openssl s_time: {text.strip()[-200:]!r}")
        resumed += marks[1].count("r")
        whole += len(marks[1]) - marks[1].count("r")
        unread += int(ends[2]) < len(HELLO)
    errors = {"not resumed": whole, "no answer": unread}
    return Wrk(resumed, seconds, None, None, {kind: count for kind, count in errors.items() if count})


LOADS = {
    load.name: load
    for load in (
        Encrypted(Workload("hello", "hello", "/", HELLO)),
        Encrypted(Workload("body10k", "10 KiB body", "/10k", TEN_KIB)),
        Encrypted(Workload("paced", "hello, paced", "/", HELLO, script="tls/paced.lua")),
        Encrypted(Workload("full", "whole handshake", "/", HELLO, closes=True), "handshakes"),
        Encrypted(Workload("resumed", "resumed handshake", "/", HELLO, RESUMING, closes=True), "handshakes", resume),
    )
}


def check(load, port):
    """The answer is right, over the version and with the cipher that all have; ``ServerError`` if not."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    exchange(load.plain, http.client.HTTPSConnection(HOST, port, timeout=5, context=context))


def negotiated(port):
    """Version and cipher that a client of openssl.cnf gets."""
    command = [*CONFIGURED, "openssl", "s_client", "-connect", f"{HOST}:{port}", "-brief"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    said = done.stdout + done.stderr
    found = [re.search(rf"^{name}: (\S+)$", said, re.MULTILINE) for name in ("Protocol version", "Ciphersuite")]
    if None in found:
        raise ServerError(f"negotiates nothing: {said.strip()[-200:]!r}")
    return tuple(match[1] for match in found)


def answers(port):
    """Whether somebody serves the application on ``port`` as all others do. Another cipher will not go away."""
    try:
        check(LOADS["hello"], port)
    except ServerError:
        return False
    if (found := negotiated(port)) != NEGOTIATED:
        raise ServerError(f"negotiates {' with '.join(found)}, the others {' with '.join(NEGOTIATED)}")
    return True
