"""Every pair of colours that carries text or a boundary has the contrast that WCAG 2.2 AA asks for, in both schemes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("service.web").joinpath("static", "style.css").read_text()


def _variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6});", block))


LIGHT = _variables(CSS[CSS.index(":root") : CSS.index("@media (prefers-color-scheme: dark)")])
DARK = {**LIGHT, **_variables(re.search(r"prefers-color-scheme: dark\) \{(.*?)\n\}\n", CSS, flags=re.DOTALL)[1])}

TEXT = [
    ("ink", "paper"), ("ink", "card"), ("ink", "wash"), ("ink", "red-wash"),
    ("soft", "paper"), ("soft", "card"), ("soft", "wash"), ("soft", "red-wash"),
    ("accent", "paper"), ("accent", "card"), ("accent", "wash"),
    ("on-accent", "accent"),
    ("red", "paper"), ("red", "card"), ("red", "wash"), ("red", "red-wash"),
    ("card", "red"),
    ("amber", "paper"), ("amber", "card"), ("amber", "wash"),
    ("on-stamp", "stamp"),
]  # fmt: skip
BOUNDARIES = [
    ("edge", "card"), ("edge", "paper"), ("focus", "card"), ("focus", "paper"), ("focus", "wash"),
    ("red", "card"), ("amber", "card"), ("accent", "card"), ("accent", "paper"),
]  # fmt: skip


def luminance(colour: str) -> float:
    """Return the relative luminance. Source: WCAG 2.2, definition of relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_both_schemes_define_the_same_colours():
    assert set(LIGHT) == set(DARK)
    assert len(LIGHT) >= 15


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_has_a_contrast_of_at_least_4_5(scheme, text, ground):
    assert contrast(scheme[text], scheme[ground]) >= 4.5


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("line", "ground"), BOUNDARIES)
def test_boundaries_of_controls_and_focus_have_a_contrast_of_at_least_3(scheme, line, ground):
    assert contrast(scheme[line], scheme[ground]) >= 3


def test_no_colour_is_used_that_is_no_variable():
    rules = re.sub(r"--[a-z-]+:[^;]+;", "", CSS)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(", rules) == []


def test_nothing_is_fetched_from_anywhere():
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert "@font-face" not in CSS


@pytest.mark.parametrize(
    "feature", ["prefers-color-scheme: dark", "prefers-reduced-motion", "forced-colors: active", "@media print"]
)
def test_other_ways_of_seeing_are_provided_for(feature):
    assert feature in CSS


def test_nothing_moves_for_those_who_asked_for_stillness():
    moving = re.sub(r"@media \(prefers-reduced-motion: no-preference\) \{.*?\n\}\n", "", CSS, flags=re.DOTALL)
    assert not re.search(r"\banimation|\btransition|@keyframes", moving)


def test_focus_is_never_taken_away_without_need():
    assert re.findall(r"([^\n}]+)\{[^}]*outline:\s*none", CSS) == ["main:focus "]
