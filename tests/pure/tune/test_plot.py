"""The picture: well-formed, to scale, and honest about what is missing."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

from aioserve.tune.plot import draw
from tests.pure.tune.rows import SETUP, TABLE, candidate, row

NS = "{http://www.w3.org/2000/svg}"
BEST = "#0b7285"


def drawn(rows, best=None, setup=SETUP):
    return ET.fromstring(draw(rows, setup, best=best))


def texts(root):
    return [element.text for element in root.iter(f"{NS}text")]


def bars(root):
    """Everything but the background and the band of the recommended line."""
    return [rect for rect in root.iter(f"{NS}rect") if rect.get("rx") == "2"]


def test_every_candidate_has_its_line_and_every_panel_its_heading():
    words = texts(drawn(TABLE, candidate("shared x 2")))
    assert {"shared x 1", "shared x 2", "reuseport x 2"} <= set(words)
    assert {"requests per second", "new connections per second", "latency at 4,000/s, ms", "memory, MiB"} <= set(words)


def test_words_of_the_user_are_escaped():
    assert "aioserve tune shop:app: GET /<tea>: 200, 151 bytes" in texts(drawn(TABLE))


def test_bars_are_to_scale_and_begin_at_zero():
    widths = [float(rect.get("width")) for rect in bars(drawn([row("shared x 1", 100.0), row("shared x 2", 200.0)]))]
    assert abs(widths[1] / widths[0] - 2) < 0.01


def test_the_recommended_one_is_marked():
    root = drawn(TABLE, candidate("shared x 2"))
    assert {text.text for text in root.iter(f"{NS}text") if text.get("class") == "best"} == {"shared x 2"}
    assert len([rect for rect in bars(root) if rect.get("fill") == BEST]) == 3
    assert "Recommended: --accept shared --workers 2." in texts(root)[-1]


def test_without_a_recommendation_nothing_is_marked():
    root = drawn(TABLE)
    assert not [rect for rect in bars(root) if rect.get("fill") == BEST]
    assert "Recommended" not in texts(root)[-1]


def test_everything_lies_within_the_picture():
    root = drawn(TABLE, candidate("shared x 2"))
    width, height = float(root.get("width")), float(root.get("height"))
    places = [(float(e.get("x") or e.get("cx") or 0), float(e.get("y") or e.get("cy") or 0)) for e in root]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_panels_that_nobody_could_fill_are_left_out():
    words = texts(drawn([row("single", 100.0)], setup=dataclasses.replace(SETUP, paced_rate=None, cpus=1)))
    assert "requests per second" in words
    assert not [word for word in words if word.startswith(("new connections", "latency", "memory"))]


def test_what_is_missing_says_why():
    table = [*TABLE, row("single", 100.0, behind=True), row("shared x 4", 100.0)]
    words = texts(drawn(table))
    assert words.count("could not keep up") == 1
    assert words.count("not measured") == 5  # two without new connections and memory, one of them without latencies
