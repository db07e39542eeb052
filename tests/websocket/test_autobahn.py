"""The Autobahn test suite, all of it but the large messages with compression: see ``tests.websocket.autobahn``."""

from __future__ import annotations

import pytest

from tests.process.servers import Served
from tests.websocket import autobahn
from tests.websocket.frames import APPS

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(600)]

#: The parsers of the handshake; what follows it is the same.
PARSERS = {"protocol": "httptools", "limits": "httptools", "compression": "h11"}


@pytest.fixture(scope="module")
def suite() -> None:
    try:
        autobahn.wstest()
    except autobahn.Absent as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("part", autobahn.PARTS)
def test_every_case_is_ok_or_has_its_reason(suite, part, tmp_path):
    options = ("--no-access-log", "--http", PARSERS[part])
    with Served("sockets:app", *options, cwd=APPS) as server:
        verdicts = autobahn.run(f"ws://127.0.0.1:{server.port}/echo", autobahn.PARTS[part], tmp_path)

    print(autobahn.table(verdicts))
    assert not autobahn.failures(verdicts), "\n".join(map(str, autobahn.failures(verdicts)))
    assert not autobahn.stale(verdicts), "reasons in autobahn.toml without a case"
    assert len(verdicts) >= {"protocol": 247, "limits": 54, "compression": 36}[part]
