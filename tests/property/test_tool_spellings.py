# ruff: noqa: RUF001  # letters that look like others are what is tested
"""A quarantined tool is not called under any spelling, and one that stands is under its own."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from enforcement.config_pins import PinningSettings
from enforcement.pin_rules import Pin
from enforcement.pins import ToolPins
from enforcement.skeletons import skeleton

NAMES = st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=3, max_size=24).filter(
    lambda name: any(character.isalnum() for character in name)
)
LOOKS = dict(zip("aceiopsxyl", ("аａ𝐚", "сｃ", "еｅ𝗲", "іｉ", "оｏ0", "рｐ", "ѕｓ", "хｘ", "уｙ", "1Iｌ"), strict=True))
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\U000e0061"


def disguised(draw: Any, name: str) -> str:
    """Return a name that looks like another, or would after some cleaning."""
    at = draw(st.integers(0, len(name) - 1))
    ways: tuple[Callable[[], str], ...] = (
        lambda: "".join(draw(st.sampled_from((one.upper(), one.lower()))) for one in name),
        lambda: "".join(draw(st.sampled_from(one + LOOKS.get(one.lower(), ""))) for one in name),
        lambda: name[:at] + draw(st.sampled_from(HIDDEN)) + name[at:],
        lambda: name.replace("_", "-") + draw(st.sampled_from(("", " ", "_", ".", "/"))),
        lambda: "".join(chr(ord(one) + 0xFEE0) if one.isascii() and one.isalnum() else one for one in name),
    )
    return draw(st.sampled_from(ways))()


def encoded(draw: Any, name: str) -> str:
    """Return a name of which a character, or each, is percent-encoded, once or again and again."""
    at = draw(st.integers(0, len(name) - 1))
    everything = "".join(f"%{byte:02x}" for byte in name.encode())
    once = draw(st.sampled_from((everything, name[:at] + everything_of(name[at]) + name[at + 1 :])))
    return once.replace("%", "%" + "25" * draw(st.integers(0, 4))) if draw(st.booleans()) else once


def everything_of(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


@st.composite
def spellings(draw: Any) -> tuple[str, str]:
    name = draw(NAMES)
    other = name
    for _ in range(draw(st.integers(0, 2))):
        other = disguised(draw, other)
    return name, encoded(draw, other) if draw(st.booleans()) else other


class _Nothing:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def pins_of(*pins: Pin) -> ToolPins:
    """Return what knows these tools of one server, and asks nobody."""
    found = ToolPins(_Nothing(), _Nothing(), PinningSettings())  # type: ignore[arg-type]  # neither is asked
    found._modes = {"crm": "first_use"}
    found._pins = {"crm": {pin.tool: pin for pin in pins}}
    return found


@given(spellings())
def test_a_quarantined_tool_is_refused_and_hidden_under_every_spelling(names: tuple[str, str]) -> None:
    name, other = names
    pins = pins_of(Pin(tool=name, state="quarantined", seen="a" * 64))
    for said in (name, other):
        assert pins.objection("crm", said) == "tool_quarantined", (said, skeleton(name), skeleton(said))
        assert pins.hides("crm", said)
        assert pins.state_of("crm", said) == "quarantined"


@given(spellings())
def test_a_tool_that_stands_goes_on_although_one_that_looks_like_it_is_quarantined(names: tuple[str, str]) -> None:
    name, other = names
    stands = Pin(tool=name, state="pinned", trust="first_use", digest="a" * 64, seen="a" * 64)
    if other == name:
        return
    pins = pins_of(stands, Pin(tool=other, state="quarantined", seen="b" * 64))
    assert pins.objection("crm", name) is None
    assert pins.objection("crm", other) == "tool_quarantined"


@given(st.text(max_size=200))
def test_every_name_has_a_skeleton_and_only_one(name: str) -> None:
    assert skeleton(name) == skeleton(name) != ""
