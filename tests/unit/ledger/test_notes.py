"""Signed notes, verifier keys and base64."""

from __future__ import annotations

import hashlib

import pytest

from ledger.errors import MalformedError
from ledger.notes import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    KeyId,
    NoteSignature,
    SignatureType,
    SignedNote,
    VerifierKey,
    check_key_name,
    decode_base64,
    encode_base64,
    parse_note,
    parse_vkey,
)
from tests.conformance.reference import c2sp
from tests.conformance.requirements import requirement

_KEY = bytes(range(32))
_LINE = c2sp.line("example.com/log", b"\x01\x02\x03\x04", b"signature")
_NOTE = c2sp.note("text\n", _LINE)

_SPACES = [
    " ",
    "\t",
    "\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1f",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2003",
    "\u2028",
    "\u2029",
]
_SPACES += ["\u202f", "\u205f", "\u3000"]


class TestNote:
    @requirement("note-01", "note-06", "note-07")
    def test_a_note_is_read_and_written_back_to_the_same_bytes(self) -> None:
        note = parse_note(_NOTE)
        assert note.text == "text\n"
        assert note.signatures == (NoteSignature("example.com/log", KeyId(b"\x01\x02\x03\x04"), b"signature"),)
        assert note.encode() == _NOTE

    @requirement("note-04")
    @pytest.mark.parametrize("text", ["\n", "a\n\nb\n", "\n\n\n", "a\n\n", "\N{EM DASH} a AAAAAAA=\n\nb\n"])
    def test_the_text_may_hold_empty_lines_and_what_looks_like_signatures(self, text) -> None:
        note = parse_note(c2sp.note(text, _LINE))
        assert note.text == text
        assert len(note.signatures) == 1
        assert note.encode() == c2sp.note(text, _LINE)

    @requirement("note-04")
    def test_signature_lines_above_the_last_empty_line_are_text(self) -> None:
        # An attacker who appends a block of its own cannot keep the old one as signatures.
        nested = c2sp.note(_NOTE.decode(), c2sp.line("evil.example", b"\x09" * 4, b"x"))
        note = parse_note(nested)
        assert note.text == _NOTE.decode()
        assert [line.name for line in note.signatures] == ["evil.example"]

    @requirement("note-01")
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\n",
            b"\n\n",
            b"text\n",
            b"text\n\n",
            b"text\n\n\n",
            _NOTE[:-1],
            _NOTE + b"\n",
            _NOTE + b"more",
            _LINE.encode(),
            b"\n" + _LINE.encode(),
            b"text\n" + _LINE.encode(),
            _NOTE.replace(b"\n", b"\r\n"),
        ],
    )
    def test_what_lacks_text_empty_line_or_signature_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            parse_note(data)

    @requirement("note-02")
    @pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x8a", b"\xf4\x90\x80\x80"])
    def test_bytes_that_are_not_utf_8_are_malformed(self, bad) -> None:
        with pytest.raises(MalformedError, match="UTF-8"):
            parse_note(b"te" + bad + _NOTE)

    @requirement("note-03")
    @pytest.mark.parametrize("char", [chr(code) for code in range(0x20) if chr(code) != "\n"])
    def test_a_control_character_anywhere_is_malformed(self, char) -> None:
        for data in (c2sp.note(f"te{char}xt\n", _LINE), _NOTE[:-1] + char.encode() + b"\n"):
            with pytest.raises(MalformedError, match="control character"):
                parse_note(data)

    def test_other_characters_are_text(self) -> None:
        text = "\x7f \x85\u2028 \N{SNOWMAN} \U0001f512 e\u0301\n"
        assert parse_note(c2sp.note(text, _LINE)).text == text

    @requirement("note-06", "note-07")
    @pytest.mark.parametrize(
        "line",
        [
            "- name AQIDBHg=\n",
            "\N{EN DASH} name AQIDBHg=\n",
            "\N{EM DASH}name AQIDBHg=\n",
            " \N{EM DASH} name AQIDBHg=\n",
            "\N{EM DASH} name\n",
            "\N{EM DASH} name \n",
            "\N{EM DASH}  AQIDBHg=\n",
            "\N{EM DASH} na+me AQIDBHg=\n",
            "\N{EM DASH} na\u00a0me AQIDBHg=\n",
            "\N{EM DASH} na me AQIDBHg=\n",
            "\N{EM DASH} name  AQIDBHg=\n",
            "\N{EM DASH} name AQIDBHg= \n",
            "\N{EM DASH} name AQIDBHg= more\n",
            "\N{EM DASH} name AQIDBHg\n",
            "\N{EM DASH} name AQIDBHh=\n",
            "\N{EM DASH} name AQID\n",
            "\N{EM DASH} name AQIDBA==\n",
            "\N{EM DASH} name AQID-Hg=\n",
            "text\n",
        ],
    )
    def test_a_line_of_another_form_is_malformed(self, line) -> None:
        for data in (c2sp.note("text\n", line), c2sp.note("text\n", _LINE, line), c2sp.note("text\n", line, _LINE)):
            with pytest.raises(MalformedError):
                parse_note(data)

    @requirement("note-08")
    def test_many_signatures_are_read_up_to_the_limit(self) -> None:
        lines = [c2sp.line(f"key{number}", bytes([0, 0, 0, number]), b"x" * 2428) for number in range(MAX_SIGNATURES)]
        assert len(parse_note(c2sp.note("text\n", *lines[:16])).signatures) == 16
        assert len(parse_note(c2sp.note("text\n", *lines)).signatures) == MAX_SIGNATURES
        with pytest.raises(MalformedError, match="more than 100"):
            parse_note(c2sp.note("text\n", *lines, _LINE))

    @requirement("note-08")
    def test_a_note_beyond_the_size_limit_is_malformed(self) -> None:
        filler = "x" * (MAX_NOTE_BYTES - len(_NOTE))
        assert parse_note(c2sp.note(filler + "text\n", _LINE)).text.startswith("xxx")
        with pytest.raises(MalformedError, match="at most 1000000 bytes"):
            parse_note(c2sp.note(filler + "xtext\n", _LINE))


