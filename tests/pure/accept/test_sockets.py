import errno
import os
import socket
import stat
import sys

import pytest

from aioserve.accept import sockets
from aioserve.accept.sockets import (
    UNSENT_LIMIT,
    SocketOptions,
    adopt_fd,
    bind_beside,
    bind_found,
    bind_tcp,
    bind_unix,
    open_address,
    resolve,
)
from aioserve.config.addresses import FdAddress, TcpAddress, UnixAddress
from aioserve.errors import BindError
from tests.descriptors import few_descriptors


@pytest.fixture
def opened():
    """Collects listeners and closes them."""
    listeners = []
    yield listeners
    for listener in listeners:
        listener.sock.close()


@pytest.fixture
def tcp(opened):
    def bind(host, port=0, *, backlog=8, dual_stack=False, reuse_port=False):
        listeners = bind_tcp(TcpAddress(host, port), backlog=backlog, dual_stack=dual_stack, reuse_port=reuse_port)
        opened.extend(listeners)
        return listeners

    return bind


@pytest.fixture
def unix(opened):
    def bind(path, mode=0o660):
        listener, file = bind_unix(UnixAddress(str(path)), backlog=8, mode=mode)
        opened.append(listener)
        return listener, file

    return bind


@pytest.fixture
def name(opened):
    """Binds a name that has these addresses."""

    def bind(*hosts, port=0):
        found = [(socket.AF_INET, (host, port)) for host in hosts]
        listeners = bind_found(TcpAddress("name", port), found, backlog=8)
        opened.extend(listeners)
        return listeners

    return bind


def port_of(listener):
    return listener.sock.getsockname()[1]


