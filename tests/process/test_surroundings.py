"""Directory, umask, pid file, user, limits, preloading: what a server does before it serves."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from tests.process.clients import Client
from tests.process.servers import APPS, Served, wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else: run these as root")
NOBODY = pwd.getpwnam("nobody")
PYTHON = Path(sys.executable).resolve()
needs_a_python_for_all = pytest.mark.skipif(
    not all(parent.stat().st_mode & stat.S_IXOTH for parent in PYTHON.parents),
    reason=f"{PYTHON} cannot be executed by other users than root",
)

TELLS = """
import json, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = json.dumps({
        "cwd": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
        "umask": os.umask(0o77), "home": os.environ.get("HOME"), "pid": os.getpid(), "imported": IMPORTED,
    })
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})

IMPORTED = os.getpid()
"""


@pytest.fixture
def place():
    """A directory that everybody can read, with an application that tells who it is."""
    # Not tmp_path: pytest keeps what is above it for its own user.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "tells.py").write_text(TELLS)
        yield path


def told(server):
    return json.loads(server.get().body)


def test_directory_and_umask_are_set_before_anything_is_imported_or_made(place):
    with Served("tells:app", "--chdir", place, "--umask", "027", "--log-file", "log", cwd="/", ready=False) as server:
        wait_until(lambda: "ready: " in log_of(place), "the server")
        url = log_of(place).partition("listening on http://127.0.0.1:")[2].split("\n")[0]
        with Client(("127.0.0.1", int(url))) as client:
            shown = client.get("/", close=True).text
        assert f'"cwd": "{place}"' in shown
        assert f'"umask": {0o27}' in shown
        assert stat.S_IMODE((place / "log").stat().st_mode) == 0o640
        assert server.process.poll() is None


def log_of(place):
    try:
        return (place / "log").read_text()
    except FileNotFoundError:
        return ""


def test_a_directory_that_is_not_there_ends_with_2(tmp_path):
    with Served("tells:app", "--chdir", tmp_path / "no", ready=False) as server:
        assert server.wait() == 2
    assert f"--chdir {tmp_path}/no: No such file or directory" in server.log()


class Prepared(Served):
    """A server that is started by a program of one line."""

    def __init__(self, preparation, *arguments, **options):
        super().__init__(*arguments, **options)
        self._preparation = preparation

    def command(self):
        python, *rest = super().command()
        code = f"import os, resource, sys; {self._preparation}; os.execv(sys.argv[1], sys.argv[1:])"
        return [python, "-c", code, python, *rest]


BECOME_NOBODY = f"os.setgroups([]); os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid})"


# The pid file.


@pytest.mark.parametrize("mode", [["--workers", "2"], ["--accept", "single"]], ids=["master", "single"])
def test_the_pid_file_is_there_while_the_server_runs(tmp_path, mode):
    path = tmp_path / "aioserve.pid"
    path.write_text("")
    with Served("plain:app", *mode, "--pid", path) as server:
        assert path.read_text() == f"{server.pid}\n"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert not path.exists()


def test_a_second_server_with_the_same_pid_file_is_refused_with_2(tmp_path):
    path = tmp_path / "aioserve.pid"
    with Served("plain:app", "--pid", path) as first:
        with Served("plain:app", "--pid", path, ready=False) as second:
            assert second.wait() == 2
        assert f"process {first.pid} is alive and has this file" in second.log()
        assert path.read_text() == f"{first.pid}\n"


def test_the_pid_file_of_a_killed_server_is_taken_over(tmp_path):
    path = tmp_path / "aioserve.pid"
    with Served("plain:app", "--pid", path) as first:
        first.signal(signal.SIGKILL)
        first.wait()
        wait_until(lambda: not first.members(), "the end of its workers")
    with Served("plain:app", "--pid", path) as second:
        assert path.read_text() == f"{second.pid}\n"


def test_no_pid_file_is_left_when_the_address_cannot_be_bound(tmp_path):
    with Served("plain:app") as first:
        arguments = ["--pid", tmp_path / "p", "--bind", f"127.0.0.1:{first.port}"]
        with Served("plain:app", *arguments, ready=False) as second:
            assert second.wait() == 4
    assert list(tmp_path.iterdir()) == []


# Users.


@needs_root
@pytest.mark.parametrize("mode", [["--workers", "2", "--reuseport"], ["--accept", "single"]], ids=["master", "single"])
def test_the_application_runs_as_the_user_with_its_groups_and_no_way_back(place, mode):
    with Served("tells:app", *mode, "--user", "nobody", cwd=place) as server:
        who = told(server)
        assert (who["uid"], who["gid"], who["home"]) == (NOBODY.pw_uid, NOBODY.pw_gid, NOBODY.pw_dir)
        assert who["groups"] == os.getgrouplist("nobody", NOBODY.pw_gid)
        ids = Path(f"/proc/{who['pid']}/status").read_text().partition("Uid:")[2].split("\n")[0].split()
        assert ids == [str(NOBODY.pw_uid)] * 4  # real, effective, saved, file system


@needs_root
def test_a_number_without_an_entry_will_do(place):
    with Served("tells:app", "--user", "54321", "--group", "54322", cwd=place) as server:
        who = told(server)
        assert (who["uid"], who["gid"], who["groups"]) == (54321, 54322, [54322])


@needs_root
def test_a_directory_that_the_user_may_not_enter_ends_with_3_and_says_so(place):
    place.chmod(0o700)
    with Served("tells:app", "--app-dir", place / "inner", "--user", "nobody", ready=False) as server:
        assert server.wait() == 3
    assert f"user {NOBODY.pw_uid} may not enter the directory {place}/inner" in server.log()


@needs_root
def test_a_directory_beside_a_missing_module_may_be_closed_to_the_user(place):
    (place / "closed").mkdir(mode=0o700)
    place.chmod(0o755)
    with Served("missing:app", "--app-dir", place, "--user", "nobody", ready=False) as server:
        assert server.wait() == 3
    assert f"there is no module 'missing' in {place}" in server.log()
    assert "Traceback" not in server.log()


@needs_root
def test_the_unix_socket_is_the_users(place):
    path = place / "s"
    with Served("tells:app", "--user", "nobody", "--group", "54322", "--uds", path, cwd=place):
        there = path.stat()
        assert (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)) == (NOBODY.pw_uid, 54322, 0o660)


@needs_root
def test_workers_open_their_logs_again_after_they_were_moved_away(place):
    place.joinpath("logs").mkdir(mode=0o755)
    files = [place / "logs" / name for name in ("error", "access")]
    arguments = ["--log-file", files[0], "--access-log-file", files[1], "--user", "nobody", "--port", "0"]
    with Served("tells:app", *arguments, cwd=place, ready=False) as server:
        wait_until(lambda: "ready: " in text(files[0]), "the server")
        port = int(text(files[0]).partition("listening on http://127.0.0.1:")[2].split("\n")[0])
        for file in files:
            file.rename(f"{file}.1")
        server.signal(signal.SIGUSR1)
        wait_until(lambda: all(file.exists() for file in files), "new files")

        def logged():
            with Client(("127.0.0.1", port)) as client:
                client.get("/", close=True)
            return "GET /" in text(files[1])

        wait_until(logged, "a request in the new file")
        assert {file.stat().st_uid for file in files} == {NOBODY.pw_uid}


@needs_root
def test_a_log_file_that_a_reload_names_is_given_to_the_workers(place):
    place.joinpath("logs").mkdir(mode=0o755)
    config = place / "aioserve.toml"
    config.write_text(f"[log]\naccess_file = '{place}/logs/one'\n")
    with Served("tells:app", "--user", "nobody", cwd=place) as server:
        config.write_text(f"[log]\naccess_file = '{place}/logs/two'\n")
        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2 finished: 1 replaced")
        assert (place / "logs" / "two").stat().st_uid == NOBODY.pw_uid


def text(path):
    return path.read_text() if path.exists() else ""


@needs_root
def test_a_further_worker_of_another_user_serves(place):
    # Its socket is bound by the master: the kernel lets only one user into a group of SO_REUSEPORT sockets.
    with Served("tells:app", "--workers", "1", "--reuseport", "--user", "nobody", cwd=place) as server:
        [first] = server.workers()
        server.signal(signal.SIGTTIN)
        server.wait_for("worker 1 (pid ")
        wait_until(lambda: told(server)["pid"] != first, "an answer of the further worker")


@needs_root
def test_the_master_stays_who_it_is(place):
    with Served("tells:app", "--user", "nobody", cwd=place) as server:
        assert "Uid:\t0\t0\t0\t0" in Path(f"/proc/{server.pid}/status").read_text()


@needs_root
@needs_a_python_for_all
def test_somebody_who_is_not_root_is_refused_with_2(place):
    with Prepared(BECOME_NOBODY, "tells:app", "--user", "root", cwd=place, ready=False) as server:
        assert server.wait() == 2
    assert "--user: only root can become somebody else; start the server as root" in server.log()


@needs_root
@needs_a_python_for_all
def test_the_user_that_the_server_is_already_is_no_matter(place):
    with Prepared(BECOME_NOBODY, "tells:app", "--user", "nobody", cwd=place) as server:
        assert told(server)["uid"] == NOBODY.pw_uid


# Limits.


def test_the_limit_of_open_files_is_raised_and_said():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Prepared(f"resource.setrlimit(resource.RLIMIT_NOFILE, (512, {hard}))", "plain:app") as server:
        highest = min(hard, 1 << 20)
        server.wait_for(f"open files: the limit of 512 is raised to {highest}")
        [worker] = server.workers()
        assert resource.prlimit(worker, resource.RLIMIT_NOFILE)[0] == highest


def test_the_limit_of_open_files_is_raised_before_sockets_are_opened(tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = f"resource.setrlimit(resource.RLIMIT_NOFILE, (24, {hard}))"
    binds = [argument for number in range(24) for argument in ("--bind", f"unix:{tmp_path}/{number}")]
    with Prepared(few, "plain:app", *binds) as server:
        assert len(server.urls) == 24


def test_workers_for_all_cpus_that_this_process_may_use():
    cpu = min(os.sched_getaffinity(0))
    with Prepared(f"os.sched_setaffinity(0, {{{cpu}}})", "plain:app", "--workers", "auto") as server:
        server.wait_for("--workers auto: 1 (1 CPUs, ")
        assert len(server.workers()) == 1


# Preloading.


def test_a_preloaded_application_was_imported_by_the_master(place):
    with Served("tells:app", "--preload", "--workers", "2", cwd=place) as server:
        who = told(server)
        assert (who["imported"], who["pid"] != server.pid) == (server.pid, True)
        server.wait_for("objects are shared by the workers")


def test_a_reload_of_what_was_preloaded_is_refused_with_the_way_to_go(place):
    with Served("tells:app", "--preload", cwd=place) as server:
        [worker] = server.workers()
        server.signal(signal.SIGHUP)
        server.wait_for("SIGHUP: no reload: --preload keeps the application that was imported at the start; send USR2")
        assert server.workers() == {worker}


def test_a_worker_that_died_is_replaced_from_what_was_preloaded(place):
    with Served("tells:app", "--preload", cwd=place) as server:
        [worker] = server.workers()
        server.signal(signal.SIGKILL, worker)
        wait_until(lambda: server.workers() - {worker}, "a new worker")
        assert told(server)["imported"] == server.pid


def test_what_the_import_leaves_running_is_named(tmp_path):
    (tmp_path / "busy.py").write_text(
        "import asyncio, threading\nloop = asyncio.new_event_loop()\n"
        "threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
        "from plain import app\n"
    )
    arguments = ["busy:app", "--preload", "--app-dir", tmp_path]
    # From 3.12 on Python itself warns of a fork with threads; here it is our warning that matters.
    with Served(*arguments, app_dir=APPS, env={"PYTHONWARNINGS": "ignore"}) as server:
        server.wait_for("--preload: the import of the application has started the thread 'poller'")
        server.wait_for("--preload: the import of the application has made an event loop")
        assert server.get().text == "Hello, World!"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_is_stopped_while_it_preloads_ends_cleanly(tmp_path, sig):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "slow.py").write_text(f"open({str(tmp_path / 'fifo')!r}).read()\n")
    pid_file = tmp_path / "pid"
    arguments = ["slow:app", "--preload", "--app-dir", tmp_path, "--pid", pid_file]
    with Served(*arguments, ready=False) as server, open(tmp_path / "fifo", "w"):
        server.signal(sig)
        assert server.wait() == 0
        server.wait_for(f"{sig.name}: stopped before the application was imported")
    assert not pid_file.exists()


def test_an_application_that_cannot_be_preloaded_ends_with_3(tmp_path):
    with Served("nowhere:app", "--preload", ready=False) as server:
        assert server.wait() == 3
    assert "there is no module 'nowhere'" in server.log()


# Orphans.


def test_workers_drain_and_end_when_the_master_is_killed():
    with Served("plain:app", "--workers", "2") as server:
        assert len(server.workers()) == 2
        server.signal(signal.SIGKILL)
        server.wait()
        wait_until(lambda: not server.members(), "the end of the workers")
        assert "shutdown complete" in server.log()


def test_workers_that_are_still_importing_end_when_the_master_is_killed(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "slow.py").write_text(f"open({str(tmp_path / 'fifo')!r}).read()\n")
    # Opening the other end of the pipe waits until the import has come this far.
    with Served("slow:app", "--app-dir", tmp_path, ready=False) as server, open(tmp_path / "fifo", "w"):
        server.signal(signal.SIGKILL)
        server.wait()
        wait_until(lambda: not server.members(), "the end of the worker")
