"""Which files belong together, in every layout that people have."""

import os

import pytest

from aioserve.config.tree import Ssl
from aioserve.tls.places import Pair, _names, look, pair_up


def pairs(listing):
    return [(one.certificate, one.key) for one in pair_up(listing)[0]]


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.crt", "a.key"], [("a.crt", "a.key")]),
        (["a.pem", "a.key"], [("a.pem", "a.key")]),
        (["a.pem"], [("a.pem", "a.pem")]),
        (["b.pem", "a.crt", "a.key"], [("a.crt", "a.key"), ("b.pem", "b.pem")]),
        (["www.example.org.crt", "www.example.org.key"], [("www.example.org.crt", "www.example.org.key")]),
        (["README", "a.txt", "notes.key"], []),
        ([".a.crt", ".a.key"], []),
        (["fullchain.pem", "privkey.pem", "cert.pem", "chain.pem"], [("fullchain.pem", "privkey.pem")]),
        (["tls.crt", "tls.key", "ca.crt"], [("tls.crt", "tls.key")]),
    ],
)
def test_files_of_a_folder_are_paired_by_their_names(names, expected):
    assert pairs({"": names}) == expected


def test_of_two_certificates_with_one_key_the_crt_is_taken():
    assert pairs({"": ["a.crt", "a.pem", "a.key"]}) == [("a.crt", "a.key")]


def test_one_level_down_only_the_known_names_count():
    listing = {
        "shop": ["fullchain.pem", "privkey.pem", "cert.pem", "chain.pem", "README"],
        "blog": ["tls.crt", "tls.key"],
        "archive": ["fullchain1.pem", "privkey1.pem", "a.crt", "a.key"],
    }
    assert pairs(listing) == [("blog/tls.crt", "blog/tls.key"), ("shop/fullchain.pem", "shop/privkey.pem")]


def test_the_folder_itself_comes_before_those_in_it():
    listing = {"a": ["tls.crt", "tls.key"], "": ["z.crt", "z.key"]}
    assert pairs(listing) == [("z.crt", "z.key"), ("a/tls.crt", "a/tls.key")]


def test_a_certificate_without_a_key_is_not_used_and_named():
    assert pair_up({"": ["a.crt", "b.crt", "b.key"]}) == ((Pair("b.crt", "b.key"),), ("a.crt",))


def test_files_are_paired_with_keys_in_their_order():
    found = look(Ssl(certfile=("a", "b"), keyfile=("x", "y")))
    assert found.pairs == (Pair("a", "x"), Pair("b", "y"))
    assert found.paths == ("a", "x", "b", "y")


def test_without_keys_they_are_in_the_certificates_files():
    found = look(Ssl(certfile=("a",)))
    assert found.pairs == (Pair("a", "a"),)
    assert found.paths == ("a",)


def test_authorities_are_looked_at_if_clients_are_asked():
    assert look(Ssl(certfile=("a",), ca_certs="ca", cert_reqs="optional")).paths == ("a", "ca")
    assert look(Ssl(certfile=("a",), ca_certs="ca")).paths == ("a",)


def test_files_come_before_the_folder(tmp_path):
    (tmp_path / "b.pem").touch()
    found = look(Ssl(certfile=("a",), certdir=str(tmp_path)))
    assert found.pairs == (Pair("a", "a"), Pair(f"{tmp_path}/b.pem", f"{tmp_path}/b.pem"))


def test_an_empty_folder_is_a_problem_unless_there_are_files(tmp_path):
    (problem,) = look(Ssl(certdir=str(tmp_path))).problems
    assert problem.startswith(f"{tmp_path} has no certificate: put in NAME.crt")
    assert look(Ssl(certfile=("a",), certdir=str(tmp_path))).problems == ()


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    assert look(Ssl(certdir=f"{tmp_path}/x")).problems == (f"{tmp_path}/x cannot be read: No such file or directory",)


def test_what_is_not_used_is_doubtful(tmp_path):
    (tmp_path / "a.crt").touch()
    (tmp_path / "b.pem").touch()
    (doubt,) = look(Ssl(certdir=str(tmp_path))).doubts()
    assert str(doubt) == f"{tmp_path}/a.crt has no key beside it, NAME.key: it is not shown"


def kubernetes(folder, version, content):
    """As the kubelet writes a secret: new files in a folder of their own, and then ``..data`` leads there."""
    there = folder / f"..{version}"
    there.mkdir()
    for name in ("tls.crt", "tls.key"):
        (there / name).write_text(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(there.name)
    os.replace(folder / "..data_tmp", folder / "..data")


def test_a_secret_of_kubernetes_is_another_one_after_its_swap(tmp_path):
    kubernetes(tmp_path, 1, "old")
    ssl = Ssl(certdir=str(tmp_path))
    before = look(ssl)
    assert before.pairs == (Pair(f"{tmp_path}/tls.crt", f"{tmp_path}/tls.key"),)
    stamp = before.stamp()
    assert look(ssl).stamp() == stamp
    kubernetes(tmp_path, 2, "new")
    assert look(ssl).pairs == before.pairs
    assert look(ssl).stamp() != stamp


def test_several_secrets_are_mounted_one_level_down(tmp_path):
    for name in ("shop", "blog"):
        (tmp_path / name).mkdir()
        kubernetes(tmp_path / name, 1, name)
    assert [one.certificate for one in look(Ssl(certdir=str(tmp_path))).pairs] == [
        f"{tmp_path}/blog/tls.crt",
        f"{tmp_path}/shop/tls.crt",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.pem").write_text("longer than before"),
        lambda folder: (folder / "a.pem").unlink(),
        lambda folder: (folder / "b.pem").touch(),
        lambda folder: (folder / "c.crt").touch(),
        lambda folder: os.replace(folder / "beside", folder / "a.pem"),
    ],
    ids=["written", "removed", "added", "added without a key", "replaced"],
)
def test_each_change_of_the_files_is_seen(tmp_path, change):
    (tmp_path / "a.pem").write_text("x")
    (tmp_path / "beside").write_text("x")
    ssl = Ssl(certdir=str(tmp_path))
    before = look(ssl).stamp()
    change(tmp_path)
    assert look(ssl).stamp() != before


def test_a_link_that_leads_nowhere_and_a_folder_that_is_closed_are_no_certificates(tmp_path):
    (tmp_path / "sub").symlink_to("nowhere")
    (tmp_path / "a.pem").touch()
    assert len(look(Ssl(certdir=str(tmp_path))).pairs) == 1


def test_a_folder_in_it_that_cannot_be_read_has_nothing(tmp_path):
    assert _names(f"{tmp_path}/gone") == []


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path):
    for name in ("a.crt", "loop.crt", "loop.key"):
        (tmp_path / name).symlink_to("loop.crt" if name != "a.crt" else "a.crt")
    found = look(Ssl(certdir=str(tmp_path)))
    assert found.problems == ()
    assert [pair.certificate for pair in found.pairs] == [f"{tmp_path}/loop.crt"]
