"""What a service manager passes on, as the environment says it."""

import pytest

from aioserve.accept.activation import Passed, named, passed_on
from aioserve.config.addresses import NamedAddress
from aioserve.errors import BindError


def test_sockets_and_their_names():
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:admin:web"}
    assert passed_on(environ, 7) == (Passed(3, "web"), Passed(4, "admin"), Passed(5, "web"))


def test_sockets_without_names_are_unknown():
    assert passed_on({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7) == (Passed(3, "unknown"),)


def test_too_few_names_leave_the_last_ones_unknown():
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web"}
    assert [one.name for one in passed_on(environ, 7)] == ["web", "unknown"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "8", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "7"},
        {"LISTEN_PID": "7", "LISTEN_FDS": "x"},
        {"LISTEN_PID": "7", "LISTEN_FDS": "0"},
    ],
    ids=str,
)
def test_nothing_is_taken_that_is_not_meant_for_us(environ):
    assert passed_on(environ, 7) == ()


def test_a_name_may_stand_for_several_sockets():
    assert named(NamedAddress("web"), [Passed(3, "web"), Passed(4, "admin"), Passed(5, "web")]) == [3, 5]


def test_a_name_that_nobody_has_passed_on_is_refused_with_those_that_are_there():
    with pytest.raises(BindError, match=r"^fd://web: .*the names are admin, api.*FileDescriptorName=web"):
        named(NamedAddress("web"), [Passed(3, "api"), Passed(4, "admin")])


def test_a_name_without_any_socket_is_refused():
    with pytest.raises(BindError, match=r"none was passed in at all"):
        named(NamedAddress("web"), [])


def test_a_socket_says_what_it_is():
    assert str(Passed(3, "web")) == "fd://3 (web)"
