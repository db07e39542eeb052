"""Which candidates are tried, with which configuration, and for how long."""

from __future__ import annotations

import pytest

from aioserve.config.load import from_settings
from aioserve.config.tree import Ssl
from aioserve.tune.plan import (
    BUDGET,
    PATTERNS,
    ROUNDS,
    Candidate,
    Choice,
    Pattern,
    candidates,
    configure,
    connections,
    is_current,
    known_patterns,
    prepare,
    schedule,
)
from tests.pure.tune.rows import candidate

ALL = ("shared", "reuseport", "dispatch", "threads", "single")


def labels(choice=None, *, cpus=2, free_threaded=False, known=ALL, **settings):
    config = from_settings(app="shop:app", **settings)
    found, _ = candidates(config, choice or Choice(), cpus=cpus, free_threaded=free_threaded, known=known)
    return [one.label for one in found]


def notes(choice=None, *, free_threaded=False, **settings):
    config = from_settings(app="shop:app", **settings)
    return candidates(config, choice or Choice(), cpus=2, free_threaded=free_threaded, known=ALL)[1]


def test_every_accept_pattern_of_the_server_is_in_the_table():
    assert set(known_patterns()) <= {pattern.accept for pattern in PATTERNS}


def test_what_the_server_does_not_know_is_not_tried():
    config = from_settings(app="shop:app")
    found, _ = candidates(config, Choice(), cpus=2, free_threaded=True)
    assert {one.pattern.accept for one in found} <= set(known_patterns())


def test_every_pattern_is_tried_with_several_worker_counts():
    assert labels() == [
        "shared x 1",
        "shared x 2",
        "shared x 4",
        "reuseport x 2",
        "reuseport x 4",
        "dispatch x 2",
        "dispatch x 4",
        "single",
    ]


def test_the_counts_follow_the_machine():
    assert labels(cpus=8, known=("reuseport",)) == ["reuseport x 4", "reuseport x 8", "reuseport x 16"]
    assert labels(cpus=1, known=("shared",)) == ["shared x 1", "shared x 2"]


def test_threads_are_tried_where_they_run_at_the_same_time():
    assert "threads x 2" in labels(free_threaded=True)
    assert notes() == ["threads is left out: with a GIL, threads take turns (--accept threads tries them all the same)"]
    assert notes(free_threaded=True) == []


def test_threads_that_are_asked_for_are_tried_with_a_gil_too():
    assert labels(Choice(accept="threads", count=3)) == ["threads x 3"]


def test_a_count_on_the_command_line_is_the_only_one():
    assert labels(Choice(count=3)) == ["shared x 3", "reuseport x 3", "dispatch x 3"]
    assert labels(Choice(count=1)) == ["shared x 1", "reuseport x 1", "dispatch x 1", "single"]


def test_a_pattern_on_the_command_line_is_the_only_one():
    assert labels(Choice(accept="reuseport")) == ["reuseport x 1", "reuseport x 2", "reuseport x 4"]


def test_what_is_configured_is_among_the_candidates():
    assert "shared x 3" in labels(workers=3)
    assert "reuseport x 3" in labels(accept="reuseport", workers=3)
    assert "shared x 3" not in labels(accept="reuseport", workers=3)


def test_a_single_process_contradicts_preload_and_several_workers():
    assert "single" not in labels(preload=True)
    assert notes(Choice(count=3))[-1] == "single is left out: it is one process, and 3 are asked for"


def test_a_candidate_says_its_flags_and_its_lines_in_the_file():
    assert candidate("reuseport x 2").flags == "--accept reuseport --workers 2"
    assert candidate("threads x 2").flags == "--accept threads --workers 1 --threads 2"
    assert candidate("single").flags == "--accept single --workers 1"
    assert candidate("reuseport x 2").toml == 'accept = "reuseport", workers = 2'
    assert candidate("single").toml == 'accept = "single", workers = 1'


def test_the_simplest_has_the_fewest_workers_then_comes_first_in_the_table():
    ordered = ["reuseport x 4", "single", "reuseport x 2", "shared x 1", "shared x 2"]
    simplest_first = sorted(map(candidate, ordered), key=lambda one: one.rank)
    assert [one.label for one in simplest_first] == [
        "shared x 1",
        "single",
        "shared x 2",
        "reuseport x 2",
        "reuseport x 4",
    ]


def test_what_is_configured_is_recognised():
    assert is_current(candidate("shared x 1"), from_settings(app="shop:app"))
    assert is_current(candidate("single"), from_settings(app="shop:app", accept="single"))
    assert not is_current(candidate("shared x 2"), from_settings(app="shop:app"))
    assert not is_current(candidate("reuseport x 1"), from_settings(app="shop:app"))


