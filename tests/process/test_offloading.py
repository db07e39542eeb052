"""offload() in a served application: its processes, its clients that leave, its drain, its logs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.process.servers import APPS, Served, wait_until


def children(server):
    """Everything below the workers: what starts the children, and the children."""
    return server.members() - server.workers() - {server.pid}


def written(path):
    return wait_until(lambda: path.exists() and path.read_text(), f"{path} is written")


@pytest.mark.parametrize(
    "options",
    [(), ("--reuseport", "--workers", "2"), ("--accept", "single"), ("--preload",), ("--loop", "asyncio")],
    ids=["shared", "reuseport", "single", "preload", "asyncio"],
)
def test_it_works_however_connections_are_accepted(options, tmp_path):
    with Served("offloading:app", *options) as server:
        child = int(server.get(f"/work?path={tmp_path / 'x'}&seconds=0").text)
        assert child in server.members() - {server.pid}
        assert server.get("/extension/total?count=20").text == "50"
        assert server.get("/large?size=5000000").text == "5000000"
        assert server.get("/early").text == "3"


def test_the_loop_serves_others_meanwhile(tmp_path):
    with Served("offloading:app") as server, server.connect() as client:
        client.request(f"/work?path={tmp_path / 'x'}&seconds=1")
        written(tmp_path / "x")
        assert server.get("/hello").text == "hello"
        assert not (tmp_path / "x.done").exists()
        assert client.response().status == 200


@pytest.mark.parametrize("path", ["work", "after_a_wait", "extension/work", "both"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_call_ends_when_its_client_leaves(path, first, tmp_path):
    with Served("offloading:app", "--offload-workers", "2") as server:
        if not first:
            server.get(f"/work?path={tmp_path / 'before'}&seconds=0")
        with server.connect() as client:
            client.request(f"/{path}?path={tmp_path / 'x'}&seconds=30")
            child = int(written(tmp_path / ("xa" if path == "both" else "x")))
        wait_until(lambda: child not in server.members(), "the child has ended")
        assert server.get("/hello").text == "hello"
        # A client that leaves is nobody's error.
        assert " ERROR " not in server.log()


def test_a_client_that_leaves_the_queue_costs_nothing(tmp_path):
    with Served("offloading:app") as server, server.connect() as first:
        first.request(f"/work?path={tmp_path / 'x'}&seconds=1")
        child = written(tmp_path / "x")
        with server.connect() as second:
            second.request(f"/work?path={tmp_path / 'never'}&seconds=1")
            wait_until(lambda: "waiting=1" in server.get("/snapshot").text, "the second call waits")
        wait_until(lambda: "waiting=0" in server.get("/snapshot").text, "the second call has gone")
        assert first.response().text == child
        assert "kills=0" in server.get("/snapshot").text
        assert not (tmp_path / "never").exists()


def test_a_full_queue_is_503_with_retry_after(tmp_path):
    with Served("offloading:app", "--offload-queue", "0") as server, server.connect() as client:
        client.request(f"/work?path={tmp_path / 'x'}&seconds=2")
        written(tmp_path / "x")
        refused = server.get(f"/work?path={tmp_path / 'y'}&seconds=0")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert server.get(f"/caught?path={tmp_path / 'y'}&seconds=0").text == "caught OffloadFull"
        server.wait_for("answered with 503, the offload queue is full")
        assert client.response().status == 200


@pytest.mark.parametrize("tracebacks", [0])
def test_a_full_queue_is_503_where_a_framework_would_say_500(tracebacks, tmp_path):
    with (
        Served("overloaded:app", "--offload-queue", "0", tracebacks=tracebacks) as server,
        server.connect() as client,
        server.connect() as other,
    ):
        client.get("/?seconds=0")
        client.request("/?seconds=2")
        other.request("/?seconds=0")
        refused = other.response()
        while refused.status == 200:  # it came before the first one was begun
            other.request("/?seconds=0")
            refused = other.response()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert client.response().text == "done"


def test_what_cannot_be_sent_is_an_error_in_the_log_with_what_to_do():
    with Served("offloading:app", tracebacks=2) as server:
        assert server.get("/lambda").status == 500
        server.wait_for("make it a function at the top level of a module")


def test_a_child_logs_into_the_servers_log_with_the_requests_id():
    with Served("offloading:app") as server, server.connect() as client:
        assert client.get("/log?text=greetings", x_request_id="r-42").text == "greetings"
        line = server.wait_for("greetings")
        assert line.endswith("shop.work [r-42]: greetings, ann")


def test_a_call_in_flight_is_finished_by_a_drain(tmp_path):
    with Served("offloading:app") as server:
        with server.connect() as client:
            client.request(f"/work?path={tmp_path / 'x'}&seconds=1")
            child = written(tmp_path / "x")
            server.signal(signal.SIGTERM)
            assert client.response().text == child
        assert server.wait() == 0
        assert not server.members()


def test_term_to_every_process_drains_too(tmp_path):
    """What a terminal and a service manager do."""
    with Served("offloading:app") as server:
        with server.connect() as client:
            client.request(f"/work?path={tmp_path / 'x'}&seconds=1")
            child = written(tmp_path / "x")
            for pid in children(server) | {server.pid}:
                os.kill(pid, signal.SIGTERM)
            assert client.response().text == child
        assert server.wait() == 0


def test_what_is_left_at_the_end_of_a_drain_is_killed(tmp_path):
    with Served("offloading:app", "--timeout-graceful-shutdown", "1") as server, server.connect() as client:
        client.request(f"/work?path={tmp_path / 'x'}&seconds=60")
        written(tmp_path / "x")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not server.members()


def test_a_reload_leaves_no_child_behind(tmp_path):
    with Served("offloading:app") as server:
        before = int(server.get(f"/work?path={tmp_path / 'x'}&seconds=0").text)
        since = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_for("finished: 1 replaced", since=since)
        wait_until(lambda: before not in server.members(), "the old child has ended")
        assert int(server.get(f"/work?path={tmp_path / 'x'}&seconds=0").text) != before


def test_a_killed_worker_leaves_no_child_behind(tmp_path):
    with Served("offloading:app") as server, server.connect() as client:
        client.request(f"/work?path={tmp_path / 'x'}&seconds=60")
        written(tmp_path / "x")
        (worker,), orphans = server.workers(), children(server)
        assert len(orphans) >= 2
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not orphans & server.members(), "all of its children have ended")
        server.wait_for("is ready")


def test_a_killed_worker_and_a_killed_nursery_leave_no_child_behind(tmp_path):
    with Served("offloading:app") as server, server.connect() as client:
        client.request(f"/work?path={tmp_path / 'x'}&seconds=60")
        child = int(written(tmp_path / "x"))
        (worker,) = server.workers()
        # Stopped first: neither must see what happens to the other.
        os.kill(worker, signal.SIGSTOP)
        for pid in children(server) - {child}:
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: child not in server.members(), "the child has ended")


def test_children_hold_no_sockets_of_the_server():
    """A listening socket in a child would swallow connections once the server has gone."""
    with Served("offloading:app", "--reuseport", "--workers", "2") as server:
        found = server.get("/open_files").text.splitlines()
        assert sum("socket:" in what for what in found) == 1, found
        listening = listening_sockets(server.pid)
        assert listening
        for pid in children(server):
            assert not listening & set(open_sockets(pid)), pid


def open_sockets(pid):
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("socket:"):
            yield target


def listening_sockets(pid):
    """proc(5), /proc/net/tcp: the inode is in the tenth column, 0A is LISTEN."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inodes = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[3] == "0A"}
    return inodes & set(open_sockets(pid))