class TestKeyName:
    @requirement("note-05")
    @pytest.mark.parametrize("name", ["a", "example.com/log", "b\xfccher.example/\N{SNOWMAN}", "a=b", "-", "\u200b"])
    def test_a_name_without_spaces_and_plus_is_kept(self, name) -> None:
        check_key_name(name)
        assert parse_note(c2sp.note("text\n", c2sp.line(name, b"\x00" * 4, b"s"))).signatures[0].name == name

    @requirement("note-05")
    @pytest.mark.parametrize("char", [*_SPACES, "+", "\x00", "\x7f", "\x9f", "\udcff"])
    def test_a_space_plus_control_or_surrogate_is_malformed(self, char) -> None:
        for name in (char, "a" + char, char + "a", f"a{char}b"):
            with pytest.raises(MalformedError):
                check_key_name(name)

    @requirement("note-05")
    def test_an_empty_name_is_malformed(self) -> None:
        with pytest.raises(MalformedError, match="empty"):
            check_key_name("")


class TestVerifierKey:
    @requirement("note-12", "note-15")
    @pytest.mark.parametrize(
        ("kind", "length"), [(1, 32), (4, 32), (6, 1312), (2, 91), (3, 1), (5, 64), (0, 9), (0xFA, 5), (0xFF, 70)]
    )
    def test_a_key_is_written_and_read_back(self, kind, length) -> None:
        key = VerifierKey("example.com/log", kind, bytes(i % 256 for i in range(length)))
        line = key.encode()
        assert parse_vkey(line) == key
        name, key_id, material = line.split("+", 2)
        assert (name, key_id) == ("example.com/log", key.key_id.hex())
        assert decode_base64(material) == bytes([kind]) + key.public_key
        if kind != SignatureType.ECDSA:
            assert line == c2sp.vkey("example.com/log", kind, key.public_key)

    @requirement("note-12")
    def test_the_key_id_is_made_of_name_type_and_key(self) -> None:
        expected = hashlib.sha256(b"example.com/log\n\x01" + _KEY).digest()[:4]
        assert VerifierKey("example.com/log", 1, _KEY).key_id == expected
        others = [
            VerifierKey("example.com/lag", 1, _KEY),
            VerifierKey("example.com/log", 4, _KEY),
            VerifierKey("example.com/log", 1, _KEY[::-1]),
        ]
        assert len({expected, *(key.key_id for key in others)}) == 4

    @requirement("note-13")
    def test_the_key_id_of_an_ecdsa_key_is_made_of_the_key_alone(self) -> None:
        spki = b"\x30\x59" + bytes(89)
        assert VerifierKey("a", 2, spki).key_id == VerifierKey("b", 2, spki).key_id == hashlib.sha256(spki).digest()[:4]

    @requirement("note-16")
    @pytest.mark.parametrize(
        "change",
        [
            lambda line: line.replace("example.com/log", "example.com/lag"),
            lambda line: line.replace(line.split("+")[1], "00000000"),
            lambda line: line.replace(line.split("+")[1], line.split("+")[1].upper()),
            lambda line: line.replace("+" + line.split("+")[1], "+0" + line.split("+")[1]),
            lambda line: line.replace("+" + line.split("+")[1], "+" + line.split("+")[1][1:]),
            lambda line: line[:-5] + "AAAA=",
            lambda line: line + "\n",
            lambda line: " " + line,
            lambda line: line.replace("+", " "),
            lambda line: line.replace("+", "", 1),
            lambda line: line.split("+")[0],
            lambda _: "",
            lambda line: "+" + line,
            lambda line: line.replace("example.com/log", ""),
            lambda line: line.replace("example.com/log", "exam\udcffple"),
            lambda line: line.replace("example.com/log", "exam\u2003ple"),
            lambda line: line[: line.rindex("+") + 1],
            lambda line: line[: line.rindex("+") + 1] + "AQ==",
        ],
    )
    def test_a_changed_line_is_malformed(self, change) -> None:
        line = c2sp.vkey("example.com/log", 1, b"\xa7" * 32)
        assert change(line) != line
        with pytest.raises(MalformedError):
            parse_vkey(change(line))

    @requirement("note-14")
    @pytest.mark.parametrize(
        ("kind", "length"), [(1, 31), (1, 33), (4, 0), (4, 64), (6, 1311), (6, 1313), (6, 32), (1, 1312)]
    )
    def test_a_key_of_the_wrong_length_for_its_type_is_malformed(self, kind, length) -> None:
        with pytest.raises(MalformedError):
            parse_vkey(c2sp.vkey("example.com/log", kind, b"\x01" * length))

    def test_the_fingerprint_is_the_hash_of_the_line(self) -> None:
        key = VerifierKey("example.com/log", 1, _KEY)
        assert key.fingerprint == hashlib.sha256(key.encode().encode()).hexdigest()


