"""What the hot path needs of the configuration, flat and final: made once per process from the tree."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, final

from aioserve.accept.base import Feed
from aioserve.config.addresses import TcpAddress
from aioserve.config.values import split_header
from aioserve.http.location import HTTPS_PORT
from aioserve.http.reader import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioserve.accept.base import Source
    from aioserve.config.tree import Config

#: A connection is left alone for this long after its last request once the worker drains: a client that sends request
#: upon request then gets its answer, with "Connection: close", and not a reset. Seconds.
DRAIN_LINGER: Final = 1.0


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Durations in seconds, sizes in bytes; a limit of 0 is none."""

    limits: Limits
    parser: str
    limit_concurrency: int
    limit_connections: int
    header_timeout: float
    body_timeout: float
    write_timeout: float
    keep_alive_timeout: float
    graceful_shutdown: float
    drain_linger: float
    drain_delay: float = 0.0
    limit_max_requests: int = 0
    limit_max_requests_jitter: int = 0
    limit_worker_age: float = 0.0
    limit_worker_memory: int = 0
    date_header: bool
    server_header: bool
    extra_headers: tuple[tuple[bytes, bytes], ...]
    proxy_headers: bool
    trusted: tuple[str, ...]
    forwarded_host: bool = False
    proxy_protocol: str = "off"
    proxy_protocol_from: tuple[str, ...] = ()
    handshake_timeout: float = 10.0
    limit_handshakes: int = 1000
    ktls: bool = False
    ws: bool = True
    ws_max_size: int = 16 * 1024 * 1024
    ws_max_queue: int = 32
    ws_ping_interval: float = 20.0
    ws_ping_timeout: float = 20.0
    ws_per_message_deflate: bool = True
    ws_idle_timeout: float = 0.0
    ws_handshake_timeout: float = 30.0

    #: There are listeners for plain HTTP that is redirected, and the port of TLS where it is redirected to.
    redirects: bool = False
    redirect_port: int = HTTPS_PORT
    #: The value of Strict-Transport-Security, or nothing.
    hsts: bytes = b""

    @staticmethod
    def of(config: Config, sources: Iterable[Source] = ()) -> Settings:
        """``sources`` are what the process accepts from."""
        limit, timeout, http = config.limit, config.timeout, config.http
        return Settings(
            limits=Limits(
                request_line=limit.request_line,
                header_fields=limit.header_fields,
                header_bytes=limit.header_bytes,
                request_body=limit.request_body,
            ),
            parser=http.parser,
            limit_concurrency=limit.concurrency,
            limit_connections=limit.connections,
            limit_max_requests=limit.max_requests,
            limit_max_requests_jitter=limit.max_requests_jitter,
            limit_worker_age=limit.worker_age,
            limit_worker_memory=limit.worker_memory,
            header_timeout=timeout.header,
            body_timeout=timeout.body,
            write_timeout=timeout.write,
            keep_alive_timeout=timeout.keep_alive,
            graceful_shutdown=timeout.graceful_shutdown,
            drain_delay=timeout.drain_delay,
            # Under --reload the next request must meet the new code, also on a connection that is kept alive.
            drain_linger=0.0 if config.reload.enabled else DRAIN_LINGER,
            date_header=http.date_header,
            server_header=http.server_header,
            extra_headers=tuple(split_header(line) for line in http.header),
            proxy_headers=config.proxy.headers,
            trusted=config.proxy.forwarded_allow_ips,
            forwarded_host=config.proxy.forwarded_host,
            proxy_protocol=config.proxy.protocol,
            proxy_protocol_from=config.proxy.protocol_from,
            handshake_timeout=timeout.handshake,
            limit_handshakes=limit.handshakes,
            ktls=config.ssl.ktls,
            redirects=bool(config.ssl.redirect),
            redirect_port=config.ssl.redirect_port or _port_of_tls(config, sources),
            hsts=config.ssl.hsts.encode("ascii"),
            ws=config.ws.mode != "none",
            ws_max_size=config.ws.max_size,
            ws_max_queue=config.ws.max_queue,
            ws_ping_interval=config.ws.ping_interval,
            ws_ping_timeout=config.ws.ping_timeout,
            ws_per_message_deflate=config.ws.per_message_deflate,
            ws_idle_timeout=config.ws.idle_timeout,
            ws_handshake_timeout=config.ws.handshake_timeout,
        )


def _port_of_tls(config: Config, sources: Iterable[Source]) -> int:
    """The port of the first listener that speaks TLS: here, else in another process, as the configuration has it."""
    for source in sources:
        for listener in source.listeners if isinstance(source, Feed) else (source,):
            if listener.scheme == "https" and listener.port is not None:
                return listener.port
    for address in config.addresses():
        if address.speaks == "https" and isinstance(address, TcpAddress) and address.port:
            return address.port
    return HTTPS_PORT
