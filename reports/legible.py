"""A pack's summary made legible: what is printed is what was recorded, and two names that differ look different.

Pure. How one text is made legible is `ledger.legible`'s part; the report needs it for one reason more than others: it
brings its own fonts, which hold few scripts, and a font of the machine would make its bytes depend on where it was
rendered. Here is the walk over every string of a summary, and which of them are sentences.

INVARIANT: no string of a `PackSummary` reaches a template or chart but through `legible`. Escaping for HTML is the
templates' part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, Final

from evidence.summary import (
    ControlSheet,
    ControlTestResult,
    CustodyLine,
    Deviation,
    FrameworkSheet,
    Gap,
    PackSummary,
    StreamLine,
)
from ledger.errors import EvidenceError
from ledger.legible import IDENTIFIER_LIMIT, PROSE_LIMIT, legible_text

__all__ = ["legible"]

_PROSE: Final = frozenset(
    {
        (ControlSheet, "customer_adds"),
        (ControlSheet, "procedure"),
        (ControlSheet, "rationale"),
        (ControlSheet, "reason"),
        (ControlSheet, "title"),
        (ControlTestResult, "sentence"),
        (CustodyLine, "detail"),
        (Deviation, "cause"),
        (FrameworkSheet, "source"),
        (Gap, "sentence"),
        (PackSummary, "not_proved"),
        (PackSummary, "proved"),
        (StreamLine, "reason"),
    }
)
"""Members of the summary that hold sentences; all other strings are names."""


def _value(value: Any, limit: int) -> Any:  # noqa: ANN401 - walks values of every type that a summary holds
    if isinstance(value, str):
        return value if isinstance(value, Enum) else legible_text(value, limit=limit)
    if isinstance(value, tuple):
        return tuple(_value(item, limit) for item in value)
    if isinstance(value, Mapping):
        shown = {_value(key, limit): _value(item, limit) for key, item in value.items()}
        if len(shown) != len(value):  # two cut texts with one digest: a count must not vanish behind the other
            raise EvidenceError("two long names of the summary would be printed alike")
        return shown
    if is_dataclass(value) and not isinstance(value, type):
        members = {
            field.name: _value(
                getattr(value, field.name), PROSE_LIMIT if (type(value), field.name) in _PROSE else IDENTIFIER_LIMIT
            )
            for field in fields(value)
        }
        return replace(value, **members)
    return value


def legible(summary: PackSummary) -> PackSummary:
    """Return the summary with every string in it made legible.

    Raises:
        EvidenceError: Two keys of one mapping would be printed alike.
    """
    result: PackSummary = _value(summary, IDENTIFIER_LIMIT)
    return result
