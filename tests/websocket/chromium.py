"""A real browser: headless Chromium, driven through its DevTools protocol, which is JSON over a WebSocket.

with Chromium() as browser:
    page = browser.open("http://127.0.0.1:8000/page")
    assert page.run("1 + 1") == 2
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import ExitStack, suppress
from itertools import count
from typing import Any, Self

from websockets.sync.client import connect

#: Debian's names first. The headless shell is the same engine without a window: 60 MB less.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

#: A browser of its own, that asks nobody else for anything.
OPTIONS = (
    "--headless",
    "--no-sandbox",  # there is none for root, or in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)

#: For anything, on a machine that is busy with other tests; seconds.
PATIENCE = 40.0


class Trouble(Exception):
    """The browser, or what runs in the page, says that something is wrong."""


def program() -> str | None:
    """The browser's path, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """``options`` are added to its command line."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._log: threading.Thread | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self._process = subprocess.Popen(
                [program() or PROGRAMS[0], *OPTIONS, *self._options, f"--user-data-dir={directory}", "about:blank"],
                env={**os.environ, "HOME": directory}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            stack.callback(self._end)
            self._pipe = stack.enter_context(connect(self._address(), max_size=None, compression=None))
            self._numbers = count(1)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, url: str) -> Page:
        """A tab with ``url``, loaded; ``Trouble`` with Chromium's name of the error if it cannot be had."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable", session)
        begun = self.call("Page.navigate", session, url=url)
        if "errorText" in begun:
            raise Trouble(begun["errorText"])
        self._event("Page.loadEventFired", session)
        return Page(self, session)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        self._pipe.send(json.dumps(request | ({"sessionId": session} if session else {})))
        answer = self._next(lambda said: said.get("id") == number)
        if "error" in answer:
            raise Trouble(f"{method}: {answer['error']}")
        return answer["result"]

    def _event(self, method: str, session: str) -> None:
        self._next(lambda said: said.get("method") == method and said.get("sessionId") == session)

    def _next(self, wanted: Any) -> Any:
        while not wanted(said := json.loads(self._pipe.recv(PATIENCE))):
            pass
        return said

    def _address(self) -> str:
        """Where it listens, as its log says, which is then read on: it would stop at a full pipe."""
        pipe = self._process.stderr
        assert pipe is not None
        said = b""
        for line in pipe:
            said += line
            if address := re.match(rb"DevTools listening on (ws://\S+)", line):
                self._log = threading.Thread(target=pipe.readlines, name="log of the browser", daemon=True)
                self._log.start()
                return address[1].decode()
        raise Trouble(f"{program()} ended with {self._process.wait()}: {said.decode(errors='replace')}")

    def _end(self) -> None:
        # A session of its own: these are its processes, and nobody else's.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        if self._log is not None:
            self._log.join()
        self._process.stderr.close()


class Page:
    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def run(self, script: str, *arguments: Any) -> Any:
        """What ``script``, the body of an async function of ``arguments`` (``args``), returns."""
        expression = f"(async (...args) => {{ {script} }})(...{json.dumps(arguments)})"
        said = self._browser.call(
            "Runtime.evaluate", self._session, expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in said:
            raise Trouble(f"{said['exceptionDetails']}")
        return said["result"].get("value")
