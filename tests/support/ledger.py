"""Builders for tests: keys, records, and a whole embedded ledger in a folder. Real parts throughout."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import nacl.signing
from sqlalchemy import select

from ledger.anchors.directory import DirectoryAnchor
from ledger.audit_report import AuditReport
from ledger.auditor import Auditor
from ledger.bodies import Body, Decision, Heartbeat, KeyEvent
from ledger.clock import SimulatedClock
from ledger.commitments import SALT_BYTES
from ledger.database import open_engine
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import NotFoundError
from ledger.integrator import Integrator
from ledger.keys import LocalKey
from ledger.notes import encode_base64
from ledger.ports import Anchor, Opening, PendingEntry, TileStore, commit
from ledger.prover import Prover
from ledger.publisher import Publisher
from ledger.reader import EntryReader
from ledger.records import Record, encode_record, leaf_hash, new_record_id, sign_record
from ledger.signers.local import LocalSigner
from ledger.stores import tables
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.stores.sql_objects import SQLPayloadStore
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.tiles import CHECKPOINT_PATH
from ledger.trust import TrustPolicy
from ledger.vault import Vault
from migrations.schema import upgrade
from tests.support.faults import Faults, FaultyAnchor, FaultyLogStore, FaultyTileStore

LOG_ID = "acme"
ORIGIN = "log.example/acme"
NOW_MS = 1_763_546_400_000
"""2025-11-19 10:00 UTC, a Wednesday."""


def make_key(purpose: str, algorithm: str = ED25519, name: str = ORIGIN, *, seed: int = 1) -> LocalKey:
    return LocalKey(
        purpose=purpose, algorithm=algorithm, name=name, seed=bytes([seed]) * 32, created_ms=NOW_MS, simulated=True
    )


@dataclass
class Enforcer:
    """Writes records with an enforcer's numbers and signature."""

    enforcer_id: str = "service"
    log_id: str = LOG_ID
    seed: int = 7
    epoch: str = "0" * 32
    seq: int = 0
    running_count: int = 0
    time_ms: int = NOW_MS
    simulated: bool = True
    tenant: str = "acme"
    pseudonym_key_id: str | None = None
    key: nacl.signing.SigningKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = nacl.signing.SigningKey(bytes([self.seed]) * 32)

    def record(self, body: Body, *, record_id: str | None = None) -> Record:
        self.seq += 1
        self.time_ms += 1
        self.running_count += isinstance(body, Decision)
        draft = Record(
            schema_version=1,
            record_id=record_id or new_record_id(self.time_ms, secrets.token_bytes(10)),
            log_id=self.log_id,
            tenant=self.tenant,
            environment="test",
            enforcer_id=self.enforcer_id,
            epoch=self.epoch,
            seq=self.seq,
            running_count=self.running_count,
            time_ms=self.time_ms,
            body=body,
            signature="A" * 86 + "==",
            simulated=self.simulated,
            pseudonym_key_id=self.pseudonym_key_id,
        )
        return sign_record(draft, self.key)

    def introduction(self, subject: Enforcer | None = None) -> KeyEvent:
        subject = subject or self
        return KeyEvent(
            action="created",
            purpose="enforcer",
            algorithm=ED25519,
            subject=subject.enforcer_id,
            key_id=f"{subject.enforcer_id}-key",
            public_key=encode_base64(bytes(subject.key.verify_key)),
        )

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(kind="periodic", version="0.1.0", spool_depth=0)


def opened(field_name: str, payload: bytes) -> tuple[object, Opening]:
    return commit(field_name, secrets.token_bytes(SALT_BYTES), payload)


def make_decision(**changes: object) -> tuple[Decision, tuple[Opening, ...]]:
    """Return a decision with two vaulted fields, and their openings."""
    message, message_opening = commit("message", secrets.token_bytes(SALT_BYTES), b'{"jsonrpc":"2.0"}')
    request, request_opening = commit("request", secrets.token_bytes(SALT_BYTES), b'{"version":1}')
    fields: dict[str, object] = {
        "agent": "finance-bot",
        "server": "finance",
        "method": "tools/call",
        "tool": "Payroll-DB",
        "decision": "DENY",
        "enforcement": "deny",
        "mode": "enforce",
        "reason": "policy",
        "evaluation_us": 120,
        "session": "5" * 32,
        "user": "6" * 32,
        "message": message,
        "request": request,
        "rules": ("finance-business-hours",),
        "failed_condition": "finance-business-hours",
    }
    fields.update(changes)
    return Decision(**fields), (message_opening, request_opening)


def pending(record: Record, vault: Vault | None = None, openings: Sequence[Opening] = ()) -> PendingEntry:
    payloads = vault.seal(record, {opening.field: opening for opening in openings}) if vault else ()
    return PendingEntry(record, encode_record(record), leaf_hash(record), payloads)


