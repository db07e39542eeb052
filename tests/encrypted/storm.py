"""Clients that begin handshakes and do not end them, or worse, in a process of their own.

    python -m tests.encrypted.storm PORT COUNT SECONDS PATIENCE AUTHORITY      prints a JSON object

``COUNT`` connections, of each kind in turn, come evenly over ``SECONDS``. Each waits until the server has closed it.
Who is still open after ``PATIENCE`` seconds is counted as ``left``; of each kind the longest time is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from contextlib import suppress

from tests.encrypted.records import Told
from tests.tls import NAMES

HOST = "127.0.0.1"

#: Between two bytes of the client that is too slow, in seconds.
DRIP = 1.0

#: KeyUpdates that one client sends at once; each costs this process 50 us to make.
UPDATES = 200

PLAIN = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

#: RFC 8446 5.1: a record of 65,535 bytes; 16,640 are the most.
HUGE = b"\x16\x03\x01\xff\xff" + bytes(20_000)


def hello() -> bytes:
    """A ClientHello, as Python's ssl makes it."""
    outgoing = ssl.MemoryBIO()
    engine = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAMES[0])
    with suppress(ssl.SSLWantReadError):
        engine.do_handshake()
    return outgoing.read()


class Storm:
    def __init__(self, port: int, authority: str) -> None:
        self._port = port
        self._hello = hello()
        self._random = random.Random(port)
        self._context = ssl.create_default_context(cafile=authority)
        self._told = Told(ssl.create_default_context(cafile=authority))
        self.opened: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.kinds = {
            "silence": self.silence,
            "half": self.half,
            "dripping": self.dripping,
            "noise": self.noise,
            "huge": self.huge,
            "plain": self.plain,
            "reset": self.reset,
            "updates": self.updates,
        }

    async def run(self, count: int, seconds: float, patience: float) -> None:
        kinds = list(self.kinds)
        begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(begun + number * seconds / count - asyncio.get_running_loop().time())
                group.create_task(self._one(kinds[number % len(kinds)], patience))

    async def _one(self, kind: str, patience: float) -> None:
        """Do the deed; it returns a reader, or None if it has left by itself."""
        writer = None
        try:
            trust = {"reset": self._context, "updates": self._told.context}.get(kind)
            tls = {"ssl": trust, "server_hostname": NAMES[0]} if trust else {}
            reader, writer = await asyncio.open_connection(HOST, self._port, **tls)
            self.opened[kind] += 1
            begun = time.monotonic()
            with suppress(ConnectionError, ssl.SSLError):
                # TimeoutError is the one that counts.
                async with asyncio.timeout(patience):
                    if await self.kinds[kind](reader, writer):
                        while await reader.read(65536):
                            pass
            self.longest[kind] = max(self.longest.get(kind, 0.0), time.monotonic() - begun)
        except TimeoutError:
            self.left[kind] += 1
        except (OSError, ssl.SSLError) as error:
            self.failed[f"{kind}: {type(error).__name__}"] += 1
        finally:
            if writer is not None:
                writer.transport.abort()

    # The kinds: true for those that now wait for the server to close.

    async def silence(self, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
        return True

    async def half(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(self._hello[: len(self._hello) // 2])
        return True

    async def dripping(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for at in range(len(self._hello)):
            writer.write(self._hello[at : at + 1])
            with suppress(TimeoutError):
                async with asyncio.timeout(DRIP):
                    if not await reader.read(1):
                        break
        return True

    async def noise(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(self._random.randbytes(600))
        return True

    async def huge(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(HUGE)
        return True

    async def plain(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(PLAIN)
        return True

    async def reset(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    async def updates(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        # Its own records go past Python's TLS, to the socket below.
        made = self._told.updates(writer.get_extra_info("ssl_object"))
        flood = b"".join(made.next() for _ in range(UPDATES))
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(sock, flood)
        return True


def main(arguments: list[str]) -> None:
    port, count, seconds, patience, authority = arguments
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    storm = Storm(int(port), authority)
    asyncio.run(storm.run(int(count), float(seconds), float(patience)))
    print(json.dumps({name: getattr(storm, name) for name in ("opened", "left", "failed", "longest")}))


if __name__ == "__main__":
    main(sys.argv[1:])
