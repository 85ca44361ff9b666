"""The key files of an installation: which there are, making them, reading them.

``tallystick keys init DIR`` makes one file for each key, readable by its owner only, and two public files: the trust
policy that auditors need, and fingerprints to compare by voice or on paper.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ledger.bodies import KeyEvent
from ledger.body_fields import Name
from ledger.commitments import pseudonym, pseudonym_key_id
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError
from ledger.files import create_durably
from ledger.keyring import Keyring
from ledger.keys import LocalKey, generate_key, save_key
from ledger.notes import SignatureType, encode_base64
from ledger.remote_keys import SigningKey, load_signing_key
from ledger.trust import TrustPolicy, parse_trust_policy

__all__ = [
    "FINGERPRINTS_FILE",
    "KEY_FILES",
    "TRUST_FILE",
    "KeySet",
    "choose_keys",
    "counts",
    "fingerprints",
    "introduction",
    "introductions",
    "is_key_file",
    "key_files",
    "load_key_set",
    "make_key_set",
    "next_key_file",
    "present_policy",
    "read_key_files",
    "require_empty",
    "trust_policy",
    "unprotected_keys",
    "write_public_files",
]

KEY_FILES: Final = {
    "log-ed25519.json": ("log", ED25519),
    "log-ml-dsa-44.json": ("log", MLDSA44),
    "pack-ed25519.json": ("pack", ED25519),
    "pack-ml-dsa-44.json": ("pack", MLDSA44),
    "service-ed25519.json": ("enforcer", ED25519),
    "vault.json": ("vault", "xchacha20-poly1305"),
    "pseudonym.json": ("pseudonym", "hmac-sha256"),
}
"""File names with purpose and algorithm."""

_FIRST_SUCCESSOR: Final = 2
_ALGORITHMS: Final[dict[int, str]] = {SignatureType.ED25519: ED25519, SignatureType.MLDSA44_COSIGNATURE: MLDSA44}
TRUST_FILE: Final = "trust.policy"
"""What auditors are given."""

FINGERPRINTS_FILE: Final = "fingerprints.txt"
"""What they compare by voice or on paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The keys of one service: those that it uses, and those that it still or already has.

    Attributes:
        log: Sign checkpoints: Ed25519 and ML-DSA-44, more than one of each while keys are replaced.
        pack: Sign evidence packs: likewise.
        service: Signs the service's own records.
        vault: Wraps subject keys.
        pseudonym: Makes pseudonyms and fingerprints.
        further: Keys that were replaced, and keys that the log does not know yet.
    """

    log: tuple[SigningKey, ...]
    pack: tuple[LocalKey, ...]
    service: LocalKey
    vault: LocalKey
    pseudonym: LocalKey
    further: tuple[SigningKey, ...] = ()

    def __iter__(self) -> Iterator[SigningKey]:
        """Yield every key that is used."""
        yield from (self.service, *self.log, *self.pack, self.vault, self.pseudonym)

    def all(self) -> tuple[SigningKey, ...]:
        """Return every key that is here."""
        return (*self, *self.further)

    def of(self, purpose: str) -> tuple[SigningKey, ...]:
        """Return every key for a purpose; those that are used stand first."""
        return tuple(key for key in self.all() if key.purpose == purpose)

    @property
    def pseudonym_seeds(self) -> tuple[bytes, ...]:
        """Every key that made pseudonyms: what was recorded under an old one is sought with the old one."""
        return tuple(key.seed for key in self.of("pseudonym") if isinstance(key, LocalKey))

    @property
    def simulated(self) -> bool:
        """Whether any key was made for a demonstration."""
        return any(key.simulated for key in self)

    def pseudonyms(self, kind: str, value: str) -> tuple[str, ...]:
        """Return what every key that made pseudonyms calls a value; the present key's comes first."""
        seeds = dict.fromkeys((self.pseudonym.seed, *self.pseudonym_seeds))
        return tuple(pseudonym(seed, kind, value) for seed in seeds)

    def pseudonyms_by_key(self, kind: str, value: str) -> dict[str, str]:
        """Return what a value is called under every key that made pseudonyms, by key id."""
        seeds = (self.pseudonym.seed, *self.pseudonym_seeds)
        return {pseudonym_key_id(seed): pseudonym(seed, kind, value) for seed in seeds}

    @property
    def pseudonym_key_id(self) -> str:
        """Public id of the pseudonym key."""
        return pseudonym_key_id(self.pseudonym.seed)


