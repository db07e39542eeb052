"""What concerns several settings at once."""

from __future__ import annotations

import pytest

from aioserve.config.load import load
from aioserve.errors import ConfigError


def loaded(flags=None, environ=None, toml=""):
    def read(path):
        if path != "aioserve.toml" or not toml:
            raise FileNotFoundError
        return toml.encode()

    return load(flags={"app": "main:app", **(flags or {})}, environ=environ or {}, read=read)


@pytest.mark.parametrize(
    "flags",
    [
        {"uds": "/run/x", "bind": [":80"]},
        {"host": "::1", "bind": [":80"]},
        {"port": "80", "bind": [":80"]},
        {"port": "80", "uds": "/run/x"},
        {"fd": "3", "uds": "/run/x"},
        {"host": "::1", "port": "80", "fd": "3"},
    ],
    ids=" ".join,
)
def test_two_ways_to_listen_contradict_each_other(flags):
    with pytest.raises(ConfigError, match=r"^--\w+ and --\w+ contradict each other; keep one"):
        loaded(flags)


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "address"),
    [
        ({"uds": "/run/x"}, {"AIOSERVE_HOST": "0.0.0.0"}, "", "unix:/run/x"),
        ({"bind": [":80"]}, {"AIOSERVE_UDS": "/run/x"}, "[listen]\nport = 1", "0.0.0.0:80"),
        ({"port": "9"}, {"AIOSERVE_FD": "3"}, "", "127.0.0.1:9"),
        ({"port": "9"}, {"AIOSERVE_HOST": "::"}, "", "[::]:9"),
        ({}, {"AIOSERVE_FD": "3"}, "[listen]\nbind = [':80']", "fd://3"),
        ({"uds": ""}, {"AIOSERVE_HOST": "::1"}, "", "[::1]:8000"),
        ({"host": "::1", "fd": "none", "uds": "", "bind": []}, {}, "", "[::1]:8000"),
    ],
)
def test_a_way_to_listen_in_a_higher_layer_replaces_those_below(flags, environ, toml, address):
    assert [str(one) for one in loaded(flags, environ, toml).config.listen.addresses()] == [address]


def test_a_replaced_address_is_a_default_again():
    result = loaded({"uds": "/run/x"}, {"AIOSERVE_HOST": "0.0.0.0"})

    assert (result.config.listen.host, result.sources["listen.host"]) == ("127.0.0.1", "default")


def test_one_process_contradicts_several_workers():
    with pytest.raises(ConfigError, match=r"^WEB_CONCURRENCY: 2 workers contradict single \(--accept\)"):
        loaded({"accept": "single"}, {"WEB_CONCURRENCY": "2"})


@pytest.mark.parametrize("workers", [None, "1"])
def test_one_process_is_one_worker(workers):
    assert loaded({"accept": "single", "workers": workers}).config.process.workers == 1


@pytest.mark.parametrize(
    "flags", [{"bind": [":80", "[::]:80"]}, {"bind": [":80", "unix:/x"]}, {"uds": "/run/x"}, {"fd": "0"}], ids=str
)
def test_reuseport_takes_every_kind_of_address(flags):
    assert loaded({"reuseport": True, **flags}).config.process.accept == "reuseport"


def test_an_address_given_twice_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^--bind: 0\.0\.0\.0:80 is there twice"):
        loaded({"bind": [":80", "0.0.0.0:80"]})


def test_a_prefix_given_twice_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^--mount: /api is taken twice; change one prefix$"):
        loaded({"mount": ["/api=a:b", "/api/=c:d"]})


def test_the_application_has_the_root():
    with pytest.raises(ConfigError, match=r"^--mount: / is taken twice \(APP is mounted there\)"):
        loaded({"mount": ["/=a:b"]})


def test_reload_runs_one_worker_and_says_so():
    result = loaded({"reload": True}, {"WEB_CONCURRENCY": "4"})

    assert (result.config.process.workers, result.sources["process.workers"]) == (1, "--reload")
    assert result.notes == ("--reload runs one worker; WEB_CONCURRENCY (4) is not used",)


def test_reload_with_one_worker_needs_no_note():
    assert loaded({"reload": True, "workers": "1", "reload_dir": ["x"]}).notes == ()


