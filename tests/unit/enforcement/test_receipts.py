"""What the ledger has acknowledged is let go of once it is proven, and not before; contradictions are said aloud."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from enforcement.batches import QueuedRecord
from enforcement.ports import Unavailable
from enforcement.receipts import Receipts
from enforcement.spool import Spool
from ledger.bodies import Heartbeat
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import (
    LedgerError,
    NotFoundError,
    RootMismatchError,
    SignatureInvalidError,
    TrustPolicyError,
    UpstreamError,
    VerificationError,
)
from ledger.ports import Draft, PendingEntry
from ledger.records import decode_entry, leaf_hash
from ledger.tiles import CHECKPOINT_PATH
from ledger.trust import TrustPolicy
from tests.support.ledger import LOG_ID, EmbeddedLedger, make_key
from tests.support.spools import batch, open_spool

BEAT = Draft(body=Heartbeat(kind="periodic", version="0.1.0", spool_depth=0))


@dataclass
class Log:
    """A log's files as an enforcer is handed them, with a fault in them if a test wants one."""

    ledger: EmbeddedLedger
    altered: Callable[[str, bytes], bytes] = lambda _, data: data
    away: bool = False
    read: list[str] = field(default_factory=list)

    async def log_file(self, log_id: str, path: str) -> bytes | Unavailable | None:
        self.read.append(path)
        if self.away:
            return Unavailable("timeout")
        try:
            return self.altered(path, await asyncio.to_thread(self.ledger.tiles.get, log_id, path))
        except NotFoundError:
            return None


class Scene:
    """A spool, a log, and what proves the one by the other."""

    def __init__(self, spool: Spool, ledger: EmbeddedLedger) -> None:
        self.spool = spool
        self.ledger = ledger
        self.log = Log(ledger)
        self.made = 0

    def receipts(self, trust: TrustPolicy | None = None) -> Receipts:
        async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        policy = trust or self.ledger.policy
        return Receipts(self.spool, self.log, policy, LOG_ID, in_thread=in_thread, interval_seconds=3600)

    def acknowledge(self, count: int, *, shift: int = 0) -> list[QueuedRecord]:
        """Have so many records taken up by the ledger; ``shift`` places lie about where."""
        self.spool.append([batch(BEAT, first=self.made + number) for number in range(count)])
        self.made += count
        queued = self.spool.pending(max_records=count, max_bytes=1 << 20)
        records = [decode_entry(one.entry) for one in queued]
        entries = [
            PendingEntry(record, one.entry, leaf_hash(record), ()) for record, one in zip(records, queued, strict=True)
        ]
        indexes = [index + shift for index in self.ledger.append(*entries)]
        self.spool.acknowledge(queued, indexes)
        return queued

    def kept(self) -> int:
        return len(self.spool.kept(at_most=10_000))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    state, spool = open_spool(tmp_path / "state")
    (tmp_path / "ledger").mkdir()
    with EmbeddedLedger(tmp_path / "ledger") as ledger:
        ledger.introduce()
        yield Scene(spool, ledger)
    state.close()


def look(receipts: Receipts) -> int:
    return asyncio.run(receipts.look())


def fails(receipts: Receipts, error: type[LedgerError]) -> None:
    with pytest.raises(error):
        look(receipts)


def test_an_acknowledged_record_is_kept_until_a_checkpoint_includes_it(scene: Scene) -> None:
    scene.acknowledge(3)
    receipts = scene.receipts()
    assert scene.spool.depth().records == 0  # it waits for nothing from the ledger any more
    fails(receipts, VerificationError)  # nothing has been published
    assert scene.kept() == 3
    scene.ledger.publish()
    assert look(receipts) == 3
    assert (scene.kept(), receipts.disputed) == (0, None)


def test_what_came_after_the_checkpoint_is_kept(scene: Scene) -> None:
    scene.acknowledge(2)
    scene.ledger.publish()
    scene.acknowledge(4)
    receipts = scene.receipts()
    assert look(receipts) == 2
    assert scene.kept() == 4
    scene.ledger.publish()
    assert look(receipts) == 4


def test_many_checkpoints_are_each_the_continuation_of_the_one_before(scene: Scene) -> None:
    receipts = scene.receipts()
    for count in (1, 2, 5, 250, 1, 300):
        scene.acknowledge(count)
        scene.ledger.publish()
        assert look(receipts) == count
    head = scene.spool.proven_head()
    assert head is not None
    assert head.size == 1 + 559


def test_nothing_is_read_while_nothing_waits(scene: Scene) -> None:
    scene.ledger.publish()
    assert look(scene.receipts()) == 0
    assert scene.log.read == []


def test_a_record_under_another_index_than_was_said_disputes_the_ledger_and_keeps_it(scene: Scene) -> None:
    scene.acknowledge(2, shift=-1)
    scene.ledger.publish()
    receipts = scene.receipts()
    fails(receipts, VerificationError)
    assert (receipts.disputed, scene.kept()) == ("record_not_included", 2)


def test_the_others_are_let_go_beside_one_that_is_not_included(scene: Scene) -> None:
    scene.acknowledge(3)
    scene.acknowledge(1, shift=-2)
    scene.ledger.publish()
    receipts = scene.receipts()
    fails(receipts, VerificationError)
    assert (receipts.disputed, scene.kept()) == ("record_not_included", 1)


