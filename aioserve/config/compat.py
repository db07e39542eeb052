"""Flags that people bring from uvicorn and gunicorn, or find in plans, and that this version does not have.

Each is refused with a sentence that is true today: what to use or do instead. They are not settings, they do not appear
in the help, and the same table answers for variables (``AIOSERVE_HTTP2``) and TOML keys (``[ssl] version``).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """``name`` is flat, as in ``Setting.flat``; ``value`` says whether the flag takes one."""

    name: str
    sentence: str
    value: bool = True
    short: str = ""

    @property
    def flag(self) -> str:
        """As the report names it: ``-k/--worker-class``."""
        return (f"-{self.short}/" if self.short else "") + "--" + self.name.replace("_", "-")


_WS = "is not needed: there is one implementation, on the Sans-I/O layer of websockets; use auto, or none"
_HTTP2 = "HTTP/2 is not served in this version; let a proxy such as nginx, Caddy or HAProxy speak it to clients"
_HANG = "use --timeout-worker, for an event loop that stands still; --timeout-boot limits the start"
_LATER = "is not in this version; leave it out"
_LOGGER = "is not in this version; route messages with --log-config instead"
_STATSD = "StatsD is not in this version; take request counts from the access log (--access-log-format json)"
_ADMIN = "the admin endpoint is not in this version; let probes ask a path of the application"
_WORKER_CLASS = (
    "there is one kind of worker; leave it out (--interface wsgi serves WSGI, --loop chooses the event loop)"
)
_RAGGED = "a connection that ends without close_notify is treated as ended, and nothing is raised; leave it out"
_SSL3 = "is broken, and browsers refuse it; write 1.2 or 1.3"
_LIMIT_HEADERS = "use --limit-request-line, --limit-header-fields and --limit-header-bytes"

_TABLE = (
    # uvicorn's
    Refused("http2", _HTTP2, value=False),
    Refused("ssl_version", "use --ssl-minimum-version with 1.2 or 1.3; the newest that the client can is spoken"),
    Refused("timeout_worker_healthcheck", _HANG),
    Refused("h11_max_incomplete_event_size", f"{_LIMIT_HEADERS}, which hold for both parsers"),
    Refused(
        "reset_contextvars",
        "is not in this version; set context variables in a middleware rather than in the lifespan",
        value=False,
    ),
    # gunicorn's
    Refused("preload_app", "use --preload", value=False),
    Refused("pythonpath", "use --app-dir, or set PYTHONPATH"),
    Refused("daemon", "daemons are the service manager's; use systemd or a container", value=False, short="D"),
    Refused("env", "set variables where the server is started, or list them in a file for --env-file", short="e"),
    Refused("name", _LATER, short="n"),
    Refused("worker_class", _WORKER_CLASS, short="k"),
    Refused("worker_connections", "use --limit-connections"),
    Refused("worker_tmp_dir", "heartbeats need no file here; leave it out"),
    Refused(
        "timeout",
        "one timeout for everything hides what was late; use --timeout-header, --timeout-body, --timeout-write and "
        "--timeout-keep-alive; for a worker whose event loop stands still, --timeout-worker",
        short="t",
    ),
    Refused("graceful_timeout", "use --timeout-graceful-shutdown"),
    Refused("keep_alive", "use --timeout-keep-alive"),
    Refused("reuse_port", "use --reuseport", value=False),
    Refused("proxy_allow_from", "use --proxy-protocol-from"),
    Refused("reload_engine", "there is one engine, watchfiles; leave it out"),
    Refused("reload_extra_file", "use --reload-include with the file's name, and --reload-dir with its directory"),
    Refused("limit_request_fields", "use --limit-header-fields"),
    Refused("limit_request_field_size", "use --limit-header-bytes, which counts all header fields together"),
    Refused("access_logfile", "use --access-log-file"),
    Refused("access_logformat", "use --access-log-format with line, combined or json"),
    Refused("error_logfile", "use --log-file"),
    Refused("logger_class", _LOGGER),
    Refused("log_config_json", "use --log-config, which reads .json too"),
    Refused("log_syslog", _LOGGER, value=False),
    Refused("log_syslog_to", _LOGGER),
    Refused("capture_output", _LATER, value=False),
    Refused("statsd_host", _STATSD),
    Refused("statsd_prefix", _STATSD),
    *(
        Refused(name, f"use --ssl-{name.replace('_', '-')}")
        for name in ("certfile", "keyfile", "keyfile_password", "ca_certs", "cert_reqs", "ciphers")
    ),
    Refused("suppress_ragged_eofs", _RAGGED, value=False),
    Refused("do_handshake_on_connect", "handshakes never hold up others here; leave it out", value=False),
    # hypercorn's and granian's
    Refused("verify_mode", "use --ssl-cert-reqs with none, optional or required"),
    Refused("insecure_bind", "use --bind with http:// in front of the address, or --ssl-redirect"),
    Refused("quic_bind", "HTTP/3 is not served in this version; leave it out"),
    Refused("ssl_certificate", "use --ssl-certfile"),
    Refused("ssl_protocol_min", "use --ssl-minimum-version"),
    Refused("ssl_ca", "use --ssl-ca-certs"),
    Refused("ssl_crl", "lists of revoked certificates are not read in this version; give clients short-lived ones"),
    Refused("ssl_client_verify", "use --ssl-cert-reqs required", value=False),
    # Planned
    Refused("admin_bind", _ADMIN),
    Refused("tls_transport", "there is one, which is as fast; leave it out"),
)

REFUSED = {refused.name: refused for refused in _TABLE}

# Values that other servers or later versions know, by the path of the setting.
REFUSED_VALUES = {
    ("process.loop", "zuvloop"): "is not supported; use uvloop, or auto",
    ("http.parser", "zttp"): "is not supported; use httptools, h11 or auto",
    **{("ws.mode", name): _WS for name in ("websockets", "websockets-sansio", "wsproto")},
    **{
        ("ssl.minimum_version", name): _SSL3 for name in ("1.0", "1.1", "tlsv1", "tlsv1.0", "tlsv1.1", "tls1.1", "ssl3")
    },
    # In the place of APP: the commands of a later version.
    ("app.target", "ctl"): "is not in this version; signal the master instead (HUP reloads, TERM drains and stops)",
    ("app.target", "tune"): "is a command, which comes first: aioserve tune APP",
}


def refusal(name: str) -> str:
    """The sentence for a flat name, or an empty string."""
    refused = REFUSED.get(name)
    if refused is not None:
        return refused.sentence
    return ""
