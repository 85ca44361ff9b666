"""Signed checkpoints, and the trust policy that says who must have signed.

Pure, standard library only. Where a policy lists keys of several algorithms for one log, each algorithm must have
signed. A listed key whose signature is wrong rejects the checkpoint, whoever else has signed.

Source: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy; FIPS 204 (pure, empty context); RFC 8032.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from evidence.standalone.ed25519 import ed25519_holds
from evidence.standalone.faults import FailedError, MalformedError, UntrustedError, demand
from evidence.standalone.mldsa44 import mldsa44_holds
from evidence.standalone.texts import decode_base64, encode_base64
from evidence.standalone.trees import EMPTY_ROOT

__all__ = ["Checkpoint", "Key", "Policy", "Signed", "parse_checkpoint", "parse_policy"]

_ED25519, _ED25519_COSIGNATURE, _MLDSA44 = 1, 4, 6
_NOTE_KEY_BYTES = {_ED25519: 32, _ED25519_COSIGNATURE: 32, _MLDSA44: 1312}
_MAX_NOTE_BYTES = 1_000_000
_MAX_SIGNATURES = 100
_MAX_SIZE = 2**63 - 1
_MAX_NAME_BYTES = 255
_MAX_LINES = 2_000
_DASH = "\u2014 "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_POLICY_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_BLANKS = re.compile(r"[ \t]+")


def _check_name(name: str) -> None:
    bad = any(
        char == "+" or char.isspace() or unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc", "Cs") for char in name
    )
    demand(bool(name) and not bad, "a key's name is empty, or holds a space, a plus or a control character")


class Key(NamedTuple):
    """A key that signs notes.

    Attributes:
        name: Its holder; of a log's key the origin.
        kind: The type byte.
        public_key: Raw bytes.
    """

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Its four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public_key).digest()[:4]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its line in a policy, for comparing it by telephone."""
        line = f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes((self.kind,)) + self.public_key)}"
        return hashlib.sha256(line.encode()).hexdigest()


def _parse_key(text: str) -> Key:
    parts = text.split("+", 2)
    demand(len(parts) == 3, "a key has the form name+id+key")  # noqa: PLR2004
    name, key_id, encoded = parts
    _check_name(name)
    material = decode_base64(encoded)
    demand(len(material) > 1, "a key is empty")
    key = Key(name, material[0], material[1:])
    demand(
        len(key.public_key) == _NOTE_KEY_BYTES.get(key.kind), "a key is of another kind or length than the known ones"
    )
    demand(key.key_id.hex() == key_id, f"the id {key_id[:20]} does not belong to the key")
    return key


class Checkpoint(NamedTuple):
    """What a checkpoint says; whom to believe it, `Policy.verify` says."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...]
    text: str
    lines: tuple[tuple[str, bytes, bytes], ...]


class Signed(NamedTuple):
    """A checkpoint that met a policy.

    Attributes:
        checkpoint: What it says.
        keys: Whose signatures held.
        times: POSIX seconds by signer, where a signature carries one.
        witnesses: Those of the policy that cosigned, by name.
    """

    checkpoint: Checkpoint
    keys: tuple[Key, ...]
    times: dict[str, int]
    witnesses: tuple[str, ...]


def _parse_line(line: str) -> tuple[str, bytes, bytes]:
    demand(line.startswith(_DASH), "a signature line does not begin with a dash")
    name, _, encoded = line[len(_DASH) :].partition(" ")
    _check_name(name)
    blob = decode_base64(encoded)
    demand(len(blob) > 4, "a signature line holds no signature")  # noqa: PLR2004
    return name, blob[:4], blob[4:]


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Read a signed checkpoint; nothing in it has been checked.

    Raises:
        MalformedError: It is none.
    """
    demand(len(data) <= _MAX_NOTE_BYTES, "a checkpoint is too long")
    try:
        content = data.decode()
    except UnicodeDecodeError:
        raise MalformedError("a checkpoint is not UTF-8") from None
    cut = content.rfind("\n\n")
    demand(
        cut >= 0 and content.endswith("\n") and not _CONTROL.search(content),
        "a checkpoint has a text, an empty line, signature lines, and no control characters",
    )
    text, lines = content[: cut + 1], content[cut + 2 :].split("\n")[:-1]
    demand(0 < len(lines) <= _MAX_SIGNATURES, "a checkpoint has a signature, and not endlessly many")
    told = text[:-1].split("\n")
    demand(len(told) >= 3 and all(told), "a checkpoint has an origin, a size and a root")  # noqa: PLR2004
    origin, size, root = told[0], told[1], decode_base64(told[2])
    demand(len(origin.encode()) <= _MAX_NAME_BYTES, "an origin is too long")
    demand(_DECIMAL.fullmatch(size) is not None and int(size) <= _MAX_SIZE, "a checkpoint has no size")
    demand(len(root) == 32 and (int(size) > 0 or root == EMPTY_ROOT), "a checkpoint has no root")  # noqa: PLR2004
    return Checkpoint(origin, int(size), root, tuple(told[3:]), text, tuple(map(_parse_line, lines)))


