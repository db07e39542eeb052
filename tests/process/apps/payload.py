"""The 100 MiB that every framework streams, and what they hash to."""

import functools
import hashlib

CHUNK = 64 * 1024
COUNT = 1600
SIZE = CHUNK * COUNT


def chunks():
    """Chunks that all differ, so that one lost, doubled or out of order changes the hash."""
    block = bytes(range(256)) * (CHUNK // 256)
    for index in range(COUNT):
        yield index.to_bytes(8) + block[8:]


async def achunks():
    for chunk in chunks():
        yield chunk


@functools.cache
def digest():
    whole = hashlib.sha256()
    for chunk in chunks():
        whole.update(chunk)
    return whole.hexdigest()
