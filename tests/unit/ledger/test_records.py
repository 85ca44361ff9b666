"""Records: one spelling, every field in the leaf, every field declared, signatures over all of it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, get_type_hints

import msgspec
import nacl.signing
import pytest
import rfc8785

from ledger.bodies import AccessEvent, Heartbeat
from ledger.body_fields import Commitment
from ledger.errors import ConfigError, MalformedError, SignatureInvalidError
from ledger.merkle import hash_leaf
from ledger.notes import encode_base64
from ledger.records import (
    Record,
    _signing_bytes_of_entry,
    commitments,
    decode_entry,
    derived_record_id,
    encode_record,
    field_classes,
    leaf_hash,
    new_record_id,
    record_type,
    sign_record,
    signing_bytes,
    verify_record_signature,
)
from ledger.tiles import MAX_ENTRY_BYTES
from tests.conformance.requirements import requirement
from tests.vectors.samples import BODIES, FORMS, JSONObject, unsigned

_KEY = nacl.signing.SigningKey(b"\x07" * 32)
_NO_SIGNATURE = "A" * 86 + "=="
_WORDS = (
    "allow",
    "enforce",
    "observe",
    "approved",
    "PERMIT",
    "DENY",
    "completed",
    "tested",
    "pack",
    "created",
    "stop",
    "used",
    "idle",
    "taken",
    "exact",
    "absent",
    "released",
    "policy",
    "all",
    "justified",
    "removed",
    "inventory",
    "ready",
    "flagged",
    "tool_definition",
    "harmless",
    "registered",
    "client",
    "stdio",
    "dismissed",
    "confirmed",
)


def entry_of(value: JSONObject) -> bytes:
    return rfc8785.dumps(value)


def sample(kind: str = "decision", form: str = "full") -> JSONObject:
    return copy.deepcopy(unsigned(kind, form)) | {"signature": _NO_SIGNATURE}


def signed(kind: str = "decision", form: str = "full") -> Record:
    return sign_record(decode_entry(entry_of(sample(kind, form))), _KEY)


def leaves_of(value: object, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the key path of every scalar in a JSON value, tags left out."""
    members: Iterator[tuple[str | int, object]]
    if isinstance(value, dict):
        members = iter((name, item) for name, item in value.items() if name != "type")
    elif isinstance(value, list):
        members = iter(enumerate(value))
    else:
        yield keys
        return
    for name, item in members:
        yield from leaves_of(item, (*keys, name))


def field_path(value: Any, keys: tuple[str | int, ...]) -> str:
    """Return the path under which `field_classes` knows a scalar."""
    path = ""
    for key in keys:
        if isinstance(value, dict):
            path += f".{value['type']}.{key}" if "type" in value else f".{key}"
        else:
            path += "[]"
        value = value[key]
    return path.lstrip(".")


def replaced(value: JSONObject, keys: tuple[str | int, ...], new: object) -> JSONObject:
    value = copy.deepcopy(value)
    place: Any = value
    for key in keys[:-1]:
        place = place[key]
    if new is False:
        del place[keys[-1]]  # the default of every flag: its one spelling is to be left out
    else:
        place[keys[-1]] = new
    return value


def flips(old: object) -> Iterator[object]:
    """Yield values of the same type that differ a little."""
    if isinstance(old, bool):
        yield not old
    elif isinstance(old, int):
        yield from (new for new in (old - 1, old + 1) if abs(new) < 2**53)
    elif isinstance(old, str):
        yield from (old[:-1] + char for char in "0aZ" if not old.endswith(char))
        yield from (char + old[1:] for char in "1bC" if not old.startswith(char))
        yield from (word for word in _WORDS if word != old)


def scalars(value: JSONObject) -> Iterator[tuple[tuple[str | int, ...], object]]:
    for keys in leaves_of(value):
        place: Any = value
        for key in keys:
            place = place[key]
        yield keys, place


_FIELDS = [(kind, keys) for kind in BODIES for keys in leaves_of(sample(kind, "full"))]


class _Inner(msgspec.Struct, tag="deep"):
    words: tuple[str, ...]


class _Outer(msgspec.Struct):
    inner: _Inner | None = None


