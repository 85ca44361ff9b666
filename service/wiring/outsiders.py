"""Who says something about a log from outside: its witnesses and time-stamping authority; and a witness of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from ledger.anchors.rfc3161 import HTTPTimestampAuthority
from ledger.clock import Clock
from ledger.database import open_engine
from ledger.errors import (
    ConfigError,
    MalformedError,
)
from ledger.keys import LocalKey
from ledger.notes import VerifierKey
from ledger.prover import Prover
from ledger.publisher import Published
from ledger.signers.cosigner import LocalCosigner
from ledger.stores.cosignatures import SQLCosignatures
from ledger.stores.timestamps import SQLTimestamps
from ledger.stores.witnessed import SQLWitnessedLogs
from ledger.timestamping import Timestamping, TimestampingLoop
from ledger.timestamps import TimestampTrust, parse_roots
from ledger.trust import TrustPolicy, parse_trust_policy
from ledger.witnesses.client import HTTPWitness
from ledger.witnesses.server import WitnessServer
from ledger.witnessing import Witnessing, WitnessMode
from service.current_keys import CurrentKeys
from service.settings import Settings
from service.wiring.places import make_timestamp_archive

__all__ = [
    "WitnessParts",
    "make_timestamping",
    "make_witness",
    "make_witnessing",
    "read_witness_policy",
    "witness_vkey",
]

_TSA_TIMEOUT_SECONDS: Final = 20.0


def _read_file(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"TALLYSTICK_{name}: the file cannot be read: {error.strerror}") from error


def read_witness_policy(settings: Settings, current: CurrentKeys) -> TrustPolicy | None:
    """Return the witness policy that the settings name.

    Raises:
        ConfigError: It cannot be read, has no quorum, or names a key of the log as a witness's.
    """
    if settings.witness_policy is None:
        return None
    try:
        policy = parse_trust_policy(_read_file(settings.witness_policy, "WITNESS_POLICY"))
    except MalformedError as error:
        raise ConfigError(f"TALLYSTICK_WITNESS_POLICY: {error}") from error
    if policy.quorum is None:
        raise ConfigError("TALLYSTICK_WITNESS_POLICY: a policy without a quorum asks no witness for anything")
    own = {key.public_key for key in current.keys.of("log")}
    if any(witness.key.public_key in own for witness in policy.witnesses.values()):
        raise ConfigError("TALLYSTICK_WITNESS_POLICY: a key of the log itself is listed as a witness's")
    return policy


def make_witnessing(
    settings: Settings, policy: TrustPolicy | None, database: Engine, prover: Prover, clock: Clock
) -> Witnessing | None:
    """Return who has checkpoints cosigned, or None without a witness policy.

    Raises:
        ConfigError: A witness has no URL, or one that cannot be used.
    """
    if policy is None:
        return None
    return Witnessing(
        settings.log_id,
        policy=policy,
        witnesses=[
            HTTPWitness(witness, timeout_seconds=settings.witness_timeout_seconds)
            for witness in policy.witnesses.values()
        ],
        mode=WitnessMode(settings.witness_mode),
        store=SQLCosignatures(database),
        prover=prover,
        clock=clock,
    )


def make_timestamping(
    settings: Settings, database: Engine, published: Callable[[], Published | None], clock: Clock
) -> TimestampingLoop | None:
    """Return who has checkpoints dated, or None without an authority.

    Raises:
        ConfigError: The authority or its certificates cannot be used.
    """
    if not settings.tsa_url:
        return None
    if settings.tsa_certificates is None:
        raise ConfigError("TALLYSTICK_TSA_CERTIFICATES: say which root certificates a token must lead to")
    try:
        roots = parse_roots(_read_file(settings.tsa_certificates, "TSA_CERTIFICATES"))
    except MalformedError as error:
        raise ConfigError(f"TALLYSTICK_TSA_CERTIFICATES: {error}") from error
    timestamping = Timestamping(
        settings.log_id,
        authority=HTTPTimestampAuthority(
            settings.tsa_url,
            TimestampTrust(roots=roots, policy=settings.tsa_policy or None),
            clock=clock,
            timeout_seconds=_TSA_TIMEOUT_SECONDS,
        ),
        store=SQLTimestamps(database),
        archive=make_timestamp_archive(settings, clock),
        clock=clock,
        interval_seconds=settings.tsa_interval_seconds,
    )
    return TimestampingLoop(timestamping, published, interval_seconds=settings.tsa_interval_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessParts:
    """A witness for other people's logs."""

    server: WitnessServer
    verifier_key: VerifierKey
    close: Callable[[], None]


def witness_vkey(key: LocalKey) -> VerifierKey:
    """Return the key by which a witness's cosignatures are verified.

    Raises:
        ConfigError: The key is not a witness's.
        MalformedError: No note can carry its name.
    """
    return LocalCosigner(key).verifier_key


def make_witness(key: LocalKey, logs: TrustPolicy, database_url: str, clock: Clock) -> WitnessParts:
    """Return a witness for other people's logs.

    Args:
        key: Its key.
        logs: The logs that it knows.
        database_url: A database of its own.
        clock: For the time of cosignatures.

    Raises:
        ConfigError: The key is not a witness's, or the database cannot be used.
        StorageError: The database failed.
    """
    cosigner = LocalCosigner(key)
    database = open_engine(database_url)
    return WitnessParts(
        server=WitnessServer(logs, cosigner, SQLWitnessedLogs(database), clock),
        verifier_key=cosigner.verifier_key,
        close=database.dispose,
    )
