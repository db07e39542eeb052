"""What is done in the machine that has kernel TLS: ``python inside.py``, in a folder with certificates.

It serves a file of 100 MiB by two servers, one with --ktls and one without, and asks for it in all ways: once for the
whole, since that takes seconds, and otherwise for parts. What it has seen is in results.json, for ``test_kernel_tls``
to judge: whatever starts here starts ten times slower than outside, so all of it is done in one go, and pytest stays
outside. With ``figures`` both servers send the whole file with both versions of TLS, to be compared.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from aioserve import boot
from aioserve.config.load import from_settings
from aioserve.observe.scoreboard import CONNECTIONS, HANDSHAKES_TOTAL, KTLS_TOTAL, PHASE, Phase, Scoreboard

MIB = 1024 * 1024
SIZE = 100 * MIB
#: Of the part that is asked for: neither begins nor ends where a record or a page does.
BEGIN, COUNT = 12_345_678, 3_000_001
FILE = Path("/dev/shm/file")
PATIENCE = 30.0

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    part = scope["path"] == "/part"
    start = {"type": "http.response.start", "status": 206 if part else 200}
    match scope["path"]:
        case "/file":
            start["headers"] = [(b"content-length", b"%d" % SIZE)]
            await send(start)
            await send({"type": "http.response.pathsend", "path": str(FILE)})
        case "/part":
            start["headers"] = [
                (b"content-length", b"%d" % COUNT),
                (b"content-range", b"bytes %d-%d/%d" % (BEGIN, BEGIN + COUNT - 1, SIZE)),
            ]
            await send(start)
            with FILE.open("rb") as file:
                await send({"type": "http.response.zerocopysend", "file": file, "offset": BEGIN, "count": COUNT})
        case _:
            await send(start)
            await send({"type": "http.response.body", "body": scope["scheme"].encode()})


class Server:
    """One process, forked from here: what was imported has been imported."""

    def __init__(self, name, **settings):
        self.name = name
        board = Scoreboard(1)
        self.cells = board.row(0, 0).cells
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        self.log = Path(f"{name}.log").absolute()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.modules["inside"] = sys.modules["__main__"]
            config = from_settings(
                app="inside:app",
                port=self.port,
                accept="single",
                loop="uvloop",
                lifespan="off",
                access_log=False,
                **settings,
            )
            os._exit(boot.run(config, scoreboard=board))

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {what}\n{self.log.read_text()}")
            time.sleep(0.02)

    def wait_ready(self):
        self.wait(lambda: self.cells[PHASE] == Phase.READY, "does not become ready")

    def quiet(self):
        """Whether every connection has ended."""
        self.wait(lambda: self.cells[CONNECTIONS] == 0, "a connection stays open")
        return True

    def times(self):
        """Its processor time in user and in kernel mode, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:13]]

    def counted(self):
        return {"handshakes": self.cells[HANDSHAKES_TOTAL], "by_kernel": self.cells[KTLS_TOTAL]}

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Client:
    def __init__(self, server, version="TLSv1.3", *, name="one.example", ciphers=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations("authority.crt")
        context.minimum_version = context.maximum_version = VERSIONS[version]
        if ciphers is not None:
            context.set_ciphers(ciphers)
        sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        self.sock = context.wrap_socket(sock, server_hostname=name)

    def close(self):
        self.sock.close()

    def ask(self, target, method="GET", *, expected=b"https", close=False):
        """The status, the length, and whether it is what is expected, of the response to one request."""
        end = "Connection: close\r\n" if close else ""
        self.sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: one.example\r\n{end}\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.sock.recv(65536)
        head, _, body = got.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = int(next(line for line in lines if line.startswith("content-length:")).partition(":")[2])
        whole = bytearray(length if method != "HEAD" else 0)
        whole[: len(body)] = body
        rest = memoryview(whole)[len(body) :]
        while rest and (count := self.sock.recv_into(rest)):
            rest = rest[count:]
        return {"status": int(lines[0].split()[1]), "length": length, "same": not rest and whole == expected}

    def ends_cleanly(self):
        """Whether the server says close_notify and nothing else."""
        return self.sock.recv(1) == b"" and self.sock.unwrap() is not None


def kernel_counters():
    return {name: int(value) for name, value in map(str.split, Path("/proc/net/tls_stat").read_text().splitlines())}


def make_file():
    """A file of which no two blocks are the same; its content."""
    block = os.urandom(MIB - 8)
    with FILE.open("wb") as file:
        for number in range(SIZE // MIB):
            file.write(number.to_bytes(8))
            file.write(block)
    with FILE.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def visit(server, version, content, *, whole):
    """Everything on one connection; of the file the ``whole`` or a part."""
    before, (user, system), begun = kernel_counters(), server.times(), time.monotonic()
    with closing(Client(server, version)) as client:
        target, expected = ("/file", content) if whole else ("/part", content[BEGIN : BEGIN + COUNT])
        found = {"cipher": client.sock.cipher()[0], "file": client.ask(target, expected=expected)}
        found["seconds"] = time.monotonic() - begun
        found["user"], found["system"] = (b - a for a, b in zip((user, system), server.times(), strict=True))
        found["again"] = client.ask("/hello")
        found["part"] = client.ask("/part", expected=content[BEGIN : BEGIN + COUNT])
        found["head"] = client.ask("/file", "HEAD", expected=b"")
        found["last"] = client.ask("/hello", close=True)
        found["clean"] = client.ends_cleanly()
    found["kernel"] = kernel_counters()["TlsTxSw"] - before["TlsTxSw"]
    print(server.name, version, found, flush=True)
    return found


def glance(server, content, version="TLSv1.3", **client):
    before = kernel_counters()
    with closing(Client(server, version, **client)) as one:
        found = {
            "cipher": one.sock.cipher()[0],
            "hello": one.ask("/hello"),
            "part": one.ask("/part", expected=content[BEGIN : BEGIN + COUNT]),
            "certificate": one.sock.getpeercert()["subjectAltName"][0][1],
        }
    found["kernel"] = kernel_counters()["TlsTxSw"] - before["TlsTxSw"]
    return found


def leave_within_the_file(server):
    """A client that goes away in the middle."""
    with closing(Client(server)) as client:
        client.sock.sendall(b"GET /file HTTP/1.1\r\nHost: one.example\r\n\r\n")
        got = len(client.sock.recv(65536))
    return {"got": got, "quiet": server.quiet()}


def renew_keys(server):
    """How many of two requests are answered to a client that has new keys between them: openssl's, at its command K."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_3", "-crlf"]
    request = b"GET /hello HTTP/1.1\nHost: one.example\n"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as client:

        def read_until(text):
            got = b""
            while text not in got and (data := client.stdout.read(4096)):
                got += data
            return got

        client.stdin.write(request + b"\n")
        got = read_until(b"\r\n\r\nhttps")
        client.stdin.write(b"K\n")
        read_until(b"KEYUPDATE")
        client.stdin.write(request + b"Connection: close\n\n")
        got += client.stdout.read()
    return got.count(b"HTTP/1.1 200 OK")


def main():
    figures = sys.argv[1:] == ["figures"]
    common = {"ssl_certfile": ("one.crt", "two.crt"), "ssl_keyfile": ("one.key", "two.key")}
    ktls, plain = servers = [Server("ktls", ktls=True, **common), Server("plain", **common)]
    content = make_file()
    results = {"kernel": platform.release(), "openssl": ssl.OPENSSL_VERSION}
    for server in servers:
        server.wait_ready()
        visited = VERSIONS if figures or server is ktls else ()
        results[server.name] = {
            version: visit(server, version, content, whole=figures or version == "TLSv1.3") for version in visited
        }
    results["ktls"]["abort"] = leave_within_the_file(ktls)
    results["without"] = glance(plain, content)
    results["chacha20"] = glance(ktls, content, "TLSv1.2", ciphers="ECDHE+CHACHA20")
    results["sni"] = glance(ktls, content, name="two.example")
    for server in servers:
        results[server.name]["renewal"] = renew_keys(server)
        server.quiet()
        # At the end everything is published.
        status = server.stop()
        results[server.name] |= {"status": status, "log": server.log.read_text(), **server.counted()}
    Path("results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