def test_a_history_that_was_written_anew_disputes_the_ledger(scene: Scene, tmp_path: Path) -> None:
    scene.acknowledge(3)
    scene.ledger.publish()
    receipts = scene.receipts()
    look(receipts)
    (tmp_path / "other").mkdir()
    with EmbeddedLedger(tmp_path / "other") as other:
        other.introduce()
        for _ in range(6):
            other.append_heartbeat()
        other.publish()
        scene.acknowledge(1)
        scene.log.ledger = other
        fails(receipts, RootMismatchError)
        assert (receipts.disputed, scene.kept()) == ("history_differs", 1)
        # The true log is at hand again: the dispute is over once something is proven.
        scene.log.ledger = scene.ledger
        scene.ledger.publish()
        assert look(receipts) == 1
        assert receipts.disputed is None


def test_the_head_that_was_seen_last_is_known_after_a_restart(scene: Scene, tmp_path: Path) -> None:
    scene.acknowledge(3)
    scene.ledger.publish()
    look(scene.receipts())
    scene.acknowledge(1)
    (tmp_path / "other").mkdir()
    with EmbeddedLedger(tmp_path / "other") as other:
        other.introduce()
        for _ in range(6):
            other.append_heartbeat()
        other.publish()
        scene.log.ledger = other
        fails(scene.receipts(), RootMismatchError)


def test_an_older_checkpoint_proves_nothing_and_disputes_nothing(scene: Scene) -> None:
    scene.acknowledge(1)
    older = scene.ledger.publish()
    scene.acknowledge(1)
    scene.ledger.publish()
    receipts = scene.receipts()
    look(receipts)
    scene.acknowledge(1)
    scene.log.altered = lambda path, data: older if path == CHECKPOINT_PATH else data
    fails(receipts, VerificationError)
    assert (receipts.disputed, scene.kept()) == (None, 1)


@pytest.mark.parametrize(
    ("altered", "error"),
    [
        (lambda path, data: b"" if path == CHECKPOINT_PATH else data, LedgerError),
        (
            lambda path, data: data.replace(b"\n2\n", b"\n3\n") if path == CHECKPOINT_PATH else data,
            SignatureInvalidError,
        ),
        (lambda path, data: data if path == CHECKPOINT_PATH else data[:-1], VerificationError),
        (lambda path, data: data if path == CHECKPOINT_PATH else b"", VerificationError),
    ],
    ids=["no checkpoint", "a changed checkpoint", "a short tile", "an empty tile"],
)
def test_files_that_cannot_be_used_let_nothing_go(scene: Scene, altered: Any, error: type[LedgerError]) -> None:
    scene.acknowledge(1)
    scene.ledger.publish()
    scene.log.altered = altered
    receipts = scene.receipts()
    fails(receipts, error)
    assert (receipts.disputed, scene.kept()) == (None, 1)
    scene.log.altered = lambda _, data: data
    assert look(receipts) == 1


def test_a_tile_with_other_hashes_lets_nothing_go(scene: Scene) -> None:
    scene.acknowledge(5)
    scene.ledger.publish()
    scene.log.altered = lambda path, data: data if path == CHECKPOINT_PATH else bytes(len(data))
    receipts = scene.receipts()
    fails(receipts, VerificationError)
    assert scene.kept() == 5


def test_a_checkpoint_by_other_keys_proves_nothing(scene: Scene) -> None:
    scene.acknowledge(1)
    scene.ledger.publish()
    strangers = TrustPolicy(
        logs=tuple(make_key("log", kind, seed=seed).verifier_key for kind, seed in ((ED25519, 8), (MLDSA44, 9)))
    )
    receipts = scene.receipts(strangers)
    fails(receipts, TrustPolicyError)
    assert (receipts.disputed, scene.kept()) == (None, 1)


def test_a_checkpoint_without_the_quorum_of_witnesses_proves_nothing(scene: Scene) -> None:
    scene.acknowledge(1)
    scene.ledger.publish()
    fails(scene.receipts(replace(scene.ledger.policy, quorum="nobody")), TrustPolicyError)
    assert scene.kept() == 1


def test_a_log_that_is_away_lets_nothing_go(scene: Scene) -> None:
    scene.acknowledge(1)
    scene.ledger.publish()
    scene.log.away = True
    fails(scene.receipts(), UpstreamError)
    assert scene.kept() == 1


def test_what_is_not_proven_takes_up_room_in_the_spool(scene: Scene, tmp_path: Path) -> None:
    scene.acknowledge(2)
    receipts = scene.receipts()
    fails(receipts, VerificationError)  # nothing has been published
    assert receipts.unproven_bytes == scene.spool.unproven_bytes() > 500
    scene.ledger.publish()
    look(receipts)
    assert receipts.unproven_bytes == scene.spool.unproven_bytes() == 0


def test_without_a_trust_policy_an_acknowledgement_is_enough(scene: Scene) -> None:
    scene.spool.append([batch(BEAT)])
    scene.spool.acknowledge(scene.spool.pending(max_records=1, max_bytes=1 << 20))
    assert scene.kept() == 0
