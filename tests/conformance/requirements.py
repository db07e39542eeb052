"""The requirements of RFC 9110 and RFC 9112: every MUST and MUST NOT, and the tests that show that it is kept.

They are data, in ``requirements_rfc*.toml`` beside this module. ``[keywords]`` says how often the text of each section
has a MUST and a MUST NOT; each ``[[section]]`` has one row for each of these:

    must or must_not   who is bound
    says               the requirement in one line
    tests              what shows it: "tests/...py::test_name", or "wire:topic/case" of the corpus of raw exchanges
    application        what of it is the application's: with ``tests`` the rest, else all of it
    does_not_apply     why it binds nobody here
    stricter           where aioserve refuses what it should have taken, and why

Who binds nobody here in any section stands in ``[others]`` with the reason. A row needs ``tests``, ``application``,
``does_not_apply`` or one of the others. ``problems`` says what is missing; ``python -m tests.conformance.requirements``
prints it all as Markdown.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
WIRE = HERE / "wire"

KEYWORDS = {"must": "MUST", "must_not": "MUST NOT"}
REMARKS = frozenset(("says", "tests", "application", "does_not_apply", "stricter"))

TESTED = "tested"
APPLICATION = "the application's"
NOT_OURS = "does not apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One requirement. ``reason`` is why it binds nobody here."""

    section: str
    keyword: str
    who: str
    says: str
    tests: tuple[str, ...]
    application: str
    reason: str
    stricter: str

    @property
    def outcome(self) -> str:
        if self.tests:
            return TESTED
        if self.application:
            return APPLICATION
        return NOT_OURS if self.reason else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rfc:
    """The requirements of one RFC, and what is wrong with their form."""

    number: int
    title: str
    keywords: dict[str, tuple[int, int]]
    titles: dict[str, str]
    rows: list[Row]
    faults: list[str]


def load() -> list[Rfc]:
    """The requirements of all RFCs."""
    return [read(path.read_text()) for path in sorted(HERE.glob("requirements_rfc*.toml"))]


def read(text: str) -> Rfc:
    """The requirements in one file."""
    data = tomllib.loads(text)
    others: dict[str, str] = data.get("others", {})
    titles: dict[str, str] = {}
    rows: list[Row] = []
    faults: list[str] = []
    for section in data.get("section", []):
        number = section["number"]
        if number in titles:
            faults.append(f"section {number} stands there twice")
        titles[number] = section["title"]
        for entry in section["rows"]:
            rows.append(_row(number, entry, others))
            faults += [f"section {number}: {fault}: {entry}" for fault in _faults(entry, others)]
    counts = {number: (must, must_not) for number, (must, must_not) in data.get("keywords", {}).items()}
    return Rfc(number=data["rfc"], title=data["title"], keywords=counts, titles=titles, rows=rows, faults=faults)


def problems(rfc: Rfc) -> list[str]:
    """What is missing or wrong, each with its place."""
    found = list(rfc.faults)
    rows = Counter((row.section, row.keyword) for row in rfc.rows)
    for number in rfc.titles.keys() - rfc.keywords.keys():
        found.append(f"section {number}: nobody has counted its keywords")
    for number, counts in rfc.keywords.items():
        for keyword, count in zip(KEYWORDS.values(), counts, strict=True):
            if rows[number, keyword] != count:
                found.append(f"section {number}: {count} times {keyword}, but {rows[number, keyword]} rows")
    for row in rfc.rows:
        where = f"section {row.section}: {row.keyword} {row.says}"
        if not row.outcome:
            found.append(f"{where}: neither a test nor a reason")
        if row.tests and row.reason:
            found.append(f"{where}: tests for what does not apply ({row.reason})")
        found += [f"{where}: no such test: {test}" for test in row.tests if not exists(test)]
    return sorted(f"RFC {rfc.number} {problem}" for problem in found)


def exists(test: str) -> bool:
    """Whether there is such a test, or such a case of the corpus."""
    if test.startswith("wire:"):
        return any(WIRE.glob(f"*/{test.removeprefix('wire:')}.http"))
    path, found, name = test.partition("::")
    return bool(found) and name in _functions(path)


def render(rfcs: list[Rfc]) -> str:
    """The table in Markdown: what there is of each RFC, then requirement by requirement."""
    lines = ["| RFC | requirements | tested | the application's | does not apply |", "|-|-|-|-|-|"]
    for rfc in rfcs:
        outcomes = Counter(row.outcome for row in rfc.rows)
        counts = " | ".join(str(outcomes[outcome]) for outcome in (TESTED, APPLICATION, NOT_OURS))
        lines.append(f"| {rfc.number} | {len(rfc.rows)} | {counts} |")
    for rfc in rfcs:
        lines += ["", f"## RFC {rfc.number}, {rfc.title}", ""]
        lines += ["| section | who | requirement | shown by, or why not |", "|-|-|-|-|"]
        for row in rfc.rows:
            place = f"{row.section} {rfc.titles[row.section]}"
            lines.append(f"| {place} | {row.who} | **{row.keyword}** {row.says} | {_shown_by(row)} |")
    return "\n".join(lines) + "\n"


def _row(number: str, entry: dict[str, Any], others: dict[str, str]) -> Row:
    keyword = "must" if "must" in entry else "must_not"
    who = entry.get(keyword, "")
    return Row(
        section=number,
        keyword=KEYWORDS[keyword],
        who=who,
        says=entry.get("says", ""),
        tests=tuple(entry.get("tests", ())),
        application=entry.get("application", ""),
        reason=entry.get("does_not_apply", "") or others.get(who, ""),
        stricter=entry.get("stricter", ""),
    )


def _faults(entry: dict[str, Any], others: dict[str, str]) -> list[str]:
    """What is wrong with the form of a row."""
    found = []
    bound = [key for key in KEYWORDS if key in entry]
    if len(bound) != 1:
        found.append("a row has either must or must_not")
    if not entry.get("says"):
        found.append("a row says what is required")
    if unknown := entry.keys() - KEYWORDS - REMARKS:
        found.append(f"unknown keys {sorted(unknown)}")
    if "does_not_apply" in entry and any(entry[key] in others for key in bound):
        found.append("the reason stands under [others] already")
    if "stricter" in entry and "tests" not in entry:
        found.append("stricter says something about tests")
    return found


def _shown_by(row: Row) -> str:
    tests = ", ".join(f"`{test.rpartition('::')[2] or test}`" for test in row.tests)
    application = f"the application: {row.application}" if row.application else ""
    return "; ".join(part for part in (tests, application, row.reason, row.stricter) if part)


@cache
def _functions(path: str) -> frozenset[str]:
    """The names of the tests in a file, without running it."""
    file = REPO / path
    if not file.is_file():
        return frozenset()
    body = ast.parse(file.read_text()).body
    functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


if __name__ == "__main__":
    sys.stdout.write(render(load()))
