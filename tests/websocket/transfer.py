"""How much goes through in the tests of large transfers, and what a worker may need for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.process.servers import forget_peak, memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process.servers import Served

#: Bytes each way, in messages of a MiB.
TRANSFER = 50 << 20

#: By how much the peak of the worker's memory may grow meanwhile: a message as it comes, as it is joined and as the
#: application has it, some of the next, and what the allocator keeps.
GROWTH = 10 << 20


@contextmanager
def flat_memory(server: Served, growth: int = GROWTH) -> Iterator[None]:
    """The block must not need more than ``growth`` bytes of the only worker's memory, at any moment."""
    (pid,) = server.workers()
    before = memory(pid, "VmRSS")
    forget_peak(pid)
    yield
    grown = memory(pid, "VmHWM") - before
    print(f"the peak grew by {grown / 2**20:.1f} MiB")
    assert grown < growth