def test_reload_runs_one_worker_whatever_the_machine_has():
    result = loaded({"reload": True, "workers": "auto"})

    assert result.config.process.workers == 1
    assert result.notes == ("--reload runs one worker; --workers (auto) is not used",)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"reload": True}, "--preload contradicts --reload: what was imported once"),
        ({"accept": "single"}, r"--preload contradicts single \(--accept\), which has no master"),
        (
            {"user": "www"},
            "--preload contradicts --user: the application would be imported as the user that the master",
        ),
        ({"group": "www"}, "--preload contradicts --group: "),
    ],
)
def test_what_is_imported_once_for_all_contradicts(flags, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        loaded({"preload": True, **flags})


def test_nothing_contradicts_what_is_not_preloaded():
    assert loaded({"user": "www", "preload": False}).config.process.user == "www"


def test_what_belongs_to_reload_is_noted_without_it():
    assert loaded({"reload_dir": ["x"], "reload_include": []}).notes == ("--reload-dir has no effect without --reload",)
    assert loaded({"reload_delay": "1s"}).notes == ("--reload-delay has no effect without --reload",)


@pytest.mark.parametrize("name", ["timeout_worker", "timeout_boot", "on_master_start", "on_worker_exit", "on_reload"])
def test_what_a_master_does_is_noted_without_one(name):
    flag = f"--{name.replace('_', '-')}"
    value = "5s" if name.startswith("timeout") else "ops:told"
    assert loaded({name: value}).notes == ()
    assert loaded({name: value, "accept": "single"}).notes == (
        f"{flag} has no effect with single (--accept), which has no master",
    )


def test_a_dispatcher_for_one_worker_is_noted():
    note = "--accept dispatch only costs with one worker; use shared, or --workers N"
    assert loaded({"accept": "dispatch"}).notes == (note,)
    assert loaded({"accept": "dispatch", "workers": "1"}).notes == (note,)
    assert loaded({"accept": "dispatch", "workers": "2"}).notes == ()
    assert loaded({"accept": "dispatch", "workers": "auto"}).notes == ()


def test_a_limit_that_breakpoints_would_run_into_is_noted_under_reload():
    assert loaded({"reload": True, "timeout_worker": "5s"}).notes == (
        "--timeout-worker has no effect with --reload: a breakpoint stops the loop, too",
    )


def test_limits_of_websockets_that_are_not_served_are_noted():
    assert loaded({"ws": "auto", "ws_max_queue": "5"}).notes == ()
    assert loaded({"ws": "none", "ws_max_queue": "5"}).notes == ("--ws-max-queue has no effect with none (--ws)",)


def test_jitter_of_nothing_is_noted():
    assert loaded({"limit_max_requests_jitter": "5", "limit_max_requests": "9"}).notes == ()
    assert loaded({"limit_max_requests_jitter": "5"}).notes == (
        "--limit-max-requests-jitter has no effect without --limit-max-requests",
    )


@pytest.mark.parametrize("off", [{}, {"proxy_protocol": "off"}])
def test_names_of_load_balancers_are_noted_without_the_proxy_protocol(off):
    assert loaded({"proxy_protocol_from": "10.0.0.1", **off}).notes == (
        "--proxy-protocol-from has no effect without --proxy-protocol",
    )
    assert loaded({"proxy_protocol_from": "10.0.0.1", "proxy_protocol": "auto"}).notes == ()


def test_mistaken_values_do_not_disturb_the_checks():
    with pytest.raises(ConfigError) as caught:
        loaded({"accept": "single", "workers": "x", "bind": ["y"], "mount": ["z"]})

    assert [line.split(":")[0] for line in caught.value.problems] == ["--workers", "--bind", "--mount"]


@pytest.mark.parametrize("flag", ["limit-max-requests", "limit-worker-age", "limit-worker-memory"])
def test_a_single_process_cannot_be_replaced(flag):
    with pytest.raises(ConfigError, match=f"--{flag} contradicts single"):
        loaded({"accept": "single", flag.replace("-", "_"): "5"})


def test_a_single_process_cannot_reload():
    with pytest.raises(ConfigError, match="--reload contradicts single"):
        loaded({"accept": "single", "reload": True})


def test_a_limit_for_a_mount_is_kept_by_its_prefix():
    flags = {"mount": ["/up=main:app"], "limit_request_body_at": ["/up/=1024", "/=1MiB"]}
    assert loaded(flags).config.limit.request_body_at == ("/up=1KiB", "/=1MiB")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (["/nowhere=1MiB"], r"no application is mounted at /nowhere; the mounts are /, /up"),
        (["/up=1MiB", "/up/=2MiB"], r"/up is there twice"),
        (["/up"], r"not of the form PREFIX=SIZE"),
        (["up=1MiB"], r"not of the form PREFIX=SIZE"),
        (["/up=much"], r"is not a size"),
    ],
)
def test_a_limit_for_no_mount_is_a_mistake(limits, words):
    with pytest.raises(ConfigError, match=words):
        loaded({"mount": ["/up=main:app"], "limit_request_body_at": limits})


@pytest.mark.parametrize("accept", ["shared", "single"])
def test_stealing_needs_sockets_to_steal_from(accept):
    assert loaded({"steal": "always", "accept": accept}).notes == ("--steal has no effect without --reuseport",)


def test_stealing_goes_with_reuseport():
    loading = loaded({"steal": "off", "reuseport": True})
    assert (loading.config.process.steal, loading.notes) == ("off", ())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"threads": "2"}, "they need --accept threads"),
        ({"threads": "2", "accept": "shared"}, r"shared \(--accept\) has none"),
        ({"threads": "2", "reuseport": True}, r"reuseport \(--reuseport\) has none"),
    ],
)
def test_threads_need_their_pattern(flags, message):
    with pytest.raises(ConfigError, match=f"^--threads: threads are event loops of one worker, and {message}; use "):
        loaded(flags)


def test_a_pattern_in_a_higher_layer_leaves_the_threads_without_use():
    result = loaded({"accept": "shared"}, {"AIOSERVE_THREADS": "4"})
    assert result.notes == ("AIOSERVE_THREADS has no effect with shared (--accept)",)


@pytest.mark.parametrize("threads", ["auto", "0", "3"])
def test_threads_are_a_number_or_counted(threads):
    process = loaded({"accept": "threads", "threads": threads}).config.process
    assert (process.workers, process.threads) == (1, 3 if threads == "3" else 0)


@pytest.mark.parametrize("threads", ["auto", "0"])
def test_threads_that_are_counted_contradict_no_pattern(threads):
    assert loaded({"accept": "shared", "threads": threads}).notes == ()
