"""Trust policies: files, and checkpoints under them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.conformance.reference import c2sp
from tests.vectors.keys import LOG, LOG_PQ, NEXT_LOG, ORIGIN, STRANGER, WITNESS_PQ, WITNESSES
from tests.vectors.vector import JSONObject, Vector, accepted, blob, rejected

_MALFORMED, _INVALID, _POLICY = "MalformedError", "SignatureInvalidError", "TrustPolicyError"
_ROOT = bytes(range(0x40, 0x60))
_TIME = 1_763_546_400
_TEXT = c2sp.body(ORIGIN, 70_000, _ROOT)
_LOGS = f"log {LOG.vkey}\nlog {LOG_PQ.vkey}\n"
_ALL = [*WITNESSES, WITNESS_PQ]
_WITNESSES = "".join(f"witness W{number} {signer.vkey}\n" for number, signer in enumerate(_ALL))
_GROUPS = "group two 2 W0 W1 W2\ngroup both all two W3\nquorum both\n"

Signer = c2sp.Ed25519Signer | c2sp.MLDSA44Signer


def _line(signer: Signer, text: str = _TEXT) -> str:
    return signer.line(text, timestamp=_TIME)


def _signed(*signers: Signer, text: str = _TEXT) -> bytes:
    return c2sp.note(text, *(_line(signer, text) for signer in signers))


def _given(policy: str, checkpoint: bytes, validity: list[JSONObject] | None = None) -> JSONObject:
    given: JSONObject = {"policy": blob(policy.encode()), "checkpoint": blob(checkpoint)}
    return given | ({"validity": validity} if validity else {})


def _output(signers: list[Signer], witnesses: list[str]) -> JSONObject:
    return {
        "origin": ORIGIN,
        "size": 70_000,
        "root": _ROOT.hex(),
        "signers": [signer.vkey for signer in signers],
        "witnesses": witnesses,
    }


def _wrong(signer: Signer) -> str:
    length = {c2sp.ED25519: 64, c2sp.COSIGNATURE: 72, c2sp.MLDSA44: 2428}[signer.kind]
    return c2sp.line(signer.name, c2sp.key_id(signer.name, signer.kind, signer.public_key), bytes(length))


def _two_algorithms() -> Iterator[Vector]:
    name, policy = "trust/two-algorithms", _LOGS + "quorum none\n"
    signed = _signed(LOG, LOG_PQ)
    yield accepted(f"{name}/valid", "Both have signed.", _given(policy, signed), _output([LOG, LOG_PQ], []))
    beside = c2sp.note(_TEXT, _line(STRANGER), _line(LOG), _line(LOG_PQ))
    yield accepted(
        f"{name}/beside-a-stranger", "So has a stranger.", _given(policy, beside), _output([LOG, LOG_PQ], [])
    )
    extended = _TEXT + "extension\n"
    for mutation, about, error, checkpoint in (
        ("without-ml-dsa-44", "Only Ed25519 has signed.", _POLICY, _signed(LOG)),
        ("without-ed25519", "Only ML-DSA-44 has signed.", _POLICY, _signed(LOG_PQ)),
        ("stranger-alone", "Only a stranger has signed.", _POLICY, _signed(STRANGER)),
        ("stranger-for-ed25519", "A stranger has signed in Ed25519's stead.", _POLICY, _signed(STRANGER, LOG_PQ)),
        (
            "unlisted-key-of-the-log",
            "A key of that name that is not listed has signed.",
            _POLICY,
            _signed(NEXT_LOG, LOG_PQ),
        ),
        ("twice-ed25519", "Ed25519 has signed twice.", _POLICY, _signed(LOG, LOG)),
        ("ed25519-wrong", "Ed25519's signature is zero.", _INVALID, c2sp.note(_TEXT, _wrong(LOG), _line(LOG_PQ))),
        ("ml-dsa-44-wrong", "ML-DSA-44's signature is zero.", _INVALID, c2sp.note(_TEXT, _line(LOG), _wrong(LOG_PQ))),
        (
            "right-and-wrong",
            "A wrong signature stands beside the right ones.",
            _INVALID,
            c2sp.note(_TEXT, _line(LOG), _line(LOG_PQ), _wrong(LOG)),
        ),
        (
            "text-changed",
            "The size was changed after signing.",
            _INVALID,
            c2sp.note(c2sp.body(ORIGIN, 70_001, _ROOT), _line(LOG), _line(LOG_PQ)),
        ),
        (
            "extension-added",
            "An extension line was added after signing.",
            _INVALID,
            c2sp.note(extended, _line(LOG), _line(LOG_PQ)),
        ),
        (
            "other-origin",
            "The checkpoint is another log's.",
            _POLICY,
            _signed(LOG, LOG_PQ, text=c2sp.body("another.example", 70_000, _ROOT)),
        ),
        ("not-a-checkpoint", "The note is no checkpoint.", _MALFORMED, c2sp.note("text\n", LOG.line("text\n"))),
        ("not-a-note", "There are no signatures.", _MALFORMED, _TEXT.encode()),
    ):
        yield rejected(f"{name}/{mutation}", about, error, _given(policy, checkpoint))
    yield rejected(f"{name}/no-log-listed", "The policy lists no log.", _POLICY, _given("quorum none\n", signed))


def _extension_lines() -> Iterator[Vector]:
    name, extended = "trust/extension-lines", _TEXT + "extension\n"
    both = _signed(LOG, LOG_PQ, text=extended)
    output = _output([LOG, LOG_PQ], []) | {"extensions": ["extension"]}
    yield accepted(f"{name}/valid", "Ed25519 covers the line.", _given(_LOGS + "quorum none\n", both), output)
    alone = _given(f"log {LOG_PQ.vkey}\nquorum none\n", c2sp.note(extended, _line(LOG_PQ)))
    yield rejected(f"{name}/covered-by-nobody", "The policy lists ML-DSA-44 alone.", _POLICY, alone)


def _validity() -> Iterator[Vector]:
    policy, signed = _LOGS + "quorum none\n", _signed(LOG, LOG_PQ)
    for mutation, about, first, last, met in (
        ("valid", "The key counts for exactly this size.", 70_000, 70_000, True),
        ("open-end", "The key counts from this size on.", 70_000, None, True),
        ("ended-before", "The key ended a leaf before.", 0, 69_999, False),
        ("starts-later", "The key starts a leaf later.", 70_001, None, False),
    ):
        for case, signer in (("ed25519", LOG), ("ml-dsa-44", LOG_PQ)):
            given = _given(policy, signed, [{"vkey": signer.vkey, "first_size": first, "last_size": last}])
            name = f"trust/validity-of-{case}/{mutation}"
            if met:
                yield accepted(name, about, given, _output([LOG, LOG_PQ], []))
            else:
                yield rejected(name, about, _POLICY, given)


def _quorums() -> Iterator[Vector]:
    name, policy = "trust/quorum", _LOGS + _WITNESSES + _GROUPS
    for mutation, about, witnesses in (
        ("valid", "Two of three and the fourth.", [0, 2, 3]),
        ("all-four", "All four.", [0, 1, 2, 3]),
    ):
        signers: list[Signer] = [LOG, LOG_PQ, *(_ALL[number] for number in witnesses)]
        output = _output(signers, [f"W{number}" for number in witnesses])
        yield accepted(f"{name}/{mutation}", about, _given(policy, _signed(*signers)), output)
    for mutation, about, witnesses in (
        ("nobody", "Nobody has cosigned.", []),
        ("two-of-four", "Two of three, the fourth is missing.", [0, 1]),
        ("one-of-three", "One of three, and the fourth.", [1, 3]),
        ("one-twice", "One of three twice, and the fourth.", [0, 0, 3]),
    ):
        cosigners = [_ALL[number] for number in witnesses]
        yield rejected(f"{name}/{mutation}", about, _POLICY, _given(policy, _signed(LOG, LOG_PQ, *cosigners)))
    yield rejected(f"{name}/witnesses-alone", "The log has not signed.", _POLICY, _given(policy, _signed(*_ALL)))
    full = [_line(signer) for signer in (LOG, LOG_PQ, *WITNESSES)]
    for mutation, about, line in (
        ("one-wrong", "The fourth's cosignature is zero.", _wrong(WITNESS_PQ)),
        ("no-time", "The fourth has cosigned without a time.", WITNESS_PQ.line(_TEXT, timestamp=0)),
    ):
        yield rejected(f"{name}/{mutation}", about, _INVALID, _given(policy, c2sp.note(_TEXT, *full, line)))
    timed = c2sp.note(_TEXT, *full, _line(WITNESS_PQ), _zero_time(WITNESSES[0]))
    yield rejected(
        f"{name}/no-time-besides", "One has cosigned again, without a time.", _INVALID, _given(policy, timed)
    )


def _zero_time(signer: c2sp.Ed25519Signer) -> str:
    blob_ = struct.pack(">Q", 0) + signer.raw(c2sp.cosignature_message(0, _TEXT))
    return c2sp.line(signer.name, c2sp.key_id(signer.name, signer.kind, signer.public_key), blob_)


def _broken_files() -> Iterator[tuple[str, str, bytes]]:
    witness = f"witness w {WITNESSES[0].vkey}\n"
    renamed = c2sp.vkey("renamed.example", c2sp.COSIGNATURE, WITNESSES[0].public_key)
    for mutation, about, text in (
        ("empty", "Nothing.", ""),
        ("no-quorum", "There is no quorum line.", _LOGS),
        ("two-quorums", "There are two quorum lines.", "quorum none\nquorum none\n"),
        ("quorum-of-two-names", "The quorum line has two names.", "quorum none none\n"),
        ("quorum-undefined", "The quorum is not defined.", "quorum w\n"),
        ("quorum-before-definition", "The quorum is defined below.", "quorum w\n" + witness),
        ("group-before-definition", "A member is defined below.", "group g any w\n" + witness + "quorum g\n"),
        ("group-of-itself", "A group is its own member.", witness + "group g any g\nquorum g\n"),
        ("group-of-nobody", "A group has no member.", witness + "group g any\nquorum g\n"),
        ("group-of-none", "A group has the member none.", witness + "group g any none\nquorum g\n"),
        ("group-named-none", "A group is named none.", witness + "group none any w\nquorum none\n"),
        ("witness-named-none", "A witness is named none.", witness.replace(" w ", " none ") + "quorum none\n"),
        ("name-twice", "A group has a witness's name.", witness + "group w any w\nquorum w\n"),
        ("member-of-two-groups", "A witness is in two groups.", witness + "group g any w\ngroup h any w\nquorum g\n"),
        ("member-twice", "A witness is twice in a group.", witness + "group g 1 w w\nquorum g\n"),
        ("threshold-0", "A threshold is 0.", witness + "group g 0 w\nquorum g\n"),
        ("threshold-above", "A threshold is above the members.", witness + "group g 2 w\nquorum g\n"),
        ("threshold-padded", "A threshold has a leading zero.", witness + "group g 01 w\nquorum g\n"),
        ("threshold-word", "A threshold is another word.", witness + "group g most w\nquorum g\n"),
        ("log-twice", "A log is listed twice.", f"log {LOG.vkey}\nlog {LOG.vkey}\nquorum none\n"),
        ("witness-key-twice", "Two witnesses have one key.", witness + f"witness v {renamed}\nquorum w\n"),
        ("log-of-witness-type", "A log has a witness's key.", f"log {WITNESSES[0].vkey}\nquorum none\n"),
        ("witness-of-log-type", "A witness has a log's key.", f"witness w {LOG.vkey}\nquorum w\n"),
        ("key-damaged", "A key id is wrong.", f"log x{LOG.vkey}\nquorum none\n"),
        ("unknown-line", "A line begins with another word.", "trust everybody\nquorum none\n"),
        ("trailing-comment", "A comment follows on a line.", "quorum none # nobody\n"),
        ("carriage-returns", "Lines end in CR LF.", "quorum none\r\n"),
        ("no-break-space", "A no-break space parts two items.", "quorum\xa0none\n"),
    ):
        yield mutation, about, text.encode()
    yield "nul", "A NUL stands in a comment.", b"# \x00\nquorum none\n"
    yield "del", "A DEL stands in a comment.", b"# \x7f\nquorum none\n"
    yield "key-name-not-utf-8", "A key's name is not UTF-8.", b"log \xff" + LOG.vkey.encode() + b"\nquorum none\n"


def vectors() -> Iterator[Vector]:
    yield from _two_algorithms()
    yield from _extension_lines()
    yield from _validity()
    yield from _quorums()
    comments = "# all of it\n\n\t " + (_LOGS + _WITNESSES).replace(" ", " \t ") + "  " + _GROUPS
    for mutation, about, text, plain in (
        ("valid", "Logs, witnesses, groups and a quorum.", (_LOGS + _WITNESSES + _GROUPS), None),
        ("smallest", "A quorum of none and nothing else.", "quorum none\n", None),
        ("blanks-and-comments", "Blanks and comments do not matter.", comments, _LOGS + _WITNESSES + _GROUPS),
        ("last-line-feed-missing", "The last line does not end.", "quorum none", "quorum none\n"),
    ):
        written = (plain or text).replace(" all ", " 2 ")
        given: JSONObject = {"policy": blob(text.encode())}
        yield accepted(f"trust/file/{mutation}", about, given, {"written": blob(written.encode())})
    for mutation, about, data in _broken_files():
        yield rejected(f"trust/file/{mutation}", about, _MALFORMED, {"policy": blob(data)})
