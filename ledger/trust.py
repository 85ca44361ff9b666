"""Trust: which keys and witnesses must have signed a checkpoint.

Pure. The trust policy file is C2SP tlog-policy, so that other tools read the same file::

    log tallystick.example/acme+1a2b3c4d+AX1v...          (Ed25519)
    log tallystick.example/acme+5e6f7a8b+Bq0k...          (ML-DSA-44)
    witness w1 witness.example/w1+9c0d1e2f+BGhh... https://witness.example
    group half any w1
    quorum half

Our reading is stricter than the specification's in two points. A key of a log is no witness's: a log that cosigns its
own checkpoints would make a quorum of one. And where the policy lists keys of several algorithms for one
origin, *each algorithm* must have signed, with any of its listed keys. That is what makes two signatures two, and what
lets a key or an algorithm be replaced by overlap: list old and new, let both sign, then drop the old.

A `VerifiedCheckpoint` is made by `TrustPolicy.verify` alone; holding one means that the policy was met.

Source: C2SP tlog-policy (editor's copy of 2026-06), tlog-checkpoint v1.0.0, tlog-cosignature v1.1.0-rc.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ledger.checkpoints import Checkpoint, parse_unverified_checkpoint, signature_timestamp, verify_signature
from ledger.errors import (
    MalformedError,
    SignatureInvalidError,
    SignatureUncheckedError,
    SplitViewError,
    TrustPolicyError,
)
from ledger.notes import KeyId, SignatureType, SignedNote, VerifierKey, parse_vkey
from ledger.proofs import TreeHead

__all__ = [
    "KeyValidity",
    "TrustPolicy",
    "VerifiedCheckpoint",
    "Witness",
    "WitnessGroup",
    "parse_trust_policy",
    "refuse_split_view",
]

_MAX_LINES: Final = 2_000
_MAX_NAMED: Final = 4
_LOG_TYPES: Final = (SignatureType.ED25519, SignatureType.MLDSA44_COSIGNATURE)
_WITNESS_TYPES: Final = (SignatureType.ED25519_COSIGNATURE, SignatureType.MLDSA44_COSIGNATURE)
_BLANKS: Final = re.compile(r"[ \t]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class KeyValidity:
    """The tree sizes for which a log key counts.

    Attributes:
        first_size: Smallest tree size.
        last_size: Largest tree size, or None for no end. A key "compromised after size N" ends at N.
    """

    first_size: int = 0
    last_size: int | None = None

    def covers(self, size: int) -> bool:
        """Whether the key counts for a tree of ``size`` leaves."""
        return self.first_size <= size and (self.last_size is None or size <= self.last_size)

    def narrowed(self, other: KeyValidity) -> KeyValidity:
        """Return the tree sizes that lie in both."""
        ends = [end for end in (self.last_size, other.last_size) if end is not None]
        return KeyValidity(max(self.first_size, other.first_size), min(ends, default=None))


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness of the policy: the name that groups use, its key, and where it is reached."""

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class WitnessGroup:
    """A group of witnesses or groups, of which ``threshold`` must have witnessed."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCheckpoint:
    """A checkpoint that met a trust policy.

    Attributes:
        checkpoint: What it says; now it may be believed as far as the signers may.
        signers: Keys whose signatures held, log keys and witnesses.
        timestamps: POSIX seconds by signer name, for the types that carry one; the log's own is the operator's word.
        witnesses: Policy names of the witnesses that cosigned.
    """

    checkpoint: Checkpoint
    signers: tuple[VerifierKey, ...]
    timestamps: Mapping[str, int]
    witnesses: tuple[str, ...]

    @property
    def head(self) -> TreeHead:
        """Size and root."""
        return self.checkpoint.head


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Logs, witnesses and the quorum, as a policy file gives them.

    Attributes:
        logs: Log keys; their name is the origin they speak for.
        witnesses: By policy name.
        groups: By name, in the order of the file.
        quorum: A witness or group name, or None for ``none``.
        validity: Tree sizes for which a log key counts, by key id; a key that is not listed always counts.
    """

    logs: tuple[VerifierKey, ...] = ()
    witnesses: Mapping[str, Witness] = field(default_factory=dict)
    groups: Mapping[str, WitnessGroup] = field(default_factory=dict)
    quorum: str | None = None
    validity: Mapping[KeyId, KeyValidity] = field(default_factory=dict)

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """Return the keys listed for an origin."""
        return tuple(key for key in self.logs if key.name == origin)

    def narrowed(self, validity: Mapping[KeyId, KeyValidity]) -> TrustPolicy:
        """Return this policy with log keys that count for fewer tree sizes, as a log's own key records say."""
        merged = dict(self.validity)
        for key_id, told in validity.items():
            merged[key_id] = told.narrowed(merged.get(key_id, KeyValidity()))
        return replace(self, validity=merged)

    def encode(self) -> str:
        """Return the policy file; the inverse of `parse_trust_policy`, without comments and validity."""
        lines = [f"log {key.encode()}" for key in self.logs]
        lines += [f"witness {w.name} {w.key.encode()}{f' {w.url}' if w.url else ''}" for w in self.witnesses.values()]
        lines += [f"group {g.name} {g.threshold} {' '.join(g.members)}" for g in self.groups.values()]
        lines.append(f"quorum {self.quorum or 'none'}")
        return "".join(line + "\n" for line in lines)

    def has_quorum(self, cosigned: Collection[str]) -> bool:
        """Whether these witnesses, by their policy names, are enough; their cosignatures must have been verified."""
        met = set(cosigned)
        # A group speaks only of names defined above it, so that one pass in the file's order settles any nesting.
        for group in self.groups.values():
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return self.quorum is None or self.quorum in met

    def verify(self, data: bytes) -> VerifiedCheckpoint:
        """Check a signed checkpoint against this policy.

        Signatures by keys that the policy does not list are ignored. A listed key whose signature is wrong rejects the
        whole checkpoint, even where other signatures would suffice.

        Args:
            data: The checkpoint's bytes.

        Returns:
            The checkpoint, and who signed it.

        Raises:
            MalformedError: Not a signed checkpoint.
            SignatureInvalidError: The signature of a listed key is wrong.
            SignatureUncheckedError: The policy lists a key of a type that cannot be checked here.
            TrustPolicyError: An origin that the policy does not list, a required algorithm that has not signed,
                extension lines that no log signature covers, or too few witnesses.
        """
        parsed = parse_unverified_checkpoint(data)
        claim = parsed.claim
        log_keys = self.log_keys(claim.origin)
        if not log_keys:
            raise TrustPolicyError(f"the trust policy names no log {claim.origin!r}")
        by_id = {(key.name, key.key_id): key for key in log_keys}
        witness_by_id = {(w.key.name, w.key.key_id): w for w in self.witnesses.values()}
        signers: list[VerifierKey] = []
        cosigned: set[str] = set()
        timestamps: dict[str, int] = {}
        for line in parsed.note.signatures:
            witness = witness_by_id.get((line.name, line.key_id))
            key = witness.key if witness else by_id.get((line.name, line.key_id))
            if key is None:
                continue
            verify_signature(key, parsed, line)
            timestamp = signature_timestamp(key, line)
            if witness is not None:
                # A witness's timestamp must not be 0 (tlog-cosignature): such a line says nothing about a time.
                if not timestamp:
                    raise SignatureInvalidError(f"the cosignature of {witness.name} carries no time")
                cosigned.add(witness.name)
            if timestamp is not None:
                timestamps[key.name] = timestamp
            signers.append(key)
        self._check_algorithms(claim, log_keys, signers, _unlisted(parsed.note, by_id))
        # INVARIANT: all that a `VerifiedCheckpoint` says is signed. An ML-DSA signature does not cover extension lines.
        if claim.extensions and not any(key.signature_type == SignatureType.ED25519 for key in signers):
            raise TrustPolicyError(f"no signature of {claim.origin} covers the checkpoint's extension lines")
        if not self.has_quorum(cosigned):
            raise TrustPolicyError(
                f"checkpoint {claim.size} of {claim.origin} lacks the witness quorum {self.quorum}; "
                f"cosigned by: {', '.join(sorted(cosigned)) or 'nobody'}"
            )
        return VerifiedCheckpoint(
            checkpoint=claim, signers=tuple(signers), timestamps=timestamps, witnesses=tuple(sorted(cosigned))
        )

    def _check_algorithms(
        self,
        claim: Checkpoint,
        log_keys: Iterable[VerifierKey],
        signers: Iterable[VerifierKey],
        unlisted: Sequence[str],
    ) -> None:
        signed = set(signers)
        for kind in sorted({key.signature_type for key in log_keys}):
            if kind not in _LOG_TYPES:
                raise SignatureUncheckedError(f"signatures of type {kind:#04x} cannot be checked here")
            keys = [key for key in log_keys if key.signature_type == kind]
            valid = [key for key in keys if self.validity.get(key.key_id, KeyValidity()).covers(claim.size)]
            if not signed.intersection(valid):
                name = SignatureType(kind).name.lower().replace("_cosignature", "").replace("_", "-")
                late = " by a key that counts for this tree size" if signed.intersection(keys) else ""
                raise TrustPolicyError(
                    f"checkpoint {claim.size} of {claim.origin} is not signed with {name}{late}, "
                    f"which the trust policy demands{_renewal(unlisted)}"
                )


