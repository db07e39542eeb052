"""The table of requirements is complete, and its own checks find what is missing."""

from __future__ import annotations

import pytest

from tests.conformance.requirements import HERE, exists, load, problems, read, render

RFCS = load()

HEAD = """
rfc = 9999
title = "A test"
[others]
client = "it is no server"
[keywords]
"1" = [1, 0]
[[section]]
number = "1"
title = "One"
"""
GOOD = '{ must = "server", says = "be", tests = ["tests/conformance/test_requirements.py::test_a_good_table_passes"] }'


def found(rows, head=HEAD):
    return problems(read(f"{head}rows = [{rows}]\n"))


@pytest.mark.parametrize("rfc", RFCS, ids=lambda rfc: f"RFC {rfc.number}")
def test_every_requirement_has_a_test_or_a_reason(rfc):
    assert problems(rfc) == []


def test_both_rfcs_are_there():
    assert [rfc.number for rfc in RFCS] == [9110, 9112]


@pytest.mark.parametrize("rfc", RFCS, ids=lambda rfc: f"RFC {rfc.number}")
def test_sections_stand_in_their_order(rfc):
    numbers = [tuple(int(part) for part in number.split(".")) for number in rfc.titles]
    assert numbers == sorted(numbers)
    assert list(rfc.titles) == list(rfc.keywords)


def test_the_table_can_be_printed():
    text = render(RFCS)
    rows = sum(len(rfc.rows) for rfc in RFCS)
    assert text.count("| **MUST") == rows
    assert all(line.count(" | ") == 3 for line in text.splitlines() if "| **MUST" in line)


def test_a_good_table_passes():
    assert found(GOOD) == []
    assert found('{ must = "client", says = "be" }') == []
    assert found('{ must = "server", says = "be", application = "is" }') == []
    assert found('{ must = "server", says = "be", does_not_apply = "it is not" }') == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "1 times MUST, but 0 rows"),
        (f"{GOOD}, {GOOD}", "1 times MUST, but 2 rows"),
        ('{ must_not = "client", says = "be" }', "0 times MUST NOT, but 1 rows"),
        ('{ must = "server", says = "be" }', "neither a test nor a reason"),
        ('{ must = "server", says = "be", tests = [] }', "neither a test nor a reason"),
        (
            '{ must = "server", says = "be", tests = ["tests/conformance/test_requirements.py::test_x"] }',
            "no such test",
        ),
        ('{ must = "server", says = "be", tests = ["tests/conformance/test_x.py::test_x"] }', "no such test"),
        ('{ must = "server", says = "be", tests = ["tests/conformance/test_requirements.py"] }', "no such test"),
        ('{ must = "server", says = "be", tests = ["tests/conformance/requirements.py::load"] }', "no such test"),
        ('{ must = "server", says = "be", tests = ["wire:no/such-case"] }', "no such test"),
        (GOOD.replace('"server"', '"client"'), "tests for what does not apply"),
        ('{ must = "client", says = "be", does_not_apply = "x" }', "stands under [others] already"),
        ('{ must = "server", must_not = "server", says = "be", application = "x" }', "either must or must_not"),
        ('{ says = "be", application = "x" }', "either must or must_not"),
        ('{ must = "client" }', "says what is required"),
        ('{ must = "client", says = "be", test = "x" }', "unknown keys ['test']"),
        ('{ must = "client", says = "be", stricter = "x" }', "stricter says something about tests"),
    ],
)
def test_faults_of_a_table_are_found(rows, words):
    assert any(words in problem for problem in found(rows))


def test_a_section_that_is_missing_is_found():
    head = HEAD.replace('"1" = [1, 0]', '"1" = [1, 0]\n"2" = [0, 1]')
    assert found(GOOD, head) == ["RFC 9999 section 2: 1 times MUST NOT, but 0 rows"]


def test_a_section_that_was_not_counted_is_found():
    head = HEAD.replace('"1" = [1, 0]', "")
    assert found(GOOD, head) == ["RFC 9999 section 1: nobody has counted its keywords"]


def test_a_section_that_stands_there_twice_is_found():
    head = f'{HEAD}rows = [{GOOD}]\n[[section]]\nnumber = "1"\ntitle = "Again"\n'
    assert "RFC 9999 section 1 stands there twice" in found("", head)


@pytest.mark.parametrize("case", sorted((HERE / "wire").glob("*/*/*.http"))[:1])
def test_a_case_of_the_corpus_is_found_by_its_topic_and_name(case):
    assert exists(f"wire:{case.parent.name}/{case.stem}")
