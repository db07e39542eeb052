"""What clients lose while the workers are replaced again and again under load.

The clients and their ledger are the chaos test's: some open a connection for each request, some keep theirs. What went
wrong is one of three:

    lost    a request without its whole and right answer
    race    a request on a kept connection that had been idle met the close of that connection, before any byte of an
            answer: what HTTP/1.1 lets a client send again (RFC 9112 9.3.1). The client does, on a new connection, where
            nothing is a race
    ended   a kept connection was closed, and it had not been said; no request was on it
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.chaos.clients import Load
from tests.chaos.ledger import Ledger
from tests.process.servers import wait_until

if TYPE_CHECKING:
    from tests.chaos.ledger import Loss

#: Fewer are not a load for two workers; more keep the clients' own loop busy and nobody else.
CLIENTS = {"keep": 16, "fresh": 40}

#: How long a replacement of all workers may take, in seconds.
PATIENCE = 20.0

#: Answers before the first and after the last replacement.
MARGIN = 500

#: The worst first.
VERDICTS = ("lost", "race", "ended")

#: How a connection ends without a byte of an answer, in asyncio's words. The answers are of one segment: no reset can
#: come in the middle of one.
UNANSWERED = ("IncompleteReadError 0 bytes", "ConnectionResetError", "BrokenPipeError")

#: Of the losses, how many are kept as text.
SHOWN = 10


def measure(server, pattern, workers, replacements):
    """A record like a visit's. The workers of a reload count as replaced when they have ended and successors answer."""
    ledger, problems = Ledger(), []
    processes, replaced, reloads, began = pattern.processes(workers), 0, 0, time.monotonic()
    try:
        with Load(ledger, server, counts=CLIENTS):
            _answer(ledger)
            crew = _successors(ledger, Counter(), set(), processes)
            while replaced < replacements:
                answered = Counter(ledger.pids)
                os.kill(server.process.pid, signal.SIGHUP)
                wait_until(lambda old=crew: not any(map(_is_there, old)), "all have left", timeout=PATIENCE)
                crew = _successors(ledger, answered, crew, processes)
                replaced += workers
                reloads += 1
            _answer(ledger)
    except AssertionError as error:
        problems.append(f"after {replaced} replacements: {error}")
    found = sorted((VERDICTS.index(verdict(loss)), str(loss)) for loss in ledger.losses)
    verdicts = Counter(VERDICTS[index] for index, _ in found)
    return {
        "replacements": replaced,
        "reloads": reloads,
        "requests": ledger.answered.total() + verdicts["lost"],
        "connections": ledger.connections.total(),
        **{name: verdicts[name] for name in VERDICTS},
        "seconds": time.monotonic() - began,
        "examples": [f"{VERDICTS[index]}: {text}" for index, text in found[:SHOWN]],
        "problems": problems,
    }


def verdict(loss: Loss):
    """Which of the three. Without ``pid`` nobody had answered on this connection: its first request is lost with it."""
    if loss.pid and loss.stage in {"idle", "close"}:
        return "ended"
    unanswered = loss.error.startswith(UNANSWERED)
    return "race" if loss.pid and loss.kind == "keep" and loss.stage == "head" and unanswered else "lost"


def _successors(ledger, answered, crew, count):
    """Who has answered since ``answered`` and is not of the old crew, once there are ``count`` of them."""

    def found():
        new = {pid for pid, number in list(ledger.pids.items()) if number > answered[pid]} - crew
        return new if len(new) >= count else set()

    return wait_until(found, f"{count} processes answer", timeout=PATIENCE)


def _answer(ledger):
    goal = ledger.answered.total() + MARGIN
    wait_until(lambda: ledger.answered.total() >= goal, "the load runs", timeout=PATIENCE)


def _is_there(pid):
    return os.path.exists(f"/proc/{pid}")