def leave_stale(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


class TestTcp:
    def test_a_client_can_connect_before_anybody_accepts(self, tcp):
        [listener] = tcp("127.0.0.1")
        socket.create_connection(("127.0.0.1", port_of(listener))).close()

    def test_the_chosen_port_is_in_the_address(self, tcp):
        [listener] = tcp("127.0.0.1")
        assert listener.address == f"http://127.0.0.1:{port_of(listener)}"

    def test_the_server_value_is_the_bound_address(self, tcp):
        [listener] = tcp("127.0.0.1")
        assert listener.server == ("127.0.0.1", port_of(listener))

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_a_wildcard_has_no_constant_server_value(self, tcp, host):
        [listener] = tcp(host)
        assert listener.server is None

    def test_an_ipv6_address_is_printed_in_brackets(self, tcp):
        [listener] = tcp("::1")
        assert listener.address == f"http://[::1]:{port_of(listener)}"

    def test_the_socket_is_not_inherited_and_does_not_block(self, tcp):
        [listener] = tcp("127.0.0.1")
        assert (listener.sock.get_inheritable(), listener.sock.getblocking()) == (False, False)

    def test_the_address_can_be_bound_again_while_connections_linger(self, tcp):
        [listener] = tcp("127.0.0.1")
        assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)

    def test_the_kernel_takes_little_for_a_client_that_does_not_read(self, tcp):
        [listener] = tcp("127.0.0.1")
        with socket.create_connection(("127.0.0.1", port_of(listener))):
            listener.sock.setblocking(True)
            connection, _ = listener.sock.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_LIMIT

    def test_an_ipv6_wildcard_refuses_ipv4(self, tcp):
        [listener] = tcp("::")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(listener)))

    def test_an_ipv6_wildcard_takes_ipv4_when_told(self, tcp):
        [listener] = tcp("::", dual_stack=True)
        socket.create_connection(("127.0.0.1", port_of(listener))).close()
        socket.create_connection(("::1", port_of(listener))).close()

    def test_only_a_wildcard_is_dual(self, tcp):
        [listener] = tcp("::1", dual_stack=True)
        assert listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)

    def test_both_wildcards_can_have_the_same_port(self, tcp):
        [four] = tcp("0.0.0.0")
        [six] = tcp("::", port_of(four))
        assert port_of(six) == port_of(four)

    def test_every_address_of_a_name_gets_the_same_free_port(self, name):
        one, other = name("127.0.0.1", "127.0.0.2")
        assert (one.server[0], other.server[0], port_of(one)) == ("127.0.0.1", "127.0.0.2", port_of(other))

    def test_a_name_that_is_half_taken_is_refused_and_leaves_nothing(self, name, tcp):
        [taken] = tcp("127.0.0.2")
        with pytest.raises(BindError, match="another process is listening there"):
            name("127.0.0.1", "127.0.0.2", port=port_of(taken))
        assert tcp("127.0.0.1", port_of(taken))

    def test_addresses_that_the_machine_lacks_are_passed_over(self, name):
        [listener] = name("203.0.113.8", "127.0.0.1")
        assert listener.server == ("127.0.0.1", port_of(listener))

    def test_a_name_with_no_address_here_is_refused(self, name):
        with pytest.raises(BindError, match="no such address"):
            name("203.0.113.8", "203.0.113.9")

    def test_a_port_that_is_never_free_for_all_addresses_is_given_up(self, name):
        with pytest.raises(BindError, match="another process is listening there"):
            name("127.0.0.1", "127.0.0.1")

    def test_a_name_has_each_address_once(self):
        found = resolve(TcpAddress("localhost", 80))
        assert sorted(set(found)) == sorted(found)

    def test_a_port_in_use_is_explained(self, tcp):
        [listener] = tcp("127.0.0.1")
        with pytest.raises(BindError, match=rf"127.0.0.1:{port_of(listener)}: another process is listening there"):
            tcp("127.0.0.1", port_of(listener))

    def test_a_foreign_address_is_explained(self, tcp):
        with pytest.raises(BindError, match=r"203.0.113.8:0: this machine has no such address"):
            tcp("203.0.113.8")

    def test_an_unknown_name_is_explained(self, tcp):
        with pytest.raises(BindError, match=r"'nowhere\.invalid' cannot be resolved"):
            tcp("nowhere.invalid")

    def test_a_name_that_cannot_be_a_name_is_explained(self, tcp):
        with pytest.raises(BindError, match="cannot be resolved"):
            tcp("a" * 300)

    def test_a_link_local_address_without_interface_is_explained(self, tcp):
        with pytest.raises(BindError, match=r"\[fe80::1%eth0\]"):
            tcp("fe80::1")


class TestBeside:
    def test_the_twin_listens_on_the_same_port(self, tcp, opened):
        [first] = tcp("127.0.0.1", reuse_port=True)
        twin = bind_beside(first, backlog=8)
        opened.append(twin)
        assert (twin.address, twin.sock.fileno() != first.sock.fileno()) == (first.address, True)

    @pytest.mark.parametrize("dual_stack", [False, True])
    def test_the_twin_takes_the_same_families(self, tcp, opened, dual_stack):
        [first] = tcp("::", dual_stack=dual_stack, reuse_port=True)
        twin = bind_beside(first, backlog=8)
        opened.append(twin)
        assert twin.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == (not dual_stack)

    def test_a_first_socket_outside_the_group_is_explained(self, tcp):
        [first] = tcp("127.0.0.1")
        with pytest.raises(BindError, match="another process is listening there"):
            bind_beside(first, backlog=8)


