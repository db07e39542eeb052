"""What every pattern serves: the applications of the bench and of the chaos test, and two paths more.

``/who`` tells the worker, a process and the thread of its loop; ``/burn`` costs about 200 us of CPU. ``/block`` and
``/echo`` are the chaos test's, ``/`` is the bench's.
"""

from __future__ import annotations

import os
import threading
import time

from tests.bench.app import HELLO, HELLO_HEADERS
from tests.bench.app import app as plain
from tests.chaos.app import app as chaotic

#: The work of a small page, in seconds of the thread's own CPU time.
BURN_SECONDS = 200e-6


async def app(scope, receive, send):
    await PATHS.get(scope.get("path"), plain)(scope, receive, send)


async def who(scope, receive, send):
    body = b"%d:%d" % (os.getpid(), threading.get_native_id())
    await answer(send, body, [(b"content-length", b"%d" % len(body))])


async def burn(scope, receive, send):
    end = time.thread_time() + BURN_SECONDS
    while time.thread_time() < end:
        pass
    await answer(send, HELLO, HELLO_HEADERS)


async def answer(send, body, headers):
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PATHS = {"/who": who, "/burn": burn, "/block": chaotic, "/echo": chaotic}
