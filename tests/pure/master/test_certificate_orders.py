"""Who is told of new certificates, and with which ones children are born. Inspections are made at once, in here."""

import os
import resource

import pytest

from aioserve.config.tree import Ssl
from aioserve.errors import ConfigError
from aioserve.master.certificates import SOON, Certificates
from aioserve.master.channel import pair
from aioserve.master.events import Exited, Mark, Milestone, Prepared, Role, Spawned, Started, Unlisten
from aioserve.master.hands import Kin
from aioserve.master.slots import Policy
from aioserve.observe.scoreboard import GENERATION, Scoreboard
from aioserve.tls.findings import DAY
from aioserve.tls.keeper import INTERVAL, Keeper
from aioserve.tls.sets import Show, adopt
from aioserve.tls.take import here, take
from tests.tls import Authority

AUTHORITY = Authority(intermediates=1)
POLICY = Policy(
    boot_timeout=1, worker_limit=1, drain_delay=0, grace=1, margin=1, linger=0, boot_failure_ends=True, no_reload=""
)


class Inspecting:
    """Knows at the second look."""

    pid = 99

    def __init__(self, material):
        self.material = material
        self.looks = 0
        self.ended = False

    def hear(self, now):
        self.looks += 1
        return here(self.material) if self.looks > 1 else None

    def reaped(self):
        self.pid = 0

    def end(self):
        self.ended = True


class Scene:
    """A master with some children: ``roles`` by process id, all of generation 1."""

    def __init__(self, folder, roles=None, *, begin=Inspecting, **settings):
        self.folder = folder
        self.settings = settings
        self.begun = []
        self.now = 0.0
        self.keeper = Keeper(self.ssl(AUTHORITY.server("one")), take(self.ssl()))
        self.certificates = Certificates(
            self.keeper,
            lambda role: role is Role.WORKER,
            begin=lambda material: self.record(begin(material)),
            inspect=here,
            clock=lambda: self.now,
        )
        self.kin, self.ends = {}, {}
        self.certificates.join(self.kin)
        for pid, role in (roles or {1: Role.WORKER}).items():
            self.born(pid, role)

    def record(self, inspection):
        self.begun.append(inspection)
        return inspection

    def ssl(self, certificate=None, name="server", **more):
        if certificate is not None:
            certificate.write(self.folder, name)
        paths = {"certfile": (f"{self.folder}/{name}.crt",), "keyfile": (f"{self.folder}/{name}.key",)}
        return Ssl(**{**paths, **self.settings, **more})

    def born(self, pid, role=Role.WORKER, generation=1):
        master, self.ends[pid] = pair()
        row = Scoreboard(1).row(0, 0)
        row.cells[GENERATION] = generation
        self.kin[pid] = Kin(master, row, None, role)
        self.certificates.saw(Spawned(role, 0, 0, pid), (), self.now)

    def tick(self, count=1):
        for _ in range(count):
            self.now = self.certificates.wake_at or self.now
            self.certificates.tick(self.now)

    def renew(self, name="two"):
        """Two looks at new files, and two at their inspection."""
        AUTHORITY.server(name).write(self.folder)
        self.tick(4)

    def reload(self, ssl, generation=2):
        self.certificates.reload(ssl)
        self.certificates.saw(Prepared(generation, 1, POLICY), (), self.now)

    def names(self, ssl=None):
        return self.certificates.stock(ssl or self.keeper.ssl).chosen.report.certificates[0].names

    def heard(self, pid):
        """The names of the sets that a child was told to show."""
        found = []
        while orders := self.ends[pid].hear()[0]:
            for order in orders:
                assert isinstance(order, Show)
                chosen = adopt(order.descriptors)
                assert chosen.material.read(chosen.material.pairs[0].key).startswith(b"-----BEGIN")
                chosen.close()
                found.append(chosen.report.certificates[0].names)
        return found

    def close(self):
        self.certificates.close()
        for kin in self.kin.values():
            kin.channel.close()
        for end in self.ends.values():
            end.close()


@pytest.fixture
def scene(tmp_path):
    scenes = []

    def made(*arguments, **settings):
        scenes.append(Scene(tmp_path, *arguments, **settings))
        return scenes[-1]

    yield made
    for one in scenes:
        one.close()


def test_files_are_looked_at_twice_a_second_and_an_inspection_often(scene):
    one = scene()
    AUTHORITY.server("two").write(one.folder)
    waits = []
    for _ in range(5):
        one.tick()
        waits.append(round(one.certificates.wake_at - one.now, 3))
    assert waits[0] == waits[3] == waits[4] == INTERVAL
    assert waits[2] == SOON
    (inspection,) = one.begun
    assert inspection.ended


