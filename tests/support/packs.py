"""A log that a test writes record by record, and packs made of it. Real parts throughout: Cedar decides, keys sign.

Everything is fixed (ids, salts, times, keys), so that the same calls write the same log; only ML-DSA signatures differ.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from evidence import pack
from evidence.assemble import AnchoredCopy, AssembledPack, PackRequest, PackSources, assemble
from evidence.catalogue import load_frameworks
from evidence.container import digest_content, read_container, write_container
from evidence.entry_files import EntryFileWriter
from evidence.scope import parse_scope
from evidence.summary import PackSummary
from ledger.bodies import (
    AccessEvent,
    Body,
    BundleEvent,
    BundleReference,
    Decision,
    Heartbeat,
    KeyEvent,
    Outcome,
    Succession,
)
from ledger.checkpoints import Checkpoint
from ledger.clock import SimulatedClock
from ledger.envelopes import ED25519, MLDSA44, EnvelopeSigner, seal_envelope
from ledger.errors import ErasedError, NotFoundError, UnknownBundleError
from ledger.integrator import Integrator
from ledger.notes import SignedNote, encode_base64
from ledger.ports import AnchorReceipt, commit
from ledger.prover import Prover
from ledger.records import Record, encode_record, new_record_id, sign_record
from ledger.signers.local import LocalEnvelopeSigner, LocalSigner
from ledger.stores.memory import MemoryTileStore
from ledger.trust import TrustPolicy
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import encode_request, public_facts
from tests.support.ledger import NOW_MS, ORIGIN, Enforcer, make_key
from tests.support.policies import PASSING_CASE, cedar_bundle, cedar_files, make_request

SMALL_FRAMEWORK: dict[str, Any] = {
    "format": "tallystick.framework/1",
    "framework": "small",
    "title": "Two controls",
    "version": "1",
    "mapping_version": "1",
    "source": "ours",
    "tests": [
        {
            "id": "allowed-only-on-permit",
            "sentence": "Every allowed call was permitted.",
            "subject": "decision",
            "where": {"equals": ["decision.enforcement", "allow"]},
            "must": {"equals": ["decision.decision", "PERMIT"]},
        }
    ],
    "controls": [
        {
            "id": "C.1(a)",
            "title": "Calls are permitted",
            "evidence": ["E1"],
            "strength": "direct",
            "rationale": "Decisions are recorded.",
            "customer_adds": "Nothing.",
            "procedure": "Compare.",
            "tests": ["allowed-only-on-permit"],
        },
        {
            "id": "C.2",
            "title": "Something else",
            "evidence": ["E14"],
            "strength": "supports",
            "rationale": "None.",
            "customer_adds": "All.",
            "procedure": "None.",
            "not_tested": "nothing speaks of it",
        },
    ],
}
"""A framework as a pack holds it."""

HOUR_MS = 3_600_000
FROM_MS = NOW_MS
TO_MS = NOW_MS + HOUR_MS
ACTOR = "a" * 32

POLICY = """
@id("tellers-sell")
permit (principal in Role::"teller", action == Action::"tools/call", resource == Tool::"shop/sell");
@id("sale-limit")
forbid (principal, action == Action::"tools/call", resource == Tool::"shop/sell")
unless { context.args has amount && context.args.amount <= 500 };
@id("void-needs-approval") @obligation("approval")
permit (principal in Role::"teller", action == Action::"tools/call", resource == Tool::"shop/void");
@id("no-dumps") @obligation("end_session")
forbid (principal, action == Action::"tools/call", resource == Tool::"shop/dump");
"""


def shop_bundle(policy: str = POLICY) -> Bundle:
    return cedar_bundle(policy, name="shop")


def ready_bundle(policy: str = POLICY) -> Bundle:
    """Return a shop's bundle with a test case that passes whatever the policy says."""
    return bundle_from_files({**cedar_files(policy, name="shop"), **PASSING_CASE})


def render_stand_in(summary: PackSummary, attachments: Mapping[str, bytes]) -> bytes:
    """Stand in for the PDF: bytes that follow from the summary and the attachments, as a real report's do."""
    digest = hashlib.sha256(repr(summary).encode())
    for path in sorted(attachments):
        digest.update(path.encode() + attachments[path])
    return b"%PDF-stand-in\n" + digest.hexdigest().encode() + b"\n"


def read_files(data: bytes) -> dict[str, bytes]:
    """Return the files of a pack."""
    return {path: bytes(view) for path, view in read_container(memoryview(data)).items()}


