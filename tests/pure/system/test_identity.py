"""From names and numbers to a user and a group. Becoming it is for tests/process: there is no way back."""

import os
import pwd

import pytest

from aioserve.errors import ConfigError
from aioserve.system.identity import Identity, identify

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else: run these as root")
ME = pwd.getpwuid(os.geteuid())
NOBODY = pwd.getpwnam("nobody")
#: A number that no user has.
UNKNOWN = 54321


def test_nobody_else_is_wanted():
    assert identify("", "") is None


def test_the_user_that_we_are_is_allowed_to_everybody():
    assert identify(ME.pw_name, "").is_ours


@pytest.mark.parametrize("user", ["no-such-user", "x" * 40])
def test_a_user_who_is_not_there_is_a_mistake(user):
    with pytest.raises(ConfigError, match=f"^--user {user}: there is no such user"):
        identify(user, "")


def test_a_group_that_is_not_there_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^--group no-such-group: there is no such group"):
        identify("", "no-such-group")


@needs_root
def test_a_user_brings_its_group():
    assert identify("nobody", "") == Identity(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, name="nobody", home=NOBODY.pw_dir)


@needs_root
def test_a_number_is_looked_up():
    assert identify(str(NOBODY.pw_uid), "") == identify("nobody", "")


@needs_root
def test_a_number_that_nobody_has_is_taken_as_it_is():
    assert identify(str(UNKNOWN), "") == Identity(uid=UNKNOWN, gid=UNKNOWN)
    assert identify(str(UNKNOWN), "7") == Identity(uid=UNKNOWN, gid=7)


@needs_root
def test_a_group_alone_leaves_the_user():
    found = identify("", "12345")
    assert (found.uid, found.gid) == (0, 12345)


@needs_root
def test_somebody_who_is_not_root_is_told_what_to_do():
    os.seteuid(NOBODY.pw_uid)
    try:
        with pytest.raises(ConfigError, match=r"^--user and --group: only root can become somebody else; start"):
            identify("root", "root")
    finally:
        os.seteuid(0)


@needs_root
def test_files_are_given_away_and_made_where_they_are_missing(tmp_path):
    (tmp_path / "there").write_text("kept\n")
    identify("nobody", "").own([f"{tmp_path}/there", f"{tmp_path}/made"])
    assert {entry.stat().st_uid for entry in tmp_path.iterdir()} == {NOBODY.pw_uid}
    assert (tmp_path / "there").read_text() == "kept\n"


@needs_root
def test_a_link_is_not_followed_to_a_file_of_somebody_elses(tmp_path):
    (tmp_path / "secret").write_text("")
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    identify("nobody", "").own([f"{tmp_path}/log"])
    assert (tmp_path / "secret").stat().st_uid == 0
