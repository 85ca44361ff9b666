"""Checkpoint bodies, the messages that are signed, and the checking of one signature line."""

from __future__ import annotations

import struct

import pytest

from ledger.checkpoints import (
    MAX_ORIGIN_BYTES,
    Checkpoint,
    ed25519_cosignature_message,
    mldsa44_message,
    pack_timestamped,
    parse_body,
    parse_unverified_checkpoint,
    signature_timestamp,
    verify_signature,
)
from ledger.errors import MalformedError, SignatureInvalidError, SignatureUncheckedError
from ledger.merkle import EMPTY_ROOT, RootHash
from ledger.notes import KeyId, NoteSignature, VerifierKey, parse_vkey
from tests.conformance.reference import c2sp
from tests.conformance.requirements import requirement

_ORIGIN = "log.example/acme"
_ROOT = bytes(range(32))
_TEXT = c2sp.body(_ORIGIN, 70_000, _ROOT)
_TIME = 1_763_546_400

_LOG = c2sp.Ed25519Signer(_ORIGIN, b"\x01" * 32)
_PQ_LOG = c2sp.MLDSA44Signer(_ORIGIN, b"\x02" * 32)
_WITNESS = c2sp.Ed25519Signer("witness.example/w1", b"\x03" * 32, c2sp.COSIGNATURE)
_PQ_WITNESS = c2sp.MLDSA44Signer("witness.example/w2", b"\x04" * 32)
_SIGNERS = {"log": _LOG, "pq-log": _PQ_LOG, "witness": _WITNESS, "pq-witness": _PQ_WITNESS}
_LINES = {name: signer.line(_TEXT, timestamp=_TIME) for name, signer in _SIGNERS.items()}
_NOTE = c2sp.note(_TEXT, *_LINES.values())


def checkpoint(size: int = 70_000, origin: str = _ORIGIN, root: bytes = _ROOT) -> Checkpoint:
    return Checkpoint(origin=origin, size=size, root=RootHash(root))


def check(name: str, data: bytes, line: NoteSignature | None = None) -> None:
    """Check the line of one signer in a note, or another line in its place."""
    parsed = parse_unverified_checkpoint(data)
    position = list(_SIGNERS).index(name)
    verify_signature(parse_vkey(_SIGNERS[name].vkey), parsed, line or parsed.note.signatures[position])