class TestEveryField:
    @pytest.mark.parametrize(
        ("kind", "keys"), _FIELDS, ids=[f"{kind}-{'.'.join(map(str, keys))}" for kind, keys in _FIELDS]
    )
    def test_a_flipped_field_changes_the_leaf_hash(self, kind, keys) -> None:
        value = sample(kind)
        old = dict(scalars(value))[keys]
        original = leaf_hash(decode_entry(entry_of(value)))
        hashes = []
        for new in flips(old):
            try:
                changed = decode_entry(entry_of(replaced(value, keys, new)))
            except MalformedError:
                continue
            hashes.append(leaf_hash(changed))
        if keys == ("schema_version",):
            assert not hashes, "a version that does not exist was read"
        else:
            assert hashes, "no other value of the field could be tried"
        assert original not in hashes
        assert len(set(hashes)) == len(hashes)

    @pytest.mark.parametrize("kind", BODIES)
    def test_a_member_left_out_is_refused_or_changes_the_leaf_hash(self, kind) -> None:
        value = sample(kind)
        original = hash_leaf(entry_of(value))
        for holder in (value, value["body"]):
            for name in list(holder):
                item = holder.pop(name)
                entry = entry_of(value)
                try:
                    assert leaf_hash(decode_entry(entry)) == hash_leaf(entry) != original
                except MalformedError:
                    pass
                finally:
                    holder[name] = item

    def test_the_samples_hold_every_declared_field_and_every_field_is_declared(self) -> None:
        seen = {field_path(sample(kind, form), keys) for kind, form in FORMS for keys in leaves_of(sample(kind, form))}
        assert seen == set(field_classes())

    def test_every_field_has_the_class_that_the_architecture_gives_it(self) -> None:
        classes = field_classes()
        pseudonymous = {path for path, kind in classes.items() if kind == "pseudonymous"}
        vaulted = {path for path, kind in classes.items() if kind == "vaulted"}
        assert pseudonymous == {
            "body.decision.session",
            "body.decision.user",
            "body.decision.address",
            "body.decision.arguments_fingerprint",
            "body.outcome.session",
            "body.outcome.user",
            "body.outcome.result_fingerprint",
            "body.outcome.contents[]",
            "body.bundle.actor",
            "body.bundle.also[]",
            "body.session_end.session",
            "body.session_end.user",
            "body.approval.actor",
            "body.tombstone.subject",
            "body.tombstone.actor",
            "body.access.actor",
            "body.access.scope.session",
            "body.erasure.subject",
            "body.erasure.actor",
            "body.hold.actor",
            "body.hold.subject",
            "body.hold.also[]",
            "body.hold.session",
            "body.retention.actor",
            "body.mode.actor",
            "body.tool.actor",
            "body.containment.actor",
            "body.containment.session",
            "body.inventory.actor",
            "body.baseline.actor",
            "body.drift.actor",
            "body.discovery.actor",
            "body.discovery.place",
            "body.discovery.holder",
            "body.opa_decision.client",
            "body.opa_decision.fingerprint",
            "body.opa_decision.user",
            "body.opa_decision.session",
            "body.opa_decision.requested_by",
            "body.opa_loss.client",
        }
        assert {path.removesuffix(".digest") for path in vaulted} == {
            "body.decision.message",
            "body.decision.request",
            "body.decision.masked_request",
            "body.outcome.result",
            "body.bundle.comment",
            "body.approval.comment",
            "body.tombstone.basis",
            "body.access.purpose",
            "body.erasure.basis",
            "body.hold.reason",
            "body.mode.reason",
            "body.tool.definition",
            "body.tool.comment",
            "body.containment.comment",
            "body.inventory.comment",
            "body.baseline.comment",
            "body.drift.comment",
            "body.discovery.details",
            "body.discovery.given",
            "body.discovery.comment",
            "body.opa_decision.event",
            "body.opa_decision.input",
            "body.opa_decision.result",
            "body.opa_decision.nd_builtin_cache",
        }

    def test_an_undeclared_field_is_refused_by_its_path(self) -> None:
        class Careless(msgspec.Struct):
            note: str

        with pytest.raises(ConfigError, match=r"the record field note is declared neither"):
            field_classes(Careless)

    def test_an_undeclared_field_is_found_behind_unions_tuples_and_other_structs(self) -> None:
        with pytest.raises(ConfigError, match=r"the record field inner\.deep\.words\[\] is declared neither"):
            field_classes(_Outer)

    def test_an_unknown_class_is_refused(self) -> None:
        class Inventive(msgspec.Struct):
            note: Annotated[str, msgspec.Meta(extra={"field_class": "semi-public"})]

        with pytest.raises(ConfigError, match="unknown class 'semi-public'"):
            field_classes(Inventive)

    def test_every_default_can_be_told_by_identity(self) -> None:
        # msgspec leaves a member out if it *is* the default: another default would give a record two spellings.
        todo: list[Any] = [msgspec.inspect.type_info(Record)]
        structs = 0
        while todo:
            kind = todo.pop()
            if isinstance(kind, msgspec.inspect.Metadata):
                todo.append(kind.type)
            elif isinstance(kind, msgspec.inspect.UnionType):
                todo.extend(kind.types)
            elif isinstance(kind, msgspec.inspect.StructType):
                structs += 1
                for field in kind.fields:
                    todo.append(field.type)
                    assert field.default_factory is msgspec.NODEFAULT
                    assert field.default is msgspec.NODEFAULT or field.default in (None, False, 0, ())
        assert structs >= len(BODIES)


