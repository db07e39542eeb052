"""The pytest fixture: ``aioserve_server(app)`` starts a real server on a free port and stops it after the test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioserve.embed import Running


@pytest.fixture
def aioserve_server() -> Iterator[Callable[..., Running]]:
    """Call it with an application, and settings as for ``aioserve.serve``; the answer has ``url`` and ``port``."""
    # Not at import: pytest loads every installed plugin, also in projects whose tests start no server.
    from aioserve.testing import serving

    with contextlib.ExitStack() as stack:
        yield lambda app, **settings: stack.enter_context(serving(app, **settings))
