"""Certificates while a server runs: renewed under load, refused, read by root alone; sessions that anybody resumes."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import resource
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.process.clients import Client
from tests.process.servers import APPS, PATIENCE, REPO, Served, wait_until
from tests.tls import Authority

#: The master does the same on every Python.
pytestmark = pytest.mark.once

AUTHORITY = Authority(intermediates=1)
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

MODES = {
    "shared": ("--workers", "2"),
    "reuseport": ("--workers", "2", "--reuseport"),
    "threads": ("--accept", "threads", "--threads", "2"),
    "single": ("--accept", "single"),
}

#: From the last write of new files to the first handshake that shows them, in seconds: what the README promises.
PROMISED = 2.0


class TlsConnection(Client):
    """A connection whose handshake is over."""

    def __init__(self, server, context, *, name="localhost", session=None):
        super().__init__(("127.0.0.1", server.port))
        self._file.close()
        self.sock = context.wrap_socket(self.sock, server_hostname=name, session=session)
        self._file = self.sock.makefile("rb")

    @property
    def der(self):
        return self.sock.getpeercert(True)


def visit(server, context, *, name="localhost", session=None):
    """One request on a connection of its own: who has answered, the certificate, the session, whether it is resumed."""
    with TlsConnection(server, context, name=name, session=session) as client:
        answer = client.get("/pid", close=True)
        assert answer.status == 200
        return answer.text, client.der, client.sock.session, client.sock.session_reused


def shown(server, *, name="localhost"):
    return visit(server, AUTHORITY.client_context(), name=name)[1]


class Site:
    """A server with one certificate in a folder of its own."""

    def __init__(self, folder, *arguments, **how):
        self.folder = folder
        self.certificate = AUTHORITY.server()
        self.paths = self.certificate.write(folder)
        self.server = Served(
            "plain:app", "--ssl-certfile", self.paths[0], "--ssl-keyfile", self.paths[1], *arguments, **how
        )

    def renew(self):
        """Write another certificate, the key first, as two files that are not replaced together."""
        self.certificate = AUTHORITY.server()
        for path, content in zip(reversed(self.paths), (self.certificate.key, self.certificate.chain), strict=True):
            path.write_bytes(content)
        return self.certificate


@dataclass
class TlsLoad:
    """Requests from threads, half of them on connections that are kept; ``failed`` is everything that went wrong."""

    server: Served
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    def __enter__(self):
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(kept,)) for kept in (True, True, False, False)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def progress(self, count=40):
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal or self.failed, "answers under load")

    def _run(self, kept):
        context = AUTHORITY.client_context()
        while not self._stopping.is_set():
            try:
                with TlsConnection(self.server, context) as client:
                    while not self._stopping.is_set():
                        assert client.get("/pid", close=not kept).status == 200
                        self.answered += 1
                        if not kept:
                            break
            except Exception as error:
                self.failed.append(repr(error))
                return


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_is_renewed_under_load_within_two_seconds_and_no_request_fails(tmp_path, mode):
    site = Site(tmp_path, *MODES[mode], "--no-access-log")
    context = AUTHORITY.client_context()
    with site.server as server, TlsConnection(server, context) as before, TlsLoad(server) as load:
        load.progress()
        old = site.certificate
        new = site.renew()
        began = time.monotonic()
        wait_until(lambda: shown(server) == new.der, "the new certificate")
        assert time.monotonic() - began < PROMISED
        # From the same master at the same time; the other worker reads its channel a moment later.
        wait_until(lambda: all(shown(server) == new.der for _ in range(8)), "every worker has it")
        load.progress()
        assert before.der == old.der
        assert before.get("/pid").status == 200
        assert load.failed == []
    assert "refused" not in server.log()
    assert "new certificate " in server.log()


def test_a_bad_certificate_is_refused_and_a_worker_that_is_born_meanwhile_shows_the_good_one(tmp_path):
    site = Site(tmp_path, "--workers", "2")
    with site.server as server:
        good = site.certificate
        site.paths[1].write_bytes(AUTHORITY.server().key)
        line = server.wait_for("the new certificates are refused")
        assert f"ERROR    the new certificates are refused: {site.paths[1]} is not the key of" in line
        assert "; the old ones stay (valid until 20" in line

        victims = server.workers()
        for pid in victims:
            server.signal(signal.SIGKILL, pid)
        wait_until(lambda: len(server.workers()) == 2 and not server.workers() & victims, "successors")
        assert {shown(server) for _ in range(6)} == {good.der}

        new = site.renew()
        wait_until(lambda: shown(server) == new.der, "the new certificate")
        assert server.log().count("are refused") == 1


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit")
def test_a_worker_without_descriptors_for_new_certificates_is_replaced(tmp_path):
    site = Site(tmp_path, "--workers", "1")
    with site.server as server:
        (worker,) = server.workers()
        count = len(os.listdir(f"/proc/{worker}/fd"))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (count, count))
        new = site.renew()
        server.wait_for("has reached a limit (descriptors, for new certificates): a successor starts")
        wait_until(lambda: server.workers() not in ({worker}, set()), "a successor")
        server.wait_for("plain:app: shutdown complete")
        assert shown(server) == new.der


def test_keys_that_only_root_may_read_are_loaded_and_renewed_with_another_user(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    nobody = pwd.getpwnam("nobody").pw_uid
    site = Site(tmp_path, "--workers", "1", "--user", "nobody")
    site.paths[1].chmod(0o600)
    tmp_path.chmod(0o700)
    with site.server as server:
        assert shown(server) == site.certificate.der
        (worker,) = server.workers()
        assert re.search(rf"^Uid:\s+{nobody}\s", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
        # The copies were given up, once they were loaded.
        assert not [fd for fd in os.scandir(f"/proc/{worker}/fd") if "aioserve-tls" in os.readlink(fd.path)]
        new = site.renew()
        wait_until(lambda: shown(server) == new.der, "the new certificate")
        assert server.workers() == {worker}


def test_hup_takes_new_paths_and_refuses_bad_ones(tmp_path):
    first, second = AUTHORITY.server("one.example"), AUTHORITY.server("two.example")
    first.write(tmp_path, "one")
    second.write(tmp_path, "two")
    file = tmp_path / "aioserve.toml"

    def configure(certificate, key, more=""):
        file.write_text(f'[ssl]\ncertfile = ["{certificate}.crt"]\nkeyfile = ["{key}.key"]\n{more}')

    def hang_up(result):
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_for(result, since=mark)

    configure("one", "one")
    with Served("plain:app", "--app-dir", APPS, "--workers", "1", cwd=tmp_path) as server:
        workers = server.workers()
        configure("two", "one")
        hang_up("reload to generation 2 failed: the configuration has 1 mistake")
        assert "one.key is not the key of the certificate in two.crt" in server.log()
        configure("one", "one", 'ciphers = "FASTEST"\n')
        hang_up("reload to generation 3 failed: the configuration has 1 mistake")
        assert server.workers() == workers
        assert shown(server, name="one.example") == first.der

        configure("two", "two")
        hang_up("reload to generation 4 finished")
        assert shown(server, name="two.example") == second.der
        # What was named before is not looked at any more, and what is named now is.
        renewed = AUTHORITY.server("two.example")
        renewed.write(tmp_path, "two")
        wait_until(lambda: shown(server, name="two.example") == renewed.der, "the new certificate")


def test_after_a_reload_that_failed_the_files_of_before_are_followed(tmp_path):
    AUTHORITY.server("one.example").write(tmp_path, "one")
    AUTHORITY.server("two.example").write(tmp_path, "two")
    program, file = tmp_path / "program.py", tmp_path / "aioserve.toml"
    program.write_text("from plain import app\n")

    def configure(name):
        file.write_text(f'[ssl]\ncertfile = ["{name}.crt"]\nkeyfile = ["{name}.key"]\n')

    configure("one")
    with Served("program:app", "--workers", "1", cwd=tmp_path, app_dir=APPS, tracebacks=1) as server:
        configure("two")
        program.write_text("raise RuntimeError\n")
        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2 failed")
        new = AUTHORITY.server("one.example")
        new.write(tmp_path, "one")
        wait_until(lambda: shown(server, name="one.example") == new.der, "the new certificate")


def test_certificates_come_to_a_folder_and_leave_it_and_are_chosen_by_name(tmp_path):
    def mount(name, certificate, version):
        """As Kubernetes does: ``..data`` is a link that is replaced."""
        folder = tmp_path / name
        there = folder / f"..{version}"
        there.mkdir(parents=True)
        (there / "tls.crt").write_bytes(certificate.chain)
        (there / "tls.key").write_bytes(certificate.key)
        if version == 1:
            for file in ("tls.crt", "tls.key"):
                (folder / file).symlink_to(f"..data/{file}")
        (folder / "..data_tmp").symlink_to(there.name)
        (folder / "..data_tmp").replace(folder / "..data")
        return certificate

    a = mount("a", AUTHORITY.server("a.example"), 1)
    b = mount("b", AUTHORITY.server("*.b.example"), 1)
    context = AUTHORITY.client_context()
    context.check_hostname = False

    def at(name):
        return visit(server, context, name=name)[1]

    with Served("plain:app", "--workers", "1", "--ssl-certdir", tmp_path) as server:
        assert [at("a.example"), at("x.b.example"), at("c.example")] == [a.der, b.der, a.der]
        b = mount("b", AUTHORITY.server("*.b.example"), 2)
        c = mount("c", AUTHORITY.server("c.example"), 1)
        wait_until(lambda: at("c.example") == c.der, "the third certificate")
        assert at("X.b.example") == b.der
        (tmp_path / "c/tls.crt").unlink()
        server.wait_for("c/tls.crt is shown no more")
        wait_until(lambda: at("c.example") == a.der, "two certificates are left")


@pytest.mark.parametrize("version", [V12, V13])
def test_sessions_are_resumed_by_every_worker_through_crash_reload_and_renewal(tmp_path, version):
    site = Site(tmp_path, "--workers", "2", "--reuseport", "--no-access-log")
    context = AUTHORITY.client_context(maximum_version=version)
    with site.server as server:
        born, _, session, _ = visit(server, context)

        def resumed_by(*, but=frozenset()):
            """Visit until two workers have answered; who they are."""
            found = set()

            def two():
                nonlocal session
                pid, _, newer, resumed = visit(server, context, session=session)
                assert resumed
                # TLS 1.3: a ticket is for one connection, and each brings another one.
                session = newer or session
                found.add(int(pid))
                return len(found) == 2

            wait_until(two, "both workers")
            assert not found & but
            return found

        first = resumed_by()
        assert int(born) in first

        server.signal(signal.SIGKILL, int(born))
        wait_until(lambda: len(server.workers() - {int(born)}) == 2, "a successor")
        second = resumed_by(but={int(born)})

        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2 finished")
        resumed_by(but=first | second)

        new = site.renew()
        wait_until(lambda: shown(server) == new.der, "the new certificate")
        resumed_by()


def test_a_client_that_authorities_let_in_no_more_is_out_although_it_has_a_session(tmp_path):
    people, others = Authority(), Authority()
    file = people.write(tmp_path, "people")
    site = Site(tmp_path, "--workers", "2", "--ssl-ca-certs", file, "--ssl-cert-reqs", "required")
    alice = AUTHORITY.client_context(people.client("alice"), maximum_version=V12)
    bob = AUTHORITY.client_context(others.client("bob"), maximum_version=V12)
    with site.server as server:
        _, _, session, _ = visit(server, alice)
        assert visit(server, alice, session=session)[3]
        others.write(tmp_path, "people")
        server.wait_for("other authorities verify clients from now on")

        def bob_is_in():
            with contextlib.suppress(OSError):
                return visit(server, bob)

        wait_until(lambda: all(bob_is_in() for _ in range(6)), "everybody knows bob")
        victim = server.workers().pop()
        for again in (False, True):
            with pytest.raises(ssl.SSLError):
                visit(server, alice, session=session)
            if not again:
                # Who is born now has nothing in common with what was before.
                server.signal(signal.SIGKILL, victim)
                wait_until(lambda: len(server.workers() - {victim}) == 2, "a successor")


def memory_of(pid):
    """Everything that the process may write to; what cannot be read has none of it."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end, access = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if access.startswith("rw"):
                with contextlib.suppress(OSError):
                    memory.seek(int(begin, 16))
                    found.append(memory.read(int(end, 16) - int(begin, 16)))
    return b"\0".join(found)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs /proc")