class TestBody:
    @requirement("checkpoint-01", "checkpoint-03", "checkpoint-04")
    @pytest.mark.parametrize("size", [0, 1, 9, 10, 70_000, 2**63 - 1])
    def test_a_body_is_read_and_written_back(self, size) -> None:
        root = EMPTY_ROOT if size == 0 else _ROOT
        text = c2sp.body(_ORIGIN, size, root)
        parsed = parse_body(text)
        assert parsed == checkpoint(size, root=root)
        assert parsed.body() == text
        assert (parsed.head.size, parsed.head.root) == (size, root)

    @requirement("checkpoint-05")
    def test_extension_lines_are_kept_as_they_stand(self) -> None:
        text = c2sp.body(_ORIGIN, 1, _ROOT, " padded ", "\N{SNOWMAN}", "0")
        parsed = parse_body(text)
        assert parsed.extensions == (" padded ", "\N{SNOWMAN}", "0")
        assert parsed.body() == text

    @requirement("checkpoint-01", "checkpoint-05")
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            "\n\n\n",
            _TEXT[:-1],
            _TEXT + "\n",
            _TEXT + "\nextension\n",
            _TEXT + "extension\n\n",
            "\n" + _TEXT,
            f"{_ORIGIN}\n",
            f"{_ORIGIN}\n70000\n",
            f"{_ORIGIN}\n\n{c2sp.b64(_ROOT)}\n",
            f"\n70000\n{c2sp.b64(_ROOT)}\n",
            f"{_ORIGIN}\n70000\n\n",
            _TEXT.replace("\n", "\r\n"),
            _TEXT.replace("acme", "ac\tme"),
            _TEXT.replace("acme", "ac\x00me"),
            _TEXT.replace("acme", "ac\ud800me"),
            _TEXT + "extension",
            _TEXT + "ext\udcff\n",
            _TEXT + f"ext{chr(0xD800)}\n",
            _TEXT + f"ext{chr(0xDFFF)}\n",
            _TEXT + "ext\x1b\n",
        ],
    )
    def test_missing_empty_or_unwritable_lines_are_malformed(self, text) -> None:
        with pytest.raises(MalformedError):
            parse_body(text)

    @requirement("checkpoint-02")
    @pytest.mark.parametrize(
        "origin",
        ["a", "go.sum database tree", "a+b", "\xa0", "https://log.example/", "\N{SNOWMAN}", "x" * MAX_ORIGIN_BYTES],
    )
    def test_an_origin_of_any_form_is_read(self, origin) -> None:
        assert parse_body(c2sp.body(origin, 1, _ROOT)).origin == origin

    @pytest.mark.parametrize("origin", ["x" * 256, "\N{SNOWMAN}" * 86])
    def test_an_origin_that_no_signature_can_name_is_malformed(self, origin) -> None:
        with pytest.raises(MalformedError, match="255 bytes"):
            parse_body(c2sp.body(origin, 1, _ROOT))

    @requirement("checkpoint-03")
    @pytest.mark.parametrize(
        "size",
        [
            "",
            "00",
            "01",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "0x10",
            "1_000",
            "\u0661",
            "\uff11",
            "9223372036854775808",
            "18446744073709551616",
            "1" * 5000,
        ],
    )
    def test_a_size_of_another_form_is_malformed(self, size) -> None:
        with pytest.raises(MalformedError):
            parse_body(f"{_ORIGIN}\n{size}\n{c2sp.b64(_ROOT)}\n")

    @requirement("checkpoint-04")
    @pytest.mark.parametrize("root", [b"", b"\x00" * 31, b"\x00" * 33, b"\x00" * 64])
    def test_a_root_of_another_length_is_malformed(self, root) -> None:
        with pytest.raises(MalformedError):
            parse_body(c2sp.body(_ORIGIN, 1, root))

    @requirement("checkpoint-04")
    @pytest.mark.parametrize(
        "change",
        [lambda t: t[:-1], lambda t: t[:-2] + "9=", lambda t: t + " ", lambda t: " " + t, lambda t: t.lower() + "="],
    )
    def test_a_root_in_another_spelling_is_malformed(self, change) -> None:
        with pytest.raises(MalformedError):
            parse_body(f"{_ORIGIN}\n1\n{change(c2sp.b64(_ROOT))}\n")

    @requirement("checkpoint-04")
    def test_an_empty_tree_with_another_root_is_malformed(self) -> None:
        with pytest.raises(MalformedError, match="empty tree"):
            parse_body(c2sp.body(_ORIGIN, 0, _ROOT))


class TestMessages:
    @requirement("cosignature-08")
    def test_the_mldsa_message_is_byte_for_byte_that_of_the_specification(self) -> None:
        message = mldsa44_message("witness.example/w2", _TIME, checkpoint())
        assert message == c2sp.subtree_message("witness.example/w2", _TIME, _ORIGIN, 70_000, _ROOT)
        assert message == (
            b"subtree/v1\n\x00"
            b"\x12witness.example/w2"
            b"\x00\x00\x00\x00\x69\x1d\x95\x20"
            b"\x10log.example/acme"
            b"\x00\x00\x00\x00\x00\x00\x00\x00"
            b"\x00\x00\x00\x00\x00\x01\x11\x70" + _ROOT
        )

    @requirement("cosignature-05")
    def test_the_ed25519_cosignature_message_is_byte_for_byte_that_of_the_specification(self) -> None:
        assert ed25519_cosignature_message(1_679_315_147, _TEXT) == (
            b"cosignature/v1\ntime 1679315147\nlog.example/acme\n70000\n" + c2sp.b64(_ROOT).encode() + b"\n"
        )
        assert ed25519_cosignature_message(0, "a\n") == b"cosignature/v1\ntime 0\na\n"

    @requirement("cosignature-09")
    def test_names_of_1_to_255_bytes_fit(self) -> None:
        for name in ("n", "n" * 255, "\N{SNOWMAN}" * 85):
            message = mldsa44_message(name, 0, checkpoint(origin=name))
            assert message == c2sp.subtree_message(name, 0, name, 70_000, _ROOT)

    @requirement("cosignature-09")
    @pytest.mark.parametrize("name", ["", "n" * 256, "\N{SNOWMAN}" * 86, "a\ud800"])
    def test_names_of_another_length_are_malformed(self, name) -> None:
        with pytest.raises(MalformedError):
            mldsa44_message(name, 0, checkpoint())
        with pytest.raises(MalformedError):
            mldsa44_message("n", 0, checkpoint(origin=name))

    @requirement("cosignature-04", "cosignature-08")
    @pytest.mark.parametrize("number", [0, 2**63 - 1])
    def test_the_smallest_and_the_largest_size_and_time_fit(self, number) -> None:
        message = mldsa44_message("n", number, checkpoint(number))
        assert message == c2sp.subtree_message("n", number, _ORIGIN, number, _ROOT)

    @requirement("cosignature-04")
    @pytest.mark.parametrize("timestamp", [-1, 2**63, 2**64])
    def test_a_timestamp_out_of_range_is_never_signed(self, timestamp) -> None:
        with pytest.raises(MalformedError, match="not a timestamp"):
            mldsa44_message("n", timestamp, checkpoint())
        with pytest.raises(MalformedError, match="not a timestamp"):
            pack_timestamped(timestamp, b"s")

    @pytest.mark.parametrize(
        ("size", "root"), [(-1, _ROOT), (2**63, _ROOT), (2**64, _ROOT), (1, _ROOT[1:]), (1, _ROOT * 2)]
    )
    def test_a_tree_head_that_the_format_cannot_carry_is_never_signed(self, size, root) -> None:
        with pytest.raises(MalformedError):
            mldsa44_message("n", 0, checkpoint(size, root=root))

    @requirement("cosignature-03")
    def test_a_timestamped_signature_is_seconds_and_signature(self) -> None:
        assert pack_timestamped(_TIME, b"sig") == b"\x00\x00\x00\x00\x69\x1d\x95\x20sig"
        assert pack_timestamped(2**63 - 1, b"") == b"\x7f" + b"\xff" * 7


