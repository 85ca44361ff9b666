"""docs/owasp.md is what the tests say, all that it names is there, and no risk is left out or called harmless."""

from __future__ import annotations

import re
import typing
from functools import cache

import msgspec.inspect
import pytest

from ledger.bodies import Body
from tests.support.owasp_document import AGENTIC, MCP, Risk, document
from tests.support.repository import ROOT
from tests.support.requirement_pages import unmet

BODIES = {body.__struct_config__.tag: body for body in typing.get_args(Body)}


def members_of(kind: msgspec.inspect.Type) -> set[str]:
    """The names of a type's members, and of all members of these."""
    if isinstance(kind, msgspec.inspect.StructType):
        return {name for field in kind.fields for name in (field.encode_name, *members_of(field.type))}
    parts = [getattr(kind, name, None) for name in ("item_type", "value_type")]
    inner = [*getattr(kind, "types", ()), *getattr(kind, "item_types", ()), *(part for part in parts if part)]
    return {name for part in inner for name in members_of(part)}


@cache
def written_values() -> frozenset[str]:
    """Every word that stands as a string in the code that makes records."""
    rooms = [ROOT / room for room in ("ledger", "enforcement", "service")]
    texts = [path.read_text() for room in rooms for path in room.rglob("*.py")]
    return frozenset(word for text in texts for word in re.findall(r'"([a-z_]+)"', text))


def unknown_evidence(risk: Risk) -> list[str]:
    """What a risk says of records that no record of these types has."""
    kinds = [BODIES[record] for record in risk.records]
    members = {name for kind in kinds for name in members_of(msgspec.inspect.type_info(kind))}
    return [name for name in re.findall(r"`([^`]+)`", risk.evidence) if name not in members | written_values()]


def test_the_page_is_the_one_that_is_made():
    assert (ROOT / "docs" / "owasp.md").read_text() == document()


def test_each_risk_of_both_lists_is_there_in_order():
    assert [risk.number for risk in MCP] == [f"MCP{number:02}:2025" for number in range(1, 11)]
    assert [risk.number for risk in AGENTIC] == [f"ASI{number:02}" for number in range(1, 11)]


@pytest.mark.parametrize("risk", [*MCP, *AGENTIC], ids=lambda risk: risk.number)
def test_each_risk_has_tests_that_are_there_evidence_and_what_is_not_defended(risk: Risk):
    assert risk.tests
    assert unmet(" ".join(f"`{test}`" for test in risk.tests)) == []
    assert set(risk.records) <= set(BODIES)
    assert unknown_evidence(risk) == []
    assert len(risk.evidence) > 10
    assert len(risk.open) > 10


def test_what_is_not_there_would_be_noticed():
    assert unmet("`test_attacks_on_tools.py::test_there_is_no_such_attack`")
    assert unmet("`test_there_is_no_such_file.py`")
    risk = Risk(
        number="0", words="", defence="", tests=(), records=("outcome",), open="", evidence="`redacted`, `payer`"
    )
    assert unknown_evidence(risk) == ["payer"]
