"""Trust policies: what a policy file may say, and which checkpoints meet it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from ledger.errors import (
    LedgerError,
    MalformedError,
    SignatureInvalidError,
    SignatureUncheckedError,
    SplitViewError,
    TrustPolicyError,
)
from ledger.notes import VerifierKey, parse_vkey
from ledger.trust import (
    KeyValidity,
    TrustPolicy,
    VerifiedCheckpoint,
    Witness,
    WitnessGroup,
    parse_trust_policy,
    refuse_split_view,
)
from tests.conformance.reference import c2sp
from tests.conformance.requirements import requirement

_ORIGIN = "log.example/acme"
_ROOT = bytes(range(32))
_TEXT = c2sp.body(_ORIGIN, 70_000, _ROOT)
_TIME = 1_763_546_400

_ED = c2sp.Ed25519Signer(_ORIGIN, b"\x01" * 32)
_PQ = c2sp.MLDSA44Signer(_ORIGIN, b"\x02" * 32)
_ED_NEW = c2sp.Ed25519Signer(_ORIGIN, b"\x05" * 32)
_PQ_NEW = c2sp.MLDSA44Signer(_ORIGIN, b"\x06" * 32)
_STRANGER = c2sp.Ed25519Signer("stranger.example", b"\x07" * 32)
_W = [
    c2sp.Ed25519Signer(f"witness.example/w{number}", bytes([0x10 + number]) * 32, c2sp.COSIGNATURE)
    for number in range(4)
] + [c2sp.MLDSA44Signer("witness.example/w4", b"\x14" * 32)]

_LOGS = f"log {_ED.vkey}\nlog {_PQ.vkey}\n"
_WITNESSES = "".join(f"witness W{number} {signer.vkey}\n" for number, signer in enumerate(_W))

Signer = c2sp.Ed25519Signer | c2sp.MLDSA44Signer
_LINES: dict[tuple[str, str], str] = {}


def line(signer: Signer, text: str = _TEXT) -> str:
    """Sign once for each signer and text: many tests look at the same checkpoint."""
    return _LINES.setdefault((signer.vkey, text), signer.line(text, timestamp=_TIME))


def signed(*signers: Signer, text: str = _TEXT) -> bytes:
    return c2sp.note(text, *(line(signer, text) for signer in signers))


def policy(text: str) -> TrustPolicy:
    return parse_trust_policy(text.encode())


def quorum(rule: str) -> TrustPolicy:
    return policy(_LOGS + _WITNESSES + rule)


class TestLogSignatures:
    _POLICY = policy(_LOGS + "quorum none\n")

    @requirement("policy-06", "policy-17")
    def test_a_checkpoint_signed_with_both_algorithms_is_verified(self) -> None:
        verified = self._POLICY.verify(signed(_ED, _PQ))
        assert (verified.checkpoint.origin, verified.head.size, verified.head.root) == (_ORIGIN, 70_000, _ROOT)
        assert set(verified.signers) == {parse_vkey(_ED.vkey), parse_vkey(_PQ.vkey)}
        assert verified.timestamps == {_ORIGIN: _TIME}
        assert verified.witnesses == ()

    @requirement("policy-17", "note-11")
    @pytest.mark.parametrize("signers", [(_ED,), (_PQ,), (_STRANGER,), (_ED, _STRANGER), (_ED, _ED), (_PQ, *_W)])
    def test_one_algorithm_is_not_enough_where_the_policy_lists_two(self, signers) -> None:
        with pytest.raises(TrustPolicyError, match=r"is not signed with (ed25519|mldsa44),"):
            self._POLICY.verify(signed(*signers))

    @requirement("note-09", "checkpoint-08")
    def test_signatures_of_strangers_are_ignored(self) -> None:
        same_name = c2sp.Ed25519Signer(_ORIGIN, b"\x08" * 32)
        same_id = c2sp.line("stranger.example", c2sp.key_id(_ORIGIN, 1, _ED.public_key), b"\x00" * 64)
        garbage = c2sp.line("garbage.example", b"\x00" * 4, b"\xff")
        data = c2sp.note(_TEXT, line(_STRANGER), line(same_name), same_id, line(_ED), garbage, line(_PQ))
        assert {key.name for key in self._POLICY.verify(data).signers} == {_ORIGIN}

    @requirement("note-10")
    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("signer", [_ED, _PQ], ids=["ed25519", "ml-dsa-44"])
    def test_a_wrong_signature_of_a_listed_key_rejects_even_beside_a_right_one(self, first, signer) -> None:
        key_id = c2sp.key_id(signer.name, signer.kind, signer.public_key)
        wrong = c2sp.line(signer.name, key_id, b"\x00" * (64 if signer is _ED else 2428))
        lines = [wrong, line(_ED), line(_PQ)] if first else [line(_ED), line(_PQ), wrong]
        with pytest.raises(SignatureInvalidError):
            self._POLICY.verify(c2sp.note(_TEXT, *lines))

    @requirement("policy-12", "checkpoint-06")
    def test_an_origin_that_the_policy_does_not_list_is_refused(self) -> None:
        text = c2sp.body("log.example/other", 70_000, _ROOT)
        with pytest.raises(TrustPolicyError, match=r"names no log 'log\.example/other'"):
            self._POLICY.verify(signed(_ED, _PQ, text=text))

    @requirement("policy-12", "checkpoint-06")
    def test_another_listed_logs_key_does_not_speak_for_this_origin(self) -> None:
        other = c2sp.Ed25519Signer("log.example/other", b"\x09" * 32)
        both = policy(f"log {_ED.vkey}\nlog {other.vkey}\nquorum none\n")
        with pytest.raises(TrustPolicyError, match="is not signed with ed25519"):
            both.verify(signed(other))

    def test_a_policy_without_logs_trusts_none(self) -> None:
        with pytest.raises(TrustPolicyError, match="names no log"):
            policy("quorum none\n").verify(signed(_ED, _PQ))

    @requirement("cosignature-12")
    def test_a_log_may_sign_without_a_time(self) -> None:
        data = c2sp.note(_TEXT, line(_ED), _PQ.line(_TEXT, timestamp=0))
        assert self._POLICY.verify(data).timestamps == {_ORIGIN: 0}

    @pytest.mark.parametrize("data", [b"", _TEXT.encode(), c2sp.note("text\n", _ED.line("text\n"))])
    def test_what_is_no_signed_checkpoint_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            self._POLICY.verify(data)

    def test_a_listed_key_of_a_type_that_we_cannot_check_is_never_passed_over(self) -> None:
        strange = VerifierKey(_ORIGIN, 0x02, b"\x30" * 91)
        ours = TrustPolicy(logs=(parse_vkey(_ED.vkey), strange))
        with pytest.raises(SignatureUncheckedError, match="0x02"):
            ours.verify(signed(_ED))
        with pytest.raises(SignatureUncheckedError, match="0x02"):
            ours.verify(c2sp.note(_TEXT, line(_ED), c2sp.line(_ORIGIN, strange.key_id, b"\x00" * 70)))


class TestExtensionLines:
    _TEXT = _TEXT + "extension\n"

    @requirement("checkpoint-09")
    def test_they_are_believed_if_ed25519_covers_them(self) -> None:
        verified = policy(_LOGS + "quorum none\n").verify(signed(_ED, _PQ, text=self._TEXT))
        assert verified.checkpoint.extensions == ("extension",)

    @requirement("checkpoint-09", "cosignature-11")
    def test_they_are_refused_if_only_mldsa_has_signed(self) -> None:
        # Anybody could have added the line: the signature holds with and without it.
        only_pq = policy(f"log {_PQ.vkey}\nquorum none\n")
        only_pq.verify(signed(_PQ))
        with pytest.raises(TrustPolicyError, match="covers the checkpoint's extension lines"):
            only_pq.verify(c2sp.note(self._TEXT, line(_PQ)))

    @requirement("checkpoint-09")
    def test_a_witness_that_covers_them_does_not_make_them_the_logs(self) -> None:
        ours = policy(f"log {_PQ.vkey}\nwitness w {_W[0].vkey}\nquorum w\n")
        with pytest.raises(TrustPolicyError, match="extension lines"):
            ours.verify(signed(_PQ, _W[0], text=self._TEXT))


class TestValidity:
    @staticmethod
    def _policy(signers: Sequence[Signer], validity: dict[Signer, KeyValidity]) -> TrustPolicy:
        keys = {signer.vkey: parse_vkey(signer.vkey) for signer in signers}
        return TrustPolicy(
            logs=tuple(keys.values()),
            validity={keys[signer.vkey].key_id: period for signer, period in validity.items()},
        )

    @requirement("policy-18")
    @pytest.mark.parametrize(
        ("first", "last", "size", "covered"),
        [
            (0, None, 0, True),
            (0, None, 2**63, True),
            (5, None, 4, False),
            (5, None, 5, True),
            (0, 7, 7, True),
            (0, 7, 8, False),
        ],
    )
    def test_a_period_covers_its_first_and_last_size(self, first, last, size, covered) -> None:
        assert KeyValidity(first, last).covers(size) is covered

    @requirement("policy-18")
    @pytest.mark.parametrize(("period"), [KeyValidity(0, 69_999), KeyValidity(70_001), KeyValidity(0, 0)])
    @pytest.mark.parametrize("signer", [_ED, _PQ], ids=["ed25519", "ml-dsa-44"])
    def test_a_key_outside_its_sizes_does_not_count(self, period, signer) -> None:
        # "Compromised after size N": whoever has the key now can sign, and it must be worth nothing.
        with pytest.raises(TrustPolicyError, match="by a key that counts for this tree size"):
            self._policy([_ED, _PQ], {signer: period}).verify(signed(_ED, _PQ))

    @pytest.mark.parametrize(
        ("one", "other", "both"),
        [
            (KeyValidity(), KeyValidity(), KeyValidity()),
            (KeyValidity(3, 9), KeyValidity(), KeyValidity(3, 9)),
            (KeyValidity(3, 9), KeyValidity(5, 7), KeyValidity(5, 7)),
            (KeyValidity(3, 7), KeyValidity(5, 9), KeyValidity(5, 7)),
            (KeyValidity(0, 0), KeyValidity(0, 5), KeyValidity(0, 0)),
        ],
    )
    def test_validity_is_only_ever_narrowed(self, one, other, both) -> None:
        assert one.narrowed(other) == both
        assert other.narrowed(one) == both

    def test_a_log_cannot_widen_what_the_policy_says_of_its_keys(self) -> None:
        ours = self._policy([_ED, _PQ], {_ED: KeyValidity(0, 69_999)})
        with pytest.raises(TrustPolicyError, match="by a key that counts for this tree size"):
            ours.narrowed({key.key_id: KeyValidity() for key in ours.logs}).verify(signed(_ED, _PQ))
        assert ours.narrowed({ours.logs[1].key_id: KeyValidity(5)}).validity == {
            ours.logs[0].key_id: KeyValidity(0, 69_999),
            ours.logs[1].key_id: KeyValidity(5),
        }

    @requirement("policy-17", "policy-18")
    def test_a_key_is_replaced_by_overlap(self) -> None:
        rotated = self._policy(
            [_ED, _PQ, _ED_NEW, _PQ_NEW],
            {
                _ED: KeyValidity(0, 70_000),
                _PQ: KeyValidity(0, 70_000),
                _ED_NEW: KeyValidity(60_000),
                _PQ_NEW: KeyValidity(60_000),
            },
        )
        old, new, mixed = (_ED, _PQ), (_ED_NEW, _PQ_NEW), (_ED_NEW, _PQ)
        for size, accepted, refused in (
            (59_999, [old], [new, mixed]),
            (60_000, [old, new, mixed, old + new], [(_ED, _ED_NEW), (_PQ_NEW,)]),
            (70_000, [old, new, mixed, old + new], [(_ED, _ED_NEW), (_PQ_NEW,)]),
            (70_001, [new, old + new], [old, mixed]),
        ):
            text = c2sp.body(_ORIGIN, size, _ROOT)
            for signers in accepted:
                assert rotated.verify(signed(*signers, text=text)).head.size == size
            for signers in refused:
                with pytest.raises(TrustPolicyError):
                    rotated.verify(signed(*signers, text=text))


class TestQuorum:
    @requirement("policy-15", "policy-16")
    @pytest.mark.parametrize(
        ("rule", "cosigners", "met"),
        [
            ("quorum none\n", (), True),
            ("quorum W0\n", (0,), True),
            ("quorum W0\n", (), False),
            ("quorum W0\n", (1, 2, 3, 4), False),
            ("quorum W4\n", (4,), True),
            ("group g any W0 W1\nquorum g\n", (1,), True),
            ("group g any W0 W1\nquorum g\n", (2,), False),
            ("group g all W0 W1\nquorum g\n", (0, 1), True),
            ("group g all W0 W1\nquorum g\n", (0, 2, 3), False),
            ("group g 2 W0 W1 W4\nquorum g\n", (0, 4), True),
            ("group g 2 W0 W1 W4\nquorum g\n", (4,), False),
            ("group x 2 W0 W1 W2\ngroup y any W3 W4\ngroup z all x y\nquorum z\n", (0, 2, 4), True),
            ("group x 2 W0 W1 W2\ngroup y any W3 W4\ngroup z all x y\nquorum z\n", (0, 1, 2), False),
            ("group x 2 W0 W1 W2\ngroup y any W3 W4\ngroup z all x y\nquorum z\n", (0, 3, 4), False),
            ("group x 2 W0 W1 W2\ngroup y any W3 W4\ngroup z 1 x y\nquorum z\n", (3,), True),
            ("group x 2 W0 W1 W2\ngroup y any W3 W4\nquorum y\ngroup z all x y\n", (3,), True),
        ],
    )
    def test_groups_within_groups_are_met_by_their_thresholds(self, rule, cosigners, met) -> None:
        data = signed(_ED, _PQ, *(_W[number] for number in cosigners))
        if met:
            verified = quorum(rule).verify(data)
            assert verified.witnesses == tuple(f"W{number}" for number in cosigners)
            assert all(verified.timestamps[_W[number].name] == _TIME for number in cosigners)
        else:
            with pytest.raises(TrustPolicyError, match="lacks the witness quorum"):
                quorum(rule).verify(data)

    @requirement("policy-16")
    def test_a_cosignature_that_stands_twice_counts_once(self) -> None:
        with pytest.raises(TrustPolicyError, match=r"cosigned by: W0$"):
            quorum("group g 2 W0 W1\nquorum g\n").verify(signed(_ED, _PQ, _W[0], _W[0]))

    @requirement("note-10")
    def test_a_wrong_cosignature_of_a_listed_witness_rejects_even_if_it_is_not_needed(self) -> None:
        other = c2sp.body(_ORIGIN, 1, _ROOT)
        data = c2sp.note(_TEXT, line(_ED), line(_PQ), line(_W[0]), line(_W[1], other))
        with pytest.raises(SignatureInvalidError, match="w1"):
            quorum("quorum W0\n").verify(data)

    @requirement("cosignature-12")
    @pytest.mark.parametrize("number", [0, 4])
    def test_a_cosignature_without_a_time_is_refused(self, number) -> None:
        data = c2sp.note(_TEXT, line(_ED), line(_PQ), _W[number].line(_TEXT, timestamp=0))
        with pytest.raises(SignatureInvalidError, match="carries no time"):
            quorum(f"quorum W{number}\n").verify(data)

    def test_witnesses_do_not_stand_in_for_the_log(self) -> None:
        with pytest.raises(TrustPolicyError, match="is not signed with"):
            quorum("quorum W0\n").verify(signed(*_W))

    def test_a_log_key_under_a_witness_name_is_no_witness(self) -> None:
        impostor = c2sp.Ed25519Signer(_W[0].name, b"\x33" * 32, c2sp.COSIGNATURE)
        with pytest.raises(TrustPolicyError, match="cosigned by: nobody"):
            quorum("quorum W0\n").verify(signed(_ED, _PQ, impostor))

    def test_groups_may_be_nested_as_deep_as_the_file_is_long(self) -> None:
        chain = "".join(f"group g{depth} all {f'g{depth - 1}' if depth else 'W0'}\n" for depth in range(1_900))
        deep = quorum(chain + "quorum g1899\n")
        assert deep.verify(signed(_ED, _PQ, _W[0])).witnesses == ("W0",)
        with pytest.raises(TrustPolicyError):
            deep.verify(signed(_ED, _PQ, _W[1]))

    def test_a_quorum_that_names_nothing_is_never_met(self) -> None:
        ours = TrustPolicy(logs=(parse_vkey(_ED.vkey),), quorum="nobody")
        with pytest.raises(TrustPolicyError, match="nobody"):
            ours.verify(signed(_ED))


class TestPolicyFile:
    @requirement("policy-12", "policy-13")
    def test_a_file_is_read_and_written_back(self) -> None:
        parsed = quorum("group x 2 W0 W1 W2\ngroup y any W3 x\nquorum y\n")
        assert parsed.logs == (parse_vkey(_ED.vkey), parse_vkey(_PQ.vkey))
        assert parsed.log_keys(_ORIGIN) == parsed.logs
        assert parsed.log_keys("log.example/other") == ()
        assert parsed.witnesses["W0"] == Witness("W0", parse_vkey(_W[0].vkey))
        assert parsed.groups["y"] == WitnessGroup("y", 1, ("W3", "x"))
        assert parsed.quorum == "y"
        assert policy(parsed.encode()) == parsed

    @requirement("policy-06")
    def test_the_smallest_policy_is_one_line(self) -> None:
        assert policy("quorum none\n") == TrustPolicy()
        assert TrustPolicy().encode() == "quorum none\n"

    def test_urls_are_kept_for_witnesses_and_allowed_for_logs(self) -> None:
        parsed = policy(f"log {_ED.vkey} https://log.example\nwitness w {_W[0].vkey} https://w.example\nquorum w\n")
        assert parsed.witnesses["w"].url == "https://w.example"
        assert policy(parsed.encode()) == parsed

    @requirement("policy-01", "policy-02")
    @pytest.mark.parametrize(
        "text",
        [
            "  quorum\t \tnone  \n",
            "\n\n \t \nquorum none",
            "# a comment\n\t # another one\nquorum none\n",
            "#quorum W0\nquorum none\n",
        ],
    )
    def test_blanks_and_comments_do_not_matter(self, text) -> None:
        assert policy(text) == TrustPolicy()

    @requirement("policy-01")
    @pytest.mark.parametrize("space", ["\xa0", "\u2003", "\u2028", "\x85", "\u3000"])
    def test_other_spaces_do_not_part_items(self, space) -> None:
        with pytest.raises(MalformedError, match="knows no line"):
            policy(f"quorum{space}none\n")

    @requirement("policy-03")
    @pytest.mark.parametrize("octet", [code for code in range(0x20) if code not in (9, 10)] + [0x7F])
    def test_a_control_character_is_malformed_even_in_a_comment(self, octet) -> None:
        with pytest.raises(MalformedError, match="control character"):
            parse_trust_policy(b"# a" + bytes([octet]) + b"\nquorum none\n")

    @requirement("policy-04")
    def test_octets_above_ascii_are_opaque_and_kept_apart(self) -> None:
        kelvin, k = b"\xe2\x84\xaa", b"K"
        first, second = (signer.vkey.encode() for signer in _W[:2])
        text = b"witness %b %b\nwitness %b %b\nwitness \xff\xfe %b\n# \xc3\x28\nquorum \xff\xfe\n"
        parsed = parse_trust_policy(text % (kelvin, first, k, second, _W[2].vkey.encode()))
        assert set(parsed.witnesses) == {"\N{KELVIN SIGN}", "K", "\udcff\udcfe"}
        assert parsed.quorum == "\udcff\udcfe"
        assert parse_trust_policy(parsed.encode().encode(errors="surrogateescape")) == parsed

    @requirement("policy-04")
    def test_a_key_name_that_is_not_utf_8_is_malformed(self) -> None:
        # No note could carry it; computing its key id must not fail in any other way.
        with pytest.raises(MalformedError):
            parse_trust_policy(b"log a\xffb" + _ED.vkey.removeprefix(_ORIGIN).encode() + b"\nquorum none\n")

    @requirement("policy-05", "policy-07", "policy-08", "policy-09", "policy-10", "policy-11", "policy-13")
    @pytest.mark.parametrize(
        "text",
        [
            "",
            _LOGS,
            "quorum none\nquorum none\n",
            "quorum W0\n",
            "quorum\n",
            "quorum none W0\n",
            "Quorum none\n",
            "quorums none\n",
            f"quorum w\nwitness w {_W[0].vkey}\n",
            f"quorum g\nwitness w {_W[0].vkey}\ngroup g any w\n",
            f"witness w {_W[0].vkey}\nwitness w {_W[1].vkey}\nquorum w\n",
            f"witness w {_W[0].vkey}\ngroup w any w\nquorum w\n",
            f"witness g {_W[0].vkey}\ngroup h any g\ngroup h any g\nquorum h\n",
            f"witness w {_W[0].vkey}\nwitness v {_W[1].vkey}\ngroup g any w\ngroup g any v\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g any w\nwitness g {_W[1].vkey}\nquorum g\n",
            f"witness none {_W[0].vkey}\nquorum none\n",
            f"witness w {_W[0].vkey}\ngroup none any w\nquorum none\n",
            f"witness w {_W[0].vkey}\ngroup g any none\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g any g\nquorum g\n",
            f"group g any w\nwitness w {_W[0].vkey}\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g all h\ngroup h all w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g 1 w w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g 1 w\ngroup h 1 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g 1 w\ngroup h 1 g\ngroup i 1 g\nquorum i\n",
            f"witness w {_W[0].vkey}\ngroup g any\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g\nquorum w\n",
            f"witness w {_W[0].vkey}\ngroup g 0 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g 2 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g 01 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g +1 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g -1 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g 1.0 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g \u0661 w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g {'1' * 5000} w\nquorum g\n",
            f"witness w {_W[0].vkey}\ngroup g ANY w\nquorum g\n",
            f"log {_ED.vkey}\nlog {_ED.vkey}\nquorum none\n",
            f"log {_ED.vkey}\nlog {c2sp.vkey('other.example', 1, _ED.public_key)}\nquorum none\n",
            f"witness a {_W[0].vkey}\nwitness b {_W[0].vkey}\nquorum a\n",
            f"witness a {_W[0].vkey}\nwitness b {c2sp.vkey('other.example', 4, _W[0].public_key)}\nquorum a\n",
            f"log {_PQ.vkey}\nwitness w {_PQ.vkey}\nquorum w\n",
            f"witness w {_PQ.vkey}\nlog {_PQ.vkey}\nquorum w\n",
            f"log {_PQ.vkey}\nwitness w {c2sp.vkey('other.example', 6, _PQ.public_key)}\nquorum w\n",
            f"log {_ED.vkey}\nwitness w {c2sp.vkey('other.example', 4, _ED.public_key)}\nquorum w\n",
            f"witness w {c2sp.vkey('other.example', 4, _ED.public_key)}\nlog {_ED.vkey}\nquorum w\n",
            f"log {_W[0].vkey}\nquorum none\n",
            f"log {c2sp.vkey(_ORIGIN, 3, b'key')}\nquorum none\n",
            f"witness w {_ED.vkey}\nquorum w\n",
            f"witness w {c2sp.vkey('w.example', 255, b'key')}\nquorum w\n",
            "log\nquorum none\n",
            f"log {_ED.vkey} https://log.example more\nquorum none\n",
            f"witness {_W[0].vkey}\nquorum none\n",
            f"witness w {_W[0].vkey} https://w.example more\nquorum w\n",
            f"log {_ED.vkey[:-1]}\nquorum none\n",
            f"log {_ED.vkey.upper()}\nquorum none\n",
            f"logs {_ED.vkey}\nquorum none\n",
            f"origin {_ORIGIN}\nquorum none\n",
            "quorum none # no trailing comments\n",
            "\ufeffquorum none\n",
            "quorum none\r\n",
        ],
    )
    def test_a_file_that_breaks_a_rule_is_malformed(self, text) -> None:
        with pytest.raises(MalformedError):
            policy(text)

    @requirement("policy-14")
    def test_32_logs_witnesses_and_groups_and_more_are_read(self) -> None:
        lines = []
        for number in range(64):
            log, witness = bytes([number, 1]) * 16, bytes([number, 2]) * 16
            lines.append(f"log {c2sp.Ed25519Signer(f'l{number}', log).vkey}\n")
            lines.append(f"witness w{number} {c2sp.Ed25519Signer(f'n{number}', witness, c2sp.COSIGNATURE).vkey}\n")
            lines.append(f"group g{number} all w{number}\n")
        parsed = policy("".join(lines) + "group all 32 " + " ".join(f"g{n}" for n in range(64)) + "\nquorum all\n")
        assert (len(parsed.logs), len(parsed.witnesses), len(parsed.groups)) == (64, 64, 65)

    def test_a_file_of_too_many_lines_is_malformed(self) -> None:
        assert policy("\n" * 1_999 + "quorum none") == TrustPolicy()
        with pytest.raises(MalformedError, match="2000 lines"):
            policy("\n" * 2_000 + "quorum none")


class TestSplitView:
    @staticmethod
    def _verified(origin: str = _ORIGIN, size: int = 5, root: bytes = _ROOT) -> VerifiedCheckpoint:
        signer = c2sp.Ed25519Signer(origin, b"\x01" * 32)
        text = c2sp.body(origin, size, root)
        return TrustPolicy(logs=(parse_vkey(signer.vkey),)).verify(c2sp.note(text, signer.line(text)))

    @requirement("checkpoint-07")
    def test_two_roots_for_one_size_are_a_split_view(self) -> None:
        with pytest.raises(SplitViewError, match="two roots for size 5"):
            refuse_split_view(self._verified(), self._verified(root=b"\x01" * 32))

    @requirement("checkpoint-07")
    def test_the_same_root_or_another_size_is_not(self) -> None:
        refuse_split_view(self._verified(), self._verified())
        refuse_split_view(self._verified(), self._verified(size=6, root=b"\x01" * 32))

    def test_two_logs_cannot_be_compared(self) -> None:
        with pytest.raises(TrustPolicyError, match="are two logs"):
            refuse_split_view(self._verified(), self._verified("log.example/other"))


def test_every_refusal_is_of_the_ledgers_tree() -> None:
    refusals = (TrustPolicyError, SignatureInvalidError, SignatureUncheckedError, SplitViewError, MalformedError)
    assert all(issubclass(error, LedgerError) for error in refusals)


def test_a_witness_time_of_the_past_is_kept_and_not_judged() -> None:
    # Whether a time is too old is the caller's question: the core has no clock.
    blob = struct.pack(">Q", 1) + _W[0].raw(c2sp.cosignature_message(1, _TEXT))
    old = c2sp.line(_W[0].name, c2sp.key_id(_W[0].name, c2sp.COSIGNATURE, _W[0].public_key), blob)
    verified = quorum("quorum W0\n").verify(c2sp.note(_TEXT, line(_ED), line(_PQ), old))
    assert verified.timestamps[_W[0].name] == 1
