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
