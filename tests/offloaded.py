"""Functions that tests offload: children import them by name."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from aioserve import offload

USER = contextvars.ContextVar("user", default="nobody")

log = logging.getLogger("tests.offloaded")

#: What the initialiser has left.
initialised = []
hoard = []


def initialise():
    initialised.append(os.getpid())


def fail_to_initialise():
    raise RuntimeError("no database")


def was_initialised():
    return initialised == [os.getpid()]


def is_imported(name):
    return name in sys.modules


def pid():
    return os.getpid()


def add(a, b=1):
    return a + b


def give_back(thing):
    return thing


def length(thing):
    return len(thing)


def make(size):
    return bytes(size)


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def touch_and_sleep(path, seconds):
    """Say that it has begun, and then take its time."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return seconds


def start_a_program(path):
    """Something else that runs for long, as ffmpeg would."""
    import subprocess

    program = subprocess.Popen(["sleep", "60"])
    Path(path).write_text(str(program.pid))
    time.sleep(60)


def fail(text):
    raise LookupError(text)


def crash():
    ctypes.string_at(0)


def leave(status):
    os._exit(status)


def exit_(status):
    sys.exit(status)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def stop_iteration():
    raise StopIteration


def cancelled():
    raise asyncio.CancelledError


class Awkward(Exception):
    """One that can be pickled and not unpickled, as many are."""

    def __init__(self, code, why):
        super().__init__(why)


def fail_awkwardly():
    raise Awkward(5, "awkward")


class Speechless(Exception):
    """It has no text, and cannot be pickled."""

    def __str__(self):
        raise ValueError("no text")

    def __reduce__(self):
        raise TypeError("no pickle")


def fail_speechlessly():
    raise Speechless


def fail_with_output(size):
    raise subprocess.CalledProcessError(3, ["program"], output=b"x" * size)


def ping(depth=0):
    return pong(depth + 1)


def pong(depth):
    return ping(depth + 1)


class Mine:
    """It ends the process that pickles it, or the one with the id ``victim`` that unpickles it."""

    def __init__(self, victim, size):
        self.victim, self.load = victim, "x" * size

    def __reduce__(self):
        if self.victim is None:
            raise SystemExit(3)
        return unpack_mine, (self.victim, self.load)


def unpack_mine(victim, load):
    if victim == os.getpid():
        raise SystemExit(4)
    return load


class Slow:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return unpack_slowly, (self.victim, "x" * 200_000)


def unpack_slowly(victim, load):
    if victim == os.getpid():
        time.sleep(1.0)
    return load


def piece_that_is_slow_to_read(victim):
    yield Slow(victim)
    time.sleep(60)


def make_mine(victim, size):
    return Mine(victim, size)


def fork_and_come_back():
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "a second answer"


def make_a_lock():
    import threading

    return threading.Lock()


def say(text):
    log.warning("%s", text, extra={"user": USER.get()})
    return text


def say_traceback():
    try:
        raise ValueError("inner")
    except ValueError:
        log.exception("it failed")


def say_oddly():
    log.warning("odd", extra={"lock": make_a_lock()})


def say_awkwardly():
    log.error("awkward", extra={"error": Awkward("a", "b"), "user": "ann"})
    return "said"


def say_much():
    log.error("much", extra={"load": "x" * (1 << 20), "thing": b"x" * (1 << 20)})


def user():
    return USER.get()


def hold(size):
    hoard.append(bytearray(os.urandom(1)) * size)
    return os.getpid()


def descriptors():
    """What this process has open, apart from the directory that it looks at."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)
        except OSError:
            continue
    return found


def inherited():
    """What a program would inherit from here."""
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    return [fd for fd in numbers if Path(f"/proc/self/fd/{fd}").is_symlink() and fd > 2 and os.get_inheritable(fd)]


def signals():
    """Send this process what a terminal and a service manager send to everybody."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return os.getpid()


def write_everywhere():
    """As a program does that takes a descriptor for another one."""
    for fd in range(3, 10):
        with contextlib.suppress(OSError):
            os.write(fd, b"hello, world")
    time.sleep(60)


def close_everything():
    gc.collect()
    os.closerange(3, 200)
    time.sleep(60)


def offload_again():
    return asyncio.run(offload(pid))


async def coroutine():
    return 1


def hidden_coroutine():
    return coroutine()


def count(number, path=None):
    try:
        for value in range(number):
            if path:
                Path(path).write_text(str(value))
            yield value
    finally:
        if path:
            Path(path).write_text("closed")


def slow_pieces(seconds):
    for value in range(3):
        time.sleep(seconds)
        yield value


def pieces_then_fail():
    yield 1
    raise LookupError("after one")


def pieces_then_crash():
    yield 1
    os._exit(4)


def large_pieces(number, size):
    for value in range(number):
        yield bytes([value]) * size


def stubborn(path):
    """A generator that is busy for long between two yields."""
    yield 1
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)
    yield 2


@offload.function
def doubled(number):
    return 2 * number


@offload.function(timeout=0.2)
def too_long():
    time.sleep(60)


@offload.function
def counted(number):
    yield from range(number)


def an_id():
    return uuid.uuid4()