class TestUnix:
    def test_a_client_can_connect(self, unix, tmp_path):
        unix(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))

    def test_it_is_described(self, unix, tmp_path):
        listener, _ = unix(tmp_path / "s")
        assert (listener.address, listener.server) == (f"unix:{tmp_path}/s", (f"{tmp_path}/s", None))

    @pytest.mark.parametrize("mode", [0o660, 0o600, 0o666, 0o777])
    def test_the_mode_is_exact_whatever_the_umask(self, unix, tmp_path, mode):
        old = os.umask(0o027)
        try:
            unix(tmp_path / "s", mode)
            assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == mode
        finally:
            assert os.umask(old) == 0o027

    def test_a_stale_file_is_replaced(self, unix, tmp_path):
        leave_stale(tmp_path / "s")
        unix(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))

    def test_a_socket_in_use_is_refused_and_stays(self, unix, tmp_path):
        unix(tmp_path / "s")
        with pytest.raises(BindError, match="another process is listening there"):
            unix(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))

    def test_a_listener_with_a_full_queue_is_in_use(self, unix, tmp_path):
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
            busy.bind(path)
            busy.listen(0)
            client.connect(path)
            with pytest.raises(BindError, match="another process is listening there"):
                unix(path)

    def test_a_socket_of_another_kind_is_refused_and_stays(self, unix, tmp_path):
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            with pytest.raises(BindError, match="whether it is in use cannot be told"):
                unix(path)
        assert path.exists()

    def test_a_regular_file_is_refused_and_stays(self, unix, tmp_path):
        (tmp_path / "s").write_text("precious")
        with pytest.raises(BindError, match="something else, not a socket"):
            unix(tmp_path / "s")
        assert (tmp_path / "s").read_text() == "precious"

    def test_a_link_is_refused_and_stays(self, unix, tmp_path):
        leave_stale(tmp_path / "real")
        (tmp_path / "s").symlink_to(tmp_path / "real")
        with pytest.raises(BindError, match="something else, not a socket"):
            unix(tmp_path / "s")
        assert (tmp_path / "real").exists()

    def test_a_missing_directory_is_explained(self, unix, tmp_path):
        with pytest.raises(BindError, match=r"the directory .*nowhere does not exist; create it"):
            unix(tmp_path / "nowhere" / "s")

    def test_a_path_that_is_too_long_is_explained(self, unix, tmp_path):
        with pytest.raises(BindError, match="too long"):
            unix(tmp_path / ("s" * 120))

    def test_a_removed_file_is_gone(self, unix, tmp_path):
        _, file = unix(tmp_path / "s")
        file.remove()
        assert not (tmp_path / "s").exists()

    def test_a_file_that_another_server_has_made_since_is_left_alone(self, unix, tmp_path):
        first, file = unix(tmp_path / "s")
        first.sock.close()
        os.rename(tmp_path / "s", tmp_path / "old")  # keeps the first inode from being used again
        unix(tmp_path / "s")
        file.remove()
        assert (tmp_path / "s").exists()

    def test_a_relative_path_is_removed_from_another_directory(self, unix, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _, file = unix("s")
        monkeypatch.chdir("/")
        file.remove()
        assert not (tmp_path / "s").exists()


class TestFd:
    @pytest.fixture
    def adopt(self, opened):
        def adopt(sock):
            listener = adopt_fd(FdAddress(sock.fileno()), backlog=8)
            sock.detach()
            opened.append(listener)
            return listener

        return adopt

    def test_a_listening_socket_is_taken_as_it_is(self, adopt):
        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert adopt(sock).address == f"http://127.0.0.1:{port}"

    def test_a_bound_socket_begins_to_listen(self, adopt):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        listener = adopt(sock)
        socket.create_connection(listener.sock.getsockname()).close()
        assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_LIMIT

    def test_a_unix_socket_is_described_by_its_path(self, adopt, tmp_path):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "s"))
        assert adopt(sock).address == f"unix:{tmp_path}/s"

    @pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
    def test_an_abstract_address_is_printed_with_an_at_sign(self, adopt):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("")  # unix(7), autobind: a free abstract address
        assert adopt(sock).address.startswith("unix:@")

    def test_an_inheritable_descriptor_is_kept_from_programs_that_workers_execute(self, adopt):
        sock = socket.create_server(("127.0.0.1", 0))
        sock.set_inheritable(True)
        sock.setblocking(True)
        listener = adopt(sock)
        assert (listener.sock.get_inheritable(), listener.sock.getblocking()) == (False, False)

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (socket.socket, "is not bound"),
            (lambda: socket.socket(socket.AF_UNIX), "is not bound"),
            (lambda: socket.socket(type=socket.SOCK_DGRAM), "is of another kind"),
        ],
    )
    def test_a_socket_that_cannot_listen_is_refused_and_left_open(self, make, reason):
        with make() as sock:
            with pytest.raises(BindError, match=reason):
                adopt_fd(FdAddress(sock.fileno()), backlog=8)
            assert os.fstat(sock.fileno())

    def test_a_connection_is_refused_and_left_open(self):
        one, other = socket.socketpair()
        with one, other:
            with pytest.raises(BindError, match="is a connection"):
                adopt_fd(FdAddress(one.fileno()), backlog=8)
            assert os.fstat(one.fileno())

    def test_a_bound_socket_whose_address_was_taken_is_refused_and_left_open(self):
        with socket.socket() as one, socket.socket() as other:
            for sock in (one, other):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
            other.bind(one.getsockname())
            one.listen()
            with pytest.raises(BindError, match="cannot listen: Address already in use"):
                adopt_fd(FdAddress(other.fileno()), backlog=8)
            assert os.fstat(other.fileno())

    def test_a_closed_descriptor_is_explained(self):
        sock = socket.socket()
        number = sock.fileno()
        sock.close()
        with pytest.raises(BindError, match=f"fd://{number}: descriptor {number} is not a socket"):
            adopt_fd(FdAddress(number), backlog=8)

    def test_a_file_is_explained(self, tmp_path):
        with (tmp_path / "f").open("w") as file, pytest.raises(BindError, match="is not a socket"):
            adopt_fd(FdAddress(file.fileno()), backlog=8)


