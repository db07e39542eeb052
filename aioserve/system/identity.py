"""Who the server is: the user and group that it becomes once the sockets are bound.

The master stays what it was started as, as nginx's and gunicorn's do: it binds the socket of a further worker, removes
the pid file and signals workers of another user. Those that run the application become the user for good.
"""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aioserve.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

# The user may write to the directory of its log files, and would be given whatever it has put a link to.
_OWNING: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user and a group. ``name`` and ``home`` are empty for a number that has no entry in the user database."""

    uid: int
    gid: int
    name: str = ""
    home: str = ""

    @property
    def is_ours(self) -> bool:
        """This process is it already."""
        return (os.geteuid(), os.getegid()) == (self.uid, self.gid)

    def assume(self) -> None:
        """Become this user, with all its groups and no way back."""
        if self.is_ours and os.geteuid() != 0:
            return
        if self.name:
            os.initgroups(self.name, self.gid)
        else:
            os.setgroups([self.gid])
        os.setgid(self.gid)
        os.setuid(self.uid)
        if self.home and self.uid != 0:
            # Libraries look here for their caches; root's home is closed to them.
            os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)

    def own(self, paths: Iterable[str]) -> None:
        """Give these files to this user, and make those that are missing."""
        for path in paths:
            with suppress(OSError):  # whoever opens it says what is wrong, with the name of the setting
                descriptor = os.open(path, _OWNING, 0o644)
                try:
                    os.fchown(descriptor, self.uid, self.gid)
                finally:
                    os.close(descriptor)


def identify(user: str, group: str) -> Identity | None:
    """From ``--user`` and ``--group``, names or numbers; None if neither is given. Raises ``ConfigError``.

    A user alone brings its own group, a group alone leaves the user as it is.
    """
    if not user and not group:
        return None
    entry = _user(user) if user else _user(str(os.geteuid()))
    gid = _group(group) if group else entry.gid
    wanted = Identity(uid=entry.uid, gid=gid, name=entry.name, home=entry.home)
    if not wanted.is_ours and os.geteuid() != 0:
        flags = " and ".join(flag for flag, value in (("--user", user), ("--group", group)) if value)
        raise ConfigError(
            [f"{flags}: only root can become somebody else; start the server as root, or as that user and without them"]
        )
    return wanted


def _user(text: str) -> Identity:
    try:
        found = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        if not text.isdecimal():
            raise ConfigError([f"--user {text}: there is no such user; add it, or give a number"]) from None
        # A container's usual case: a number without an entry. Its group is then the one that has this number.
        return Identity(uid=int(text), gid=int(text))
    return Identity(uid=found.pw_uid, gid=found.pw_gid, name=found.pw_name, home=found.pw_dir)


def _group(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError([f"--group {text}: there is no such group; add it, or give a number"]) from None
