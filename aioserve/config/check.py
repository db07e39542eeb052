"""What concerns several settings at once: which address wins, and which combinations make no sense.

It works on the merged layers before the tree is built, because a message has to name the place where a value came from.
Values that were wrong by themselves are ``None`` here; their mistake is noted already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioserve.config.addresses import parse_address
from aioserve.config.check_tls import settle_tls
from aioserve.config.given import Given, Layer
from aioserve.config.values import spell_workers

if TYPE_CHECKING:
    from aioserve.config.given import Mistakes


#: What there is if nobody has said anything.
_ONE_WORKER = Given(1, "", Layer.FILE)


def settle(given: dict[str, Given], found: Mistakes, *, need_app: bool) -> tuple[dict[str, Given], list[str]]:
    """The values that remain, and notes for the operator; mistakes go to ``found``."""
    settled = _one_way_to_listen(given, found)
    notes: list[str] = []
    _no_mistaken_pattern(settled, found)
    notes += _threads_without_their_pattern(settled, found)
    notes += settle_tls(settled, found)
    _no_doubles(settled, found)
    _nothing_loaded_too_early(settled, found)
    _limits_of_mounts(settled, found, need_app=need_app)
    if _value(settled, "ws.mode") == "none":
        place = settled["ws.mode"].place
        notes += [
            f"{settled[path].place} has no effect with none ({place})"
            for path in settled
            if path.startswith("ws.") and path != "ws.mode"
        ]
    protocol, speakers = settled.get("proxy.protocol"), settled.get("proxy.protocol_from")
    if speakers is not None and (protocol is None or protocol.value == "off"):
        notes.append(f"{speakers.place} has no effect without --proxy-protocol")
    if need_app and not any(path in settled and settled[path].value != "" for path in ("app.target", "app.mount")):
        found.lines.append("APP: missing; name the application as module:attribute, such as main:app")
    notes += _useless_without_a_master(settled)
    if _value(settled, "process.accept") == "dispatch" and settled.get("process.workers", _ONE_WORKER).value == 1:
        notes.append(
            f"{settled['process.accept'].place} dispatch only costs with one worker; use shared, or --workers N"
        )
    if "process.steal" in settled and _value(settled, "process.accept") != "reuseport":
        notes.append(f"{settled['process.steal'].place} has no effect without --reuseport")
    if _value(settled, "limit.max_requests_jitter") and not _value(settled, "limit.max_requests"):
        notes.append(f"{settled['limit.max_requests_jitter'].place} has no effect without --limit-max-requests")
    if _value(settled, "reload.enabled"):
        _one_worker_for_reload(settled, notes)
        if _value(settled, "timeout.worker"):
            place = settled["timeout.worker"].place
            notes.append(f"{place} has no effect with --reload: a breakpoint stops the loop, too")
    else:
        notes += [
            f"{settled[path].place} has no effect without --reload"
            for path in ("reload.dirs", "reload.includes", "reload.excludes", "reload.delay")
            if _value(settled, path)
        ]
    return settled, notes


def _value(given: dict[str, Given], path: str) -> Any:
    return given[path].value if path in given else None


# The four ways to say where to listen; a value that is empty or "none" says nothing.
_WAYS = (("listen.host", "listen.port"), ("listen.bind",), ("listen.uds",), ("listen.fd",))


def _one_way_to_listen(given: dict[str, Given], found: Mistakes) -> dict[str, Given]:
    """Two ways in one layer contradict each other; a way in a higher layer replaces those below.

    Thus ``--uds`` works in an image whose environment sets AIOSERVE_HOST.
    """
    said = [[given[path] for path in way if path in given and given[path].value not in {None, "", ()}] for way in _WAYS]
    used = [way for way in said if way]
    if len(used) < 2:
        return given
    top = max(one.layer for way in used for one in way)
    highest = [way for way in used if any(one.layer == top for one in way)]
    if len(highest) > 1:
        places = " and ".join(next(one.place for one in way if one.layer == top) for way in highest)
        found.lines.append(f"{places} contradict each other; keep one (several addresses: repeat --bind)")
        return given
    winner = _WAYS[said.index(highest[0])]
    dropped = {path for way in _WAYS if way != winner for path in way}
    return {path: one for path, one in given.items() if path not in dropped}


def _no_mistaken_pattern(given: dict[str, Given], found: Mistakes) -> None:
    accept, workers = given.get("process.accept"), given.get("process.workers")
    if accept is None:
        return
    if accept.value == "single" and workers is not None and (workers.value or 1) > 1:
        found.lines.append(
            f"{workers.place}: {workers.value} workers contradict single ({accept.place}), which is one process; "
            "use --workers 1, or --accept shared"
        )
    if accept.value == "single" and _value(given, "reload.enabled"):
        found.lines.append(
            f"{given['reload.enabled'].place} contradicts single ({accept.place}): a reload needs a master that starts "
            "the successor; use --accept shared"
        )
    for path in ("limit.max_requests", "limit.worker_age", "limit.worker_memory"):
        if accept.value == "single" and _value(given, path):
            found.lines.append(
                f"{given[path].place} contradicts single ({accept.place}): replacing a worker needs a master that "
                "starts its successor; use --accept shared, also with --workers 1"
            )


def _threads_without_their_pattern(given: dict[str, Given], found: Mistakes) -> list[str]:
    """A pattern that was chosen in a higher layer leaves a number of threads in a lower one without use."""
    threads, accept = given.get("process.threads"), given.get("process.accept")
    if threads is None or not threads.value or (accept is not None and accept.value in {"threads", None}):
        return []
    if accept is not None and accept.layer > threads.layer:
        return [f"{threads.place} has no effect with {accept.value} ({accept.place})"]
    chosen = f"{accept.value} ({accept.place}) has none" if accept is not None else "they need --accept threads"
    found.lines.append(
        f"{threads.place}: threads are event loops of one worker, and {chosen}; use --accept threads, or --workers for "
        "processes"
    )
    return []


def _nothing_loaded_too_early(given: dict[str, Given], found: Mistakes) -> None:
    """The master imports the application with --preload, and as the user that it was started as."""
    if not _value(given, "process.preload"):
        return
    preload = given["process.preload"].place
    if _value(given, "reload.enabled"):
        found.lines.append(
            f"{preload} contradicts {given['reload.enabled'].place}: what was imported once cannot be imported anew; "
            "leave one out"
        )
    if _value(given, "process.accept") == "single":
        found.lines.append(f"{preload} contradicts single ({given['process.accept'].place}), which has no master")
    for path in ("process.user", "process.group"):
        if _value(given, path):
            found.lines.append(
                f"{preload} contradicts {given[path].place}: the application would be imported as the user that the "
                "master is started as; start the server as the other user instead"
            )


def _useless_without_a_master(given: dict[str, Given]) -> list[str]:
    """It looks at workers from outside, and calls the hooks that run in it."""
    if _value(given, "process.accept") != "single":
        return []
    accept = given["process.accept"].place
    paths = ("timeout.worker", "timeout.boot", "hooks.on_master_start", "hooks.on_worker_exit", "hooks.on_reload")
    return [
        f"{given[path].place} has no effect with single ({accept}), which has no master"
        for path in paths
        if _value(given, path)
    ]


def _no_doubles(given: dict[str, Given], found: Mistakes) -> None:
    binds = given.get("listen.bind")
    # With another scheme in front it is the same address.
    for text in _repeated([str(parse_address(text)) for text in (binds.value or () if binds else ()) if text]):
        found.lines.append(f"{binds.place if binds else ''}: {text} is there twice; leave one out")
    mounts = given.get("app.mount")
    prefixes = [text.partition("=")[0] for text in (mounts.value or () if mounts else ()) if text]
    if _value(given, "app.target"):
        prefixes.append("/")
    for prefix in _repeated(prefixes):
        reason = " (APP is mounted there)" if prefix == "/" and _value(given, "app.target") else ""
        found.lines.append(f"{mounts.place if mounts else ''}: {prefix} is taken twice{reason}; change one prefix")


def _limits_of_mounts(given: dict[str, Given], found: Mistakes, *, need_app: bool) -> None:
    """A limit for a mount that does not exist would be one that nobody keeps."""
    limits = given.get("limit.request_body_at")
    if limits is None or not limits.value:
        return
    mounts = {text.partition("=")[0] for text in _value(given, "app.mount") or () if text}
    if _value(given, "app.target") or not need_app:
        mounts.add("/")
    prefixes = [text.rpartition("=")[0] for text in limits.value if text]
    for prefix in _repeated(prefixes):
        found.lines.append(f"{limits.place}: {prefix} is there twice; leave one out")
    for prefix in sorted(set(prefixes) - mounts):
        known = f"; the mounts are {', '.join(sorted(mounts))}" if mounts else ""
        found.lines.append(f"{limits.place}: no application is mounted at {prefix}{known}")


def _repeated(words: list[str] | tuple[str, ...]) -> list[str]:
    return sorted({word for word in words if word and list(words).count(word) > 1})


def _one_worker_for_reload(given: dict[str, Given], notes: list[str]) -> None:
    workers, reload = given.get("process.workers"), given["reload.enabled"]
    if workers is not None and workers.value not in {None, 1}:
        notes.append(f"{reload.place} runs one worker; {workers.place} ({spell_workers(workers.value)}) is not used")
        given["process.workers"] = Given(1, reload.place, reload.layer)
