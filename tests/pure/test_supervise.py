"""What the configuration makes of the master's numbers."""

from aioserve.config.load import from_settings
from aioserve.supervise import KILL_MARGIN, policy_of


def test_every_application_has_its_time_to_shut_down():
    settings = {"app": "shop:app", "timeout_lifespan_shutdown": 4}
    assert policy_of(from_settings(**settings), linger=0.0).margin == 4 + KILL_MARGIN
    mounts = ["/api=api:app", "/admin=admin:app"]
    assert policy_of(from_settings(**settings, mount=mounts), linger=0.0).margin == 3 * 4 + KILL_MARGIN


def test_a_limit_on_the_loop_is_two_beats_at_least_and_none_for_who_develops():
    limits = [
        policy_of(from_settings(app="shop:app", **settings), linger=0.0).worker_limit
        for settings in ({"timeout_worker": 0.1}, {"timeout_worker": 9}, {"timeout_worker": 0}, {"reload": True})
    ]
    assert limits == [1.0, 9.0, 0.0, 0.0]
