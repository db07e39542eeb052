"""When other files are taken, when they are refused, and what is said. Files are real, the clock is not."""

import itertools
import logging
import time

import pytest

from aioserve.config.tree import Ssl
from aioserve.errors import ConfigError
from aioserve.tls.keeper import PATIENCE, RETRY, Keeper
from aioserve.tls.take import here, take
from tests.descriptors import few_descriptors
from tests.pure.tls.odd_certificates import make
from tests.tls import Authority

DAY = 86400


class Site:
    """A certificate that is kept, and can be replaced by others."""

    def __init__(self, folder, caplog, certificate, **settings):
        self.folder, self.caplog = folder, caplog
        caplog.set_level(logging.INFO)
        self.paths = certificate.write(folder)
        self.ssl = Ssl(certfile=(str(self.paths[0]),), keyfile=(str(self.paths[1]),), **settings)
        self.now = time.time()
        self.keeper = Keeper(self.ssl, take(self.ssl), lambda: self.now)

    def put(self, certificate):
        certificate.write(self.folder)

    def looks(self, count):
        return [self.keeper.look() for _ in range(count)]

    def judge(self):
        """As whoever has a clock does: copy, inspect, judge; the new set, or None."""
        copied = self.keeper.copy()
        if copied is None:
            return None
        before = self.keeper.current
        chosen = self.keeper.judge(copied, here(copied))
        if chosen is not None:
            before.close()
        return chosen

    def patiently(self):
        """What is said of files that have been wrong for long enough."""
        assert self.said() == []
        self.now += PATIENCE
        self.keeper.remind()
        return self.said()

    def said(self):
        lines = [(one.levelname, one.getMessage().replace(f"{self.folder}/", "")) for one in self.caplog.records]
        self.caplog.clear()
        return lines


@pytest.fixture
def site(tmp_path, caplog):
    sites = []

    def made(certificate=None, **settings):
        sites.append(Site(tmp_path, caplog, certificate or make("old.example")[0], **settings))
        return sites[-1]

    yield made
    for one in sites:
        one.keeper.current.close()


def test_the_start_says_what_is_shown(site):
    one = site(make(days=10)[0])
    one.keeper.announce()
    (level, shown), (doubt_level, doubt), (reminder_level, reminder) = one.said()
    assert (level, doubt_level, reminder_level) == ("INFO", "WARNING", "WARNING")
    assert shown.startswith("certificate server.crt: no name, ECDSA, by itself, until 20")
    assert doubt == "server.crt has no names (subjectAltName): browsers refuse it"
    assert reminder.startswith("server.crt expires in 10 days (")


def test_the_start_says_what_is_doubtful_about_ciphers(site):
    one = site(ciphers="ECDHE+AESGCM:AES128-SHA")
    one.keeper.announce()
    assert one.said()[1] == (
        "WARNING",
        "ssl.ciphers allows ciphers without forward secrecy or without authenticated encryption: AES128-SHA",
    )


def test_one_that_has_expired_is_shown_at_the_start_and_said_loudly(site):
    one = site(make("a", since=-9, days=-1)[0])
    one.keeper.announce()
    assert [level for level, _ in one.said()] == ["INFO", "ERROR"]


def test_one_that_is_not_valid_yet_is_shown_and_said(site):
    one = site(make("a", since=1, days=20)[0])
    one.keeper.announce()
    (_, (level, line)) = one.said()
    assert level == "ERROR"
    assert line.startswith("server.crt is not valid before 20")


def test_files_that_nobody_touches_are_not_looked_at_twice(site):
    assert site().looks(4) == [False] * 4


def test_new_files_are_taken_once_two_looks_have_seen_the_same(site):
    one = site()
    one.put(make("a")[0])
    assert one.looks(1) == [False]
    one.put(make("b")[0])
    assert one.looks(2) == [False, True]


def test_a_good_set_becomes_the_current_one(site):
    one = site()
    one.put(make("new.example")[0])
    assert one.looks(2)[-1]
    chosen = one.judge()
    assert chosen is one.keeper.current
    assert chosen.report.certificates[0].names == ("new.example",)
    ((level, line),) = one.said()
    assert level == "INFO"
    assert line.startswith("new certificate server.crt: new.example, ECDSA")
    assert one.looks(3) == [False] * 3


def test_a_bad_set_is_refused_once_and_the_old_one_stays(site):
    one = site()
    before = one.keeper.current
    one.paths[1].write_bytes(make("x")[0].key)
    assert one.looks(2)[-1]
    assert one.judge() is None
    assert one.keeper.current is before
    assert before.material.descriptor >= 0
    ((level, line),) = one.patiently()
    assert level == "ERROR"
    assert line.startswith(
        "the new certificates are refused: server.key is not the key of the certificate in server.crt; the old ones "
        "stay (valid until 20"
    )
    assert one.looks(4) == [False] * 4
    one.put(make("y")[0])
    assert one.looks(2)[-1]
    assert one.judge() is not None


def test_a_pair_that_is_written_slowly_is_no_mistake(site):
    one = site()
    new = make("new")[0]
    one.paths[1].write_bytes(new.key)
    assert one.looks(2)[-1]
    assert one.judge() is None
    one.paths[0].write_bytes(new.chain)
    assert one.looks(2)[-1]
    assert one.judge() is not None
    one.now += PATIENCE
    one.keeper.remind()
    assert [line[:15] for _, line in one.said()] == ["new certificate"]


