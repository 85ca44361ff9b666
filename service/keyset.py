"""The key files of an installation: which there are, making them, reading them.

``tallystick keys init DIR`` makes one file for each key, readable by its owner only, and two public files: the trust
policy that auditors need, and fingerprints to compare by voice or on paper.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ledger.bodies import KeyEvent, Name
from ledger.commitments import pseudonym_key_id
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError
from ledger.files import create_durably
from ledger.keys import LocalKey, generate_key, load_key, save_key
from ledger.notes import encode_base64
from ledger.trust import TrustPolicy

__all__ = [
    "KEY_FILES",
    "KeySet",
    "fingerprints",
    "introduction",
    "introductions",
    "load_key_set",
    "make_key_set",
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

_TRUST_FILE: Final = "trust.policy"
_FINGERPRINTS_FILE: Final = "fingerprints.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The keys of one service.

    Attributes:
        log: Sign checkpoints: Ed25519 and ML-DSA-44.
        pack: Sign evidence packs: Ed25519 and ML-DSA-44.
        service: Signs the service's own records.
        vault: Wraps subject keys.
        pseudonym: Makes pseudonyms and fingerprints.
    """

    log: tuple[LocalKey, ...]
    pack: tuple[LocalKey, ...]
    service: LocalKey
    vault: LocalKey
    pseudonym: LocalKey

    def __iter__(self) -> Iterator[LocalKey]:
        """Yield every key."""
        yield from (self.service, *self.log, *self.pack, self.vault, self.pseudonym)

    @property
    def simulated(self) -> bool:
        """Whether any key was made for a demonstration."""
        return any(key.simulated for key in self)

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
    write_public_files(directory, keys)
    return keys


def require_empty(directory: Path) -> None:
    """Refuse a directory in which a key set, or a part of one, stands already.

    Raises:
        ConfigError: A file of a key set is there.
    """
    present = [name for name in (*KEY_FILES, _TRUST_FILE, _FINGERPRINTS_FILE) if (directory / name).exists()]
    if present:
        raise ConfigError(f"the key directory holds keys already: {', '.join(sorted(present))}")


def write_public_files(directory: Path, keys: KeySet) -> None:
    """Write the trust policy and the fingerprints of keys beside them.

    Raises:
        ConflictError: Those of other keys stand there.
        OSError: The file system failed.
    """
    create_durably(directory / _TRUST_FILE, trust_policy(keys).encode().encode())
    create_durably(directory / _FINGERPRINTS_FILE, fingerprints(keys).encode())


def load_key_set(directory: Path, passphrase: str | None = None) -> KeySet:
    """Read the keys of an installation.

    Raises:
        ConfigError: A file is missing, readable by others, or its passphrase is wrong; or two keys are one.
        MalformedError: A file is not a key file.
    """
    found = {name: load_key(f"file:{directory / name}", passphrase) for name in KEY_FILES}
    for name, (purpose, algorithm) in KEY_FILES.items():
        if (found[name].purpose, found[name].algorithm) != (purpose, algorithm):
            raise ConfigError(f"the key file {name} is for {found[name].purpose} with {found[name].algorithm}")
    # INVARIANT 10: log, pack, enforcer and vault keys are different keys.
    if len({key.seed for key in found.values()}) != len(found):
        raise ConfigError("two key files hold the same key")
    return KeySet(
        log=(found["log-ed25519.json"], found["log-ml-dsa-44.json"]),
        pack=(found["pack-ed25519.json"], found["pack-ml-dsa-44.json"]),
        service=found["service-ed25519.json"],
        vault=found["vault.json"],
        pseudonym=found["pseudonym.json"],
    )


def unprotected_keys(directory: Path) -> list[str]:
    """Return the names of the key files that no passphrase protects; of a set that `load_key_set` has read.

    Raises:
        OSError: A file cannot be read.
    """
    documents = {name: json.loads((directory / name).read_bytes()) for name in KEY_FILES}
    return [name for name, document in documents.items() if document["secret"]["protection"] == "none"]


def trust_policy(keys: KeySet) -> TrustPolicy:
    """Return the trust policy that demands both of the log's signatures."""
    return TrustPolicy(logs=tuple(key.verifier_key for key in keys.log))


def fingerprints(keys: KeySet) -> str:
    """Return one line for each public key: purpose, algorithm and fingerprint."""
    lines = [f"{key.purpose:8} {key.algorithm:10} {key.verifier_key.fingerprint}  {key.name}" for key in keys.log]
    lines += [f"{key.purpose:8} {key.algorithm:10} {key.key_id}  {key.name}" for key in (*keys.pack, keys.service)]
    return "".join(line + "\n" for line in lines)


def introductions(keys: KeySet) -> list[KeyEvent]:
    """Return the key records that open a log: the service first, for it is the registrar."""
    return [introduction(key) for key in keys]


def introduction(key: LocalKey) -> KeyEvent:
    """Return the key record that introduces one key."""
    return KeyEvent(
        action="created",
        purpose=key.purpose,  # type: ignore[arg-type]  # a key of another purpose is never introduced
        algorithm=key.algorithm,
        subject=key.name,
        key_id=key.key_id,
        public_key=None if key.public_key is None else encode_base64(key.public_key),
    )
