"""Errors, grouped by whose fault they are.

``ConfigError`` is the operator's (exit status 2), ``BootError`` the application's or the environment's (3),
``BindError`` an address that cannot be had (4), ``RequestError`` and ``PreambleError`` the peer's, ``AppError`` a
breach of the ASGI contract. ``ClientDisconnected`` is nobody's fault and reaches only the application, as do the
errors of ``offload()``.
"""

from __future__ import annotations


class AioserveError(Exception):
    """The root of every error that aioserve raises itself."""


class ConfigError(AioserveError):
    """Mistakes in the configuration: all of them, each with its place and what to do. Exit status 2."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BootError(AioserveError):
    """The application could not be imported or its lifespan could not start. Exit status 3.

    ``detail`` is the traceback, trimmed to the user's own frames, or an empty string.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class BindError(AioserveError):
    """An address could not be bound. Exit status 4."""


class RequestError(AioserveError):
    """The peer sent something that cannot be served: answered with ``status`` if possible, then closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        #: What is refused is a HEAD, so that the answer has no content (RFC 9110 9.3.2).
        self.to_head = False


class PreambleError(AioserveError):
    """A connection does not begin with the PROXY header that was agreed upon: closed, since nothing can be answered."""


class AppError(AioserveError):
    """The application broke the ASGI contract: 500 if nothing was sent, else the connection is closed.

    It is logged where it is made, once: ``reported`` says that this has been done.
    """

    reported = False


class ClientDisconnected(OSError):
    """Raised by ``send()`` once the client has gone (ASGI HTTP spec 2.4, "Disconnected Client")."""


class OffloadError(AioserveError):
    """An offloaded call has failed for a reason of its own. What the function itself raises comes as it is."""


class OffloadFull(OffloadError):
    """The queue is full. A request that does not catch it is answered with 503 and Retry-After."""


class OffloadTimeout(OffloadError, TimeoutError):
    """The call took longer than its timeout, waiting included. If it had begun, its child was killed."""


class OffloadCrashed(OffloadError):
    """The child died of the call: a segmentation fault, ``os._exit``, the kernel for want of memory."""


class OffloadUnfit(OffloadError, TypeError):
    """The function, an argument or the result cannot go from one process to another."""


class OffloadClosed(OffloadError):
    """The server, or the loop, is shutting down."""