def test_what_is_refused_is_tried_again_every_five_minutes_and_said_every_day(site):
    one = site()
    one.paths[1].unlink()
    assert one.looks(2)[-1]
    tries, lines = [], []
    for second in range(0, 2 * DAY, 15):
        one.now += 15
        if one.keeper.look():
            tries.append(second)
            assert one.judge() is None
        one.keeper.remind()
        lines += one.said()
    assert [later - earlier for earlier, later in itertools.pairwise(tries)] == [RETRY] * (len(tries) - 1)
    assert [level for level, line in lines if "are refused" in line] == ["ERROR"] * 2


def test_a_set_that_could_not_be_copied_is_taken_at_the_next_attempt(site):
    one = site()
    one.put(make("new.example")[0])
    assert one.looks(2)[-1]
    with few_descriptors():
        assert one.judge() is None
    assert one.looks(1) == [False]
    one.now += RETRY
    assert one.looks(1) == [True]
    assert one.judge().report.certificates[0].names == ("new.example",)


def test_a_file_that_has_gone_is_a_bad_set(site):
    one = site()
    one.paths[1].unlink()
    assert one.looks(2)[-1]
    assert one.judge() is None
    assert "server.key cannot be read: No such file or directory; the old ones stay" in one.patiently()[0][1]
    assert one.looks(4) == [False] * 4


def test_one_that_has_expired_does_not_replace_a_good_one(site):
    one = site()
    one.put(make("a", since=-9, days=-1)[0])
    assert one.looks(2)[-1]
    assert one.judge() is None
    assert "server.crt has expired on 20" in one.patiently()[0][1]


def test_one_that_has_expired_replaces_another_that_has(site):
    one = site(make("a", since=-9, days=-5)[0])
    one.put(make("a", since=-9, days=-1)[0])
    assert one.looks(2)[-1]
    assert one.judge() is not None
    assert [level for level, _ in one.said()] == ["INFO", "ERROR"]


def test_an_inspection_that_failed_for_another_reason_is_tried_again(site):
    one = site()
    one.put(make("a")[0])
    assert one.looks(2)[-1]
    one.keeper.copy().close()
    assert one.looks(1) == [False]
    one.keeper.again()
    assert one.looks(1) == [True]


def test_what_comes_to_a_folder_and_leaves_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    Authority(intermediates=1).server("a").write(tmp_path, "a")
    ssl = Ssl(certdir=str(tmp_path))
    keeper = Keeper(ssl, take(ssl))
    (tmp_path / "a.crt").rename(tmp_path / "b.crt")
    (tmp_path / "a.key").rename(tmp_path / "b.key")
    (tmp_path / "c.crt").touch()
    assert [keeper.look(), keeper.look()] == [False, True]
    before, copied = keeper.current, keeper.copy()
    chosen = keeper.judge(copied, here(copied))
    before.close()
    chosen.close()
    came, went, doubt = [one.getMessage().replace(f"{tmp_path}/", "") for one in caplog.records]
    assert came.startswith("new certificate b.crt: a, ECDSA")
    assert went == "certificate a.crt is shown no more"
    assert doubt == "c.crt has no key beside it, NAME.key: it is not shown"


def test_other_authorities_are_said(site, tmp_path):
    path = Authority().write(tmp_path)
    one = site(ca_certs=str(path), cert_reqs="required")
    Authority().write(tmp_path)
    assert one.looks(2)[-1]
    assert one.judge() is not None
    assert one.said() == [("INFO", "other authorities verify clients from now on; sessions of before are not resumed")]


def test_settings_that_are_read_again_with_the_same_files_are_nothing_new(site):
    one = site()
    assert not one.keeper.reload(one.ssl, pytest.fail)
    assert one.said() == []


def test_settings_that_are_read_again_find_files_that_no_look_has_seen(site):
    one = site()
    before = one.keeper.current
    one.put(make("new")[0])
    assert one.keeper.reload(one.ssl, here)
    before.close()
    assert one.keeper.current.report.certificates[0].names == ("new",)
    assert one.looks(3) == [False] * 3


def test_other_settings_are_followed(site, tmp_path):
    one = site()
    before = one.keeper.current
    path = make("other")[0].write_together(tmp_path, "other")
    wanted = Ssl(certfile=(str(path),))
    assert one.keeper.reload(wanted, here)
    before.close()
    assert one.keeper.ssl == wanted
    assert [line[:42] for _, line in one.said()] == [
        "new certificate other.pem: other, ECDSA, b",
        "certificate server.crt is shown no more",
    ]


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda one: one.paths[1].unlink(), "cannot be read"),
        (lambda one: one.put(make("a", since=-9, days=-1)[0]), "has expired on"),
    ],
)
def test_settings_that_are_read_again_with_bad_files_change_nothing(site, change, problem):
    one = site()
    before = one.keeper.current
    change(one)
    with pytest.raises(ConfigError, match=problem):
        one.keeper.reload(one.ssl, here)
    assert one.keeper.current is before
    assert before.material.descriptor >= 0


def test_reminders_come_once_a_day(site):
    one = site(make("a", days=30)[0])
    days = []
    for day in range(32):
        one.now = time.time() + day * DAY
        one.keeper.remind()
        one.keeper.remind()
        days.append([level for level, _ in one.said()])
    assert days == [[]] * 16 + [["WARNING"]] * 12 + [["ERROR"]] * 4