def test_no_key_is_in_the_memory_of_the_master(tmp_path):
    site = Site(tmp_path, "--workers", "1")
    if os.geteuid() != 0:
        pytest.skip("needs root: only it may look")

    def traces(certificate):
        key = serialization.load_pem_private_key(certificate.key, None)
        number = key.private_numbers().private_value.to_bytes(32, "big")
        return [number, number[::-1], certificate.key.splitlines()[1]]

    with site.server as server:
        old, new = site.certificate, site.renew()
        wait_until(lambda: shown(server) == new.der, "the new certificate")
        (worker,) = server.workers()
        # Where it has to be, so that this test is able to find one.
        assert any(trace in memory_of(worker) for trace in traces(new))
        master = memory_of(server.pid)
        assert not [trace for one in (old, new) for trace in traces(one) if trace in master]


@pytest.mark.parametrize("mode", ["shared", "single"])
def test_everything_that_is_wrong_is_said_at_the_start(tmp_path, mode):
    certfile, keyfile = AUTHORITY.server().write(tmp_path, password="secret")
    arguments = ("--ssl-certfile", certfile, "--ssl-keyfile", keyfile, "--ssl-ciphers", "FASTEST")
    with Served("plain:app", *MODES[mode], *arguments, ready=False) as server:
        assert server.wait() == 2
    assert "the configuration has 2 mistakes" in server.log()
    assert f"{keyfile} is encrypted, and there is no password: give ssl.keyfile_password" in server.log()
    assert "ssl.ciphers: 'FASTEST' names no cipher" in server.log()


