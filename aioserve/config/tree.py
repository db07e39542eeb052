"""Every setting of the server, declared once: a tree of frozen dataclasses that performs no action.

A setting is one annotated field. From its place come its flag (``--<section>-<field>``, unless ``Doc.flag`` says
otherwise), its variable (``AIOSERVE_<FLAG>``), its TOML key (``[section] field``) and its keyword in the embedding API;
the help, the reference file and ``--print-config`` are derived from ``settings()``. Nothing else lists settings.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from aioserve.config import values
from aioserve.config.addresses import Address, FdAddress, TcpAddress, UnixAddress, parse_address, settled

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Doc:
    """What a setting is beyond its type and default. On a section: its heading."""

    help: str
    _: KW_ONLY
    flag: str = ""
    short: str = ""
    positional: bool = False
    # Further variables that everybody knows; the AIOSERVE_ name wins over them.
    env: tuple[str, ...] = ()
    metavar: str = ""
    low: float | None = None
    high: float | None = None
    # A reload does not change it: the process that would have to change is the master. On a section: all of it.
    restart: bool = False
    # For tuples. True: the flag is given once per element. False: one flag with a comma list.
    repeatable: bool = False
    # Further flags with the same meaning, as people know them from other servers.
    also: tuple[str, ...] = ()
    # Flags without a value that stand for one value of this setting: (flag, value).
    switches: tuple[tuple[str, str], ...] = ()
    # Never shown: not by --print-config, not in a report of mistakes, not by a reload.
    secret: bool = False


Text: TypeAlias = Annotated[str, values.TEXT]
Texts: TypeAlias = Annotated[tuple[str, ...], values.TEXT]
Switch: TypeAlias = Annotated[bool, values.SWITCH]
Count: TypeAlias = Annotated[int, values.COUNT]
Size: TypeAlias = Annotated[int, values.SIZE]
Seconds: TypeAlias = Annotated[float, values.SECONDS]

#: What is shown in place of a secret.
HIDDEN = "***"

# A timeout of nothing would fail every request; a millisecond is as near to it as makes sense.
_SHORTEST = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    target: Annotated[str, values.TARGET, Doc("the application, module:attribute", flag="app", positional=True)] = ""
    factory: Annotated[Switch, Doc("APP is a callable that returns the application", flag="factory")] = False
    dir: Annotated[Text, Doc("import APP from this directory instead of the current one", metavar="DIR")] = ""
    interface: Annotated[
        Literal["auto", "asgi3", "asgi2", "wsgi"], Doc("what APP speaks; auto looks at it", flag="interface")
    ] = "auto"
    lifespan: Annotated[
        Literal["auto", "on", "off"],
        Doc("run the application's lifespan; auto goes on without where it is not supported", flag="lifespan"),
    ] = "auto"
    root_path: Annotated[
        str, values.ROOT_PATH, Doc("the path under which a proxy serves the application", flag="root-path")
    ] = ""
    mount: Annotated[
        tuple[str, ...],
        values.MOUNT,
        Doc("serve a further application under a path, with its own lifespan", flag="mount", repeatable=True),
    ] = ()
    env_file: Annotated[
        Text,
        Doc("read environment variables from this file first; those set already win", flag="env-file", metavar="FILE"),
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    host: Annotated[str, values.HOST, Doc("the host name or address to listen on", flag="host")] = "127.0.0.1"
    port: Annotated[Count, Doc("the port; 0 takes a free one", flag="port", metavar="PORT", low=0, high=65535)] = 8000
    bind: Annotated[
        tuple[str, ...],
        values.BIND,
        Doc(
            "listen here instead: HOST:PORT, [::]:PORT, :PORT, unix:PATH, fd://N or fd://NAME; with a certificate TLS "
            "is spoken, unless http:// stands in front (https:// may)",
            flag="bind",
            short="b",
            repeatable=True,
        ),
    ] = ()
    uds: Annotated[str, values.UDS, Doc("listen on this unix socket instead", flag="uds")] = ""
    fd: Annotated[
        int | None, values.DESCRIPTOR, Doc("listen on this inherited descriptor instead", flag="fd", low=0)
    ] = None
    backlog: Annotated[
        Count, Doc("connections that may wait in the kernel to be accepted", flag="backlog", low=1, high=65535)
    ] = 2048
    dual_stack: Annotated[Switch, Doc("let a listening [::] take IPv4 as well", flag="dual-stack")] = False
    uds_mode: Annotated[int, values.MODE, Doc("the file mode of unix sockets, in octal", flag="uds-mode")] = 0o660

    @property
    def unsaid(self) -> bool:
        """Nobody has said where to listen."""
        return self.addresses() == Listen().addresses()

    def addresses(self) -> list[Address]:
        """Where to listen: the descriptor, else the unix socket, else every ``bind``, else host and port."""
        if self.fd is not None:
            return [FdAddress(self.fd)]
        if self.uds:
            return [UnixAddress(self.uds)]
        if self.bind:
            return [parse_address(text) for text in self.bind]
        return [TcpAddress(self.host, self.port)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    workers: Annotated[
        int,
        values.WORKERS,
        Doc(
            "worker processes, up to 1024; auto: one per CPU that affinity and cgroup allow",
            flag="workers",
            short="w",
            env=("WEB_CONCURRENCY",),
        ),
    ] = 1
    accept: Annotated[
        Literal["shared", "single", "reuseport", "dispatch", "threads"],
        Doc(
            "shared: all workers accept from one socket; reuseport: each has its own, the kernel balances; "
            "dispatch: a process accepts and gives each connection to the worker with the fewest; "
            "threads: as shared, and each worker has several loops in threads; single: one process, no supervisor",
            flag="accept",
            restart=True,
            switches=(("reuseport", "reuseport"),),
        ),
    ] = "shared"
    steal: Annotated[
        Literal["late", "always", "off"],
        Doc(
            "with reuseport, who accepts what waits for a busy worker. late: idle ones, when it is late; always: "
            "whoever is idle, for some CPU per connection; off: nobody",
            flag="steal",
            restart=True,
        ),
    ] = "late"
    threads: Annotated[
        int,
        values.THREADS,
        Doc(
            "with --accept threads, event loops in each worker, each in its thread with its own lifespan; auto: all "
            "workers together have one per CPU that affinity and cgroup allow",
            flag="threads",
        ),
    ] = values.AUTO
    loop: Annotated[
        Literal["auto", "uvloop", "asyncio"], Doc("the event loop; auto is uvloop where installed", flag="loop")
    ] = "auto"
    preload: Annotated[
        Switch,
        Doc(
            "import APP once, in the master, so that workers share its memory; new code then needs a new master (USR2)",
            flag="preload",
            restart=True,
        ),
    ] = False
    user: Annotated[
        Text,
        Doc(
            "the user that workers become once the sockets are bound",
            flag="user",
            restart=True,
            short="u",
            metavar="NAME",
        ),
    ] = ""
    group: Annotated[
        Text, Doc("the group that workers become", flag="group", restart=True, short="g", metavar="NAME")
    ] = ""
    umask: Annotated[
        int | None,
        values.UMASK,
        Doc("what files that are made do not permit, in octal", flag="umask", restart=True, short="m"),
    ] = None
    chdir: Annotated[
        Text,
        Doc(
            "change to this directory before anything is opened or imported", flag="chdir", restart=True, metavar="DIR"
        ),
    ] = ""
    pid: Annotated[
        Text, Doc("write the master's process id to this file", flag="pid", restart=True, short="p", metavar="FILE")
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    parser: Annotated[
        Literal["auto", "httptools", "h11"], Doc("the parser; auto is httptools where installed", flag="http")
    ] = "auto"
    header: Annotated[
        tuple[str, ...], values.HEADER, Doc("add this header to every response", flag="header", repeatable=True)
    ] = ()
    server_header: Annotated[Switch, Doc("send Server", flag="server-header")] = True
    date_header: Annotated[Switch, Doc("send Date", flag="date-header")] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ws:
    mode: Annotated[
        Literal["auto", "none"], Doc("none: a WebSocket handshake is served as a plain request", flag="ws")
    ] = "auto"
    max_size: Annotated[Size, Doc("a message, then it is closed with 1009; 0 is no limit", low=0)] = 16 * 1024 * 1024
    max_queue: Annotated[
        Count, Doc("messages, or 64 KiB of them, that may wait for the application before reading pauses", low=1)
    ] = 32
    ping_interval: Annotated[Seconds, Doc("ping the client so often; 0: never")] = 20.0
    ping_timeout: Annotated[Seconds, Doc("for anything to come after a ping; 0 is no limit")] = 20.0
    per_message_deflate: Annotated[
        bool, values.YES_OR_NO, Doc("compress messages of 256 bytes and more, for clients that offer it")
    ] = True
    idle_timeout: Annotated[Seconds, Doc("for a message, either way, then it is closed with 1001; 0 is no limit")] = 0.0
    handshake_timeout: Annotated[Seconds, Doc("for the application to accept or refuse, then 503; 0 is no limit")] = (
        30.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssl:
    certfile: Annotated[
        Texts,
        Doc(
            "speak TLS with this certificate, in PEM with its chain; several are chosen by the client's SNI",
            metavar="FILE",
            repeatable=True,
        ),
    ] = ()
    keyfile: Annotated[
        Texts,
        Doc(
            "the private key of the certificate, one for each in the same order; by default keys are in the same files",
            metavar="FILE",
            repeatable=True,
        ),
    ] = ()
    keyfile_password: Annotated[
        Text,
        Doc(
            "what encrypted keys are decrypted with; better set as AIOSERVE_SSL_KEYFILE_PASSWORD, since everybody on "
            "the machine can read command lines",
            secret=True,
        ),
    ] = field(default="", repr=False)
    certdir: Annotated[
        Text, Doc("all certificates of this folder: NAME.crt with NAME.key, or NAME.pem with both", metavar="DIR")
    ] = ""
    ca_certs: Annotated[
        Text, Doc("the authorities, in PEM, that clients' certificates have to be signed by", metavar="FILE")
    ] = ""
    cert_reqs: Annotated[
        str,
        values.CLIENT_CERTIFICATES,
        Doc("whether clients have to show a certificate; uvicorn's 0, 1 and 2 mean the same", metavar="WHEN"),
    ] = "none"
    ciphers: Annotated[
        Text,
        Doc("TLS 1.2's ciphers, in OpenSSL's notation; by default forward secret ones with AEAD", metavar="LIST"),
    ] = ""
    minimum_version: Annotated[
        str, values.TLS_VERSION, Doc("the oldest version of TLS that is spoken", metavar="VERSION")
    ] = "1.2"
    redirect: Annotated[
        tuple[str, ...],
        values.REDIRECT,
        Doc(
            "listen here too, for plain HTTP, and answer it with a redirect (308) to https; an address as in --bind",
            repeatable=True,
            restart=True,
        ),
    ] = ()
    redirect_port: Annotated[
        Count,
        Doc("the port to redirect to, as clients see it; 0: that of the first TLS address", low=0, high=65535),
    ] = 0
    hsts: Annotated[
        str,
        values.HSTS,
        Doc(
            "send Strict-Transport-Security with this value on connections with TLS: max-age=31536000, a year in which "
            "browsers come with https only; there is no way back before that"
        ),
    ] = ""
    ktls: Annotated[
        Switch,
        Doc("let the kernel encrypt what is sent, where kernel and OpenSSL can: files go by sendfile", flag="ktls"),
    ] = False
    processes: Annotated[
        Count,
        Doc(
            "processes of their own that hold the keys and speak TLS, in front of the workers; 0: workers do it",
            flag="tls-processes",
            restart=True,
            low=0,
            high=256,
        ),
    ] = 0

    @property
    def enabled(self) -> bool:
        """There is a certificate to show."""
        return bool(self.certfile or self.certdir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    handshake: Annotated[Seconds, Doc("for a TLS handshake", low=_SHORTEST)] = 10.0
    header: Annotated[Seconds, Doc("for a whole request head to arrive", low=_SHORTEST)] = 10.0
    body: Annotated[Seconds, Doc("for more of a request body to arrive", low=_SHORTEST)] = 30.0
    write: Annotated[Seconds, Doc("for the client to take more of a response", low=_SHORTEST)] = 30.0
    keep_alive: Annotated[Seconds, Doc("for the next request on an idle connection", low=_SHORTEST)] = 75.0
    graceful_shutdown: Annotated[Seconds, Doc("for requests in flight to end at a stop or reload")] = 30.0
    drain_delay: Annotated[
        Seconds, Doc("at a stop, serve on for this long first, while readiness fails", flag="drain-delay")
    ] = 0.0
    boot: Annotated[Seconds, Doc("for a worker to import, start up and accept", low=_SHORTEST)] = 120.0
    worker: Annotated[Seconds, Doc("for a worker's event loop to turn, then it is replaced; 0 is no limit")] = 30.0
    lifespan_startup: Annotated[Seconds, Doc("for the application's startup", low=_SHORTEST)] = 60.0
    lifespan_shutdown: Annotated[Seconds, Doc("for the application's shutdown", low=_SHORTEST)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    handshakes: Annotated[
        Count,
        Doc("TLS handshakes under way per worker, then the oldest of over a second is closed; 0: no limit", low=0),
    ] = 1000
    concurrency: Annotated[Count, Doc("requests in flight per worker, then 503; 0 is no limit", low=0)] = 0
    connections: Annotated[
        Count, Doc("connections per worker, then no more are accepted; 0: what descriptors allow", low=0)
    ] = 0
    # nginx and Apache allow 8 KiB; 8190 is Apache's figure, and gunicorn's largest.
    request_line: Annotated[Size, Doc("the request line, then 414", low=64, high=1 << 24)] = 8190
    header_fields: Annotated[Count, Doc("header fields in a request, then 431", low=1, high=32768)] = 100
    header_bytes: Annotated[Size, Doc("all header fields together, then 431", low=256, high=1 << 24)] = 64 * 1024
    request_body: Annotated[Size, Doc("a request body, then 413; 0 is no limit", low=0)] = 0
    request_body_at: Annotated[
        tuple[str, ...],
        values.SIZE_AT,
        Doc("the same for one mount, such as /upload=1GiB; / is APP's", repeatable=True),
    ] = ()
    max_requests: Annotated[
        Count, Doc("replace a worker after so many requests; 0: never", also=("max-requests",), low=0)
    ] = 0
    max_requests_jitter: Annotated[
        Count, Doc("up to so many requests more, at random for each worker", also=("max-requests-jitter",), low=0)
    ] = 0
    worker_age: Annotated[
        Seconds, Doc("replace a worker after this long, and up to a tenth more at random; 0: never", low=0)
    ] = 0.0
    worker_memory: Annotated[
        Size, Doc("replace a worker that stays above so much resident memory; 0: never", low=0)
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    headers: Annotated[Switch, Doc("believe Forwarded and X-Forwarded-* of trusted peers")] = True
    forwarded_allow_ips: Annotated[
        tuple[str, ...],
        values.NETWORK,
        Doc(
            "trusted peers, a comma list: addresses, networks, unix: (any unix peer), * (everybody)",
            flag="forwarded-allow-ips",
            env=("FORWARDED_ALLOW_IPS",),
        ),
    ] = ("127.0.0.1", "::1", "unix:")
    forwarded_host: Annotated[
        Switch,
        Doc(
            "also believe the host and port that trusted peers forward; only for a proxy that sets or removes "
            "X-Forwarded-Host and -Port itself, since others pass on what the client has invented",
            flag="forwarded-host",
        ),
    ] = False
    protocol: Annotated[
        Literal["off", "v1", "v2", "auto"],
        Doc(
            "take clients' addresses and TLS from the PROXY protocol, which every connection must then begin with; "
            "auto: v1 and v2",
        ),
    ] = "off"
    protocol_from: Annotated[
        tuple[str, ...],
        values.NETWORK,
        Doc("load balancers that may speak it, as in --forwarded-allow-ips; connections of others are closed"),
    ] = ("127.0.0.1", "::1", "unix:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: Annotated[
        Literal["critical", "error", "warning", "info", "debug", "trace"],
        Doc("the least severe messages to log", metavar="LEVEL"),
    ] = "info"
    access: Annotated[Switch, Doc("log every request", flag="access-log")] = True
    access_format: Annotated[
        Literal["line", "combined", "json"],
        Doc(
            "line: as uvicorn, with duration and bytes; combined: as Apache; json",
            flag="access-log-format",
            metavar="FORMAT",
        ),
    ] = "line"
    format: Annotated[Literal["text", "json"], Doc("the form of all other messages")] = "text"
    config: Annotated[Text, Doc("a logging configuration (.json, .yaml, .ini) instead of ours", metavar="FILE")] = ""
    file: Annotated[Text, Doc("log to this file instead of stderr; USR1 reopens it", metavar="FILE")] = ""
    access_file: Annotated[
        Text, Doc("log requests to this file instead of stdout", flag="access-log-file", metavar="FILE")
    ] = ""
    colors: Annotated[
        bool | None, values.TRISTATE, Doc("colour the log; auto does so on a terminal", flag="use-colors")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    enabled: Annotated[Switch, Doc("restart the worker when files change", flag="reload")] = False
    dirs: Annotated[
        Texts,
        Doc("watch this directory instead of the current one", flag="reload-dir", metavar="DIR", repeatable=True),
    ] = ()
    includes: Annotated[
        Texts, Doc("watch files of this pattern too", flag="reload-include", metavar="GLOB", repeatable=True)
    ] = ()
    excludes: Annotated[
        Texts, Doc("do not watch files of this pattern", flag="reload-exclude", metavar="GLOB", repeatable=True)
    ] = ()
    delay: Annotated[Seconds, Doc("let this much time pass without changes first", low=_SHORTEST)] = 0.25


_HOOK = "MODULE:FUNCTION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    on_master_start: Annotated[
        str,
        values.TARGET,
        Doc("in the master, before the first worker", flag="on-master-start", restart=True, metavar=_HOOK),
    ] = ""
    on_worker_start: Annotated[
        str, values.TARGET, Doc("in a new worker, before it imports APP", flag="on-worker-start", metavar=_HOOK)
    ] = ""
    on_worker_ready: Annotated[
        str, values.TARGET, Doc("in a worker, when it serves", flag="on-worker-ready", metavar=_HOOK)
    ] = ""
    on_worker_exit: Annotated[
        str,
        values.TARGET,
        Doc("in the master, when a worker has ended", flag="on-worker-exit", restart=True, metavar=_HOOK),
    ] = ""
    on_reload: Annotated[
        str, values.TARGET, Doc("in the master, when a reload begins", flag="on-reload", restart=True, metavar=_HOOK)
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    workers: Annotated[
        Count, Doc("calls that run at once, per worker; each has a process of its own; 0: none", low=0, high=256)
    ] = 1
    queue: Annotated[Count, Doc("calls that may wait, per worker; then OffloadFull, or 503", low=0)] = 100
    timeout: Annotated[Seconds, Doc("for a call, waiting included, then it is killed; 0 is no limit")] = 0.0
    idle: Annotated[Seconds, Doc("stop a process that had no call for this long; 0: never")] = 300.0
    max_tasks: Annotated[Count, Doc("replace a process after so many calls; 0: never", low=0)] = 0
    memory: Annotated[Size, Doc("replace a process that has more resident memory after a call; 0: never", low=0)] = 0
    initializer: Annotated[
        str, values.TARGET, Doc("call this in each process before its first call", metavar="MODULE:FUNCTION")
    ] = ""
    imports: Annotated[
        tuple[str, ...],
        values.MODULE,
        Doc("import this module in advance, so that new processes have it", flag="offload-import", repeatable=True),
    ] = ()
    engine: Annotated[
        str,
        values.ENGINE,
        Doc(
            "what runs the calls: process, thread (for free-threaded Python), interpreter (Python 3.14), "
            "dask://HOST:PORT, or MODULE:FACTORY of a concurrent.futures.Executor"
        ),
    ] = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    app: Annotated[App, Doc("Application")] = field(default_factory=App)
    listen: Annotated[Listen, Doc("Listening", restart=True)] = field(default_factory=Listen)
    process: Annotated[Process, Doc("Processes")] = field(default_factory=Process)
    http: Annotated[Http, Doc("HTTP")] = field(default_factory=Http)
    ws: Annotated[Ws, Doc("WebSockets")] = field(default_factory=Ws)
    ssl: Annotated[Ssl, Doc("TLS")] = field(default_factory=Ssl)
    timeout: Annotated[Timeout, Doc("Timeouts (30, 30s, 500ms, 5m, 1h)")] = field(default_factory=Timeout)
    limit: Annotated[Limit, Doc("Limits (sizes: 8190, 64KiB, 1MiB)")] = field(default_factory=Limit)
    proxy: Annotated[Proxy, Doc("Behind a proxy")] = field(default_factory=Proxy)
    offload: Annotated[Offload, Doc("CPU-heavy work beside the event loop")] = field(default_factory=Offload)
    log: Annotated[Log, Doc("Logging")] = field(default_factory=Log)
    reload: Annotated[Reload, Doc("Reloading during development", restart=True)] = field(default_factory=Reload)
    hooks: Annotated[Hooks, Doc("Hooks (short functions, called with what has happened)")] = field(
        default_factory=Hooks
    )

    def speaking(self, addresses: Iterable[Address]) -> list[Address]:
        """The addresses, each with what is spoken there: TLS if there is a certificate, unless one says otherwise."""
        return [settled(address, "https" if self.ssl.enabled else "http") for address in addresses]

    def redirects(self) -> list[Address]:
        """Where plain HTTP is answered with a redirect."""
        return [settled(parse_address(text), "redirect") for text in self.ssl.redirect]

    def addresses(self) -> list[Address]:
        """Everything to listen on, each with what is spoken there."""
        return [*self.speaking(self.listen.addresses()), *self.redirects()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One field of the tree, with every name that it goes by."""

    section: str
    field: str
    type: object
    kind: values.Kind
    default: Any
    doc: Doc
    restart: bool  # a reload does not change it

    @property
    def path(self) -> str:
        return f"{self.section}.{self.field}"

    @property
    def flat(self) -> str:
        return (self.doc.flag or f"{self.section}-{self.field}").replace("-", "_")

    @property
    def flag(self) -> str:
        """``--name``, or the bare metavar of the positional."""
        return "APP" if self.doc.positional else "--" + self.flat.replace("_", "-")

    @property
    def env(self) -> tuple[str, ...]:
        """The variables that set it; the first one that is set wins."""
        return (f"AIOSERVE_{self.flat.upper()}", *self.doc.env)

    @property
    def many(self) -> bool:
        return isinstance(self.default, tuple)

    @property
    def is_switch(self) -> bool:
        return self.kind in {values.SWITCH, values.TRISTATE}

    @property
    def metavar(self) -> str:
        return self.doc.metavar or self.kind.metavar


@cache
def sections() -> dict[str, str]:
    """The sections' names and headings, in order."""
    hints = get_type_hints(Config, include_extras=True)
    return {section.name: get_args(hints[section.name])[-1].help for section in fields(Config)}


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting there is, in the order of declaration."""
    tree = Config()
    heads = get_type_hints(Config, include_extras=True)
    found = []
    for section in fields(Config):
        group = getattr(tree, section.name)
        hints = get_type_hints(type(group), include_extras=True)
        restart = get_args(heads[section.name])[-1].restart
        found += [_setting(section.name, leaf.name, hints[leaf.name], leaf.default, restart) for leaf in fields(group)]
    return tuple(found)


def _setting(section: str, name: str, hint: Any, default: object, restart: bool) -> Setting:
    annotated, *metadata = get_args(hint)
    # A choice carries its own options; every other type names its kind beside it.
    kind = values.choice(*get_args(annotated)) if get_origin(annotated) is Literal else metadata[0]
    doc = metadata[-1]
    restart = restart or doc.restart
    return Setting(section=section, field=name, type=annotated, kind=kind, default=default, doc=doc, restart=restart)