class TestBase64:
    @requirement("note-17")
    @pytest.mark.parametrize(
        ("data", "text"), [(b"", ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xfb\xff", "+/8=")]
    )
    def test_the_padded_standard_alphabet_is_written_and_read(self, data, text) -> None:
        assert encode_base64(data) == text
        assert decode_base64(text) == data

    @requirement("note-17")
    @pytest.mark.parametrize(
        "text",
        [
            "Zh==",
            "Zm9=",
            "Zg",
            "Zg=",
            "Zg===",
            "=",
            "Zm9v\n",
            " Zm9v",
            "Zm 9v",
            "Zm9v====",
            "-_8=",
            "Zm9vZg==Zg==",
            "Zg==Zm9v",
            "Zm8\N{FULLWIDTH EQUALS SIGN}",
            "\xe9",
            "\ud800",
            "Z",
            "Zm9v\x00",
            "Zm9",
            "Z===",
            "====",
        ],
    )
    def test_any_other_spelling_is_malformed(self, text) -> None:
        with pytest.raises(MalformedError):
            decode_base64(text)


def test_a_note_made_of_values_can_be_read() -> None:
    note = SignedNote(
        "a\n\nb\n", (NoteSignature("n", KeyId(b"\x00" * 4), b"s"), NoteSignature("m", KeyId(b"\x01" * 4), b"t"))
    )
    assert parse_note(note.encode()) == note
