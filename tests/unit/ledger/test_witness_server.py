"""The witness for other people's logs: its answers, its atomic step, and what it keeps of whom it refuses."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import SimulatedClock
from ledger.cosignatures import AddCheckpoint, verify_cosignature
from ledger.database import open_engine
from ledger.envelopes import ED25519, MLDSA44
from ledger.equivocation import EquivocationFile, verify_equivocation
from ledger.errors import ConfigError, MalformedError, StorageError, WitnessError, WitnessSizeError
from ledger.ports import Refusal, Reply
from ledger.signers.cosigner import LocalCosigner
from ledger.stores.witnessed import SQLWitnessedLogs
from ledger.trust import TrustPolicy, Witness
from ledger.witnesses.client import HTTPWitness
from ledger.witnesses.server import WitnessServer
from tests.conformance.requirements import requirement
from tests.fakes import ORIGIN, LogSimulator
from tests.support.ledger import NOW_MS, make_key

NAME = "witness.example/ours"


def grown(size: int, *, forked_at: int | None = None, seed: int = 1, origin: str = ORIGIN) -> LogSimulator:
    split = size if forked_at is None else forked_at
    log = LogSimulator(origin, seed=seed)
    log.grow([b"entry %d" % index if index < split else b"other %d" % index for index in range(size)])
    return log


class Scene:
    def __init__(self, root: Path, algorithm: str = ED25519) -> None:
        self.log = grown(30)
        self.fork = grown(30, forked_at=3)
        self.engine = open_engine(f"sqlite:///{root / 'witness.db'}")
        self.clock = SimulatedClock(NOW_MS)
        self.cosigner = LocalCosigner(make_key("witness", algorithm, NAME, seed=5))
        self.key = self.cosigner.verifier_key
        self.store = SQLWitnessedLogs(self.engine)
        self.server = self.make()

    def make(self, **parts: object) -> WitnessServer:
        given = {"logs": self.log.policy, "cosigner": self.cosigner, "witnessed": self.store, "clock": self.clock}
        return WitnessServer(**{**given, **parts})

    def offer(self, old: int, size: int, *, log: LogSimulator | None = None, proof=None) -> Reply:
        log = log or self.log
        path = log.consistency(old, size) if proof is None and 0 < old <= size else proof or ()
        body = AddCheckpoint(old_size=old, proof=tuple(path), checkpoint=log.checkpoint(size)).encode()
        return self.server.add_checkpoint(body)

    def client(self) -> HTTPWitness:
        def handle(request: httpx.Request) -> httpx.Response:
            reply = self.server.add_checkpoint(request.content)
            return httpx.Response(
                reply.status, headers={"Content-Type": reply.media_type}, stream=httpx.ByteStream(reply.body)
            )

        known = Witness("ours", self.key, "https://w.example")
        return HTTPWitness(known, timeout_seconds=5.0, transport=httpx.MockTransport(handle))


@pytest.fixture(params=[ED25519, MLDSA44])
def scene(request: pytest.FixtureRequest, tmp_path: Path):
    made = Scene(tmp_path, request.param)
    yield made
    made.engine.dispose()


# --- cosigning -------------------------------------------------------------------------------------------------------


def test_a_log_is_cosigned_size_after_size_and_our_client_takes_it(scene):
    client, old = scene.client(), 0
    for size in (1, 2, 3, 8, 30):
        checkpoint = scene.log.checkpoint(size)
        proof = scene.log.consistency(old, size)
        line = client.add_checkpoint(checkpoint, old_size=old, proof=proof)
        assert verify_cosignature(scene.key, parse_unverified_checkpoint(checkpoint), line) == NOW_MS // 1000
        old = size


def test_the_same_checkpoint_is_cosigned_as_often_as_it_is_asked_for(scene):
    assert scene.offer(0, 5).status == 200
    scene.clock.advance(5_000)
    again = scene.offer(5, 5)
    assert again.status == 200
    assert scene.offer(5, 8).status == 200


@requirement("witness-07")
def test_what_was_cosigned_outlives_a_restart(scene, tmp_path):
    scene.offer(0, 5)
    scene.server = scene.make(witnessed=SQLWitnessedLogs(scene.engine))
    assert scene.offer(0, 8) == Reply(status=409, body=b"5\n", media_type="text/x.tlog.size")
    assert scene.offer(5, 8).status == 200


def test_logs_are_apart(scene):
    other = grown(4, origin="log.example/other", seed=7)
    scene.server = scene.make(logs=TrustPolicy(logs=(*scene.log.policy.logs, *other.policy.logs)))
    assert scene.offer(0, 5).status == 200
    assert scene.offer(0, 4, log=other).status == 200
    assert scene.offer(5, 8).status == 200


# --- refusing --------------------------------------------------------------------------------------------------------


@requirement("witness-05")
@pytest.mark.parametrize(("old", "size"), [(0, 8), (3, 8), (7, 8), (0, 5), (3, 4)])
def test_another_old_size_is_a_conflict_that_says_which(scene, old, size):
    scene.offer(0, 5)
    assert scene.offer(old, size) == Reply(status=409, body=b"5\n", media_type="text/x.tlog.size")


@requirement("witness-05")
def test_before_the_first_the_size_is_zero(scene):
    assert scene.offer(3, 5).body == b"0\n"


@requirement("witness-06")
def test_an_unknown_log_is_404(scene):
    stranger = grown(5, origin="log.example/stranger")
    assert scene.offer(0, 5, log=stranger).status == 404


@requirement("witness-06")
def test_a_checkpoint_that_the_log_has_not_signed_is_403(scene):
    assert scene.offer(0, 5, log=grown(5, seed=9)).status == 403


@pytest.mark.parametrize("kept", [0, 1], ids=["Ed25519 alone", "ML-DSA-44 alone"])
def test_one_algorithm_of_two_is_403(scene, kept):
    text, _, lines = scene.log.checkpoint(5).partition(b"\n\n")
    half = text + b"\n\n" + lines.splitlines(keepends=True)[kept]
    body = AddCheckpoint(old_size=0, proof=(), checkpoint=half).encode()
    assert scene.server.add_checkpoint(body).status == 403


@requirement("witness-06")
def test_an_old_size_beyond_the_checkpoint_is_400(scene):
    scene.offer(0, 5)
    assert scene.offer(6, 5, proof=()).status == 400


@requirement("witness-06")
@pytest.mark.parametrize("body", [b"", b"old 0\n", b"old 0\n\n", b"old 0\n\nx", b"old x\n\n", b"\xff" * 50])
def test_a_request_of_another_form_is_400(scene, body):
    assert scene.server.add_checkpoint(body).status == 400


@requirement("witness-06")
def test_a_proof_that_fails_is_422_and_changes_nothing(scene):
    scene.offer(0, 5)
    good = scene.log.consistency(5, 8)
    for proof in (good[:-1], (*good, good[0]), good[::-1], (b"\0" * 32,) * len(good)):
        assert scene.offer(5, 8, proof=proof).status == 422
    assert scene.offer(5, 8, proof=good).status == 200


def test_a_proof_from_nothing_must_be_empty(scene):
    assert scene.offer(0, 5, proof=(b"\0" * 32,)).status == 422
    assert scene.offer(0, 5).status == 200


@requirement("witness-06")
def test_a_fork_is_422_of_the_same_size_and_of_a_larger_one(scene):
    scene.offer(0, 5)
    assert scene.offer(5, 5, log=scene.fork).status == 422
    assert scene.offer(5, 8, log=scene.fork).status == 422
    assert scene.offer(5, 8).status == 200


def test_our_client_tells_the_refusals_apart(scene):
    client = scene.client()
    client.add_checkpoint(scene.log.checkpoint(5), old_size=0, proof=())
    with pytest.raises(WitnessSizeError):
        client.add_checkpoint(scene.log.checkpoint(8), old_size=0, proof=())
    with pytest.raises(WitnessError, match="another tree"):
        client.add_checkpoint(scene.fork.checkpoint(8), old_size=5, proof=scene.fork.consistency(5, 8))


# --- evidence --------------------------------------------------------------------------------------------------------


def sizes(kept: list[bytes]) -> list[int]:
    return sorted(parse_unverified_checkpoint(one).claim.size for one in kept)


@pytest.mark.parametrize("old", [0, 5])
def test_a_fork_that_the_log_signed_is_kept_whole_and_proves_two_histories(scene, old):
    scene.offer(0, 5)
    scene.offer(old, 5, log=scene.fork)
    (kept,) = scene.store.refused(ORIGIN, Refusal.CONTRADICTS)
    proof = EquivocationFile(smaller=scene.log.checkpoint(5), larger=kept)
    assert verify_equivocation(proof, scene.log.policy).origin == ORIGIN
    assert scene.store.refused(ORIGIN, Refusal.UNPROVED) == []


def test_the_same_fork_is_kept_once(scene):
    scene.offer(0, 5)
    for _ in range(3):
        scene.offer(5, 8, log=scene.fork)
    assert sizes(scene.store.refused(ORIGIN, Refusal.UNPROVED)) == [8]


def test_an_honest_checkpoint_with_a_strangers_wrong_proof_is_no_contradiction(scene):
    scene.offer(0, 5)
    for size in (6, 8, 30):
        assert scene.offer(5, size, proof=(b"\0" * 32,)).status == 422
    assert scene.offer(5, 5, proof=(b"\0" * 32,)).status == 422
    assert scene.store.refused(ORIGIN, Refusal.CONTRADICTS) == []
    assert sizes(scene.store.refused(ORIGIN, Refusal.UNPROVED)) == [6, 8, 30]


def test_a_log_that_signs_without_end_fills_no_disk_and_hides_no_contradiction(scene):
    scene.offer(0, 5)
    for number in range(300):
        for refusal in Refusal:
            scene.store.refuse(ORIGIN, f"{number:064x}", b"another", refusal=refusal, now_ms=NOW_MS)
    assert [len(scene.store.refused(ORIGIN, refusal)) for refusal in Refusal] == [256, 256]
    scene.store.refuse("log.example/other", "0" * 64, b"its own", refusal=Refusal.CONTRADICTS, now_ms=NOW_MS)
    assert scene.store.refused("log.example/other", Refusal.CONTRADICTS) == [b"its own"]


def test_what_the_log_has_not_signed_is_not_kept(scene):
    scene.offer(0, 5)
    scene.offer(5, 5, log=grown(5, seed=9))
    scene.offer(0, 8)
    assert [scene.store.refused(ORIGIN, refusal) for refusal in Refusal] == [[], []]


# --- the atomic step -------------------------------------------------------------------------------------------------


@requirement("witness-07")
def test_of_two_requests_that_race_one_is_cosigned_and_the_other_is_told(scene):
    scene.offer(0, 5)
    started, replies = threading.Barrier(8), []

    def race(size: int) -> None:
        started.wait()
        replies.append((size, scene.offer(5, size).status))

    threads = [threading.Thread(target=race, args=(size,)) for size in range(6, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for _, status in replies) == [200] + [409] * 7
    (won,) = [size for size, status in replies if status == 200]
    assert scene.offer(0, 30).body == b"%d\n" % won


@requirement("witness-07")
def test_what_could_not_be_kept_is_not_answered(scene):
    class Failing(SQLWitnessedLogs):
        def advance(self, _origin, decide, **_):
            decide(None)
            raise StorageError("injected")

    scene.server = scene.make(witnessed=Failing(scene.engine))
    with pytest.raises(StorageError):
        scene.offer(0, 5)


@pytest.mark.parametrize(("purpose", "algorithm"), [("log", ED25519), ("pack", MLDSA44), ("witness", "hmac-sha256")])
def test_only_a_witness_s_key_cosigns(purpose, algorithm):
    with pytest.raises(ConfigError):
        LocalCosigner(make_key(purpose, algorithm, NAME))


def test_a_name_that_no_note_can_carry_is_refused():
    with pytest.raises(MalformedError):
        LocalCosigner(make_key("witness", ED25519, "two words"))