def nobody_reaches_python():
    """An interpreter in root's home is none for anybody else."""
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([sys.executable, "-c", ""], user="nobody", cwd="/", check=False).returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(not nobody_reaches_python(), reason="needs root, and an interpreter that others can execute")
def test_children_are_the_user_that_workers_become():
    with Served("offloading:app", "--user", "nobody", "--group", "nogroup") as server:
        import grp
        import pwd

        assert server.get("/who").text == f"{pwd.getpwnam('nobody').pw_uid}:{grp.getgrnam('nogroup').gr_gid}"


def test_an_application_in_another_directory_is_found_by_children(tmp_path):
    with Served("offloading:app", "--app-dir", str(APPS), cwd=tmp_path) as server:
        assert server.get("/large?size=10").text == "10"


SCRIPT = """
    import asyncio
    import os
    import sys

    import aioserve


    def work():
        return os.getpid()


    async def main():
        print(await aioserve.offload(work) != os.getpid())


    if __name__ == "__main__":
        asyncio.run(main())
"""


def run_script(path, text):
    path.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_program_may_offload_its_own_functions(tmp_path):
    done = run_script(tmp_path / "program.py", SCRIPT)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_program_without_a_main_guard_is_told_so(tmp_path):
    done = run_script(tmp_path / "program.py", SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    assert done.returncode == 1
    assert "begins with: if __name__ == '__main__'" in done.stderr


CLASSES = """
    import asyncio

    import aioserve


    class Point:
        pass


    class Sharp(Exception):
        pass


    def turn(point):
        assert isinstance(point, Point)
        return Point()


    def cut():
        raise Sharp


    async def main():
        print(isinstance(await aioserve.offload(turn, Point()), Point))
        try:
            await aioserve.offload(cut)
        except Sharp:
            print("Sharp")


    if __name__ == "__main__":
        aioserve.offload.configure(imports=(IMPORTS))
        asyncio.run(main())
"""


@pytest.mark.parametrize("imports", ["", "'multiprocessing',"])
def test_the_classes_of_a_program_go_there_and_back(tmp_path, imports):
    """multiprocessing has a name of its own for the main module, and takes it as soon as it is imported."""
    done = run_script(tmp_path / "program.py", CLASSES.replace("IMPORTS", imports))
    assert (done.returncode, done.stdout) == (0, "True\nSharp\n"), done.stderr