def test_those_who_show_certificates_are_told_of_new_ones_and_nobody_else(scene):
    one = scene({1: Role.WORKER, 2: Role.WORKER, 3: Role.DISPATCHER, 4: Role.WATCHER})
    one.tick(3)
    assert one.begun == []
    one.renew()
    assert [one.heard(pid) for pid in (1, 2, 3, 4)] == [[("two",)], [("two",)], [], []]
    one.tick(3)
    assert one.heard(1) == []


def test_who_is_born_later_has_them_already(scene):
    one = scene()
    one.renew()
    one.born(5)
    one.tick(2)
    assert one.heard(5) == []
    assert one.names() == ("two",)


def test_the_front_stays_so_that_sessions_are_resumed(scene):
    one = scene()
    front = one.certificates.stock(one.keeper.ssl).front
    one.renew()
    assert one.certificates.stock(one.keeper.ssl).front is front


def test_what_is_refused_is_told_to_nobody(scene):
    one = scene()
    (one.folder / "server.key").write_bytes(AUTHORITY.server().key)
    one.tick(6)
    assert len(one.begun) == 1
    assert one.heard(1) == []
    assert one.names() == ("one",)


def test_files_that_cannot_be_read_are_not_inspected(scene):
    one = scene()
    (one.folder / "server.key").unlink()
    one.tick(4)
    assert one.begun == []
    assert one.names() == ("one",)


def test_who_has_not_read_for_long_is_told_later(scene):
    one = scene()
    channel = one.kin[1].channel
    while channel.order(Show((0,))):
        pass
    one.renew()
    for order in one.ends[1].hear()[0] + one.ends[1].hear()[0]:
        for descriptor in order.descriptors:
            os.close(descriptor)
    while any(len(order.descriptors) == 1 for order in one.ends[1].hear()[0]):
        pass
    one.tick()
    assert one.heard(1)[-1:] == [("two",)]


def test_a_child_that_has_gone_is_forgotten(scene):
    one = scene()
    one.certificates.saw(Exited(1, 0, "", False), (), one.now)
    one.kin.pop(1).channel.close()
    one.renew()
    assert one.heard(1) == []


def test_an_inspector_that_others_have_reaped_is_not_waited_for(scene):
    one = scene()
    AUTHORITY.server("two").write(one.folder)
    one.tick(2)
    one.certificates.saw(Exited(99, 0, "", False), (), one.now)
    assert one.begun[0].pid == 0


def test_the_end_stops_an_inspection_and_the_looks(scene):
    one = scene()
    AUTHORITY.server("two").write(one.folder)
    one.tick(2)
    one.certificates.saw(Started(), (Unlisten(),), one.now)
    assert one.begun[0].ended
    assert one.certificates.wake_at is None


def test_an_inspector_that_cannot_be_forked_is_tried_again(scene, caplog):
    tries = []

    def begin(material):
        tries.append(material)
        if len(tries) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return Inspecting(material)

    one = scene(begin=begin)
    AUTHORITY.server("two").write(one.folder)
    one.tick(3)
    assert caplog.text.count("cannot be inspected yet: fork: Resource temporarily unavailable") == 1
    one.tick(3)
    assert one.heard(1) == [("two",)]


def test_without_descriptors_nobody_is_told_until_there_are_some(scene):
    one = scene()
    AUTHORITY.server("two").write(one.folder)
    one.tick(3)
    # What it says is known before.
    report = here(one.begun[0].material)
    one.begun[0].hear = lambda _now: report
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        one.tick()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert one.heard(1) == []
    one.tick()
    assert one.heard(1) == [("two",)]


# Settings that are read again.


def test_the_same_settings_with_the_same_files_are_nothing_new(scene):
    one = scene()
    stock = one.certificates.stock(one.keeper.ssl)
    one.reload(one.ssl())
    assert one.certificates.stock(one.keeper.ssl) == stock
    assert one.heard(1) == []


def test_the_same_settings_find_new_files_at_once_and_all_are_told(scene):
    one = scene()
    AUTHORITY.server("two").write(one.folder)
    one.tick(2)
    one.reload(one.ssl())
    assert one.heard(1) == [("two",)]
    assert one.begun[0].ended
    one.tick(3)
    assert one.heard(1) == []