class TestSignatureLine:
    @requirement("note-14", "cosignature-01", "cosignature-02", "cosignature-03")
    @pytest.mark.parametrize("name", _SIGNERS)
    def test_a_line_of_each_type_verifies(self, name) -> None:
        check(name, _NOTE)

    @requirement("cosignature-01", "cosignature-02")
    def test_the_key_ids_are_those_of_the_specification(self) -> None:
        for signer in _SIGNERS.values():
            assert parse_vkey(signer.vkey).key_id == c2sp.key_id(signer.name, signer.kind, signer.public_key)
        assert len(_PQ_LOG.public_key) == 1312

    @pytest.mark.parametrize("name", _SIGNERS)
    def test_a_timestamp_is_read_where_the_type_has_one(self, name) -> None:
        line = parse_unverified_checkpoint(_NOTE).note.signatures[list(_SIGNERS).index(name)]
        assert signature_timestamp(parse_vkey(_SIGNERS[name].vkey), line) == (None if name == "log" else _TIME)

    @pytest.mark.parametrize("name", _SIGNERS)
    @pytest.mark.parametrize(
        "text",
        [
            c2sp.body("log.example/acmf", 70_000, _ROOT),
            c2sp.body(_ORIGIN, 70_001, _ROOT),
            c2sp.body(_ORIGIN, 70_000, b"\x01" + _ROOT[1:]),
        ],
        ids=["origin", "size", "root"],
    )
    def test_each_of_the_three_lines_is_signed(self, name, text) -> None:
        with pytest.raises(SignatureInvalidError):
            check(name, c2sp.note(text, *_LINES.values()))

    @requirement("cosignature-06", "cosignature-11", "note-14")
    @pytest.mark.parametrize("name", _SIGNERS)
    def test_extension_lines_are_signed_by_ed25519_and_not_by_mldsa(self, name) -> None:
        data = c2sp.note(_TEXT + "extension\n", *_LINES.values())
        if name.startswith("pq"):
            check(name, data)
        else:
            with pytest.raises(SignatureInvalidError):
                check(name, data)

    @requirement("cosignature-03", "cosignature-04")
    @pytest.mark.parametrize("name", ["witness", "pq-log", "pq-witness"])
    @pytest.mark.parametrize("timestamp", [0, _TIME - 1, _TIME + 1, 2**63 - 1])
    def test_the_timestamp_is_signed(self, name, timestamp) -> None:
        line = parse_unverified_checkpoint(_NOTE).note.signatures[list(_SIGNERS).index(name)]
        altered = NoteSignature(line.name, line.key_id, struct.pack(">Q", timestamp) + line.signature[8:])
        with pytest.raises(SignatureInvalidError):
            check(name, _NOTE, altered)

    @requirement("cosignature-04")
    @pytest.mark.parametrize("signer", [_WITNESS, _PQ_WITNESS], ids=["ed25519", "ml-dsa-44"])
    def test_a_timestamp_out_of_range_is_refused_even_if_it_is_signed(self, signer) -> None:
        late = 2**63
        message = (
            c2sp.cosignature_message(late, _TEXT)
            if signer is _WITNESS
            else c2sp.subtree_message(signer.name, late, _ORIGIN, 70_000, _ROOT)
        )
        key = parse_vkey(signer.vkey)
        line = NoteSignature(signer.name, key.key_id, struct.pack(">Q", late) + signer.raw(message))
        with pytest.raises(SignatureInvalidError, match="out of range"):
            verify_signature(key, parse_unverified_checkpoint(_NOTE), line)

    @pytest.mark.parametrize("name", _SIGNERS)
    @pytest.mark.parametrize("length", [1, 7, 8, 9, 63, 65, 71, 73, 2427, 2429])
    def test_a_signature_of_another_length_is_refused(self, name, length) -> None:
        line = parse_unverified_checkpoint(_NOTE).note.signatures[list(_SIGNERS).index(name)]
        altered = NoteSignature(line.name, line.key_id, (line.signature * 40)[:length])
        with pytest.raises(SignatureInvalidError):
            check(name, _NOTE, altered)

    @pytest.mark.parametrize("length", [0, 7, 8])
    def test_a_timestamp_cut_short_has_no_value(self, length) -> None:
        key = parse_vkey(_WITNESS.vkey)
        with pytest.raises(SignatureInvalidError, match="cut short"):
            signature_timestamp(key, NoteSignature(key.name, key.key_id, b"\x00" * length))

    @requirement("cosignature-10")
    def test_a_signature_does_not_pass_under_another_cosigner_name_with_the_same_key(self) -> None:
        renamed = VerifierKey("witness.example/w3", c2sp.MLDSA44, _PQ_WITNESS.public_key)
        line = parse_unverified_checkpoint(_NOTE).note.signatures[3]
        with pytest.raises(SignatureInvalidError, match=r"witness\.example/w3 is wrong"):
            verify_signature(
                renamed,
                parse_unverified_checkpoint(_NOTE),
                NoteSignature(renamed.name, renamed.key_id, line.signature),
            )

    @requirement("cosignature-07")
    def test_an_ed25519_cosignature_passes_under_any_name_of_its_key(self) -> None:
        # Why the specification asks for a key of its own for each cosigner, and trust policies refuse a key twice.
        renamed = VerifierKey("witness.example/w9", c2sp.COSIGNATURE, _WITNESS.public_key)
        line = parse_unverified_checkpoint(_NOTE).note.signatures[2]
        verify_signature(
            renamed, parse_unverified_checkpoint(_NOTE), NoteSignature(renamed.name, renamed.key_id, line.signature)
        )

    def test_a_cosignature_is_no_note_signature_of_the_same_key_and_the_reverse(self) -> None:
        parsed = parse_unverified_checkpoint(_NOTE)
        as_log = VerifierKey(_WITNESS.name, c2sp.ED25519, _WITNESS.public_key)
        with pytest.raises(SignatureInvalidError):
            verify_signature(
                as_log, parsed, NoteSignature(as_log.name, as_log.key_id, parsed.note.signatures[2].signature[8:])
            )
        as_witness = VerifierKey(_LOG.name, c2sp.COSIGNATURE, _LOG.public_key)
        with pytest.raises(SignatureInvalidError):
            verify_signature(
                as_witness,
                parsed,
                NoteSignature(as_witness.name, as_witness.key_id, bytes(8) + parsed.note.signatures[0].signature),
            )

    @pytest.mark.parametrize("name", _SIGNERS)
    def test_a_line_of_another_key_is_refused_before_anything_is_computed(self, name) -> None:
        line = parse_unverified_checkpoint(_NOTE).note.signatures[list(_SIGNERS).index(name)]
        for other in (
            NoteSignature("someone.example", line.key_id, line.signature),
            NoteSignature(line.name, KeyId(b"\x00" * 4), line.signature),
        ):
            with pytest.raises(SignatureInvalidError, match="was offered for the key"):
                check(name, _NOTE, other)

    @pytest.mark.parametrize("kind", [0x02, 0x03, 0x05, 0x07, 0xFA, 0xFF])
    def test_a_type_that_is_not_known_is_unchecked_and_neither_right_nor_wrong(self, kind) -> None:
        key = VerifierKey(_ORIGIN, kind, b"\x01" * 91)
        line = NoteSignature(_ORIGIN, key.key_id, b"\x00" * 64)
        with pytest.raises(SignatureUncheckedError, match=f"{kind:#04x}"):
            verify_signature(key, parse_unverified_checkpoint(_NOTE), line)
        assert signature_timestamp(key, line) is None

    @pytest.mark.parametrize("data", [b"", _TEXT.encode(), c2sp.note("just text\n", _LINES["log"])])
    def test_what_is_no_signed_checkpoint_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            parse_unverified_checkpoint(data)