def _prefixed(name: str) -> bytes:
    data = name.encode()
    demand(len(data) <= _MAX_NAME_BYTES, "a name is too long")
    return bytes((len(data),)) + data


def _verify_line(key: Key, checkpoint: Checkpoint, signature: bytes) -> int | None:
    """Check a signature line; return the time that it carries."""
    told = f"the signature of {key.name} is wrong"
    if key.kind == _ED25519:
        demand(ed25519_holds(key.public_key, checkpoint.text.encode(), signature), told, FailedError)
        return None
    demand(len(signature) > 8, told, FailedError)  # noqa: PLR2004
    time, rest = int.from_bytes(signature[:8], "big"), signature[8:]
    demand(time <= _MAX_SIZE, told, FailedError)
    if key.kind == _ED25519_COSIGNATURE:
        message = f"cosignature/v1\ntime {time}\n{checkpoint.text}".encode()
        demand(ed25519_holds(key.public_key, message, rest), told, FailedError)
        return time
    message = b"".join(
        (
            b"subtree/v1\n\x00",
            _prefixed(key.name),
            time.to_bytes(8, "big"),
            _prefixed(checkpoint.origin),
            bytes(8),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )
    demand(mldsa44_holds(key.public_key, message, rest), told, FailedError)
    return time


class Policy:
    """Whose signatures count.

    Attributes:
        logs: Keys of logs.
        witnesses: Keys of witnesses by their name in the policy.
        groups: Threshold and members by name, in the order of the file.
        quorum: A witness or group, or None.
        sizes: Smallest and largest tree size for which a log key counts, by key id; without an entry, all.
    """

    def __init__(
        self,
        logs: Iterable[Key],
        witnesses: Mapping[str, Key],
        groups: Mapping[str, tuple[int, tuple[str, ...]]],
        quorum: str | None,
        sizes: Mapping[bytes, tuple[int, int | None]] | None = None,
    ) -> None:
        """Take the parts."""
        self.logs = tuple(logs)
        self.witnesses = dict(witnesses)
        self.groups = dict(groups)
        self.quorum = quorum
        self.sizes = dict(sizes or {})

    def narrowed(self, sizes: Mapping[bytes, tuple[int, int | None]]) -> Policy:
        """Return this policy with log keys that count for these sizes alone."""
        return Policy(self.logs, self.witnesses, self.groups, self.quorum, sizes)

    def algorithms(self, origin: str) -> int:
        """Return how many algorithms must have signed for a log."""
        return len({key.kind for key in self.logs if key.name == origin})

    def _counts(self, key: Key, size: int) -> bool:
        first, last = self.sizes.get(key.key_id, (0, None))
        return first <= size and (last is None or size <= last)

    def _has_quorum(self, cosigned: Iterable[str]) -> bool:
        met = set(cosigned)
        for name, (threshold, members) in self.groups.items():
            if sum(member in met for member in members) >= threshold:
                met.add(name)
        return self.quorum is None or self.quorum in met

    def verify(self, data: bytes) -> Signed:
        """Check a signed checkpoint.

        Raises:
            MalformedError: It is none.
            FailedError: The signature of a listed key is wrong.
            UntrustedError: It is not signed as the policy demands.
        """
        checkpoint = parse_checkpoint(data)
        own = [key for key in self.logs if key.name == checkpoint.origin]
        demand(bool(own), f"the trust policy names no log {checkpoint.origin!r}", UntrustedError)
        known: dict[tuple[str, bytes], tuple[Key, str | None]] = {(k.name, k.key_id): (k, None) for k in own}
        known.update({(key.name, key.key_id): (key, name) for name, key in self.witnesses.items()})
        keys: list[Key] = []
        times: dict[str, int] = {}
        cosigned: set[str] = set()
        for name, key_id, signature in checkpoint.lines:
            if (name, key_id) not in known:
                continue
            key, witness = known[name, key_id]
            time = _verify_line(key, checkpoint, signature)
            if witness is not None:
                demand(bool(time), f"the cosignature of {witness} carries no time", FailedError)
                cosigned.add(witness)
            if time is not None:
                times[key.name] = time
            keys.append(key)
        for kind in sorted({key.kind for key in own}):
            signed = any(key in own and key.kind == kind and self._counts(key, checkpoint.size) for key in keys)
            told = "Ed25519" if kind == _ED25519 else "ML-DSA-44"
            sentence = (
                f"checkpoint {checkpoint.size} is not signed with {told} by a key of the trust policy that counts"
            )
            demand(signed, sentence, UntrustedError)
        if checkpoint.extensions:
            covered = any(key.kind == _ED25519 for key in keys)
            demand(covered, "no signature covers the checkpoint's extension lines", UntrustedError)
        sentence = f"checkpoint {checkpoint.size} lacks the witness quorum {self.quorum}"
        demand(self._has_quorum(cosigned), sentence, UntrustedError)
        return Signed(checkpoint, tuple(keys), times, tuple(sorted(cosigned)))


class _PolicyReader:
    """Collects the lines of a policy."""

    def __init__(self) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.quorums: list[str] = []

    def _name(self, name: str) -> str:
        free = name != "none" and name not in self.witnesses and name not in self.groups
        demand(free, f"the name {name!r} is defined twice or reserved")
        return name

    def _known(self, name: str) -> str:
        demand(name in self.witnesses or name in self.groups, f"the name {name!r} is not defined above")
        return name

    def _new_key(self, text: str, kinds: tuple[int, ...]) -> Key:
        key = _parse_key(text)
        demand(key.kind in kinds, "a key is of a kind that does not stand there")
        others = [*self.logs, *self.witnesses.values()]
        demand(all(key.public_key != other.public_key for other in others), "a key is listed twice")
        return key

    def log(self, words: list[str]) -> None:
        demand(len(words) in (1, 2), "a log line has the form: log <key> [<url>]")
        self.logs.append(self._new_key(words[0], (_ED25519, _MLDSA44)))

    def witness(self, words: list[str]) -> None:
        demand(len(words) in (2, 3), "a witness line has the form: witness <name> <key> [<url>]")
        self.witnesses[self._name(words[0])] = self._new_key(words[1], (_ED25519_COSIGNATURE, _MLDSA44))

    def group(self, words: list[str]) -> None:
        demand(len(words) > 2, "a group line has the form: group <name> all|any|<k> <name>...")  # noqa: PLR2004
        name, wanted, members = self._name(words[0]), words[1], tuple(map(self._known, words[2:]))
        used = {member for _, others in self.groups.values() for member in others}
        demand(len(set(members)) == len(members) and used.isdisjoint(members), "a name is a member of two groups")
        numbers: dict[str, Any] = {"all": len(members), "any": 1}
        if re.fullmatch(r"[1-9][0-9]{0,3}", wanted):
            numbers[wanted] = int(wanted)
        demand(1 <= numbers.get(wanted, 0) <= len(members), f"not a threshold: {wanted!r}")
        self.groups[name] = (numbers[wanted], members)

    def quorum(self, words: list[str]) -> None:
        demand(len(words) == 1 and not self.quorums, "a trust policy has exactly one line: quorum <name>")
        self.quorums.append(words[0] if words[0] == "none" else self._known(words[0]))


def parse_policy(data: bytes) -> Policy:
    """Read a trust policy.

    Raises:
        MalformedError: It is none.
    """
    demand(not _POLICY_CONTROL.search(data), "a trust policy holds a control character")
    text = data.decode("utf-8", errors="surrogateescape")
    lines = [_BLANKS.sub(" ", line).strip(" ") for line in text.split("\n")]
    demand(len(lines) <= _MAX_LINES, "a trust policy is too long")
    reader = _PolicyReader()
    readers = {"log": reader.log, "witness": reader.witness, "group": reader.group, "quorum": reader.quorum}
    for line in lines:
        if line and not line.startswith("#"):
            word, *words = line.split(" ")
            demand(word in readers, f"a trust policy knows no line {word!r}")
            readers[word](words)
    demand(bool(reader.quorums), "a trust policy has exactly one line: quorum <name>")
    quorum = reader.quorums[0]
    return Policy(reader.logs, reader.witnesses, reader.groups, None if quorum == "none" else quorum)