def _subject(purpose: str, origin: str, service_id: str) -> str:
    return {"enforcer": service_id, "pack": f"{origin}/packs"}.get(purpose, origin)


def _check_names(origin: str, service_id: str) -> None:
    """Refuse names that could not stand in the key records and checkpoints that these keys are for."""
    subjects = {"origin": _subject("pack", origin, service_id), "service id": service_id}
    for what, subject in subjects.items():
        try:
            msgspec.convert(subject, Name)
        except msgspec.ValidationError as error:
            told = "at most 122 letters, digits and _ . : / @ -, the first of them a letter, a digit or _"
            raise ConfigError(f"the {what} has {told}") from error
    # A verifier key is name+id+key (C2SP signed-note).
    if "+" in origin:
        raise ConfigError("the origin holds no plus sign")


def make_key_set(
    directory: Path,
    *,
    origin: str,
    service_id: str,
    created_ms: int,
    passphrase: str | None = None,
    simulated: bool = False,
) -> KeySet:
    """Make the keys of a new installation and write their files.

    Raises:
        ConfigError: A name that no record or checkpoint can carry, or a file is there already: keys are never
            overwritten.
    """
    _check_names(origin, service_id)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the key directory cannot be made: {error.strerror}") from error
    require_empty(directory)
    for name, (purpose, algorithm) in KEY_FILES.items():
        subject = _subject(purpose, origin, service_id)
        key = generate_key(purpose, algorithm, subject, created_ms=created_ms, simulated=simulated)
        save_key(key, directory / name, passphrase)
    keys = load_key_set(directory, passphrase)
    write_public_files(directory, keys, trust_policy(keys))
    return keys


def require_empty(directory: Path) -> None:
    """Refuse a directory in which a key set, or a part of one, stands already.

    Raises:
        ConfigError: A file of a key set is there.
    """
    present = [name for name in (*KEY_FILES, TRUST_FILE, FINGERPRINTS_FILE) if (directory / name).exists()]
    if present:
        raise ConfigError(f"the key directory holds keys already: {', '.join(sorted(present))}")


def write_public_files(directory: Path, keys: KeySet, policy: TrustPolicy) -> None:
    """Write the trust policy, where none stands yet, and the fingerprints of keys beside them.

    Raises:
        ConflictError: Fingerprints of other keys stand there.
        OSError: The file system failed.
    """
    if not (directory / TRUST_FILE).exists():
        create_durably(directory / TRUST_FILE, policy.encode().encode())
    create_durably(directory / FINGERPRINTS_FILE, fingerprints(keys, policy).encode())


def present_policy(directory: Path, keys: KeySet) -> TrustPolicy:
    """Return the trust policy beside the keys, which knows what the log has said of them; without one, that of all.

    INVARIANT 11: key files do not tell that a key was disowned. Where somebody wrote it down, that counts.

    Raises:
        ConfigError: The file cannot be read.
        MalformedError: It is not a trust policy.
    """
    path = directory / TRUST_FILE
    try:
        return parse_trust_policy(path.read_bytes()) if path.exists() else trust_policy(keys)
    except OSError as error:
        raise ConfigError(f"{TRUST_FILE} beside the keys cannot be read: {error.strerror}") from error


