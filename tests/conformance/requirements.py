"""What the specifications ask of the core, as data: id, our sentence, and the clause it comes from.

A test says what it holds with ``@requirement("note-04")``; `test_requirements` checks that every id has a test and that
every id in a test is one of these. Sentences marked *ours* say where we ask for more than the specification does.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

__all__ = ["REQUIREMENTS", "Requirement", "requirement"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One clause.

    Attributes:
        id: Family and number, such as ``note-04``.
        sentence: What must hold, in our words.
        source: Specification and clause.
    """

    id: str
    sentence: str
    source: str


def _family(prefix: str, *clauses: tuple[str, str]) -> list[Requirement]:
    return [Requirement(f"{prefix}-{number:02d}", *clause) for number, clause in enumerate(clauses, start=1)]


_NOTE = "C2SP signed-note v1.0.0, Format"
_NOTE_SIGNATURES = "C2SP signed-note v1.0.0, Signatures"
_NOTE_TYPES = "C2SP signed-note v1.0.0, Signature types"
_VKEY = "C2SP signed-note v1.0.0, Verifier keys"
_CHECKPOINT = "C2SP tlog-checkpoint v1.0.0, Note text"
_CHECKPOINT_SIGNATURES = "C2SP tlog-checkpoint v1.0.0, Signatures"
_COSIGNATURE = "C2SP tlog-cosignature v1.1.0-rc.1, Format"
_COSIGNATURE_ED25519 = "C2SP tlog-cosignature v1.1.0-rc.1, Ed25519 signed message"
_COSIGNATURE_MLDSA = "C2SP tlog-cosignature v1.1.0-rc.1, ML-DSA-44 signed message"
_TILES = "C2SP tlog-tiles v0.1.0, Merkle Tree"
_PARTIAL = "C2SP tlog-tiles v0.1.0, Partial Tiles"
_SERVED = "C2SP tlog-tiles v0.1.0, Checkpoints and Merkle Tree"
_BUNDLES = "C2SP tlog-tiles v0.1.0, Log entries"
_PRUNING = "C2SP tlog-tiles v0.1.0, Pruning"
_PROOF = "C2SP tlog-proof, Format"
_POLICY = "C2SP tlog-policy, Policy file syntax and structure"
_WITNESS = "C2SP tlog-witness v1.0.0, add-checkpoint"