class TestEntry:
    @pytest.mark.parametrize(("kind", "form"), FORMS)
    def test_decoding_and_encoding_give_the_same_bytes(self, kind, form) -> None:
        entry = entry_of(sample(kind, form))
        record = decode_entry(entry)
        assert encode_record(record) == entry
        assert leaf_hash(record) == hash_leaf(entry)
        assert record_type(record) == kind
        assert decode_entry(encode_record(record)) == record

    def test_the_documented_entry_is_one(self) -> None:
        body = {"kind": "start", "spool_depth": 0, "type": "heartbeat", "version": "0.1.0"}
        record = decode_entry(entry_of(sample("heartbeat", "minimal") | {"body": body}))
        assert isinstance(record.body, Heartbeat)

    @pytest.mark.parametrize(("kind", "form"), FORMS)
    @pytest.mark.parametrize(
        "respell",
        [
            lambda value: json.dumps(value, separators=(",", ":")).encode(),
            lambda value: entry_of(value) + b"\n",
            lambda value: b" " + entry_of(value),
            lambda value: json.dumps(value, sort_keys=True).encode(),
            lambda value: entry_of(value)[:-1] + b',"time_ms":1763546400001}',
            lambda value: entry_of(value).replace(b"acme", b"\\u0061cme"),
            lambda value: entry_of(value).replace(b'"schema_version":1', b'"schema_version":1.0'),
            lambda value: entry_of(value).replace(b'"log_id":"acme"', b'"log_id":"acme\\n"'),
            lambda value: b"\xef\xbb\xbf" + entry_of(value),
            lambda value: entry_of(value | {"simulated": False}),
            lambda value: entry_of(value | {"pseudonym_key_id": None}),
            lambda value: entry_of(value | {"comment": "x"}),
            lambda value: entry_of(value | {"body": value["body"] | {"comment_": "x"}}),
            lambda value: entry_of(value | {"body": value["body"] | {"type": "unheard"}}),
            lambda value: entry_of(value | {"schema_version": 2}),
            lambda value: entry_of(value)[:-1],
            lambda value: b"[" + entry_of(value) + b"]",
            lambda _: b"",
        ],
        ids=[
            "members-in-another-order",
            "line-feed-behind",
            "space-before",
            "spaces-between",
            "member-twice",
            "needless-escape",
            "integer-as-fraction",
            "line-feed-in-a-name",
            "byte-order-mark",
            "default-written-out",
            "null-written-out",
            "unknown-member",
            "unknown-member-of-the-body",
            "unknown-type",
            "unknown-version",
            "cut-short",
            "in-an-array",
            "nothing",
        ],
    )
    def test_any_other_spelling_is_malformed(self, kind, form, respell) -> None:
        value = sample(kind, form)
        entry = respell(value)
        assert entry != entry_of(value)
        with pytest.raises(MalformedError):
            decode_entry(entry)

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("seq", 0),
            ("seq", -1),
            ("seq", 2**53),
            ("seq", "1"),
            ("seq", True),
            ("running_count", -1),
            ("time_ms", -1),
            ("time_ms", 2**53),
            ("tenant", ""),
            ("tenant", "a" * 129),
            ("tenant", "acme\n"),
            ("tenant", "ac me"),
            ("tenant", "-acme"),
            ("tenant", "äcme"),
            ("tenant", None),
            ("log_id", "Acme"),
            ("log_id", "a" * 64),
            ("log_id", "a/b"),
            ("epoch", "5F0C" * 8),
            ("epoch", "5f0c" * 8 + "\n"),
            ("epoch", "5f" * 15),
            ("record_id", "019a9c146d8170008000000000000001"),
            ("record_id", "019A9C14-6D81-7000-8000-000000000001"),
            ("signature", "A" * 88),
            ("signature", "A" * 86),
            ("signature", "-" * 86 + "=="),
            ("simulated", 1),
            ("pseudonym_key_id", "01234567"),
            ("body", {}),
            ("body", None),
            ("body", []),
        ],
    )
    def test_a_member_out_of_its_range_is_malformed(self, name, bad) -> None:
        value = sample("heartbeat", "minimal")
        # json, for RFC 8785 has no form of 2**53.
        entry = json.dumps(value | {name: bad}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        with pytest.raises(MalformedError):
            decode_entry(entry)

    @pytest.mark.parametrize(
        ("kind", "name", "bad"),
        [
            ("decision", "decision", "permit"),
            ("decision", "enforcement", "block"),
            ("decision", "mode", "audit"),
            ("decision", "session", "5e" * 8),
            ("decision", "session", "alice"),
            ("decision", "user", "alice@example.com"),
            ("decision", "address", "192.0.2.1"),
            ("decision", "message", "the message itself"),
            ("decision", "message", {"digest": "c0" * 32}),
            ("decision", "message", {"digest": "c0" * 32, "size_bytes": -1}),
            ("decision", "message", {"digest": "C0" * 32, "size_bytes": 1}),
            ("decision", "message", {"digest": "c0" * 32, "size_bytes": 1, "salt": "00" * 16}),
            ("decision", "rules", ["a"] * 65),
            ("decision", "rules", "a"),
            ("decision", "rules", [None]),
            ("decision", "tool", "delete all"),
            ("decision", "tool_digest", "d0" * 16),
            ("decision", "evaluation_us", -1),
            ("decision", "trace_id", "4bf92f3577b34da6"),
            ("decision", "arguments", "{}"),
            ("outcome", "status", "done"),
            ("outcome", "error_code", 0.5),
            ("outcome", "decision_id", "1"),
            ("key", "public_key", "AAA"),
            ("key", "public_key", "A" * 8196),
            ("key", "public_key", "AA==AAAA"),
            ("key", "purpose", "tls"),
            ("dropped", "first_seq", 0),
            ("tombstone", "subject", "alice"),
            ("approval", "binding", None),
        ],
    )
    def test_a_body_member_out_of_its_range_is_malformed(self, kind, name, bad) -> None:
        value = sample(kind, "minimal")
        value["body"][name] = bad
        with pytest.raises(MalformedError):
            decode_entry(entry_of(value))

    @pytest.mark.parametrize(
        ("name", "bad"), [("local_hour", 24), ("local_minute", 60), ("weekday", 0), ("weekday", 8)]
    )
    def test_a_time_of_day_that_no_clock_shows_is_malformed(self, name, bad) -> None:
        value = sample("decision", "full")
        value["body"]["facts"][name] = bad
        with pytest.raises(MalformedError):
            decode_entry(entry_of(value))

    def test_deep_nesting_is_malformed_and_does_not_exhaust_the_stack(self) -> None:
        with pytest.raises(MalformedError):
            decode_entry(b'{"body":' * 100_000)

    def test_bytes_that_are_not_utf_8_are_malformed(self) -> None:
        with pytest.raises(MalformedError):
            decode_entry(entry_of(sample()).replace(b"finance-bot", b"finance-\xffot"))

    def test_a_record_beyond_the_size_of_an_entry_is_refused_when_it_is_written(self) -> None:
        record = signed()
        long = msgspec.structs.replace(record, tenant="a" * MAX_ENTRY_BYTES)
        with pytest.raises(MalformedError, match="65535 bytes"):
            encode_record(long)

    def test_the_largest_record_that_the_types_allow_fits_an_entry(self) -> None:
        value = sample("decision", "full")
        name = "n" * 128
        body = value["body"]
        for member in ("agent", "server", "method", "tool", "protocol_version", "reason", "failed_condition"):
            body[member] = name
        for member in ("rules", "obligations", "tags", "drift", "deviations"):
            body[member] = [name] * 64
        body["inspection"] = {"extent": "partial", "inspector": name, "findings": [name] * 64, "count": 2**53 - 1}
        body["facts"] |= {"roles": [name] * 64, "authn": name, "network": name}
        entry = entry_of(value)
        assert len(entry) < MAX_ENTRY_BYTES
        assert encode_record(decode_entry(entry)) == entry

    def test_equal_values_from_elsewhere_give_the_same_entry(self) -> None:
        # A default that was computed rather than omitted must be left out all the same.
        computed = AccessEvent(
            action="login",
            actor="0" * 32,
            actor_role="r",
            target_kind="log",
            result="OK".lower(),
            items=int("0"),
        )
        literal = AccessEvent(action="login", actor="0" * 32, actor_role="r", target_kind="log", result="ok")
        base = decode_entry(entry_of(sample("access", "minimal")))
        entries = {encode_record(msgspec.structs.replace(base, body=body)) for body in (computed, literal)}
        assert len(entries) == 1

    def test_a_result_is_written_out_even_if_it_is_ok(self) -> None:
        value = sample("access", "minimal")
        del value["body"]["result"]
        with pytest.raises(MalformedError, match="result"):
            decode_entry(entry_of(value))

    def test_entries_do_not_depend_on_the_hash_seed(self) -> None:
        program = (
            "import sys; from ledger.records import decode_entry, encode_record;"
            "sys.stdout.buffer.write(encode_record(decode_entry(sys.stdin.buffer.read())))"
        )
        entry = entry_of(sample())
        for seed in ("0", "1"):
            run = subprocess.run(
                [sys.executable, "-c", program],
                input=entry,
                capture_output=True,
                check=True,
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            )
            assert run.stdout == entry


class TestSignature:
    @pytest.mark.parametrize(("kind", "form"), FORMS)
    def test_a_signed_record_verifies(self, kind, form) -> None:
        verify_record_signature(signed(kind, form), bytes(_KEY.verify_key))

    def test_what_is_signed_is_a_label_and_the_entry_with_an_empty_signature(self) -> None:
        value = sample()
        assert signing_bytes(signed()) == b"tallystick/record/v1\n" + entry_of(value)

    def test_signing_again_ignores_the_old_signature(self) -> None:
        once = signed()
        assert sign_record(once, _KEY) == once

    @pytest.mark.parametrize(
        ("kind", "keys"), _FIELDS, ids=[f"{kind}-{'.'.join(map(str, keys))}" for kind, keys in _FIELDS]
    )
    def test_a_flipped_field_breaks_the_signature(self, kind, keys) -> None:
        record = signed(kind)
        value = json.loads(encode_record(record))
        if keys in {("schema_version",), ("signature",)}:
            with pytest.raises(MalformedError):
                decode_entry(entry_of(replaced(value, keys, 2)))
            return
        for new in flips(dict(scalars(value))[keys]):
            try:
                changed = decode_entry(entry_of(replaced(value, keys, new)))
            except MalformedError:
                continue
            with pytest.raises(SignatureInvalidError):
                verify_record_signature(changed, bytes(_KEY.verify_key))
            return
        pytest.fail("no other value of the field could be tried")

    def test_another_enforcers_key_does_not_verify(self) -> None:
        other = nacl.signing.SigningKey(b"\x08" * 32)
        with pytest.raises(SignatureInvalidError, match="the enforcer gateway-1"):
            verify_record_signature(signed(), bytes(other.verify_key))

    def test_a_signature_without_the_label_does_not_verify(self) -> None:
        record = signed()
        bare = _KEY.sign(signing_bytes(record).removeprefix(b"tallystick/record/v1\n")).signature
        with pytest.raises(SignatureInvalidError):
            verify_record_signature(
                msgspec.structs.replace(record, signature=encode_base64(bare)), bytes(_KEY.verify_key)
            )

    def test_a_second_spelling_of_the_signature_is_malformed(self) -> None:
        record = signed()
        altered = record.signature[:-3] + chr(ord(record.signature[-3]) + 1) + "=="
        with pytest.raises(MalformedError):
            verify_record_signature(msgspec.structs.replace(record, signature=altered), bytes(_KEY.verify_key))

    def test_a_public_key_of_the_wrong_length_verifies_nothing(self) -> None:
        with pytest.raises(SignatureInvalidError):
            verify_record_signature(signed(), b"\x00" * 31)


class TestCommitments:
    def test_the_commitments_of_a_body_are_found_by_field(self) -> None:
        found = commitments(signed("decision"))
        assert set(found) == {"message", "request"}
        assert all(isinstance(item, Commitment) for item in found.values())

    @pytest.mark.parametrize("kind", BODIES)
    def test_they_are_the_vaulted_fields_of_the_body(self, kind) -> None:
        prefix = f"body.{kind}."
        vaulted = {
            path.removeprefix(prefix).removesuffix(".digest")
            for path, field_class in field_classes().items()
            if field_class == "vaulted" and path.startswith(prefix)
        }
        assert {name for form in BODIES[kind] for name in commitments(signed(kind, form))} == vaulted

    def test_a_body_without_vaulted_fields_has_none(self) -> None:
        assert commitments(signed("heartbeat")) == {}


class TestRecordId:
    @requirement("uuid7-01", "uuid7-02", "uuid7-03", "uuid7-04")
    @pytest.mark.parametrize("time_ms", [0, 1, 1_763_546_400_000, 2**48 - 1])
    @pytest.mark.parametrize("random", [b"\x00" * 10, b"\xff" * 10, bytes(range(10))])
    def test_it_is_a_uuid_of_version_7(self, time_ms, random) -> None:
        text = new_record_id(time_ms, random)
        value = uuid.UUID(text)
        assert str(value) == text
        assert value.version == 7
        assert value.variant == uuid.RFC_4122
        assert value.int >> 80 == time_ms
        bits = int.from_bytes(random, "big")
        assert value.int >> 64 & 0xFFF == bits >> 64 & 0xFFF
        assert value.int & (1 << 62) - 1 == bits & (1 << 62) - 1

    @requirement("uuid7-01")
    def test_the_example_of_the_specification_comes_out(self) -> None:
        # RFC 9562, appendix A.6: 2022-02-22 19:22:22 UTC, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
        random = (0xCC3 << 64 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
        assert new_record_id(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"

    def test_later_ids_sort_behind_earlier_ones(self) -> None:
        assert new_record_id(1, b"\xff" * 10) < new_record_id(2, b"\x00" * 10)

    def test_a_derived_id_follows_from_what_it_is_for_and_is_of_version_8(self) -> None:
        told = [("a", "b"), ("b", "a"), ("ab",), ("a",), ()]
        ids = {derived_record_id(label, *one) for label in (b"one\n", b"two\n") for one in told}
        assert len(ids) == 2 * len(told)
        assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids} == {(8, uuid.RFC_4122)}
        assert derived_record_id(b"one\n", "a", "b") in ids

    @pytest.mark.parametrize(
        ("time_ms", "random"), [(-1, b"\x00" * 10), (2**48, b"\x00" * 10), (0, b""), (0, b"0" * 11)]
    )
    def test_a_time_or_randomness_that_does_not_fit_is_refused(self, time_ms, random) -> None:
        with pytest.raises(MalformedError):
            new_record_id(time_ms, random)


# --- what was signed, cut out of the entry ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_signature_holds_by_the_entry_as_it_does_by_the_record(kind, form):
    record = signed(kind, form)
    entry = encode_record(record)
    for given in (None, entry):
        verify_record_signature(record, bytes(_KEY.verify_key), entry=given)
    with pytest.raises(SignatureInvalidError):
        verify_record_signature(record, bytes(nacl.signing.SigningKey(b"\x08" * 32).verify_key), entry=entry)


@pytest.mark.parametrize("kind", BODIES)
def test_what_was_signed_is_cut_out_of_an_entry_as_it_is_encoded_anew(kind):
    record = signed(kind)
    assert _signing_bytes_of_entry(encode_record(record)) == signing_bytes(record)


def test_a_body_that_quotes_the_signature_does_not_mislead_the_cut():
    record = signed("key")
    quoting = msgspec.structs.replace(record.body, public_key=record.signature)
    record = sign_record(msgspec.structs.replace(record, body=quoting), _KEY)
    again = msgspec.structs.replace(record, body=msgspec.structs.replace(quoting, public_key=record.signature))
    for one in (record, again):
        assert _signing_bytes_of_entry(encode_record(one)) == signing_bytes(one)


def test_nothing_behind_the_signature_of_an_envelope_can_hold_another_member_of_that_name():
    # The cut takes the last member that is called so; an object behind the envelope's own could have one.
    names = sorted(Record.__struct_fields__)
    kinds = get_type_hints(Record, include_extras=True)
    behind = names[names.index("signature") + 1 :]
    assert behind
    for name in behind:
        described = msgspec.inspect.type_info(kinds[name])
        inner = described.type if isinstance(described, msgspec.inspect.Metadata) else described
        assert isinstance(inner, msgspec.inspect.StrType | msgspec.inspect.IntType | msgspec.inspect.BoolType)
