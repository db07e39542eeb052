"""A process that is short of descriptors, on purpose."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager


@contextmanager
def few_descriptors(free=0):
    """Let only so many more be open than there are now, until the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
