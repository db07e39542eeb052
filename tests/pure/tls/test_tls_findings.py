"""What is said about certificates, and when."""

import dataclasses

import pytest

from aioserve.tls.findings import DAY, Calendar, Certificate, Finding, Report, Weight

NOON = 1_800_000_000.0

CERTIFICATE = Certificate(
    path="a.crt",
    names=("a", "b"),
    issuer="Root",
    since=NOON - 30 * DAY,
    until=NOON + 30 * DAY,
    kind="RSA",
    pem="pem",
    digest="digest",
)


def until(moment, pem="pem"):
    return dataclasses.replace(CERTIFICATE, until=moment, pem=pem)


def test_a_report_goes_through_a_pipe():
    report = Report((CERTIFICATE,), (Finding(Weight.DATED, "a.crt", "has expired"),), "digest")
    assert Report.spelt(report.spell()) == report


@pytest.mark.parametrize("said", [b"", b"{", b"Traceback"])
def test_what_is_no_report_is_told(said):
    with pytest.raises(ValueError):
        Report.spelt(said)


def test_a_certificate_is_a_line():
    assert str(CERTIFICATE) == "a.crt: a, b, RSA, by Root, until 2027-02-14 08:00 UTC"
    many = dataclasses.replace(CERTIFICATE, names=("a", "b", "c", "d", "e", "f"))
    assert "a, b, c, d and 2 more" in str(many)
    assert "no name" in str(dataclasses.replace(CERTIFICATE, names=()))


def test_findings_are_asked_for_by_weight():
    report = Report(findings=(Finding(Weight.REFUSED, "a", "is bad"), Finding(Weight.DOUBTFUL, "b", "is odd")))
    assert report.lines(Weight.REFUSED) == ["a is bad"]
    assert report.lines(Weight.REFUSED, Weight.DOUBTFUL) == ["a is bad", "b is odd"]
    assert report.with_more((Finding(Weight.DATED, "c", "is old"),)).lines(Weight.DATED) == ["c is old"]


def test_a_set_is_good_until_its_first_certificate_expires():
    assert Report((until(5.0), until(3.0))).until == 3.0
    assert Report().until == 0.0


@pytest.mark.parametrize(
    "left, is_error, text",
    [
        (13 * DAY, False, "a.crt expires in 13 days (2027-01-28 08:00 UTC); renew it"),
        (2 * DAY, False, "a.crt expires in 2 days (2027-01-17 08:00 UTC); renew it"),
        (1 * DAY, True, "a.crt expires in 24 hours (2027-01-16 08:00 UTC); renew it"),
        (-60, True, "a.crt has expired (2027-01-15 07:59 UTC): clients refuse it; renew it now"),
    ],
)
def test_what_expires_soon_is_said(left, is_error, text):
    assert Calendar().due((until(NOON + left),), NOON) == [(is_error, text)]


def test_what_is_good_for_longer_is_not():
    assert Calendar().due((until(NOON + 15 * DAY),), NOON) == []


def test_each_is_said_once_a_day():
    calendar = Calendar()
    both = (until(NOON + 5 * DAY, "one"), until(NOON + 20 * DAY, "two"))
    said = [(day, len(calendar.due(both, NOON + day * DAY / 2))) for day in range(16)]
    assert said == [(day, 0 if day % 2 else 1 if day < 12 else 2) for day in range(16)]


def test_a_renewed_one_is_forgotten():
    calendar = Calendar()
    assert calendar.due((until(NOON),), NOON)
    assert calendar.due((), NOON) == []
    assert calendar.due((until(NOON),), NOON)
