"""A load of appends over HTTP on a service in processes of its own, and everything that anybody was told meanwhile.

Whatever was answered with 201 must be there afterwards, at the index that was told, with exactly the bytes that were
sent, under every later checkpoint; nothing has two indexes. What was sent and not answered is sent again, as an
enforcer does it.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import msgspec

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.merkle import hash_leaf
from ledger.notes import encode_base64
from ledger.ports import Opening
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.records import Record, encode_record
from ledger.trust import TrustPolicy, parse_trust_policy
from service.wiring.places import directory_tiles
from tests.support.commands import Installation
from tests.support.ledger import Enforcer, make_decision

SENDERS = 5
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.01

_TRY_AGAIN = (429, 503)

Submission = tuple[Record, tuple[Opening, ...]]


def encode_batch(batch: Sequence[Submission]) -> bytes:
    """Return a batch as NDJSON."""
    return b"\n".join(
        msgspec.json.encode({"record": msgspec.Raw(encode_record(record)), "openings": [_opened(o) for o in openings]})
        for record, openings in batch
    )


def _opened(opening: Opening) -> dict[str, str]:
    salt, payload = encode_base64(opening.salt), encode_base64(opening.payload)
    return {"field": opening.field, "salt": salt, "payload": payload}


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(POLL_SECONDS)


class Sender:
    """One enforcer that appends batch after batch, and sends again whatever nobody answered.

    Attributes:
        enforcer: Numbers and signs.
        acknowledged: Every record that was answered with 201, as it was sent, by the index that was told.
        repeated: How many records were there already when they were sent again.
        proofs: Records that were answered together with their proof.
    """

    def __init__(
        self, number: int, *, gives_up: bool = True, seconds: float = 30.0, pause_seconds: float = 0.0
    ) -> None:
        """Prepare.

        Args:
            number: Tells senders apart.
            gives_up: Whether it ends when nobody answers; if not, somebody else may answer the next time.
            seconds: How long it waits for an answer.
            pause_seconds: How long it rests after each batch: a load that lasts as long as something else runs takes
                the machine from that.
        """
        self.gives_up = gives_up
        self.pause_seconds = pause_seconds
        self.seconds = seconds
        self.enforcer = Enforcer(f"gateway-{number}", seed=30 + number, epoch=f"{number:032x}", simulated=False)
        self.acknowledged: dict[int, bytes] = {}
        self.repeated = 0
        self.proofs: list[tuple[bytes, bytes]] = []
        self._number = number
        self._token = ""
        self._waiting: list[Submission] = []
        self._batches = 0

    def introduce(self, url: str, admin: str) -> None:
        """Have the service introduce this enforcer."""
        key = encode_base64(bytes(self.enforcer.key.verify_key))
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {admin}"}, trust_env=False) as client:
            answer = client.post("/v1/enforcers", json={"enforcer_id": self.enforcer.enforcer_id, "public_key": key})
        answer.raise_for_status()
        self._token = answer.json()["token"]

    def resume(self, token: str, *, seq: int, running_count: int, acknowledged: dict[int, bytes]) -> None:
        """Go on where this enforcer stopped, with what it was told."""
        self._token = token
        self.enforcer.seq, self.enforcer.running_count = seq, running_count
        self.acknowledged = acknowledged

    def _next_batch(self) -> list[Submission]:
        self._batches += 1
        self.enforcer.time_ms = max(self.enforcer.time_ms, time.time_ns() // 1_000_000)
        bodies = [make_decision() for _ in range(1 + (self._batches + self._number) % 3)]
        return [(self.enforcer.record(body), openings) for body, openings in bodies]

    def send(self, url: str, enough: threading.Event) -> None:
        """Append until there is enough and nothing waits, or until nobody answers any more."""
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/x-ndjson"}
        with httpx.Client(base_url=url, headers=headers, timeout=self.seconds, trust_env=False) as client:
            while self._waiting or not enough.is_set():
                self._waiting = self._waiting or self._next_batch()
                wait = {"wait": "proof"} if self._number == 0 and self._batches % 4 == 0 else {}
                try:
                    answer = client.post("/v1/decisions", content=encode_batch(self._waiting), params=wait)
                except httpx.HTTPError:
                    if self.gives_up:
                        return
                    continue
                if self.gives_up or answer.status_code not in _TRY_AGAIN:
                    self._take(answer)
                if self.pause_seconds:
                    time.sleep(self.pause_seconds)

    def _take(self, answer: httpx.Response) -> None:
        assert answer.status_code == 201, answer.text
        for (record, _), result in zip(self._waiting, answer.json()["results"], strict=True):
            assert result["record_id"] == record.record_id
            entry = encode_record(record)
            assert result["leaf_index"] not in self.acknowledged, "an index was given twice"
            self.acknowledged[result["leaf_index"]] = entry
            self.repeated += result["duplicate"]
            if "proof" in result:
                self.proofs.append((entry, result["proof"].encode()))
        self._waiting = []


@dataclass
class Load:
    """A service's folder, those who append to it, and all that anybody was ever told.

    Attributes:
        installation: The folder.
        auditor: A token that may read the log.
        senders: Who appends.
        checkpoints: Every checkpoint that was ever seen.
    """

    installation: Installation
    auditor: str
    senders: list[Sender] = field(default_factory=lambda: [Sender(number) for number in range(SENDERS)])
    checkpoints: list[bytes] = field(default_factory=list)
    _proved: set[int] = field(default_factory=set)

    @property
    def trust(self) -> TrustPolicy:
        """What the log's checkpoints must be signed with."""
        return parse_trust_policy(self.installation.trust.read_bytes())

    @property
    def prover(self) -> Prover:
        """Proves from the log's directory, as any holder of a copy can."""
        return Prover(directory_tiles(self.installation.folder / "data" / "logs"), self.installation.log_id)

    def count(self) -> int:
        """Return how many records have been acknowledged."""
        return sum(len(sender.acknowledged) for sender in self.senders)

    def acknowledged(self) -> dict[int, bytes]:
        """Return every acknowledged record by its index, after checking that there is one of each."""
        told = [item for sender in self.senders for item in sender.acknowledged.items()]
        by_index = dict(told)
        assert len(by_index) == len(told), "an index was given twice"
        assert len(set(by_index.values())) == len(told), "a record was given two indexes"
        return by_index

    def see_checkpoint(self, url: str) -> int:
        """Fetch the published checkpoint, keep it, and return its size."""
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {self.auditor}"}, trust_env=False) as client:
            answer = client.get(f"/logs/{self.installation.log_id}/checkpoint")
        answer.raise_for_status()
        self.checkpoints.append(answer.content)
        return parse_unverified_checkpoint(answer.content).claim.head.size

    def append(self, url: str, until: Callable[[], bool], then: Callable[[], object]) -> None:
        """Let all senders append at once until something holds, and then do something about it."""
        enough = threading.Event()
        with ThreadPoolExecutor(len(self.senders)) as pool:
            sending = [pool.submit(sender.send, url, enough) for sender in self.senders]
            try:
                wait_until(lambda: until() or any(one.done() for one in sending))
                then()
            finally:
                enough.set()
        for one in sending:
            one.result()

    def append_until_killed(self, number: int) -> None:
        """Start the service, check all that is known, append, and kill it in the middle of that."""
        with self.installation.serve() as served:
            self.check(served.url)
            # Each time at another moment: from the first acknowledgements on, up to some checkpoints later.
            wanted = self.count() + 5 + 7 * number % 64

            def kill() -> None:
                self.see_checkpoint(served.url)
                served.started.signal(signal.SIGKILL)

            self.append(served.url, lambda: self.count() >= wanted, kill)
            assert served.started.wait() == -signal.SIGKILL
            assert self.count() >= wanted

    def check(self, url: str) -> TreeHead:
        """Check all that was acknowledged against the newest checkpoint, and return its head."""
        known = self.acknowledged()
        wait_until(lambda: self.see_checkpoint(url) > max(known, default=0))
        head = self.trust.verify(self.checkpoints[-1]).head
        prover = self.prover
        entries = list(prover.entries(0, head.size, head.size))
        assert len(set(entries)) == len(entries) == head.size, "a record stands twice"
        for index, entry in known.items():
            assert entries[index] == entry, "an acknowledged record is not the one that was sent"
        for index in known.keys() - self._proved:
            verify_inclusion(hash_leaf(known[index]), index, head, prover.inclusion(index, head.size))
        self._proved |= known.keys()
        return head

    def check_history(self, newest: TreeHead) -> None:
        """Check that all checkpoints and proofs that anybody ever saw are of one history that leads to the newest."""
        proved = [
            verify_entry(entry, parse_proof_file(proof), self.trust)
            for sender in self.senders
            for entry, proof in sender.proofs
        ]
        assert proved
        seen = [*map(self.trust.verify, self.checkpoints), *proved]
        heads = sorted({checkpoint.head for checkpoint in seen} | {newest}, key=lambda head: head.size)
        assert heads[-1] == newest
        for old, new in itertools.pairwise(heads):
            verify_consistency(old, new, self.prover.consistency(old.size, new.size))
