"""Records of every type, drawn from their declarations."""

from __future__ import annotations

import json

import nacl.signing
import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.canonical import canonical_bytes, parse_json
from ledger.errors import LedgerError
from ledger.merkle import hash_leaf
from ledger.records import (
    _signing_bytes_of_entry,
    commitments,
    decode_entry,
    encode_record,
    leaf_hash,
    sign_record,
    signing_bytes,
    verify_record_signature,
)
from tests.property.strategies import records, texts

_KEY = nacl.signing.SigningKey(b"\x07" * 32)
_slow_to_draw = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@_slow_to_draw
@given(records)
def test_an_entry_is_the_canonical_form_of_itself_and_is_read_back(record) -> None:
    entry = encode_record(record)
    assert entry == canonical_bytes(parse_json(entry)) == rfc8785.dumps(json.loads(entry))
    assert decode_entry(entry) == record
    assert leaf_hash(record) == hash_leaf(entry)


@_slow_to_draw
@given(records)
def test_a_signature_holds_over_the_entry_and_over_nothing_else(record) -> None:
    signed = sign_record(record, _KEY)
    verify_record_signature(decode_entry(encode_record(signed)), bytes(_KEY.verify_key))
    assert signing_bytes(signed) == signing_bytes(record)
    verify_record_signature(signed, bytes(_KEY.verify_key), entry=encode_record(signed))
    assert _signing_bytes_of_entry(encode_record(signed)) == signing_bytes(signed)
    members = json.loads(encode_record(record))
    assert signing_bytes(record) == b"tallystick/record/v1\n" + rfc8785.dumps(members | {"signature": "A" * 86 + "=="})


@_slow_to_draw
@given(records)
def test_commitments_are_those_that_the_entry_shows(record) -> None:
    body = json.loads(encode_record(record))["body"]
    shown = {name: item for name, item in body.items() if isinstance(item, dict) and "size_bytes" in item}
    found = commitments(record)
    assert {name: {"digest": item.digest, "size_bytes": item.size_bytes} for name, item in found.items()} == shown


@_slow_to_draw
@given(records, st.data())
def test_a_changed_member_is_refused_or_gives_another_leaf(record, data) -> None:
    members = json.loads(encode_record(record))
    holder = data.draw(st.sampled_from([members, members["body"]]))
    name = data.draw(st.sampled_from(sorted(holder)))
    old = holder[name]
    holder[name] = data.draw(st.none() | st.booleans() | st.integers(0, 9) | texts | st.lists(texts) | st.just({}))
    if holder[name] == old and type(holder[name]) is type(old):
        return
    entry = rfc8785.dumps(members)
    try:
        changed = decode_entry(entry)
    except LedgerError:
        return
    assert leaf_hash(changed) != leaf_hash(record)
    assert changed != record


@_slow_to_draw
@given(records, st.data())
def test_a_default_written_out_is_refused(record, data) -> None:
    members = json.loads(encode_record(record))
    defaults = {"simulated": False, "pseudonym_key_id": None}
    name = data.draw(st.sampled_from(sorted(defaults)))
    written = rfc8785.dumps(members | {name: defaults[name]})
    with pytest.raises(LedgerError):
        decode_entry(written)