def write_files(files: Mapping[str, bytes]) -> bytes:
    """Return a container of files, whatever they hold."""
    file = io.BytesIO()
    write_container(file, {path: files[path] for path in pack.member_order(files)})
    return file.getvalue()


def seal(files: Mapping[str, bytes], signers: Sequence[EnvelopeSigner]) -> bytes:
    """Return a pack with both manifests written anew and signed: what somebody with pack keys can do."""
    scope = parse_scope(files[pack.SCOPE])
    sealed = {path: data for path, data in files.items() if path not in (pack.MANIFEST, pack.MANIFEST_ENVELOPE)}
    inner = {
        path: digest_content(d) for path, d in sealed.items() if path not in (pack.CONTENT_MANIFEST, pack.PACK_PDF)
    }
    sealed[pack.CONTENT_MANIFEST] = pack.encode_manifest(scope, inner)
    manifest = pack.encode_manifest(scope, {path: digest_content(data) for path, data in sealed.items()})
    sealed[pack.MANIFEST] = manifest
    sealed[pack.MANIFEST_ENVELOPE] = seal_envelope(pack.MANIFEST_MEDIA_TYPE, manifest, signers)
    return write_files(sealed)


def pack_entries(entries: Sequence[bytes]) -> bytes:
    """Return the file of entries of a pack."""
    file = io.BytesIO()
    writer = EntryFileWriter(file)
    for entry in entries:
        writer.write(entry)
    writer.close()
    return file.getvalue()


def late_day(log: PackLog) -> int:
    """Write a complete day of which one decision arrives after its period was closed, and return that one's leaf."""
    log.begin()
    log.call(at_ms=FROM_MS)
    log.call(at_ms=TO_MS - 1)
    late = log.entries.pop()
    log.end()
    log.call(at_ms=TO_MS + 2000)
    log.entries.append(late)
    return len(log.entries) - 1


class _Entries:
    """What the integrator reads."""

    def __init__(self, entries: list[bytes]) -> None:
        self._entries = entries

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        return iter(self._entries[start:end])