def _unlisted(note: SignedNote, listed: Mapping[tuple[str, KeyId], VerifierKey]) -> list[str]:
    """Return the ids of keys in the log's name, whoever made them, that have signed and that nobody listed."""
    origin = note.text.partition("\n")[0]
    return [
        line.key_id.hex() for line in note.signatures if line.name == origin and (line.name, line.key_id) not in listed
    ]


def _renewal(unlisted: Sequence[str]) -> str:
    """Say what may be the matter: the log has other keys by now, or somebody else signs in its name."""
    if not unlisted:
        return ""
    names = ", ".join(unlisted[:_MAX_NAMED])
    return (
        f"; it is signed by the keys {names} in the log's name, which the trust policy does not list: if the log has "
        "replaced its keys, a newer trust policy must come from its operator by a way that you trust"
    )


def _parse_lines(data: bytes) -> list[list[str]]:
    if _CONTROL.search(data):
        raise MalformedError("a trust policy holds a control character")
    # Octets above 0x7f are opaque (tlog-policy, "Character set"); this decoding keeps each of them apart.
    text = data.decode("utf-8", errors="surrogateescape")
    lines = [_BLANKS.sub(" ", line).strip(" ") for line in text.split("\n")]
    if len(lines) > _MAX_LINES:
        raise MalformedError(f"a trust policy has at most {_MAX_LINES} lines")
    return [line.split(" ") for line in lines if line and not line.startswith("#")]