@pytest.mark.parametrize("mode", [["--workers", "1"], ["--accept", "single"], ["--workers", "1", "--preload"]])
def test_the_password_is_no_variable_of_the_application_and_a_reload_still_knows_it(tmp_path, mode):
    certfile, keyfile = AUTHORITY.server().write(tmp_path, password="secret")
    arguments = ("--ssl-certfile", certfile, "--ssl-keyfile", keyfile, *mode)
    with Served("plain:app", *arguments, env={"AIOSERVE_SSL_KEYFILE_PASSWORD": "secret"}) as server:
        if mode == ["--workers", "1"]:
            server.signal(signal.SIGHUP)
            server.wait_for("reload to generation 2 finished")
        with TlsConnection(server, AUTHORITY.client_context()) as client:
            names = client.get("/environ").text.split()
    assert "PATH" in names
    assert "AIOSERVE_SSL_KEYFILE_PASSWORD" not in names


def test_nobody_at_the_terminal_is_asked_for_a_password(tmp_path):
    certfile, keyfile = AUTHORITY.server().write(tmp_path, password="secret")
    ours, theirs = os.openpty()
    # OpenSSL asks at the controlling terminal, whatever the standard streams are.
    at_terminal = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    arguments = ("-m", "aioserve", "plain:app", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile)
    process = subprocess.Popen(
        [sys.executable, "-c", at_terminal, *arguments],
        cwd=APPS,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    os.write(theirs, b"the end")
    assert os.read(ours, 1000) == b"the end"
    assert b"is encrypted, and there is no password" in errors
    os.close(ours)
    os.close(theirs)


def test_a_certificate_that_has_expired_does_not_keep_the_server_from_starting(tmp_path):
    certfile, keyfile = AUTHORITY.expired().write(tmp_path)
    with Served("plain:app", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile) as server:
        line = server.wait_for("has expired")
        assert f"ERROR    {certfile} has expired (20" in line
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        assert visit(server, client)[0]


def test_check_config_looks_at_certificates(tmp_path):
    certfile, keyfile = AUTHORITY.server().write(tmp_path)
    for key, status, text in ((keyfile, 0, "configuration OK"), (certfile, 2, "has no private key")):
        arguments = ("--check-config", "--ssl-certfile", certfile, "--ssl-keyfile", key)
        with Served("plain:app", *arguments, ready=False) as server:
            assert server.wait() == status
            assert text in server.stdout() + server.log()
