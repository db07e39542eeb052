"""Terminators in front of every pattern: which process keeps which socket, and what a new master is given."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from aioserve.accept.base import Feed, Keeper
from aioserve.accept.dispatch import Dispatch
from aioserve.accept.fronted import Fronted
from aioserve.accept.reuseport import ReusePort
from aioserve.accept.shared import Shared
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import PrivateAddress, TcpAddress, UnixAddress
from aioserve.errors import BindError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="--tls-processes needs Linux")

OPTIONS = SocketOptions(backlog=64)
SECURED = TcpAddress("127.0.0.1", 0, speaks="https")
PLAIN = TcpAddress("127.0.0.2", 0, speaks="http")

KINDS = {
    "shared": lambda addresses: Shared(addresses, OPTIONS),
    "reuseport": lambda addresses: ReusePort(addresses, 2, OPTIONS),
    "lending": lambda addresses: ReusePort(addresses, 2, OPTIONS, lends=True),
    "dispatch": lambda addresses: Dispatch(addresses, 2, OPTIONS),
}


@pytest.fixture
def fronted():
    made = []

    def make(kind="shared", secured=(SECURED,), plain=(PLAIN,), inherited=(), **options):
        made.append(Fronted(secured, plain, OPTIONS, KINDS[kind], **options))
        made[-1].open(inherited)
        return made[-1]

    yield make
    for one in made:
        one.close()


every_pattern = pytest.mark.parametrize("kind", KINDS)


def listeners(acceptor, slot=0):
    """What the worker of a slot serves, whoever accepts it."""
    found = []
    for source in acceptor.listeners(slot):
        found += source.listeners if isinstance(source, Feed) else [source]
    return found


@every_pattern
def test_workers_have_the_plain_addresses_and_one_private_listener(fronted, kind):
    one = fronted(kind)
    found = listeners(one)
    assert sorted((listener.private, listener.scheme) for listener in found) == [(False, "http"), (True, "http")]
    (secured,) = one.front.listeners
    assert secured.scheme == "https"
    assert one.addresses() == [secured.address, *(other.address for other in found if not other.private)]


@every_pattern
def test_the_private_listener_has_no_file_and_takes_whoever_connects(fronted, kind):
    one = fronted(kind, plain=())
    (private,) = listeners(one)
    assert one.front.workers.startswith(b"\0")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(one.front.workers)
        accepted, _ = private.sock.accept()
        accepted.close()


@every_pattern
def test_a_terminator_keeps_the_secured_sockets_and_no_others(fronted, kind):
    one = fronted(kind)
    name, port = one.front.workers, one.front.port
    mine, theirs = one.front.listeners, listeners(one)
    one.keep_only(Keeper.TERMINATOR)
    assert [listener.sock.fileno() >= 0 for listener in mine] == [True]
    assert {listener.sock.fileno() for listener in theirs} == {-1}
    assert one.front.listeners == mine
    assert (one.front.workers, one.front.port) == (name, port)


@every_pattern
@pytest.mark.parametrize("who", [0, None, Keeper.DISPATCHER])
def test_nobody_else_keeps_them(fronted, kind, who):
    one = fronted(kind)
    (secured,) = one.front.listeners
    theirs = listeners(one)
    one.keep_only(who)
    assert secured.sock.fileno() == -1
    kept = {listener.sock.fileno() >= 0 for listener in theirs}
    # A worker behind a dispatcher has its feed, and a dispatcher all listeners.
    assert kept == {(who == 0 and kind != "dispatch") or (who is Keeper.DISPATCHER and kind == "dispatch")}


@every_pattern
def test_a_new_master_gets_everything_but_the_private_listener(fronted, kind):
    old = fronted(kind)
    given = old.hand_over()
    assert str(PrivateAddress()) not in {one.address for one in given}
    copies = [type(one)(**{**vars_of(one), "fd": os.dup(one.fd)}) for one in given]
    new = fronted(kind, inherited=copies)
    assert new.addresses() == old.addresses()
    assert new.front.workers != old.front.workers
    new.alone()
    new.reclaim()


def vars_of(one):
    return {name: getattr(one, name) for name in ("fd", "address", "slot", "indices", "file")}


def test_slots_come_and_go_in_the_pattern_behind(fronted):
    one = fronted("reuseport")
    before = one.listeners(0)
    one.grow(2)
    one.joined(2)
    assert len(one.listeners(2)) == len(before)
    one.retire(2)
    one.restore(2)
    one.retire(2)
    one.forget(2)
    assert len(one.listeners(2)) == 1  # the private one is everybody's
    assert one.linger > 0


def test_what_workers_lend_is_theirs_alone(fronted):
    one = fronted("lending")
    assert {len(listeners) for listeners in one.queues().values()} == {1}
    assert one.dispatcher is None
    assert fronted("dispatch").dispatcher is not None


def test_files_of_unix_sockets_are_removed_at_the_end(fronted, tmp_path):
    address = UnixAddress(str(tmp_path / "app.sock"), speaks="https")
    one = fronted(secured=[address])
    assert one.front.port is None
    assert one.addresses()[0] == f"https://unix:{address.path}"
    one.close()
    assert not (tmp_path / "app.sock").exists()


def test_an_address_that_fails_leaves_nothing_open(fronted, tmp_path):
    with pytest.raises(BindError):
        fronted(plain=[UnixAddress(str(tmp_path / "there" / "is" / "none"), speaks="http")], secured=[SECURED])
    with pytest.raises(AssertionError, match="not open"):
        _ = Fronted([SECURED], [], OPTIONS, KINDS["shared"]).front


def test_it_is_refused_where_the_kernel_does_not_say_who_connects(fronted):
    with pytest.raises(BindError, match="--tls-processes needs Linux"):
        fronted(platform="darwin")
