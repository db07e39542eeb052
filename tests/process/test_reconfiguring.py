"""HUP reads the configuration again: what can be applied is, what cannot is said, what is broken changes nothing."""

from __future__ import annotations

import signal

from tests.process.servers import APPS, Served, wait_until


class Configured:
    """A server whose aioserve.toml a test edits."""

    def __init__(self, folder, text, **how):
        self.file = folder / "aioserve.toml"
        self.file.write_text(text)
        self.server = Served("plain:app", "--app-dir", str(APPS), cwd=folder, **how)

    def hang_up(self, text, result):
        self.file.write_text(text)
        mark = self.server.mark()
        self.server.signal(signal.SIGHUP)
        self.server.wait_for(result, since=mark)


def header(server):
    with server.connect() as client:
        return client.get("/", close=True).headers.get("x-release")


def test_new_settings_of_workers_are_applied_with_the_new_generation(tmp_path):
    one = Configured(tmp_path, '[http]\nheader = ["x-release: 1"]\n')
    with one.server as server:
        assert header(server) == "1"
        one.hang_up('[http]\nheader = ["x-release: 2"]\n[log]\naccess = false\n', "reload to generation 2 finished")
        assert header(server) == "2"
        assert 'the configuration has changed: http.header = ["x-release: 2"] (was ["x-release: 1"])' in server.log()


def test_another_number_of_workers_is_reached(tmp_path):
    one = Configured(tmp_path, "[process]\nworkers = 1\n")
    with one.server as server:
        one.hang_up("[process]\nworkers = 3\n", "worker 2 (pid ")
        wait_until(lambda: len(server.workers()) == 3, "three workers")
        one.hang_up("[process]\nworkers = 2\n", "worker 2 has gone")
        assert len(server.workers()) == 2


def test_what_belongs_to_the_master_is_said_to_need_a_restart(tmp_path):
    one = Configured(tmp_path, "[listen]\nbacklog = 100\n")
    with one.server as server:
        one.hang_up("[listen]\nbacklog = 200\n", "listen.backlog = 200 needs a restart; until then it is 100")
        server.wait_for("reload to generation 2 finished: 1 replaced")
        assert server.get("/").status == 200


def test_a_broken_configuration_is_told_in_full_and_the_old_generation_serves_on(tmp_path):
    one = Configured(tmp_path, "[process]\nworkers = 2\n")
    with one.server as server:
        workers = server.workers()
        one.hang_up(
            '[process]\nworkers = "many"\n[timeout]\nbodi = 3\n',
            "reload to generation 2 failed: the configuration has 2 mistakes; 0 of 2 replaced, the others serve on",
        )
        assert "aioserve.toml: process.workers: 'many'" in server.log()
        assert "aioserve.toml: timeout.bodi: no such setting; did you mean body?" in server.log()
        assert server.workers() == workers
        assert server.get("/").status == 200

        one.hang_up("[process]\nworkers = 2\n", "reload to generation 3 finished: 2 replaced")


def test_variables_of_the_env_file_are_read_again(tmp_path):
    (tmp_path / "service.py").write_text(
        "import os\n"
        "async def app(scope, receive, send):\n"
        '    assert scope["type"] == "http"\n'
        '    await send({"type": "http.response.start", "status": 200, "headers": []})\n'
        '    body = " ".join(f"{k}={os.environ[k]}" for k in ("ONE", "TWO", "THREE") if k in os.environ)\n'
        '    await send({"type": "http.response.body", "body": body.encode()})\n'
    )
    env = tmp_path / "env"
    env.write_text("ONE=1\nTWO=2\n")
    with Served("service:app", "--env-file", "env", "--lifespan", "off", cwd=tmp_path) as server:
        assert server.get("/").text == "ONE=1 TWO=2"
        env.write_text("TWO=two\nTHREE=3\n")
        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2 finished")
        assert server.get("/").text == "TWO=two THREE=3"


def test_a_log_level_is_the_masters_too(tmp_path):
    one = Configured(tmp_path, '[log]\nlevel = "info"\n')
    with one.server as server:
        one.file.write_text('[log]\nlevel = "error"\n')
        server.signal(signal.SIGHUP)
        server.wait_for("reload to generation 2")
        before = server.workers()
        wait_until(lambda: len(server.workers()) == 1 and server.workers() != before, "the worker is replaced")
        assert "finished" not in server.log()