class _Builder:
    """Collects the lines of one policy file."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.witnesses: dict[str, Witness] = {}
        self.groups: dict[str, WitnessGroup] = {}
        self.quorum: list[str] = []

    def new_name(self, name: str) -> str:
        if name == "none" or name in self.witnesses or name in self.groups:
            raise MalformedError(f"the name {name!r} is defined twice or reserved")
        return name

    def known_name(self, name: str) -> str:
        if name not in self.witnesses and name not in self.groups:
            raise MalformedError(f"the name {name!r} is not defined above")
        return name

    @staticmethod
    def refuse_own_witness(key: VerifierKey, others: Iterable[VerifierKey]) -> None:
        """Refuse one key as log and as witness, whatever names and types it goes by: a log is no witness of itself."""
        if any(key.public_key == other.public_key for other in others):
            raise MalformedError("a key is listed both as log and as witness")

    def add_log(self, arguments: list[str]) -> None:
        if len(arguments) not in (1, 2):
            raise MalformedError("a log line has the form: log <vkey> [<url>]")
        key = parse_vkey(arguments[0])
        if key.signature_type not in _LOG_TYPES:
            raise MalformedError(f"a log key of type {key.signature_type:#04x} is not known here")
        if any(key.public_key == other.public_key for other in self.logs):
            raise MalformedError("a log key is listed twice")
        self.refuse_own_witness(key, (witness.key for witness in self.witnesses.values()))
        self.logs.append(key)

    def add_witness(self, arguments: list[str]) -> None:
        if len(arguments) not in (2, 3):
            raise MalformedError("a witness line has the form: witness <name> <vkey> [<url>]")
        name, key = self.new_name(arguments[0]), parse_vkey(arguments[1])
        if key.signature_type not in _WITNESS_TYPES:
            raise MalformedError(f"a witness key of type {key.signature_type:#04x} is not known here")
        if any(key.public_key == other.key.public_key for other in self.witnesses.values()):
            raise MalformedError("a witness key is listed twice")
        self.refuse_own_witness(key, self.logs)
        self.witnesses[name] = Witness(name, key, arguments[2] if arguments[2:] else None)

    def add_group(self, arguments: list[str]) -> None:
        if len(arguments) < 3:  # noqa: PLR2004  # name, threshold, one member
            raise MalformedError("a group line has the form: group <name> all|any|<k> <name>...")
        name, threshold_text, *members = arguments
        self.new_name(name)
        for member in members:
            self.known_name(member)
            if any(member in group.members for group in self.groups.values()) or members.count(member) > 1:
                raise MalformedError(f"{member!r} is a member of two groups")
        words = {"all": len(members), "any": 1}
        if threshold_text in words:
            threshold = words[threshold_text]
        elif re.fullmatch(r"[1-9][0-9]{0,3}", threshold_text) and int(threshold_text) <= len(members):
            threshold = int(threshold_text)
        else:
            raise MalformedError(f"not a threshold for {len(members)} members: {threshold_text!r}")
        self.groups[name] = WitnessGroup(name, threshold, tuple(members))

    def add_quorum(self, arguments: list[str]) -> None:
        if len(arguments) != 1 or self.quorum:
            raise MalformedError("a trust policy has exactly one line: quorum <name>")
        self.quorum.append(arguments[0] if arguments[0] == "none" else self.known_name(arguments[0]))


def parse_trust_policy(data: bytes) -> TrustPolicy:
    """Read a trust policy file.

    Raises:
        MalformedError: Not a C2SP tlog-policy file: an unknown line, a name used before it is defined, a key twice, no
            quorum line. Stricter than the specification: nor may a log's key be a witness's.

    Source: C2SP tlog-policy, "Policy file syntax and structure".
    """
    builder = _Builder()
    adders = {
        "log": builder.add_log,
        "witness": builder.add_witness,
        "group": builder.add_group,
        "quorum": builder.add_quorum,
    }
    for keyword, *arguments in _parse_lines(data):
        if keyword not in adders:
            raise MalformedError(f"a trust policy knows no line {keyword!r}")
        adders[keyword](arguments)
    if not builder.quorum:
        raise MalformedError("a trust policy has exactly one line: quorum <name>")
    quorum = builder.quorum[0]
    return TrustPolicy(
        logs=tuple(builder.logs),
        witnesses=builder.witnesses,
        groups=builder.groups,
        quorum=None if quorum == "none" else quorum,
    )


def refuse_split_view(one: VerifiedCheckpoint, other: VerifiedCheckpoint) -> None:
    """Check that two checkpoints of one log and one size agree.

    Raises:
        SplitViewError: They name two roots: the log, or somebody with its keys, has shown two trees.
        TrustPolicyError: They are not of one log.
    """
    if one.checkpoint.origin != other.checkpoint.origin:
        raise TrustPolicyError(f"{one.checkpoint.origin!r} and {other.checkpoint.origin!r} are two logs")
    if one.head.size == other.head.size and one.head.root != other.head.root:
        raise SplitViewError(
            f"two roots for size {one.head.size} of {one.checkpoint.origin}: "
            f"{one.head.root.hex()} and {other.head.root.hex()}"
        )