@pytest.mark.parametrize("name", sorted(set(known_patterns()) & {"shared", "single", "reuseport"}))
def test_a_candidate_is_configured_as_its_flags_would(name):
    pattern = next(pattern for pattern in PATTERNS if pattern.accept == name)
    one = Candidate(pattern, 2 if pattern.counts else 1)
    prepared, _ = prepare(from_settings(app="shop:app", timeout_keep_alive=7, workers=9))
    config = configure(prepared, one, 1234)
    assert is_current(one, config)
    assert config.process.workers == one.count
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 1234)
    assert config.timeout.keep_alive == 7


def test_a_pattern_that_counts_something_else_has_one_worker():
    one = Candidate(Pattern("shared", "umask", 1), 2)  # any other number of [process] will do
    config = configure(prepare(from_settings(app="shop:app", workers=9))[0], one, 1)
    assert (config.process.workers, config.process.umask) == (1, 2)


def test_settings_of_the_user_count():
    config = from_settings(app="shop:app", factory=True, mount=["/api=api:app"], limit_concurrency=9, access_log=True)
    prepared, said = prepare(config)
    assert (prepared.app, prepared.limit, prepared.log.access) == (config.app, config.limit, True)
    assert said == []


def test_what_belongs_to_a_running_server_is_left_alone():
    config = from_settings(
        app="shop:app", uds="/run/x.sock", pid="/run/x.pid", log_file="x.log", access_log_file="a.log", drain_delay=9
    )
    prepared, said = prepare(config)
    assert (prepared.listen.uds, prepared.process.pid, prepared.log.file, prepared.log.access_file) == ("", "", "", "")
    assert prepared.timeout.drain_delay == 0
    assert said == ["nothing is written to your log files; the access log is written to /dev/null"]


def test_logging_of_the_user_is_not_set_up_and_that_is_said():
    prepared, said = prepare(from_settings(app="shop:app", log_config="logging.json"))
    assert prepared.log.config == ""
    assert said == ["your logging is not set up, which may write to files of a running server (--log-config)"]


def test_hooks_run_and_that_is_said():
    config = from_settings(app="shop:app", on_worker_start="shop:warm")
    prepared, said = prepare(config)
    assert prepared.hooks == config.hooks
    assert said == ["your hooks run whenever a candidate starts or stops (--on-...)"]


def test_tls_is_left_out_and_said():
    config = from_settings(
        app="shop:app", ssl_certfile=["a"], ssl_redirect=[":80"], tls_processes=2, bind=["https://:1"]
    )
    prepared, (said,) = prepare(config)
    assert said.startswith("plain HTTP is measured, and the application is told http")
    assert prepared.ssl == Ssl()
    assert [str(address) for address in prepared.addresses()] == ["127.0.0.1:8000"]
    assert [address.speaks for address in prepared.addresses()] == ["http"]


def test_what_would_disturb_the_measurement_is_left_out_and_said():
    config = from_settings(app="shop:app", limit_max_requests=9, proxy_protocol="v2", reload=True)
    prepared, said = prepare(config)
    assert (prepared.limit.max_requests, prepared.proxy.protocol, prepared.reload.enabled) == (0, "off", False)
    assert [line.partition("(")[2] for line in said] == [
        "--limit-max-requests, -worker-age, -memory)",
        "--proxy-protocol)",
        "--reload)",
    ]


def test_the_default_set_of_two_cores_ends_within_two_minutes():
    assert schedule(len(labels()), boot=0.5, seconds=None).total < 120
    assert schedule(6, boot=0.2, seconds=None).total < BUDGET


def test_a_candidate_has_the_seconds_that_are_asked_for():
    plan = schedule(4, boot=0.0, seconds=9.0)
    assert sum(plan.visit(number) for number in range(1, ROUNDS + 1)) == pytest.approx(9.0)
    assert plan.total > 4 * 9.0


def test_an_application_that_starts_slowly_takes_longer():
    quick, slow = (schedule(8, boot=boot, seconds=None) for boot in (0.2, 5.0))
    assert slow.total > quick.total
    assert slow.visit(2) < quick.visit(2)


@pytest.mark.parametrize(("cpu", "number"), [(0.0, 64), (50e-6, 64), (0.01, 25), (0.05, 8), (3.0, 8)])
def test_a_path_that_computes_for_long_has_fewer_connections(cpu, number):
    assert connections(cpu) == number
