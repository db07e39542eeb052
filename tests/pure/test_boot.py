"""Where a server listens, when others have opened sockets for it."""

import os
import socket

import pytest

from aioserve.accept.activation import Passed
from aioserve.accept.base import Inherited
from aioserve.boot import check_reload, choose_acceptor
from aioserve.config.load import from_settings
from aioserve.errors import ConfigError


@pytest.fixture
def passed():
    """Two sockets of a service manager, under one name."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in socks]
    yield ports, [Passed(sock.detach(), "web") for sock in socks]


def opened(config, *given):
    acceptor = choose_acceptor(config, *given)
    acceptor.open()
    addresses = acceptor.addresses()
    acceptor.close()
    return addresses


def urls(ports):
    return [f"http://127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize("accept", ["shared", "reuseport", "dispatch"])
def test_all_that_was_passed_is_taken_when_no_address_is_given(passed, accept):
    ports, sockets = passed
    assert opened(from_settings(accept=accept), sockets) == urls(ports)


def test_a_name_takes_all_sockets_of_that_name(passed):
    ports, sockets = passed
    assert opened(from_settings(bind=["fd://web"]), sockets) == urls(ports)


def test_an_address_that_is_given_is_the_only_one_and_the_rest_is_told(passed, caplog):
    ports, sockets = passed
    assert opened(from_settings(bind=[f"fd://{sockets[1].fd}"]), sockets) == urls(ports[1:])
    assert [record.message for record in caplog.records] == [
        f"{sockets[0]} was passed in and no address names it: its clients wait in vain"
    ]
    os.close(sockets[0].fd)


def test_what_the_master_before_us_was_passed_is_taken_over_without_being_named(passed):
    ports, sockets = passed
    inherited = [Inherited(fd=one.fd, address=f"fd://{3 + number}", slot=None) for number, one in enumerate(sockets)]
    acceptor = choose_acceptor(from_settings(), (), None, inherited)
    acceptor.open(inherited)
    assert acceptor.addresses() == urls(ports)
    acceptor.close()


def test_what_was_passed_speaks_tls_where_there_is_a_certificate_and_a_name_may_redirect(passed):
    ports, sockets = passed
    mine = [Passed(sockets[0].fd, "web"), Passed(sockets[1].fd, "plain")]
    config = from_settings(ssl_certfile=["a"], ssl_redirect=["fd://plain"])
    acceptor = choose_acceptor(config, mine)
    acceptor.open()
    assert acceptor.addresses() == [f"https://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"]
    assert [one.redirect for one in acceptor.listeners(0)] == [False, True]
    acceptor.close()


def test_what_the_master_before_us_was_passed_may_speak_tls_now(passed):
    ports, sockets = passed
    inherited = [
        Inherited(fd=one.fd, address=f"fd://{name}", slot=None)
        for one, name in zip(sockets, ("web", "plain"), strict=True)
    ]
    config = from_settings(ssl_certfile=["a"], ssl_redirect=["fd://plain"])
    acceptor = choose_acceptor(config, (), None, inherited)
    acceptor.open(inherited)
    assert acceptor.addresses() == [f"https://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"]
    acceptor.close()


def test_a_directory_to_watch_that_is_not_there_is_a_mistake(tmp_path):
    pytest.importorskip("watchfiles", reason="watchfiles is not installed (the extra reload)")
    check_reload(from_settings(reload=True, reload_dir=[str(tmp_path)]))
    with pytest.raises(ConfigError, match=f"^--reload-dir {tmp_path}/no: there is no such directory"):
        check_reload(from_settings(reload=True, reload_dir=[str(tmp_path), f"{tmp_path}/no", f"{tmp_path}/nor"]))