_ALL: list[Requirement] = [
    *_family(
        "note",
        ("A text ending in a line feed, an empty line and at least one signature line make a note.", _NOTE),
        ("A note is valid UTF-8.", _NOTE),
        ("A note holds no byte below 0x20 but the line feed.", _NOTE),
        ("The last empty line ends the text, which may hold empty lines of its own.", _NOTE),
        ("A key name is not empty and holds neither a plus nor a space of any script.", _NOTE),
        ("A signature line is an em dash, a space, the name, a space, base64, and a line feed.", _NOTE),
        ("The base64 holds a key id of four bytes and at least one byte of signature.", _NOTE),
        ("Sixteen signatures are read; there is a limit to their number and to the note's size.", _NOTE),
        ("A signature whose name and id are not both a known key's is ignored.", _NOTE_SIGNATURES),
        ("A wrong signature of a known key rejects the note, whatever else has signed it.", _NOTE_SIGNATURES),
        ("A note that no known key has signed is rejected.", _NOTE_SIGNATURES),
        ("A key id is the start of SHA-256 over name, line feed, type byte and public key.", _NOTE_SIGNATURES),
        ("The key id of an ECDSA key is the start of SHA-256 over its SPKI encoding alone.", _NOTE_TYPES),
        ("Type 0x01 is Ed25519 over the whole text by a key of 32 bytes.", "C2SP signed-note v1.0.0, Ed25519"),
        ("A verifier key is name, key id in hexadecimal, and base64 of type byte and key, joined by plus.", _VKEY),
        ("A verifier key whose id does not follow from its other parts is refused.", _VKEY),
        (
            "Base64 is the padded standard alphabet; ours: in the one spelling that its bytes have.",
            "RFC 4648 section 4",
        ),
    ),
    *_family(
        "checkpoint",
        ("A text has an origin, a size and a root line, and none of them is empty.", _CHECKPOINT),
        ("An origin may be any non-empty line: nothing is concluded from its form.", _CHECKPOINT),
        ("The size is decimal without leading zeros; an empty tree's is 0.", _CHECKPOINT),
        ("The root is base64 of 32 bytes; an empty tree's is the hash of nothing.", _CHECKPOINT),
        ("Extension lines are not empty and are kept as they stand.", _CHECKPOINT),
        ("A log's signature counts only under a key name that equals the origin.", _CHECKPOINT_SIGNATURES),
        ("Two checkpoints of one size with two roots are inconsistent, and are told apart.", _CHECKPOINT_SIGNATURES),
        ("Signatures by keys that the reader does not know do no harm.", _CHECKPOINT_SIGNATURES),
        ("Ours: extension lines that no log signature covers are not believed.", _CHECKPOINT_SIGNATURES),
    ),
    *_family(
        "cosignature",
        ("The key id of an Ed25519 cosigner is made with the type byte 0x04.", _COSIGNATURE),
        ("The key id of an ML-DSA-44 cosigner is made with the type byte 0x06 and a key of 1,312 bytes.", _COSIGNATURE),
        ("A signature is a big-endian u64 of POSIX seconds and 64 or 2,420 bytes.", _COSIGNATURE),
        ("A timestamp is at most 2**63 - 1.", _COSIGNATURE),
        ("The Ed25519 message is a fixed line, a time line in decimal, and the whole text.", _COSIGNATURE_ED25519),
        ("The Ed25519 message covers extension lines.", _COSIGNATURE_ED25519),
        ("The Ed25519 message names no cosigner, so that two cosigners may not share a key.", _COSIGNATURE_ED25519),
        (
            "The ML-DSA-44 message is label, cosigner, time, origin, 0, size and root, in TLS encoding.",
            _COSIGNATURE_MLDSA,
        ),
        ("Cosigner name and origin have 1 to 255 bytes.", _COSIGNATURE_MLDSA),
        ("The ML-DSA-44 message names the cosigner: under another name the signature is wrong.", _COSIGNATURE_MLDSA),
        ("The ML-DSA-44 message does not cover extension lines.", _COSIGNATURE_MLDSA),
        ("A log may sign with time 0; a witness that states no time states nothing.", _COSIGNATURE_MLDSA),
    ),
    *_family(
        "tiles",
        ("A level is 0 to 63 in decimal, without leading zeros.", _TILES),
        ("A number is written in groups of three digits, all but the last behind an x.", _TILES),
        ("A full tile has 256 hashes, 8,192 bytes.", _TILES),
        ("Entry i of tile n on level l is the tree hash of leaves (256n+i)*256^l up to (256n+i+1)*256^l.", _TILES),
        ("A partial tile's path ends in .p/ and its width, 1 to 255 without leading zeros.", _PARTIAL),
        (
            "The partial width of level l at size s is floor(s / 256^l) mod 256, and there is no tile of width 0.",
            _PARTIAL,
        ),
        ("Only full tiles are hashed into the level above.", _PARTIAL),
        ("Sizes 70,000 and 256 have the tiles that the specification counts out.", _PARTIAL),
        ("A bundle is its entries, each behind a big-endian u16 of its length.", _BUNDLES),
        ("An entry has at most 65,535 bytes.", _BUNDLES),
        ("Each entry of a bundle hashes to the hash at its place in the level-0 tile.", _BUNDLES),
        ("A checkpoint is served as UTF-8 text for seconds, tiles and bundles as bytes that never change.", _SERVED),
        ("A partial tile may go once its full tile exists; readers then take the full one.", _PARTIAL),
        ("The partial tiles of the published size are there.", _PARTIAL),
        (
            "A bundle whose end index is at most the minimum index is answered with 404, every other one served.",
            _PRUNING,
        ),
        ("Without a published retention policy the minimum index stays 0.", _PRUNING),
        ("Ours: the minimum index never moves back.", "wire-formats.md section 8"),
    ),
    *_family(
        "proof",
        ("The first line names the format and version 1.", _PROOF),
        ("An optional second line carries extra data in base64.", _PROOF),
        ("The index line is decimal without leading zeros.", _PROOF),
        ("Hash lines of 32 bytes follow, the leaf's sibling first.", _PROOF),
        ("An empty line and the checkpoint, byte for byte, end the file.", _PROOF),
        ("Extra data is authenticated by nothing: changing it changes no verdict.", _PROOF),
        ("An entry is accepted if the checkpoint meets the policy and the hashes lead to its root.", _PROOF),
        ("Ours: extra data has at most 48 KiB, which the public Go parser still reads.", "wire-formats.md section 9"),
    ),
    *_family(
        "policy",
        ("Lines end in a line feed; items are parted by spaces and tabs and by nothing else.", _POLICY),
        ("Empty lines and lines that begin with # are ignored.", _POLICY),
        ("Control characters but tab and line feed are refused, DEL among them.", "C2SP tlog-policy, Character set"),
        ("Octets above 0x7f are opaque: names are equal only octet for octet.", "C2SP tlog-policy, Character set"),
        ("There is exactly one quorum line.", "C2SP tlog-policy, Defining the quorum"),
        ("The quorum none asks for no cosignature.", "C2SP tlog-policy, Defining the quorum"),
        ("Witnesses and groups share their names, each defined once, and none is reserved.", "C2SP tlog-policy"),
        ("Groups and the quorum speak only of names defined on lines above.", "C2SP tlog-policy, Structure"),
        ("A name is a member of at most one group, once.", "C2SP tlog-policy, Defining a witness group"),
        ("A threshold is any, all, or decimal between 1 and the number of members.", "C2SP tlog-policy, groups"),
        (
            "Two log lines, or two witness lines, with one public key are refused whatever their names.",
            "C2SP tlog-policy",
        ),
        ("A log's key name is the origin that it speaks for.", "C2SP tlog-policy, Defining a log"),
        ("Keys have a type that fits their function.", "C2SP tlog-policy, Public key representation"),
        ("At least 32 logs, 32 witnesses and 32 groups are read.", "C2SP tlog-policy, Implementation limits"),
        ("A group has witnessed if its threshold of members has, groups within groups included.", "C2SP tlog-policy"),
        ("A checkpoint that lacks the quorum is refused.", "C2SP tlog-policy, What is a policy?"),
        ("Ours: of each algorithm that the policy lists for the origin, a key has signed.", "architecture.md, Formats"),
        ("Ours: a log key counts only for the tree sizes of its validity.", "architecture.md, Rooms, trust"),
    ),
    *_family(
        "tree",
        ("A leaf's hash is SHA-256 over 0x00 and the entry.", "RFC 6962 section 2.1"),
        ("A node's hash is SHA-256 over 0x01 and its two children.", "RFC 6962 section 2.1"),
        ("The empty tree's root is SHA-256 of nothing.", "RFC 6962 section 2.1"),
        ("A tree splits at the largest power of two below its size.", "RFC 6962 section 2.1"),
        ("An inclusion proof holds the siblings from the leaf to the root.", "RFC 6962 section 2.1.1"),
        ("Inclusion verification refuses a wrong index, a wrong length and another root.", "RFC 9162 section 2.1.3.2"),
        ("A consistency proof holds the nodes of SUBPROOF, in its order.", "RFC 6962 section 2.1.2"),
        ("Consistency verification refuses a wrong length and either wrong root.", "RFC 9162 section 2.1.4.2"),
        (
            "Equal sizes and an empty old tree have an empty proof, and still their roots are compared.",
            "RFC 9162 2.1.4",
        ),
    ),
    *_family(
        "jcs",
        ("Members are sorted by the UTF-16 code units of their names.", "RFC 8785 section 3.2.3"),
        ("Nothing stands between tokens.", "RFC 8785 section 3.2.1"),
        (
            "Strings escape control characters, quote and backslash, the short way where there is one.",
            "RFC 8785 3.2.2.2",
        ),
        ("Numbers are written as ECMAScript writes doubles.", "RFC 8785 section 3.2.2.3"),
        ("NaN and infinities are refused.", "RFC 8785 section 3.2.2.3"),
        ("Lone surrogates are refused.", "RFC 8785 section 3.2.2.2"),
        ("The result is UTF-8 without a byte order mark.", "RFC 8785 section 3.2.4"),
        ("Integers that no double holds exactly are refused, not rounded.", "RFC 8785 section 3.2.2.3, RFC 7493 2.2"),
    ),
    *_family(
        "ijson",
        ("Text is UTF-8; a byte order mark is refused.", "RFC 7493 section 2.1, RFC 8259 section 8.1"),
        ("A name stands once in an object, even when it is spelled in two ways.", "RFC 7493 section 2.3"),
        ("Lone surrogates are refused, escaped or not.", "RFC 7493 section 2.1"),
        ("A number beyond the range of a double is refused; all others are kept exactly.", "RFC 7493 section 2.2"),
        (
            "What RFC 8259's grammar does not have is refused: NaN, comments, trailing commas, bare controls.",
            "RFC 8259",
        ),
        ("Ours: nesting is limited, and the limit is the same for every reader.", "RFC 8259 section 9"),
    ),
    *_family(
        "mldsa",
        ("An ML-DSA-44 public key has 1,312 bytes and a signature 2,420; others are refused.", "FIPS 204 table 2"),
        ("Signatures are pure ML-DSA with an empty context.", "FIPS 204 section 5.2, C2SP tlog-cosignature"),
        ("Signing is hedged: equal messages have unequal signatures, and each holds.", "FIPS 204 section 3.4"),
        ("OpenSSL and PQClean hold each other's signatures to be right.", "architecture.md, Formats"),
        ("One changed bit of key, message or signature is refused.", "FIPS 204 section 5.3"),
    ),
    *_family(
        "witness",
        ("A request is an old size, a consistency proof, an empty line and a checkpoint.", _WITNESS),
        ("A proof line is one hash in base64; there are at most 63.", _WITNESS),
        ("A cosignature counts after it has been verified with the witness's key.", _WITNESS),
        ("Cosignatures of unknown keys are ignored.", _WITNESS),
        ("A conflict says the tree size that the witness cosigned last, and is asked once more from there.", _WITNESS),
        ("404 is an unknown log, 403 no trusted signature, 400 a malformed request, 422 a proof that fails.", _WITNESS),
        ("What is cosigned is kept before it is answered, in one step with the comparison.", _WITNESS),
    ),
    *_family(
        "timestamp",
        ("A token of a trusted authority says when the digest existed.", "RFC 3161 section 2.4.2"),
        ("A token is over the SHA-256 of exactly the bytes in hand.", "RFC 3161 section 2.4.2"),
        ("The nonce that was sent comes back, and no other.", "RFC 3161 sections 2.2 and 2.4.2"),
        ("The token is made under the policy that is demanded.", "RFC 3161 section 2.2"),
        ("The certificate leads to a given root and was valid at the token's time.", "RFC 3161 section 2.2"),
        ("The certificate is for time-stamping alone, and says so critically.", "RFC 3161 section 2.3"),
        ("Only a status of granted grants. Ours: granted with modifications is refused too.", "RFC 3161 section 2.4.2"),
    ),
    *_family(
        "ed25519",
        ("The vectors of RFC 8032 section 7.1 hold.", "RFC 8032 section 7.1"),
        (
            "One changed bit of message or signature, and an S of another spelling, is refused.",
            "RFC 8032 section 5.1.7",
        ),
        ("A key of small order verifies nothing.", "RFC 8032 section 5.1.7"),
    ),
    *_family(
        "uuid7",
        ("The first 48 bits are POSIX milliseconds.", "RFC 9562 section 5.7"),
        ("Version is 7 and the variant 0b10.", "RFC 9562 sections 4.1, 4.2 and 5.7"),
        ("The other 74 bits are those of the random source, unchanged.", "RFC 9562 section 5.7"),
        ("The text form is lower-case hexadecimal in groups of 8, 4, 4, 4 and 12.", "RFC 9562 section 4"),
    ),
    *_family(
        "dsse",
        ("Signatures cover DSSEv1, and type and payload each behind its length in bytes.", "DSSE v1.0.0, protocol"),
        ("The payload type is authenticated.", "DSSE v1.0.0, protocol"),
        ("The payload is verified before it is used, and used as the bytes that were signed.", "DSSE v1.0.0, protocol"),
        ("A key id in the envelope is a hint: ours is derived from the key and must match.", "DSSE v1.0.0, envelope"),
        ("Ours: exactly the expected keys have signed; a missing and a foreign signer are refused.", "DSSE v1.0.0"),
    ),
]

REQUIREMENTS: dict[str, Requirement] = {item.id: item for item in _ALL}


def requirement(*ids: str) -> pytest.MarkDecorator:
    """Mark a test as holding the requirements ``ids``."""
    unknown = [item for item in ids if item not in REQUIREMENTS]
    if unknown:
        raise KeyError(f"no requirement has the id {', '.join(unknown)}")
    return pytest.mark.requirement(*ids)
