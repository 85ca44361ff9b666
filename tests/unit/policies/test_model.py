"""Decision requests: one spelling each, everything written out, nothing unknown."""

from __future__ import annotations

import json

import pytest

from ledger.canonical import canonical_bytes
from ledger.errors import MalformedError
from policies.model import Decision, Effect, decode_request, encode_request
from tests.support.policies import make_request

FULL = make_request(user="alice", tags=("pii",), arguments='{"price": 1.00}', calls=2**53 - 1)


def changed(path: str, value: object) -> bytes:
    """Return the request with one member set, in canonical form."""
    document = json.loads(encode_request(FULL))
    *parents, name = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[name] = value
    return canonical_bytes(document)


@pytest.mark.parametrize("request_", [FULL, make_request(), make_request(name=None, roles=())])
def test_request_round_trips_through_its_canonical_bytes(request_):
    data = encode_request(request_)
    assert decode_request(data) == request_
    assert encode_request(decode_request(data)) == data


def test_arguments_are_kept_as_they_were_received():
    assert decode_request(encode_request(FULL)).arguments == '{"price": 1.00}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        encode_request(FULL) + b"\n",
        b" " + encode_request(FULL),
        encode_request(FULL).replace(b'"action"', b'"Action"'),
        json.dumps(json.loads(encode_request(FULL))).encode(),
        changed("version", 2),
        changed("extra", 1),
        changed("principal.extra", 1),
        changed("principal.mfa", "true"),
        changed("time.hour", 24),
        changed("time.weekday", 0),
        changed("state.calls", -1),
        changed("principal.agent", "a" * 1025),
        changed("arguments", {}),
    ],
)
def test_request_in_any_other_form_is_refused(data):
    with pytest.raises(MalformedError):
        decode_request(data)


def test_member_that_is_left_out_is_not_filled_in():
    document = json.loads(encode_request(make_request()))
    del document["arguments"]
    with pytest.raises(MalformedError, match="canonical"):
        decode_request(canonical_bytes(document))


@pytest.mark.parametrize("effect", list(Effect))
def test_nothing_but_a_permit_is_permitted(effect):
    decision = Decision(effect=effect, bundle_revision="0" * 64, engine="cedar", engine_version="1")
    assert decision.permitted == (effect is Effect.PERMIT)
