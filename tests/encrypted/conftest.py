"""Everything in this folder starts real processes, with certificates of one folder.

It is about programs that meet over TLS. What Python's own module does in each version is for tests/loop/tls and for
tests/process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.identities import Identities

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.once)
            # What starts servers for a whole file starts them once, if the file is one worker's.
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def identities(tmp_path_factory) -> Identities:
    return Identities(tmp_path_factory.mktemp("identities"))