@dataclass
class PackLog:
    """A log of one gateway and the service, in memory."""

    seed: int = 0
    simulated: bool = True
    bundle: Bundle = field(default_factory=shop_bundle)
    entries: list[bytes] = field(default_factory=list)
    requests: dict[str, bytes] = field(default_factory=dict)
    bundles: dict[str, Bundle] = field(default_factory=dict)
    checkpoints: list[bytes] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    evaluator: Evaluator = field(default_factory=lambda: Evaluator({"cedar": CedarEngine()}, threads=1))

    def __post_init__(self) -> None:
        self.service = Enforcer(seed=7 + self.seed)
        self.gateway = Enforcer(enforcer_id="gateway-1", seed=8 + self.seed, epoch="1" * 32)
        self.pack_signers = [
            LocalEnvelopeSigner(make_key("pack", ED25519, "packs.acme", seed=21 + self.seed)),
            LocalEnvelopeSigner(make_key("pack", MLDSA44, "packs.acme", seed=22 + self.seed)),
        ]
        self.log_signers = [
            LocalSigner(make_key("log", ED25519, seed=1 + self.seed)),
            LocalSigner(make_key("log", MLDSA44, seed=2 + self.seed)),
        ]
        self.tiles = MemoryTileStore()
        self.integrator = Integrator("acme", _Entries(self.entries), self.tiles)
        self.prover = Prover(self.tiles, "acme")
        self.trust = TrustPolicy(logs=tuple(signer.verifier_key for signer in self.log_signers))
        self.clock = SimulatedClock(NOW_MS + 2 * HOUR_MS)

    def close(self) -> None:
        self.evaluator.close()

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(self, enforcer: Enforcer, body: Body, *, at_ms: int | None = None, record_id: str | None = None) -> int:
        """Append a record and return its leaf."""
        if at_ms is not None:
            enforcer.time_ms = at_ms - 1
        identifier = record_id or new_record_id(enforcer.time_ms, (len(self.entries) + 1).to_bytes(10, "big"))
        record = enforcer.record(body, record_id=identifier)
        if not self.simulated:
            record = sign_record(msgspec.structs.replace(record, simulated=False), enforcer.key)
        return self.add_record(record)

    def add_record(self, record: Record) -> int:
        self.entries.append(encode_record(record))
        return len(self.entries) - 1

    def begin(self, succession: Succession | None = None) -> None:
        """Write what every log begins with: keys, a bundle published and activated, signs of life.

        Args:
            succession: Which log this one succeeds, if it does.
        """
        at_ms = FROM_MS - 60_000
        self.add(self.service, self.service.introduction(), at_ms=at_ms)
        for signer in self.pack_signers:
            self.add(self.service, self._pack_key(signer))
        self.add(self.service, self.service.introduction(self.gateway))
        if succession is not None:
            self.add(self.service, succession)
        self.add(self.service, self.service.heartbeat())
        self.publish_bundle(self.bundle)
        self.add(self.gateway, Heartbeat(kind="start", version="0.1.0", spool_depth=0), at_ms=at_ms + 1000)

    def _pack_key(self, signer: EnvelopeSigner) -> KeyEvent:
        key = signer.envelope_key
        return KeyEvent(
            action="created",
            purpose="pack",
            algorithm=key.algorithm,
            subject="packs.acme",
            key_id=key.key_id,
            public_key=encode_base64(key.public_key),
        )

    def publish_bundle(self, bundle: Bundle, actions: Sequence[str] = ("published", "activated")) -> None:
        self.bundles[bundle.revision] = bundle
        for action in actions:
            self.bundle_event(action, bundle.revision)

    def bundle_event(self, action: Any, revision: str, *, actor: str = ACTOR, **members: Any) -> int:
        body = BundleEvent(
            action=action, name="shop", revision=revision, engine="cedar", actor=actor, actor_role="admin", **members
        )
        return self.add(self.service, body)

    def _salt(self, name: str) -> bytes:
        return hashlib.sha256(f"{len(self.entries)} {name}".encode()).digest()[:16]

    def call(self, *, at_ms: int | None = None, outcome: str | None = "auto", **options: Any) -> int:
        """Write a call as a gateway would: judged by Cedar, enforced, and closed; return the decision's leaf.

        Options named as in `make_request` go into the request; ``changes`` replaces fields of the record.
        """
        changes: dict[str, Any] = options.pop("changes", {})
        request = make_request(**{"roles": ("teller",), "agent": "till-1", "user": "ann", **options})
        (evaluation,) = asyncio.run(self.evaluator.evaluate_many(self.bundle, [request]))
        answer = evaluation.decision
        enforcement = "allow" if answer.permitted else "deny"
        if "end_session" in answer.obligations:
            enforcement = "kill"
        elif "approval" in answer.obligations:
            enforcement = "ask"
        payload = encode_request(request)
        committed, _ = commit("request", self._salt("request"), payload)
        message, _ = commit("message", self._salt("message"), request.arguments.encode())
        body = Decision(
            **{
                "agent": request.principal.agent,
                "server": request.resource.server,
                "method": request.action,
                "tool": request.resource.name,
                "decision": answer.effect.value,
                "enforcement": enforcement,
                "mode": "enforce",
                "reason": answer.reason,
                "evaluation_us": 150,
                "session": hashlib.sha256(request.state.session.encode()).hexdigest()[:32],
                "user": hashlib.sha256(str(request.principal.user).encode()).hexdigest()[:32],
                "message": message,
                "request": committed,
                "bundle": BundleReference(
                    name="shop",
                    revision=self.bundle.revision,
                    engine=answer.engine,
                    engine_version=answer.engine_version,
                ),
                "rules": answer.rules,
                "failed_condition": answer.failed_condition,
                "obligations": answer.obligations,
                "facts": public_facts(request),
                "tool_digest": hashlib.sha256(str(request.resource.name).encode()).hexdigest(),
                **changes,
            }
        )
        leaf = self.add(self.gateway, body, at_ms=at_ms)
        record_id = new_record_id(self.gateway.time_ms - 1, (leaf + 1).to_bytes(10, "big"))
        self.requests[record_id] = payload
        status = outcome
        if outcome == "auto":
            status = {"allow": "completed", "ask": "not_forwarded"}.get(body.enforcement)
        if status is not None:
            self.add(self.gateway, Outcome(decision_id=record_id, status=status, session=body.session))
        return leaf

    def refuse(self, reason: str = "malformed", *, at_ms: int | None = None) -> int:
        """Write a message that no policy was asked about."""
        message, _ = commit("message", self._salt("message"), b"{")
        body = Decision(
            agent="unauthenticated",
            server="shop",
            decision="INDETERMINATE",
            enforcement="deny",
            mode="enforce",
            reason=reason,
            evaluation_us=0,
            session="f" * 32,
            message=message,
        )
        return self.add(self.gateway, body, at_ms=at_ms)

    def access(self, action: str = "query", *, at_ms: int | None = None, **changes: Any) -> int:
        body = AccessEvent(
            **{
                "action": action,
                "actor": ACTOR,
                "actor_role": "auditor",
                "target_kind": "log",
                "result": "ok",
                **changes,
            }
        )
        return self.add(self.service, body, at_ms=at_ms)

    def end(self) -> None:
        """Let both enforcers be heard of after the end of the period."""
        for enforcer in (self.service, self.gateway):
            self.add(enforcer, enforcer.heartbeat(), at_ms=TO_MS + 1000)

    def ordinary_day(self) -> None:
        """Write a log in which everything happens once or more."""
        self.begin()
        self.add(self.gateway, self.gateway.heartbeat(), at_ms=FROM_MS + 1000)
        self.access(at_ms=FROM_MS + 5000)
        at_ms = FROM_MS + 10_000
        for number in range(12):
            self.call(at_ms=at_ms + 1000 * number, arguments=f'{{"amount": {number + 1}}}', session=f"s{number % 3}")
        self.call(arguments='{"amount": 501}', session="s0")
        self.call(arguments='{"amount": 900}', session="s1")
        self.call(name="void", session="s1")
        self.call(name="dump", session="s9", agent="till-9")
        self.call(name="unlisted", session="s2")
        self.call(arguments='{"amount": 3}', session="s0", changes={"mode": "observe"})
        self.refuse()
        self.access("export_pack", digest="d" * 64)
        self.end()

    def small_day(self) -> None:
        """Write the smallest log that has an allowed and a denied call and is complete."""
        self.begin()
        self.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
        self.call(arguments='{"amount": 501}')
        self.end()

    # --- reading -----------------------------------------------------------------------------------------------------

    def publish(self, *, at_ms: int | None = None) -> bytes:
        """Integrate everything and return a signed checkpoint."""
        size = len(self.entries)
        claim = Checkpoint(origin=ORIGIN, size=size, root=self.integrator.integrate(size))
        seconds = (at_ms or TO_MS + 10_000) // 1000
        lines = tuple(signer.sign(claim, seconds) for signer in self.log_signers)
        self.checkpoints.append(SignedNote(claim.body(), lines).encode())
        return self.checkpoints[-1]

    def open_request(self, record: Record) -> bytes:
        if record.record_id in self.erased:
            raise ErasedError("the subject's key was destroyed")
        try:
            return self.requests[record.record_id]
        except KeyError:
            raise NotFoundError("no payload") from None

    def get_bundle(self, revision: str) -> Bundle:
        try:
            return self.bundles[revision]
        except KeyError:
            raise UnknownBundleError("no such bundle") from None

    def sources(self, checkpoint: bytes | None = None, **changes: Any) -> PackSources:
        receipt = AnchorReceipt(size=len(self.entries), location="anchor:acme/60", anchored_ms=TO_MS + 11_000)
        sources = PackSources(
            prover=self.prover,
            checkpoint=checkpoint or (self.checkpoints or [self.publish()])[-1],
            trust=self.trust,
            anchors=(AnchoredCopy("directory", receipt),),
            bundle=self.get_bundle,
            open_request=self.open_request,
            evaluator=self.evaluator,
            clock=self.clock,
        )
        return replace(sources, **changes)

    def request(self, **changes: Any) -> PackRequest:
        request = PackRequest(
            title="Calls of the shop",
            from_ms=FROM_MS,
            to_ms=TO_MS,
            frameworks=load_frameworks(["soc2", "hipaa"]),
            requested_by="b" * 32,
            requested_ms=TO_MS + 20_000,
            software="tallystick 0.1.0",
            zone="Europe/Berlin",
            simulated=self.simulated,
        )
        return replace(request, **changes)

    def pack(
        self,
        path: Path,
        *,
        request: PackRequest | None = None,
        sources: PackSources | None = None,
        render: Callable[[PackSummary, Mapping[str, bytes]], bytes] = render_stand_in,
        signers: Sequence[EnvelopeSigner] | None = None,
        progress: Callable[[str, int, int], None] = lambda step, done, total: None,  # noqa: ARG005
    ) -> AssembledPack:
        """Assemble a pack at ``path``."""
        return asyncio.run(
            assemble(
                request or self.request(),
                sources or self.sources(),
                path,
                render=render,
                signers=self.pack_signers if signers is None else signers,
                progress=progress,
            )
        )
