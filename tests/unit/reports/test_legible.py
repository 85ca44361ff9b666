"""No string of a summary can deceive a reader: all of them come out legible."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest

from evidence.summary import ControlStatus, Gap
from ledger.errors import EvidenceError
from ledger.legible import IDENTIFIER_LIMIT, PROSE_LIMIT, REPERTOIRE
from reports.legible import legible
from tests.support import summaries

OPEN, CLOSE = "\u2039", "\u203a"


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [] if isinstance(value, ControlStatus) else [str(value)]
    if isinstance(value, tuple):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    if is_dataclass(value):
        return [text for field in fields(value) for text in _strings(getattr(value, field.name))]
    return []


def test_every_string_of_a_hostile_summary_comes_out_legible() -> None:
    texts = _strings(legible(summaries.hostile()))
    assert len(texts) > 1_000
    assert {character for text in texts for character in text} <= REPERTOIRE | {OPEN, CLOSE}


def test_statuses_and_numbers_stay_what_they_are() -> None:
    summary = summaries.demo()
    shown = legible(summary)
    assert shown == summary
    assert shown.frameworks[0].controls[0].status is ControlStatus.SATISFIED


def test_sentences_may_be_longer_than_names() -> None:
    sentence = "a" * (IDENTIFIER_LIMIT + 1)
    shown = legible(replace(summaries.empty(), gaps=(Gap(kind=sentence, sentence=sentence),)))
    assert shown.gaps[0].sentence == sentence
    assert shown.gaps[0].kind != sentence
    assert IDENTIFIER_LIMIT < PROSE_LIMIT


def test_two_names_that_would_be_printed_alike_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.legible.legible_text", lambda _text, *, limit: f"one name of {limit}")
    with pytest.raises(EvidenceError, match="printed alike"):
        legible(summaries.demo())