class EmbeddedLedger:
    """The embedded default: SQLite, a directory of tiles, a directory anchor, local keys.

    `close` it, or use it as a context manager, where the database is opened again afterwards. Its writes pass through
    `faults`, which notes them and breaks those that a test arms it for.
    """

    def __init__(
        self,
        root: Path,
        *,
        log_id: str = LOG_ID,
        database_url: str | None = None,
        clock: SimulatedClock | None = None,
        service: Enforcer | None = None,
        faults: Faults | None = None,
        load: bool = True,
        tiles: TileStore | None = None,
        anchor: Anchor | None = None,
    ) -> None:
        self.root = root
        self.log_id = log_id
        self.clock = clock or SimulatedClock(NOW_MS)
        self.database_url = database_url or f"sqlite:///{root / 'ledger.db'}"
        self.engine = open_engine(self.database_url)
        upgrade(self.engine)
        self.store = SQLLogStore(self.engine)
        self.store.create_log(
            log_id, tenant="acme", origin=ORIGIN, environment="test", simulated=True, created_ms=NOW_MS
        )
        self.tiles: TileStore = tiles or DirectoryTileStore(root / "logs")
        self.anchor: Anchor = anchor or DirectoryAnchor(root / "anchor")
        self.faults = faults or Faults()
        self.signers = [LocalSigner(make_key("log", ED25519, seed=1)), LocalSigner(make_key("log", MLDSA44, seed=2))]
        self.policy = self.trust_policy()
        vault_key = make_key("vault", "xchacha20-poly1305", seed=3)
        self.vault = Vault(log_id, DirectorySubjectKeys(root / "subject-keys", vault_key), SQLPayloadStore(self.engine))
        self.reader = EntryReader(self.store, self.tiles, log_id)
        self.prover = Prover(self.tiles, log_id)
        self.catalog = SQLCatalog(self.engine)
        self.service = service or Enforcer(log_id=log_id)
        self.publisher = self.make_publisher()
        if load:
            self.publisher.load()

    @staticmethod
    def trust_policy() -> TrustPolicy:
        """Return what an auditor was given: both keys of the log."""
        keys = (make_key("log", ED25519, seed=1), make_key("log", MLDSA44, seed=2))
        return TrustPolicy(logs=tuple(key.verifier_key for key in keys))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    def reopen(self, *, load: bool = True) -> EmbeddedLedger:
        """Open folder and database again, as a new process would; the clock and the enforcer go on."""
        self.close()
        return EmbeddedLedger(
            self.root,
            log_id=self.log_id,
            database_url=self.database_url,
            clock=self.clock,
            service=self.service,
            load=load,
        )

    def make_publisher(self, **parts: object) -> Publisher:
        return Publisher(
            **{
                "log_id": self.log_id,
                "origin": ORIGIN,
                "store": FaultyLogStore(self.store, self.faults),
                "tiles": FaultyTileStore(self.tiles, self.faults),
                "integrator": Integrator(self.log_id, self.reader, FaultyTileStore(self.tiles, self.faults)),
                "signers": self.signers,
                "anchor": FaultyAnchor(self.anchor, self.faults),
                "clock": self.clock,
                **parts,
            }
        )

    def append(self, *entries: PendingEntry) -> list[int]:
        faulty = FaultyLogStore(self.store, self.faults)
        (result,) = faulty.sequence(self.log_id, [entries], received_ms=self.clock.now_ms())
        if isinstance(result, Exception):
            raise result
        return [done.index for done in result]

    def introduce(self) -> int:
        """Write leaf 0."""
        return self.append(pending(self.service.record(self.service.introduction())))[0]

    def decide(self, **changes: object) -> int:
        """Append one decision with its payloads."""
        body, openings = make_decision(**changes)
        return self.append(pending(self.service.record(body), self.vault, openings))[0]

    def append_heartbeat(self) -> int:
        """Append one record that decides nothing."""
        return self.append(pending(self.service.record(self.service.heartbeat())))[0]

    def publish(self) -> bytes:
        self.clock.advance(1000)
        published = self.publisher.publish()
        assert published is not None
        self.publisher.anchor_newest()
        return published.checkpoint

    def published_checkpoints(self) -> list[bytes]:
        """Return every checkpoint that won its swap, oldest first."""
        columns = tables.checkpoints.c
        query = select(columns.checkpoint).where(columns.log_id == self.log_id).order_by(columns.size)
        with self.engine.connect() as connection:
            return [bytes(checkpoint) for (checkpoint,) in connection.execute(query)]

    def exposed_checkpoints(self) -> list[bytes]:
        """Return the live checkpoint, if there is one."""
        try:
            return [self.tiles.get(self.log_id, CHECKPOINT_PATH)]
        except NotFoundError:
            return []

    def anchored_checkpoints(self) -> list[bytes]:
        """Return every anchored checkpoint, oldest first."""
        return [self.anchor.get(self.log_id, size) for size in self.anchor.sizes(self.log_id)]

    def audit(self) -> AuditReport:
        """Audit with everything at hand: projection, vault, and every checkpoint ever seen."""
        seen = [*self.published_checkpoints(), *self.anchored_checkpoints()]
        auditor = Auditor(
            self.log_id, self.tiles, self.policy, catalog=self.catalog, vault=self.vault, other_checkpoints=seen
        )
        return auditor.audit()
