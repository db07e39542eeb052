"""Files are copied without being read, and cut out again."""

import fcntl
import os
import ssl

import pytest

from aioserve.tls.findings import Report
from aioserve.tls.material import LARGEST, Material, Source, copy
from aioserve.tls.memory import Nameless, Sealed
from aioserve.tls.places import Pair, Places
from aioserve.tls.sets import CertificateSet, adopt
from tests.descriptors import few_descriptors
from tests.tls import Authority

MEMORIES = [pytest.param(Sealed(), id="sealed"), pytest.param(Nameless(), id="nameless")]


@pytest.fixture
def files(tmp_path):
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    pair = Pair(str(tmp_path / "cert"), str(tmp_path / "key"))
    return Places((pair, Pair(pair.certificate, pair.certificate)), str(tmp_path / "ca"))


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("memory", MEMORIES)
def test_each_file_is_cut_out_as_it_was(files, memory):
    material, problems = copy(files, "secret", memory)
    assert problems == []
    pair, together = material.pairs
    assert together.certificate is together.key is pair.certificate
    with material.opened(pair.certificate, pair.key, pair.certificate) as paths:
        assert list(map(content, paths)) == [b"cert" * 1000, b"key" * 1000, b"cert" * 1000]
    assert not any(map(os.path.exists, paths))
    assert material.read(material.authorities) == b"ca" * 1000
    assert material.password == "secret"
    material.close()
    material.close()


@pytest.mark.parametrize("memory", MEMORIES)
def test_openssl_loads_from_what_was_cut_out(tmp_path, memory):
    both = str(Authority().server().write_together(tmp_path))
    material, _ = copy(Places((Pair(both, both),)), memory=memory)
    (pair,) = material.pairs
    with material.opened(pair.certificate, pair.key) as (certificate, key):
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    material.close()


def test_nobody_changes_what_was_copied(files):
    material, _ = copy(files)
    for act in (
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 1),
        lambda fd: os.pwrite(fd, b"x", 9000),
    ):
        with pytest.raises(PermissionError):
            act(material.descriptor)
    assert os.fstat(material.descriptor).st_mode & 0o777 == 0o600
    assert fcntl.fcntl(material.descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    material.close()


def test_everything_that_cannot_be_read_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(LARGEST + 1)
    there = Places((Pair(f"{tmp_path}/none", str(tmp_path)), Pair(f"{tmp_path}/pipe", f"{tmp_path}/large")))
    before = len(os.listdir("/proc/self/fd"))
    assert copy(there) == (
        None,
        [
            f"{tmp_path}/none cannot be read: No such file or directory",
            f"{tmp_path} cannot be read: Is a directory",
            f"{tmp_path}/pipe cannot be read: it is not a regular file",
            f"{tmp_path}/large cannot be read: it has 4 MiB, which no certificate has",
        ],
    )
    assert len(os.listdir("/proc/self/fd")) == before


def test_problems_of_the_places_are_passed_on():
    assert copy(Places((), problems=("x has no certificate",))) == (None, ["x has no certificate"])


@pytest.mark.parametrize("authorities", [None, Source("ca", 9, 3)])
def test_a_set_is_handed_over_by_descriptors(files, authorities):
    material, _ = copy(files, "secret")
    given = CertificateSet(
        Material(material.descriptor, material.pairs, authorities, "secret"), Report(authorities="x")
    )
    taken = adopt([os.dup(given.material.descriptor), given.facts()])
    given.close()
    assert taken.material.pairs == given.material.pairs
    assert taken.material.authorities == authorities
    assert taken.material.password == "secret"
    assert taken.report == given.report
    assert taken.material.read(taken.material.pairs[0].key) == b"key" * 1000
    assert not os.get_inheritable(taken.material.descriptor)
    taken.close()


def test_a_set_of_which_a_part_is_missing_is_refused_and_closed():
    read, write = os.pipe()
    with pytest.raises(ValueError):
        adopt([read])
    with pytest.raises(OSError):
        os.fstat(read)
    os.close(write)


def test_a_lack_of_descriptors_is_told():
    with few_descriptors():
        found = copy(Places(()))
    assert found == (None, ["certificates cannot be copied: Too many open files"])
