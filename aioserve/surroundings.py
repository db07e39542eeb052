"""What is around the server: directory, umask, limits, pid file, user, service manager.

All of it is taken once, before sockets are bound and processes forked, and given back at the end. What a process that
runs the application has to do for itself (become the user, forget what was said to the master) is ``settle_in``.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Final

from aioserve.accept import activation
from aioserve.accept.activation import passed_on
from aioserve.config.tree import settings
from aioserve.config.values import AUTO, spell_size
from aioserve.errors import BootError, ConfigError
from aioserve.master import notify
from aioserve.master.notify import Manager
from aioserve.system import cgroup
from aioserve.system.identity import identify
from aioserve.system.process import raise_descriptor_limit
from aioserve.tls import ktls

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioserve.accept.activation import Passed
    from aioserve.config.tree import Config
    from aioserve.system.identity import Identity

log = logging.getLogger("aioserve")

_ENVIRONMENT: Final = (*activation.VARIABLES, *notify.VARIABLES)


def enter(config: Config) -> None:
    """Go to the directory and set the umask that the configuration names; relative paths count from there."""
    process = config.process
    if process.chdir:
        try:
            os.chdir(process.chdir)
        except OSError as error:
            raise ConfigError([f"--chdir {process.chdir}: {error.strerror or error}"]) from None
    if process.umask is not None:
        os.umask(process.umask)


def count_workers(config: Config, read: cgroup.Read = cgroup.read_text, *, accept: str = "") -> Config:
    """The configuration with a number of workers, and of loops in each, where it says ``auto``.

    ``accept`` is the pattern of a server that runs, which goes on whatever the configuration says now.
    """
    process = config.process
    accept = accept or process.accept
    workers, threads = process.workers, process.threads
    if accept == "single" and workers == AUTO:
        workers = 1
    if accept != "threads":
        threads = 1
    elif workers == threads == AUTO:
        workers = 1
    if AUTO in {workers, threads}:
        # Where a process can be pinned, what it is pinned to; the rest of the machine is not ours.
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        quota, memory = cgroup.cpus(read), cgroup.memory(read)
        loops = cgroup.workers(available, quota)
        workers = workers or max(loops // threads, 1)
        flag, number = ("--workers", workers) if threads else ("--threads", max(loops // workers, 1))
        threads = threads or number
        log.info(
            "%s auto: %d (%d CPUs, %s; %s)",
            flag,
            number,
            available,
            "no quota" if quota is None else f"a quota of {quota:g}",
            "no memory limit" if memory is None else f"a memory limit of {spell_size(memory)} for all together",
        )
    return dataclasses.replace(config, process=dataclasses.replace(process, workers=workers, threads=threads))


def choose_ktls(config: Config, look: Callable[[], ktls.Found] = ktls.look) -> Config:
    """The configuration without --ktls where that cannot be had; the log says what it comes to, and why."""
    if not config.ssl.ktls or not config.ssl.enabled:
        return config
    found = look()
    reason = ktls.obstacle(found)
    if config.ssl.processes:
        reason = "the --tls-processes send, and no files"
    elif config.proxy.protocol != "off":
        reason = "a PROXY header comes before TLS, and OpenSSL takes the whole of a socket or nothing"
    if reason is not None:
        log.warning("--ktls is not used: %s. TLS is encrypted in the processes, and files are read and written", reason)
        return dataclasses.replace(config, ssl=dataclasses.replace(config.ssl, ktls=False))
    log.info("--ktls: Linux %s encrypts what is sent with AES-GCM (%s)", found.release, found.version)
    if not ktls.renews_keys(found.release):
        log.warning(
            "--ktls: a client of TLS 1.3 that renews its keys (KeyUpdate) loses its connection, because Linux before "
            "%d.%d cannot follow; browsers and curl do not do it",
            *ktls.RENEWS_KEYS,
        )
    return config


def raise_limits() -> None:
    """A connection is a descriptor: take as many as we may have, and say so."""
    before, now = raise_descriptor_limit()
    if now > before:
        log.info("open files: the limit of %d is raised to %d", before, now)


def take_identity(config: Config) -> Identity | None:
    """Who the workers become; the logs are theirs from now on."""
    identity = identify(config.process.user, config.process.group)
    if identity is not None:
        own_logs(config, identity)
    return identity


def own_logs(config: Config, identity: Identity) -> None:
    """Let the workers open the log files again; the master has made them anew, as whoever it is."""
    if os.geteuid() == 0:
        identity.own(path for path in (config.log.file, config.log.access_file) if path)


def take_passed() -> tuple[Passed, ...]:
    """The sockets that a service manager has opened for this process; nobody else is to find them."""
    passed = passed_on(os.environ, os.getpid())
    for name in activation.VARIABLES:
        os.environ.pop(name, None)
    return passed


def take_manager() -> Manager | None:
    """The service manager that wants to be told how the server is."""
    return Manager.of(os.environ, os.getpid())


def forget_secrets() -> None:
    """Before the application is imported: what it, and programs that it starts, have no use for.

    The master keeps them otherwise, to read the configuration again.
    """
    for setting in settings():
        if setting.doc.secret:
            for name in setting.env:
                os.environ.pop(name, None)


def settle_in(identity: Identity | None) -> None:
    """In the process that is to run the application. Raises ``BootError`` if it cannot be who it has to be."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)
    forget_secrets()
    if identity is not None:
        try:
            identity.assume()
        except OSError as error:
            raise BootError(
                f"user {identity.name or identity.uid} and group {identity.gid} cannot be taken on ({error.strerror}): "
                "--user and --group need the capabilities CAP_SETUID and CAP_SETGID"
            ) from None
