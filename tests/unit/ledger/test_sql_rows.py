"""How rows are stored: what goes in comes out, for every type of record and every word of a vocabulary."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.bodies import BundleReference, Outcome
from ledger.body_fields import Effect, Enforcement, Mode, OutcomeStatus
from ledger.projection import Row, project
from ledger.records import Record, leaf_hash
from ledger.stores import tables
from ledger.stores.sql_rows import (
    CODES,
    Numbers,
    content_cells,
    content_row,
    halves,
    id_bytes,
    id_text,
    names_of,
    record_cells,
    record_row,
    rule_row,
    stream_of,
    word_of,
)
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, make_decision
from tests.unit.ledger.test_projection import OTHER_BODIES, SOME_ID

LITERALS = {"decision": Effect, "enforcement": Enforcement, "mode": Mode, "status": OutcomeStatus}
RECEIVED_MS = NOW_MS + 5


def numbers_for(rows: dict[str, list[Row]]) -> Numbers:
    found = Numbers(3)
    for number, name in enumerate(dict.fromkeys(names_of(rows)), 10):
        found.names[name] = number
    found.streams[stream_of(rows["records"][0])] = 7
    return found


def stored(record: Record, index: int = 5) -> tuple[dict[str, object], Numbers]:
    rows = project(record, index, leaf_hash(record))
    numbers = numbers_for(rows)
    cells = (index, *record_cells(rows["records"][0], numbers, RECEIVED_MS))
    names = [column.name for column in tables.records.c]
    return dict(zip(names, cells, strict=True)), numbers


def read_back(cells: dict[str, object], numbers: Numbers) -> Row:
    names = {number: str(name) for name, number in numbers.names.items() if number is not None}
    streams = {number: stream for stream, number in numbers.streams.items()}
    return record_row(cells, LOG_ID, names, streams)


def bodies() -> list[object]:
    full, _ = make_decision(
        bundle=BundleReference(name="b", revision="1" * 64, engine="cedar", engine_version="4"),
        trace_id="a" * 32,
        arguments_fingerprint="f" * 32,
        user="8" * 32,
    )
    spare, _ = make_decision(rules=(), user=None, method=None, tool=None, bundle=None)
    outcome = Outcome(decision_id=SOME_ID, status="failed", session="5" * 32, result_fingerprint="c" * 32)
    return [full, spare, outcome, Outcome(decision_id=SOME_ID, status="unknown", session="0" * 32), *OTHER_BODIES]


@pytest.mark.parametrize("body", bodies(), ids=lambda body: type(body).__name__)
def test_a_row_that_is_stored_is_read_back_as_it_was_projected(body):
    record = Enforcer().record(body)
    cells, numbers = stored(record)
    assert cells["received_ms"] == RECEIVED_MS
    assert read_back(cells, numbers) == project(record, 5, leaf_hash(record))["records"][0]


@pytest.mark.parametrize("body", bodies(), ids=lambda body: type(body).__name__)
def test_every_cell_is_of_the_kind_and_size_that_its_column_has(body):
    cells, _ = stored(Enforcer().record(body))
    for column in tables.records.c:
        value = cells[column.name]
        assert column.nullable or value is not None
        if value is not None:
            assert type(value) is column.type.python_type, column.name
        if isinstance(value, bytes):
            assert len(value) == column.type.length, column.name


def test_a_rule_is_read_back_as_it_was_projected():
    record = Enforcer().record(make_decision(rules=("a", "b"))[0])
    rows = project(record, 5, leaf_hash(record))["decision_rules"]
    assert [rule_row(LOG_ID, 5, number, {1: "a", 2: "b"}) for number in (1, 2)] == rows


def test_a_content_is_read_back_as_it_was_projected():
    outcome = Outcome(decision_id=SOME_ID, status="completed", session="0" * 32, contents=("00" * 16, "f1" * 16))
    record = Enforcer().record(outcome)
    rows = project(record, 5, leaf_hash(record))["contents"]
    cells = [content_cells(row, 1) for row in rows]
    assert [content_row(LOG_ID, 5, key, rest) for key, rest, _log_no in cells] == rows
    assert content_row(LOG_ID, 5, cells[0][0], "abc") not in rows[1:]


@pytest.mark.parametrize("column", CODES)
def test_every_word_of_a_vocabulary_has_a_code_and_every_code_a_word(column):
    assert set(CODES[column]) == set(get_args(get_args(LITERALS[column])[0]))
    assert [word_of(column, code) for code in range(len(CODES[column]))] == list(CODES[column])
    assert len(set(CODES[column])) == len(CODES[column])


def test_the_code_of_allow_is_the_one_that_the_index_leaves_out():
    assert CODES["enforcement"].index("allow") == 0


@pytest.mark.parametrize("code", [-1, 4, 1000])
def test_a_code_that_nobody_wrote_is_no_word(code):
    assert word_of("enforcement", code) not in CODES["enforcement"]


def test_a_number_that_no_dictionary_has_is_no_name():
    record = Enforcer().record(make_decision()[0])
    cells, numbers = stored(record)
    expected = project(record, 5, leaf_hash(record))["records"][0]
    assert read_back({**cells, "agent": 999}, numbers)["agent"] != expected["agent"]
    assert read_back({**cells, "stream_no": 999}, numbers)["epoch"] is None
    assert rule_row(LOG_ID, 5, 999, {})["rule"] not in make_decision()[0].rules


@pytest.mark.parametrize("half", ["session_key", "session_rest"])
def test_half_a_pseudonym_is_not_the_pseudonym(half):
    cells, numbers = stored(Enforcer().record(make_decision()[0]))
    assert read_back({**cells, half: None}, numbers)["session"] not in (None, "5" * 32)


@given(st.binary(min_size=16, max_size=16))
def test_the_halves_of_a_pseudonym_fit_eight_bytes_each_and_are_unlike_for_unlike_pseudonyms(value):
    key, rest = halves(value.hex())
    assert key.to_bytes(8, "big", signed=True) + rest.to_bytes(8, "big", signed=True) == value


@given(st.uuids())
def test_an_id_is_read_back_as_it_was_written(value):
    assert id_text(id_bytes(str(value))) == str(value)
    assert id_bytes(str(value)) == value.bytes


@pytest.mark.parametrize(
    "text", ["", "x", "%", SOME_ID.replace("-", ""), SOME_ID.upper().replace("0", "A"), SOME_ID + "\n", f" {SOME_ID}"]
)
def test_a_text_that_is_no_record_id_has_no_bytes(text):
    assert id_bytes(text) is None
