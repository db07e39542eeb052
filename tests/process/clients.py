"""Clients on plain blocking sockets: they send what they are told, right or wrong, and say what came back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from tests.process.servers import Served

#: How long a client waits for anything, in seconds.
PATIENCE = 20.0

CHUNK = 64 * 1024


class Broken(Exception):
    """The connection ended where it must not."""


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Client:
    """One connection. ``address`` is (host, port) or the path of a unix socket; with ``tls`` it is encrypted."""

    def __init__(
        self, address: tuple[str, int] | str, *, timeout: float = PATIENCE, tls: ssl.SSLContext | None = None
    ) -> None:
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            try:
                self.sock.connect(address)
            except BaseException:
                self.sock.close()
                raise
        else:
            self.sock = socket.create_connection(address, timeout)
        if tls is not None:
            try:
                self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
            except BaseException:
                self.sock.close()
                raise
        self._file = self.sock.makefile("rb", buffering=CHUNK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(self, target: str = "/", *, method: str = "GET", body: bytes = b"", **headers: str) -> None:
        """Send a whole request. Names of headers are written with ``_`` for ``-``."""
        fields = {"host": "test", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body:
            fields["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    def get(self, target: str = "/", *, close: bool = False, **headers: str) -> Response:
        self.request(target, **headers, **({"connection": "close"} if close else {}))
        return self.response()

    def head(self) -> Response:
        """The head of the next response; ``Broken`` if the connection ends before."""
        line = self._line()
        status = int(line.split(" ", 2)[1])
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Response(status, headers)

    def response(self, *, method: str = "GET") -> Response:
        """The next response, complete; interim ones are passed over."""
        response = self.head()
        while response.status < 200:
            response = self.head()
        response.body = b"".join(self.body(response, method=method))
        return response

    def body(self, response: Response, *, method: str = "GET") -> Iterator[bytes]:
        """The body of a response of which only the head has been read, piece by piece."""
        headers = response.headers
        if method == "HEAD" or response.status in {204, 304}:
            return
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self._line(), 16):
                yield from self._exactly(size)
                assert self._line() == ""
            assert self._line() == ""
        elif "content-length" in headers:
            yield from self._exactly(int(headers["content-length"]))
        else:
            while data := self._file.read1(CHUNK):
                yield data

    def peek(self, size: int) -> bytes:
        """The next bytes, ``size`` at most, without taking them; ``Broken`` if there are none."""
        data = self._file.peek(size)[:size]
        if not data:
            raise Broken("the connection ended")
        return data

    def rest(self) -> bytes:
        """Everything that comes until the server closes, also if it does so with a reset."""
        received = b""
        with suppress(ConnectionError):
            while data := self._file.read1(CHUNK):
                received += data
        return received

    def _line(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise Broken(f"the connection ended within {line!r}")
        return line[:-2].decode("latin-1")

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._file.read1(min(size, CHUNK))
            if not data:
                raise Broken(f"the connection ended {size} bytes early")
            size -= len(data)
            yield data


@dataclass(frozen=True)
class Failure:
    """A request that was not answered with 200. ``server`` has answered on the same connection before; None: nobody."""

    fresh: bool
    server: str | None
    error: str


@dataclass
class _Tally:
    answered: int = 0
    failed: list[Failure] = field(default_factory=list)


class Load:
    """Requests as fast as they are answered, from threads: some keep their connections, some make a new one each time.

    The application answers with its process id, so that a failure can say who had served its connection. A client goes
    on after a failure with a new connection.
    """

    def __init__(
        self,
        server: Served,
        *,
        keep_alive: int = 4,
        fresh: int = 4,
        target: str = "/pid",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._tls = tls
        self._target = target
        self._tallies: list[_Tally] = []
        self._stopping = threading.Event()
        self._threads = []
        for index in range(keep_alive + fresh):
            tally = _Tally()
            self._tallies.append(tally)
            self._threads.append(threading.Thread(target=self._run, args=(tally, index >= keep_alive), daemon=True))
        self._port = server.port

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), "a client hangs"

    @property
    def answered(self) -> int:
        return sum(tally.answered for tally in self._tallies)

    @property
    def failures(self) -> list[Failure]:
        return [failure for tally in self._tallies for failure in tally.failed]

    @property
    def failures_by_client(self) -> list[list[Failure]]:
        return [list(tally.failed) for tally in self._tallies]

    def progress(self, requests: int = 20) -> None:
        """Until every client has had ``requests`` more answers or failures."""
        from tests.process.servers import wait_until

        def counts() -> list[int]:
            return [tally.answered + len(tally.failed) for tally in self._tallies]

        goals = [count + requests for count in counts()]
        wait_until(
            lambda: all(count >= goal for count, goal in zip(counts(), goals, strict=True)),
            f"{requests} more requests of every client",
        )

    def _run(self, tally: _Tally, fresh: bool) -> None:
        while not self._stopping.is_set():
            server = None
            try:
                with Client(("127.0.0.1", self._port), tls=self._tls) as client:
                    while not self._stopping.is_set():
                        response = client.get(self._target, close=fresh)
                        if response.status != 200:
                            raise Broken(f"status {response.status}")
                        server = response.text
                        tally.answered += 1
                        if fresh or response.closes:
                            break
            except (OSError, Broken) as error:
                tally.failed.append(Failure(fresh, server, f"{type(error).__name__}: {error}"))
                if isinstance(error, ConnectionRefusedError):
                    return
