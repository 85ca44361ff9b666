"""Signed notes and verifier keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from tests.conformance.reference import c2sp
from tests.vectors.keys import LOG, LOG_PQ, STRANGER, WITNESSES
from tests.vectors.vector import JSONObject, Vector, accepted, blob, rejected

_MALFORMED = "MalformedError"
_TEXT = "If you think cryptography is the answer,\nlook again.\n"
_LINE = LOG.line(_TEXT)
_ID = c2sp.key_id(LOG.name, LOG.kind, LOG.public_key)

_NOTES = {
    "one-signature": (_TEXT, [_LINE]),
    "three-signatures": (_TEXT, [_LINE, STRANGER.line(_TEXT), WITNESSES[0].line(_TEXT, timestamp=7)]),
    "empty-lines-in-the-text": ("\na\n\n\nb\n\n", [LOG.line("\na\n\n\nb\n\n")]),
    "a-note-within-a-note": (_TEXT + "\n" + _LINE, [LOG.line(_TEXT + "\n" + _LINE)]),
    "text-of-one-line-feed": ("\n", [LOG.line("\n")]),
    "beyond-ascii": ("\xe8 \N{SNOWMAN} \U0001f512\n", [c2sp.line("b\xfccher.example/\N{SNOWMAN}", _ID, b"\x00")]),
}


def _signatures(lines: list[str]) -> list[JSONObject]:
    parts = [line.removesuffix("\n").split(" ") for line in lines]
    blobs = [base64.b64decode(encoded) for _, _, encoded in parts]
    return [
        {"name": name, "key_id": data[:4].hex(), "signature": c2sp.b64(data[4:])}
        for (_, name, _), data in zip(parts, blobs, strict=True)
    ]


def _broken_notes() -> Iterator[tuple[str, str, bytes]]:
    note = c2sp.note(_TEXT, _LINE)
    dash, name, encoded = _LINE.removesuffix("\n").split(" ")

    def with_line(line: str) -> bytes:
        return c2sp.note(_TEXT, line)

    yield "empty", "Nothing.", b""
    yield "text-alone", "There are no signatures.", _TEXT.encode()
    yield "no-signature", "No line follows the empty one.", _TEXT.encode() + b"\n"
    yield "no-text", "There is no text before the empty line.", b"\n" + _LINE.encode()
    yield "no-empty-line", "The empty line is missing.", (_TEXT + _LINE).encode()
    yield "two-line-feeds-at-the-end", "An empty line follows the signatures.", note + b"\n"
    yield "last-line-feed-missing", "The last line does not end.", note[:-1]
    yield "something-behind", "A line that is no signature follows.", note + b"x\n"
    yield "carriage-returns", "Lines end in CR LF.", note.replace(b"\n", b"\r\n")
    yield "tab-in-the-text", "The text holds a tab.", note.replace(b"look again", b"look\tagain")
    yield "nul-in-the-text", "The text holds a NUL.", note.replace(b"look again", b"look\x00again")
    yield "escape-in-the-text", "The text holds an escape character.", note.replace(b"look", b"\x1b[2J")
    yield "not-utf-8", "The text is not UTF-8.", note.replace(b"look", b"\xff\xfe")
    yield "surrogate", "The text holds a surrogate in UTF-8.", note.replace(b"look", b"\xed\xa0\x80")
    yield "hyphen-for-dash", "A hyphen stands for the em dash.", with_line(_LINE.replace(dash, "-"))
    yield "en-dash", "An en dash stands for the em dash.", with_line(_LINE.replace(dash, "\N{EN DASH}"))
    yield "no-space-behind-the-dash", "The space behind the dash is missing.", with_line(_LINE.replace(" ", "", 1))
    yield "no-break-space", "A no-break space stands behind the dash.", with_line(_LINE.replace(" ", "\xa0", 1))
    yield "name-missing", "The name is missing.", with_line(f"{dash}  {encoded}\n")
    yield "name-with-plus", "The name holds a plus.", with_line(f"{dash} {name}+1 {encoded}\n")
    yield "name-with-em-space", "The name holds an em space.", with_line(f"{dash} {name}\u2003 {encoded}\n")
    yield "signature-missing", "The signature is missing.", with_line(f"{dash} {name}\n")
    yield "signature-empty", "The signature is empty.", with_line(f"{dash} {name} \n")
    yield "two-spaces", "Two spaces stand before the signature.", with_line(f"{dash} {name}  {encoded}\n")
    yield "space-behind", "A space follows the signature.", with_line(f"{dash} {name} {encoded} \n")
    yield "key-id-alone", "There is a key id and no signature.", with_line(c2sp.line(name, _ID, b""))
    yield "key-id-short", "There are three bytes.", with_line(c2sp.line(name, _ID[:3], b""))
    yield "base64-unpadded", "The padding is missing.", with_line(f"{dash} {name} {encoded.rstrip('=')}\n")
    yield (
        "base64-url",
        "The alphabet is that of URLs.",
        with_line(c2sp.line(name, b"\x00" * 4, b"\x00\x00\xfb\xef\xbe").replace("++++", "----")),
    )
    stray = c2sp.line(name, b"\x00" * 4, b"\x00")
    yield "base64-trailing-bits", "Bits behind the last byte are set.", with_line(stray.replace("AAA=", "AAB="))
    yield "base64-space", "A space stands within the base64.", with_line(f"{dash} {name} {encoded[:4]} {encoded[4:]}\n")
    many = [c2sp.line(f"key{number}", _ID, b"\x00") for number in range(101)]
    yield "101-signatures", "There are 101 signatures.", c2sp.note(_TEXT, *many)


def _broken_vkeys(key: str) -> Iterator[tuple[str, str, str]]:
    name, key_id, encoded = key.split("+", 2)
    flipped = f"{int(key_id, 16) ^ 1:08x}"
    shorter = c2sp.b64(base64.b64decode(encoded)[:-1])
    yield "empty", "Nothing.", ""
    yield "name-changed", "The key id is not that of this name.", f"{name}x+{key_id}+{encoded}"
    yield "name-missing", "There is no name.", f"+{key_id}+{encoded}"
    yield "name-with-space", "The name holds a space.", f"{name} x+{key_id}+{encoded}"
    yield "key-id-changed", "The key id is another.", f"{name}+{flipped}+{encoded}"
    yield "key-id-missing", "There is no key id.", f"{name}+{encoded}"
    yield "key-id-short", "The key id has seven digits.", f"{name}+{key_id[1:]}+{encoded}"
    yield "key-id-long", "The key id has nine digits.", f"{name}+0{key_id}+{encoded}"
    yield "key-id-not-hexadecimal", "The key id is not hexadecimal.", f"{name}+{key_id[:-1]}g+{encoded}"
    yield (
        "key-changed",
        "The key is another.",
        f"{name}+{key_id}+{encoded[:8]}{'A' if encoded[8] != 'A' else 'B'}{encoded[9:]}",
    )
    yield "key-cut-short", "A byte of the key is missing.", f"{name}+{key_id}+{shorter}"
    yield "key-missing", "There is no key.", f"{name}+{key_id}+"
    yield "type-alone", "There is a type and no key.", f"{name}+{key_id}+{encoded[:2]}=="
    yield "line-feed-behind", "A line feed follows.", key + "\n"
    yield "space-before", "A space precedes.", " " + key


def vectors() -> Iterator[Vector]:
    for case, (text, lines) in _NOTES.items():
        note = c2sp.note(text, *lines)
        output = {"text": blob(text.encode()), "signatures": _signatures(lines)}
        yield accepted(f"notes/{case}/valid", "A signed note.", {"note": blob(note)}, output)
    many = [c2sp.line(f"key{number}", _ID, b"\x00") for number in range(16)]
    output = {"text": blob(_TEXT.encode()), "signatures": _signatures(many)}
    given: JSONObject = {"note": blob(c2sp.note(_TEXT, *many))}
    yield accepted("notes/one-signature/16-signatures", "As many as every reader must take.", given, output)
    for mutation, about, data in _broken_notes():
        yield rejected(f"notes/one-signature/{mutation}", about, _MALFORMED, {"note": blob(data)})
    spki = b"\x30\x59" + bytes(range(89))
    ecdsa = f"{LOG.name}+{hashlib.sha256(spki).hexdigest()[:8]}+{c2sp.b64(bytes([c2sp.ECDSA]) + spki)}"
    keys = {"ed25519": LOG.vkey, "ml-dsa-44": LOG_PQ.vkey, "cosignature": WITNESSES[0].vkey, "ecdsa": ecdsa}
    for case, key in keys.items():
        name, key_id, encoded = key.split("+", 2)
        material = base64.b64decode(encoded)
        output = {"name": name, "key_id": key_id, "type": material[0], "public_key": c2sp.b64(material[1:])}
        yield accepted(f"notes/vkey-{case}/valid", "A verifier key.", {"vkey": key}, output)
        if case in {"ed25519", "ml-dsa-44"}:
            for mutation, about, line in _broken_vkeys(key):
                yield rejected(f"notes/vkey-{case}/{mutation}", about, _MALFORMED, {"vkey": line})
