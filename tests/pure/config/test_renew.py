from aioserve.config.load import from_settings
from aioserve.config.renew import renew


def test_nothing_changed_is_nothing_to_tell():
    same = renew(from_settings(workers=2), from_settings(workers=2))
    assert (same.config, same.applied, same.postponed) == (from_settings(workers=2), (), ())


def test_what_belongs_to_workers_is_applied():
    renewed = renew(from_settings(), from_settings(timeout_body="5s", workers=3, log_level="debug"))
    assert (renewed.config.timeout.body, renewed.config.process.workers) == (5.0, 3)
    assert renewed.applied == (
        "process.workers = 3 (was 1)",
        'timeout.body = "5s" (was "30s")',
        'log.level = "debug" (was "info")',
    )


def test_what_belongs_to_the_master_stays_until_a_restart():
    renewed = renew(from_settings(port=8000), from_settings(port=8001, accept="reuseport", reload=True))
    assert renewed.config == from_settings(port=8000)
    assert renewed.postponed == (
        "listen.port = 8001 needs a restart; until then it is 8000",
        'process.accept = "reuseport" needs a restart; until then it is "shared"',
        "reload.enabled = true needs a restart; until then it is false",
    )


def test_one_section_may_have_both():
    renewed = renew(from_settings(), from_settings(workers=2, accept="reuseport"))
    assert (renewed.config.process.workers, renewed.config.process.accept) == (2, "shared")


def test_new_certificates_are_applied():
    renewed = renew(from_settings(ssl_certfile=["a"]), from_settings(ssl_certfile=["a", "b"], ssl_hsts="max-age=1"))
    assert renewed.config.ssl.certfile == ("a", "b")
    assert renewed.applied == ('ssl.certfile = ["a", "b"] (was ["a"])', 'ssl.hsts = "max-age=1" (was "")')


def test_whether_tls_is_spoken_at_all_stays_until_a_restart():
    running = from_settings(timeout_body=5)
    renewed = renew(running, from_settings(timeout_body=5, ssl_certfile=["a"], ssl_hsts="max-age=1"))
    assert renewed.config == running
    assert renewed.postponed == (
        'ssl.certfile = ["a"] needs a restart; until then it is []',
        'ssl.hsts = "max-age=1" needs a restart; until then it is ""',
    )


def test_a_secret_that_has_changed_is_not_shown():
    one, other = (from_settings(ssl_certfile=["a"], ssl_keyfile_password=word) for word in ("xyzzy", "plugh"))
    renewed = renew(one, other)
    assert renewed.config.ssl.keyfile_password == "plugh"
    assert renewed.applied == ('ssl.keyfile_password = "***" (was "***")',)