def key_files(directory: Path) -> dict[str, tuple[str, str]]:
    """Return the key files of an installation, oldest first, with purpose and algorithm: `KEY_FILES` and successors.

    The successor of ``log-ed25519.json`` is ``log-ed25519.2.json``, then ``log-ed25519.3.json``.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, kind in KEY_FILES.items():
        found[name] = kind
        generation = _FIRST_SUCCESSOR
        while (directory / (successor := _generation(name, generation))).exists():
            found[successor] = kind
            generation += 1
    return found


def is_key_file(name: str) -> bool:
    """Tell whether a file has the name of a key file, of the first or a later generation."""
    base, _, generation = name.removesuffix(".json").partition(".")
    later = not generation or (generation.isdecimal() and int(generation) >= _FIRST_SUCCESSOR)
    return later and f"{base}.json" in KEY_FILES and name.isascii()


def _generation(name: str, generation: int) -> str:
    return f"{name.removesuffix('.json')}.{generation}.json"


def next_key_file(directory: Path, purpose: str, algorithm: str) -> str:
    """Return the name of the file that a new key for a purpose goes to.

    Raises:
        ConfigError: An installation has no such key.
    """
    base = next((name for name, kind in KEY_FILES.items() if kind == (purpose, algorithm)), None)
    if base is None:
        raise ConfigError(f"an installation has no {purpose} key with {algorithm}")
    generation = _FIRST_SUCCESSOR
    while (directory / _generation(base, generation)).exists():
        generation += 1
    return _generation(base, generation)


def read_key_files(
    directory: Path, passphrase: str | None = None, known: Mapping[str, SigningKey] | None = None
) -> dict[str, SigningKey]:
    """Read the key files of an installation, oldest first.

    Args:
        directory: Where they are.
        passphrase: Opens protected ones.
        known: Files that were read before, which are not read again: a key file never changes.

    Raises:
        ConfigError: A file is missing, readable by others, or its passphrase is wrong; or two keys are one.
        MalformedError: A file is not a key file.
    """
    known = known or {}
    files = key_files(directory)
    found = {name: known.get(name) or load_signing_key(f"file:{directory / name}", passphrase) for name in files}
    for name, (purpose, algorithm) in files.items():
        if (found[name].purpose, found[name].algorithm) != (purpose, algorithm):
            raise ConfigError(f"the key file {name} is for {found[name].purpose} with {found[name].algorithm}")
    # INVARIANT 10: log, pack, enforcer and vault keys are different keys.
    if len({_identity(key) for key in found.values()}) != len(found):
        raise ConfigError("two key files hold the same key")
    return found


def load_key_set(directory: Path, passphrase: str | None = None) -> KeySet:
    """Read the keys of an installation without asking its log: every log and pack key, the newest of the others.

    Raises:
        ConfigError: See `read_key_files`.
        MalformedError: A file is not a key file.
    """
    return choose_keys(read_key_files(directory, passphrase).values())


def choose_keys(keys: Iterable[SigningKey], keyring: Keyring | None = None) -> KeySet:
    """Return which of the keys at hand are used.

    Args:
        keys: All of them, the older ones of each kind first.
        keyring: What the log says of its keys. Without it, every log and pack key is used and the newest of the others.

    Raises:
        ConfigError: The log wants a key of some kind, and none that it wants is here.
    """
    held = tuple(keys)
    kinds = {kind: [key for key in held if (key.purpose, key.algorithm) == kind] for kind in KEY_FILES.values()}
    if keyring is not None:
        kinds = {kind: _counting(keyring, kind, alike) for kind, alike in kinds.items()}
    log = tuple(key for (purpose, _), alike in kinds.items() if purpose == "log" for key in alike)
    # A pack is made at one moment, with the keys that count then: the newest of each algorithm is enough.
    packs = [alike if keyring is None else alike[-1:] for (purpose, _), alike in kinds.items() if purpose == "pack"]
    pack = tuple(key for alike in packs for key in alike if isinstance(key, LocalKey))
    service, vault, pseudonym = (
        _newest(next(alike for (found, _), alike in kinds.items() if found == purpose))
        for purpose in ("enforcer", "vault", "pseudonym")
    )
    used = {_identity(key) for key in (*log, *pack, service, vault, pseudonym)}
    return KeySet(
        log=log,
        pack=pack,
        service=service,
        vault=vault,
        pseudonym=pseudonym,
        further=tuple(key for key in held if _identity(key) not in used),
    )


def _identity(key: SigningKey) -> bytes:
    return key.seed if isinstance(key, LocalKey) else key.public_key


def _newest(alike: Sequence[SigningKey]) -> LocalKey:
    key = alike[-1]
    assert isinstance(key, LocalKey)  # a key elsewhere is a log key
    return key


def _counting(keyring: Keyring, kind: tuple[str, str], alike: Sequence[SigningKey]) -> list[SigningKey]:
    """Return the keys of one kind that count by the log; the log may have given up an algorithm for checkpoints."""
    counting = [key for key in alike if counts(keyring, key)]
    names = {key.name for key in alike}
    wanted = any(
        (known.purpose, known.algorithm) == kind and known.subject in names and known.last_leaf is None
        for known in keyring.keys
    )
    if not counting and (wanted or kind[0] != "log"):
        raise ConfigError(f"the log was opened with another {kind[0]} key than the {kind[1]} one here")
    return counting


def counts(keyring: Keyring, key: SigningKey) -> bool:
    """Tell whether the log introduced a key and has not ended it."""
    return any(
        (known.purpose, known.algorithm, known.key_id) == (key.purpose, key.algorithm, key.key_id)
        and known.last_leaf is None
        for known in keyring.keys
    )


def unprotected_keys(directory: Path) -> list[str]:
    """Return the names of the key files that no passphrase protects; of a set that `load_key_set` has read.

    Raises:
        OSError: A file cannot be read.
    """
    documents = {name: json.loads((directory / name).read_bytes()) for name in key_files(directory)}
    return [name for name, document in documents.items() if document["secret"]["protection"] == "none"]


def trust_policy(keys: KeySet, *, without: Collection[str] = ()) -> TrustPolicy:
    """Return the trust policy that demands every algorithm with which the log signs.

    Keys that were replaced by others of their algorithm stand in it too, for the checkpoints that they signed; for how
    long each of them counted, the log's own key records say.

    Args:
        keys: The keys of an installation.
        without: Key ids that are left out.
    """
    algorithms = {key.algorithm for key in keys.log}
    former = [key for key in keys.further if key.purpose == "log" and key.algorithm in algorithms]
    return TrustPolicy(logs=tuple(key.verifier_key for key in (*keys.log, *former) if key.key_id not in without))


def fingerprints(keys: KeySet, policy: TrustPolicy) -> str:
    """Return one line for each public key: purpose, algorithm and fingerprint.

    Args:
        keys: The keys of an installation; of pack and service keys the newest are named.
        policy: What auditors are given; its log keys are named, and no others.
    """
    lines = [f"{'log':8} {_ALGORITHMS[key.signature_type]:10} {key.fingerprint}  {key.name}" for key in policy.logs]
    lines += [f"{key.purpose:8} {key.algorithm:10} {key.key_id}  {key.name}" for key in (*keys.pack, keys.service)]
    return "".join(line + "\n" for line in lines)


def introductions(keys: KeySet) -> list[KeyEvent]:
    """Return the key records that open a log: the service first, for it is the registrar."""
    return [introduction(key) for key in keys]


def introduction(key: SigningKey, *, first_size: int = 0) -> KeyEvent:
    """Return the key record that introduces one key; a log key counts from a tree size on."""
    return KeyEvent(
        action="created",
        purpose=key.purpose,  # type: ignore[arg-type]  # a key of another purpose is never introduced
        algorithm=key.algorithm,
        subject=key.name,
        key_id=key.key_id,
        public_key=None if key.public_key is None else encode_base64(key.public_key),
        first_size=first_size if key.purpose == "log" else 0,
    )