def test_a_generation_keeps_what_its_own_settings_have_found(scene):
    one = scene()
    before = one.keeper.ssl
    wanted = one.ssl(AUTHORITY.server("other"), "other")
    one.reload(wanted)
    # The reload may fail, and a worker of before die.
    assert one.names(before) == ("one",)
    assert one.names(wanted) == ("other",)
    one.born(2, generation=2)
    AUTHORITY.server("newer").write(one.folder, "other")
    one.tick(4)
    assert one.heard(2) == [("newer",)]
    assert one.heard(1) == []
    assert one.names(before) == ("one",)


def test_after_a_reload_that_failed_the_files_of_before_are_looked_at_again(scene):
    one = scene()
    before = one.keeper.ssl
    one.reload(one.ssl(AUTHORITY.server("other"), "other"))
    AUTHORITY.server("newer").write(one.folder, "other")
    one.tick(2)
    one.certificates.saw(Started(), (Mark(Milestone.SERVING, "", failed=True),), one.now)
    assert one.begun[0].ended
    assert one.keeper.ssl == before
    one.renew()
    assert one.heard(1) == [("two",)]
    assert one.names(before) == ("two",)


def test_after_a_reload_that_succeeded_another_failure_changes_nothing(scene):
    one = scene()
    wanted = one.ssl(AUTHORITY.server("other"), "other")
    one.reload(wanted)
    for failed in (False, True):
        one.certificates.saw(Started(), (Mark(Milestone.SERVING, "", failed=failed),), one.now)
    assert one.keeper.ssl == wanted


def test_while_a_generation_is_prepared_nobody_is_told(scene):
    one = scene()
    one.certificates.reload(one.ssl(AUTHORITY.server("other"), "other"))
    one.tick(2)
    assert one.heard(1) == []


def test_settings_of_long_ago_are_forgotten(scene):
    one = scene()
    first = one.keeper.ssl
    for number in range(5):
        one.reload(one.ssl(ciphers="HIGH" + ":HIGH" * number))
    assert one.names(first) == ("one",)
    assert one.certificates.stock(first) is one.certificates.stock(one.keeper.ssl)


def test_settings_that_come_back_leave_nothing_open(scene):
    one = scene()
    first, second = one.keeper.ssl, one.ssl(ciphers="HIGH")
    one.reload(second)
    opened = set(os.listdir("/proc/self/fd"))
    one.reload(first, 3)
    one.reload(second, 4)
    assert set(os.listdir("/proc/self/fd")) == opened


def test_of_settings_that_come_back_others_are_forgotten_first(scene):
    one = scene()
    first, *others = (one.ssl(ciphers="HIGH" + ":HIGH" * number) for number in range(5))
    for ssl in (first, *others[:2], first, *others[2:]):
        one.reload(ssl)
    stocks = [one.certificates.stock(ssl) for ssl in (first, *others)]
    assert stocks[0] is not stocks[-1]
    assert stocks[1] is stocks[-1]


def test_settings_that_are_bad_change_nothing(scene):
    one = scene()
    stock = one.certificates.stock(one.keeper.ssl)
    with pytest.raises(ConfigError):
        one.certificates.reload(one.ssl(name="nothing"))
    assert one.certificates.stock(one.keeper.ssl) is stock
    one.renew()
    assert one.heard(1) == [("two",)]


def test_another_wish_for_clients_certificates_makes_a_new_front(scene):
    one = scene()
    path = AUTHORITY.write(one.folder)
    front = one.certificates.stock(one.keeper.ssl).front
    one.reload(one.ssl(ca_certs=str(path), cert_reqs="optional"))
    optional = one.certificates.stock(one.keeper.ssl).front
    one.reload(one.ssl(ca_certs=str(path), cert_reqs="required"), 3)
    required = one.certificates.stock(one.keeper.ssl).front
    assert len({id(front), id(optional), id(required)}) == 3


def test_other_authorities_make_a_new_front(scene, tmp_path):
    path = Authority().write(tmp_path)
    one = scene(ca_certs=str(path), cert_reqs="required")
    front = one.certificates.stock(one.keeper.ssl).front
    Authority().write(tmp_path)
    one.tick(4)
    assert one.certificates.stock(one.keeper.ssl).front is not front
    assert one.heard(1) == [("one",)]


def test_a_reload_after_a_day_makes_a_new_front(scene):
    one = scene()
    front = one.certificates.stock(one.keeper.ssl).front
    one.reload(one.ssl())
    assert one.certificates.stock(one.keeper.ssl).front is front
    one.now += DAY
    one.reload(one.ssl(), 3)
    assert one.certificates.stock(one.keeper.ssl).front is not front