class TestOpen:
    def test_each_kind_of_address_opens(self, opened, tmp_path):
        passed = socket.create_server(("127.0.0.1", 0))
        options = SocketOptions(backlog=8)
        for address in (TcpAddress("127.0.0.1", 0), UnixAddress(f"{tmp_path}/s"), FdAddress(passed.detach())):
            opened.extend(open_address(address, options)[0])
        assert [listener.sock.family for listener in opened] == [socket.AF_INET, socket.AF_UNIX, socket.AF_INET]


class TestAdvice:
    """For failures that the machine of a test cannot be counted on to have."""

    @pytest.mark.parametrize(
        ("number", "host", "words"),
        [
            (errno.EADDRINUSE, "0.0.0.0", "stop it, or choose another port"),
            (errno.EACCES, "0.0.0.0", "ports below 1024 belong to root"),
            (errno.EADDRNOTAVAIL, "203.0.113.8", "no such address"),
            (errno.EAFNOSUPPORT, "::", "this machine has no IPv6"),
            (errno.EINVAL, "fe80::1", "needs its interface"),
            (errno.EINVAL, "::1", "Invalid argument"),
        ],
    )
    def test_every_refusal_of_a_tcp_address_says_what_to_do(self, number, host, words):
        address = TcpAddress(host, 80)
        advice = sockets._tcp_advice(address, OSError(number, os.strerror(number)))
        assert (advice.startswith(f"{address}: "), words in advice) == (True, True)

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            (errno.ENOENT, "the directory /run/shop does not exist; create it"),
            (errno.EACCES, "no permission to create a socket in /run/shop"),
            (errno.EROFS, "no permission to create a socket in /run/shop"),
            (errno.EADDRINUSE, "took the path just now"),
            (errno.ENAMETOOLONG, "File name too long"),
        ],
    )
    def test_every_refusal_of_a_unix_address_says_what_to_do(self, number, words):
        advice = sockets._unix_advice(UnixAddress("/run/shop/s"), OSError(number, os.strerror(number)))
        assert (advice.startswith("unix:/run/shop/s: "), words in advice) == (True, True)


def test_a_want_of_descriptors_is_told_with_the_address(tmp_path):
    with few_descriptors(), pytest.raises(BindError, match=f"^unix:{tmp_path}/s: Too many open files$"):
        bind_unix(UnixAddress(f"{tmp_path}/s"), backlog=1, mode=0o600)
