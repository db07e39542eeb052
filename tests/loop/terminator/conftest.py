from tests.loop.worker.conftest import connect

__all__ = ["connect"]
