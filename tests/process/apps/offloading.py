"""An application whose work is done beside the loop; ``--app-dir`` or the directory makes it importable in children."""

import asyncio
import contextvars
import logging
import os
import time
from pathlib import Path
from urllib.parse import parse_qs

from aioserve import OffloadError, offload

log = logging.getLogger("shop.work")

USER = contextvars.ContextVar("user", default="nobody")


def work(path, seconds):
    """Say who does it, work, and say that it was done."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    Path(f"{path}.done").touch()
    return os.getpid()


def say(text):
    log.warning("%s, %s", text, USER.get())
    return text


def numbers(count):
    for number in range(count):
        yield f"{number}\n".encode()


def add(a, b):
    return a + b


def echo(data):
    return data


def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return found


def identity():
    return f"{os.getuid()}:{os.getgid()}"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["early"] = await offload(add, 1, 2)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await offload(add, 1, 2)
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    run = scope["extensions"]["aioserve.offload"] if scope["path"].startswith("/extension") else offload
    body = await PATHS[scope["path"].rpartition("/")[2]](scope, receive, run, query)
    if body is not None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(body).encode()})


async def do_work(scope, receive, run, query):
    return await run(work, query["path"], float(query["seconds"]))


async def both(scope, receive, run, query):
    calls = [run(work, query["path"] + end, float(query["seconds"])) for end in "ab"]
    return sorted(await asyncio.gather(*calls))


async def after_a_wait(scope, receive, run, query):
    await asyncio.sleep(0)
    return await do_work(scope, receive, run, query)


async def caught(scope, receive, run, query):
    try:
        return await do_work(scope, receive, run, query)
    except OffloadError as error:
        return f"caught {type(error).__name__}"


async def log_it(scope, receive, run, query):
    USER.set("ann")
    return await run(say, query["text"])


async def total(scope, receive, run, query):
    count = 0
    async for piece in run.stream(numbers, int(query["count"])):
        count += len(piece)
    return count


async def early(scope, receive, run, query):
    return scope["state"]["early"]


async def hello(scope, receive, run, query):
    return "hello"


async def large(scope, receive, run, query):
    return len(await run(echo, bytes(int(query["size"]))))


async def open_files(scope, receive, run, query):
    return "\n".join(await run(descriptors))


async def who(scope, receive, run, query):
    return await run(identity)


async def snapshot(scope, receive, run, query):
    return run.snapshot()


async def not_picklable(scope, receive, run, query):
    return await run(lambda: 1)


PATHS = {
    "work": do_work, "both": both, "after_a_wait": after_a_wait, "caught": caught, "log": log_it, "total": total,
    "early": early, "hello": hello, "large": large, "open_files": open_files, "who": who, "snapshot": snapshot,
    "lambda": not_picklable,
}  # fmt: skip
