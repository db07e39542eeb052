"""New certificates in a process that serves: as its master says, or as it finds them itself."""

import asyncio
import errno
import os
import ssl
import time
from contextlib import suppress

import pytest

from aioserve.config.tree import Ssl
from aioserve.observe.scoreboard import CERTIFICATE_UNTIL, Scoreboard
from aioserve.tls.credentials import Credentials
from aioserve.tls.keeper import RETRY, Keeper
from aioserve.tls.material import Material
from aioserve.tls.sets import CertificateSet, Show
from aioserve.tls.take import take
from aioserve.worker.renewal import Renewal, publish, show
from tests.tls import Authority, TlsClient

AUTHORITY = Authority(intermediates=1)
DAY = 86400


class Shown:
    """Credentials with a certificate that is good for thirty days, and a row of the scoreboard."""

    def __init__(self, folder):
        self.folder = folder
        self.ssl = Ssl(certfile=(f"{folder}/server.crt",), keyfile=(f"{folder}/server.key",))
        self.old = self.write()
        self.keeper = Keeper(self.ssl, take(self.ssl))
        self.credentials = Credentials(self.ssl, self.keeper.current)
        self.cells = Scoreboard(1).row(0, 0).cells

    def write(self, days=30):
        certificate = AUTHORITY.server(days=days)
        certificate.write(self.folder)
        return certificate

    def seen(self):
        """The certificate that a client is shown."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine, client = self.credentials.engine(incoming, outgoing), TlsClient(AUTHORITY.client_context())
        while not client.shake_hands():
            incoming.write(client.take())
            with suppress(ssl.SSLWantReadError):
                engine.do_handshake()
            client.feed(outgoing.read())
        return client.engine.getpeercert(True)

    def order(self):
        """To show what is in the files now, as it comes over a channel."""
        chosen = take(self.ssl)
        descriptors = (os.dup(chosen.material.descriptor), chosen.facts())
        chosen.close()
        return Show(descriptors)


@pytest.fixture
def shown(tmp_path):
    made = Shown(tmp_path)
    yield made
    made.keeper.current.close()


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def test_what_the_master_says_is_shown_and_nothing_is_kept_open(shown):
    new = shown.write(days=3)
    publish(shown.credentials, shown.cells)
    before = shown.cells[CERTIFICATE_UNTIL]
    opened = descriptors()
    show(shown.order(), shown.credentials, shown.cells, pytest.fail)
    assert descriptors() == opened
    assert shown.seen() == new.der
    assert before - shown.cells[CERTIFICATE_UNTIL] > 26 * DAY


def test_what_has_not_arrived_as_a_whole_is_said(shown, caplog):
    order = shown.order()
    os.close(order.descriptors[1])
    wishes = []
    show(Show(order.descriptors[:1]), shown.credentials, shown.cells, wishes.append)
    assert wishes == ["descriptors, for new certificates"]
    assert "new certificates have not arrived, this process is short of descriptors" in caplog.text
    assert shown.seen() == shown.old.der


def test_what_cannot_be_loaded_is_said_and_the_old_one_stays(shown, caplog):
    shown.write()
    chosen = take(shown.ssl)
    empty = CertificateSet(Material(os.memfd_create("empty"), chosen.material.pairs), chosen.report)
    chosen.close()
    wishes = []
    show(Show((empty.material.descriptor, empty.facts())), shown.credentials, shown.cells, wishes.append)
    assert wishes == ["descriptors, for new certificates"]
    assert "new certificates cannot be loaded ([SSL] PEM lib" in caplog.text
    assert shown.seen() == shown.old.der


def test_who_shows_nothing_keeps_nothing(shown):
    opened = descriptors()
    show(shown.order(), None, shown.cells, pytest.fail)
    assert descriptors() == opened
    assert shown.cells[CERTIFICATE_UNTIL] == 0


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_process_without_a_master_finds_new_files_itself(shown, caplog):
    caplog.set_level("INFO")
    renewal = Renewal(shown.keeper, shown.credentials, asyncio.get_running_loop(), shown.cells)
    assert shown.cells[CERTIFICATE_UNTIL] == shown.credentials.until
    (shown.folder / "server.key").write_bytes(AUTHORITY.server().key)
    await until(lambda: "are refused" in caplog.text)
    assert shown.seen() == shown.old.der
    new = shown.write(days=3)
    await until(lambda: shown.seen() == new.der)
    assert shown.cells[CERTIFICATE_UNTIL] == shown.credentials.until
    assert shown.keeper.current.material.descriptor == -1
    renewal.close()


class Short:
    """Credentials for which there is no room at first."""

    def __init__(self):
        self.shown = []
        self.until = 0

    def replace(self, chosen):
        self.shown.append(chosen)
        if len(self.shown) == 1:
            raise OSError(errno.EMFILE, "Too many open files")


async def test_a_process_without_a_master_tries_again_to_load_new_certificates(shown, caplog):
    now = time.time()
    keeper, credentials = Keeper(shown.ssl, take(shown.ssl), lambda: now), Short()
    renewal = Renewal(keeper, credentials, asyncio.get_running_loop())
    shown.write()
    await until(lambda: "new certificates cannot be loaded ([Errno 24] Too many open files)" in caplog.text)
    now += RETRY
    await until(lambda: len(credentials.shown) == 2)
    renewal.close()


async def test_looks_go_on_whatever_becomes_of_an_inspection(shown):
    failures, loop = [], asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: failures.append(context["exception"]))

    class Broken:
        until = 0

        def replace(self, chosen):
            raise ZeroDivisionError

    renewal = Renewal(shown.keeper, Broken(), loop)
    for _ in range(2):
        count = len(failures)
        shown.write()
        await until(lambda count=count: len(failures) > count)
    assert [type(one) for one in failures] == [ZeroDivisionError] * 2
    renewal.close()
