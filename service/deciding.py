"""The service as a policy decision point: questions of others' enforcement points, decided and recorded.

The active bundle decides, and the decision is a record like any other before it is told: with the request that was
evaluated, so that it is searched, replayed and proved as a gateway's is. It says ``interface`` and mode ``observe``,
because nobody here sees whether it was obeyed: it counts for no control as enforced. What is contained is denied,
whatever the bundle says (`service.stopping`). What people must agree to is denied, unless it is asked again with their
approval (`service.access_requests`): it is then permitted for the reason ``approved``, and continues what was denied.

INVARIANT 7: whatever goes wrong between question and decision is a denial, and recorded as one. Where it cannot be
recorded there is no answer at all, which the caller must take for a denial.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import structlog

from enforcement.facts import Pseudonyms
from enforcement.verdicts import enforcement_of
from ledger import bodies, body_fields
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, derived_record_id, new_record_id
from ledger.vault import Vault
from policies.bundles import Bundle
from policies.evaluate import Evaluation, Evaluator, Reason
from policies.model import DecisionRequest, encode_request, public_facts
from policies.registry import Registry
from service.access_requests import Use
from service.authzen import Question, Semantic, answered, settled
from service.grouping import GroupedSink
from service.stopping import Standing, Stops

__all__ = ["ActiveBundles", "DecisionPoint", "Recorded", "Uses", "repeatable_id"]

_log = structlog.get_logger()

_EVALUATION_SECONDS: Final = 5.0
"""All questions of one request are evaluated by then, or denied."""
_INTERFACE: Final = "authzen"
_REPEATED: Final = b"tallystick/repeatable-decision/v1\n"
_NO_ENGINE_VERSION: Final = "unavailable"

Uses: TypeAlias = Callable[[Question, str | None], Awaitable[Use]]
"""Uses the approval that a question is asked with, of the bundle of a revision; see `AccessRequests.use`."""


def repeatable_id(log_id: str, token_sha256: str, key: str, position: int) -> str:
    """Return the record id of a decision whose caller may ask for it again: a UUID of version 8.

    Args:
        log_id: The log.
        token_sha256: Whose key it is: keys of two callers never meet.
        key: The caller's idempotency key.
        position: Which of the questions asked together, from 0.

    Source: RFC 9562 section 5.8.
    """
    return derived_record_id(_REPEATED, log_id, token_sha256, str(position), key)


class ActiveBundles:
    """The bundle in force, read anew when the log has a newer step of any bundle. One event loop owns it."""

    def __init__(self, log_id: str, registry: Registry, catalog: Catalog) -> None:
        """Know of nothing yet.

        Args:
            log_id: Which log.
            registry: Derives the state, and holds the archives.
            catalog: Says whether anything happened to bundles.
        """
        self._log_id = log_id
        self._registry = registry
        self._catalog = catalog
        self._turn = asyncio.Lock()
        self._seen = -1
        self._bundle: Bundle | None = None

    async def current(self) -> Bundle | None:
        """Return the bundle in force; whoever asks after an activation was acknowledged gets that one.

        Raises:
            TallystickError: A store failed, or does not hold what the log names.
        """
        async with self._turn:
            newer = await asyncio.to_thread(self._catalog.of_type, self._log_id, "bundle", above=self._seen)
            if newer:
                self._bundle = await self._registry.active_bundle()
                # Behind the read: it may already have seen more, which is then read once more.
                self._seen = newer[-1]
            return self._bundle


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision as it stands in the log.

    Attributes:
        decision_id: Its record id.
        leaf_index: Its leaf.
        body: What it says.
        detail: What the caller is told beside it; names, never values.
    """

    decision_id: str
    leaf_index: int
    body: bodies.Decision
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Verdict:
    effect: body_fields.Effect
    enforcement: body_fields.Enforcement
    reason: str
    evaluation: Evaluation | None = None
    detail: str = ""
    asked: bool = True
    restriction: str | None = None
    continues: str | None = None


def _refused(reason: str, detail: str = "") -> _Verdict:
    return _Verdict("INDETERMINATE", "deny", reason, None, detail)


def _judged(evaluation: Evaluation) -> _Verdict:
    enforcement, reason = enforcement_of(evaluation.decision)
    return _Verdict(evaluation.decision.effect.value, enforcement, reason, evaluation, evaluation.decision.detail)


def _stopped(verdict: _Verdict | None, standing: Standing) -> _Verdict:
    """Return a verdict as what stands against the question makes it; None of a policy that was not asked."""
    effect: body_fields.Effect = "INDETERMINATE" if standing.restriction is None else "DENY"
    before = _Verdict(effect, "deny", "", asked=False) if verdict is None else verdict
    return replace(before, enforcement="deny", reason=standing.reason, detail="", restriction=standing.restriction)


class DecisionPoint:
    """Decides and records. One event loop owns it."""

    def __init__(
        self,
        log_id: str,
        *,
        bundles: ActiveBundles,
        stops: Stops,
        evaluator: Evaluator,
        sink: RecordSink,
        catalog: Catalog,
        reader: EntryReader,
        vault: Vault,
        clock: Clock,
        pseudonym_key: Callable[[], bytes],
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            bundles: Says which bundle decides.
            stops: Says what is denied whatever it decides.
            evaluator: Asks it.
            sink: Records.
            catalog: Finds a decision that is asked for again.
            reader: Reads it.
            vault: Holds what it was asked.
            clock: Dates questions that say no time.
            pseudonym_key: Names what may not stand in the open; asked anew for each request.
        """
        self._log_id = log_id
        self._bundles = bundles
        self._stops = stops
        self._evaluator = evaluator
        self._sink = sink
        self._grouped = GroupedSink(sink)
        self._catalog = catalog
        self._reader = reader
        self._vault = vault
        self._clock = clock
        self._pseudonym_key = pseudonym_key
        self._approved_turn = asyncio.Lock()

    @property
    def now_ms(self) -> int:
        """The time of a question that says none."""
        return self._clock.now_ms()

    async def decide(
        self,
        questions: Sequence[Question],
        *,
        semantic: Semantic = "execute_all",
        token_sha256: str = "",
        key: str | None = None,
        use: Uses | None = None,
    ) -> list[Recorded]:
        """Answer questions, in order; as far down as the semantic says. What is returned is durable.

        Args:
            questions: What is asked.
            semantic: See `service.authzen.answered`.
            token_sha256: Who asks.
            key: Under which the same answer is given again, if the same is asked; None if asking again is new.
            use: Uses the approvals that questions are asked with; None where none counts.

        Raises:
            ConflictError: Something else was asked under that key.
            ErasedError: What was asked under it is gone, so that nobody can say whether it was the same.
            DependencyError: Nothing could be recorded: there is no answer.
        """
        # Asked twice at once of one process under one key, an approval is used by one and its answer given to both.
        approved = any(question.approval is not None for question in questions)
        async with self._approved_turn if approved else nullcontext():
            return await self._decide_or_find(questions, semantic, token_sha256, key, use)

    async def _decide_or_find(
        self, questions: Sequence[Question], semantic: Semantic, token_sha256: str, key: str | None, use: Uses | None
    ) -> list[Recorded]:
        if key is None:
            return await self._decide(questions, semantic, None, use)
        ids = [repeatable_id(self._log_id, token_sha256, key, position) for position in range(len(questions))]
        known = await asyncio.to_thread(self._known, questions, ids, semantic)
        if known:
            return known
        try:
            return await self._decide(questions, semantic, ids, use)
        except ConflictError:
            # The same request, side by side with this one, was first.
            known = await asyncio.to_thread(self._known, questions, ids, semantic)
            if not known:
                raise
            return known

    async def _decide(
        self, questions: Sequence[Question], semantic: Semantic, ids: Sequence[str] | None, use: Uses | None
    ) -> list[Recorded]:
        pseudonyms = Pseudonyms(self._pseudonym_key())
        bundle, verdicts = await self._judge_what_is_free(questions, pseudonyms)
        if use is not None and any(question.approval is not None for question in questions):
            revision = None if bundle is None else bundle.revision
            verdicts = await self._with_approvals(questions, verdicts, semantic, lambda one: use(one, revision))
            verdicts = await self._stop(questions, verdicts, pseudonyms)
        count = answered([verdict.enforcement == "allow" for verdict in verdicts], semantic)
        now_ms = self._clock.now_ms()
        names = ids or [new_record_id(now_ms, secrets.token_bytes(10)) for _ in questions]
        drafts = [
            _draft(name, question, verdict, bundle, pseudonyms)
            for name, question, verdict, _ in zip(names, questions, verdicts, range(count), strict=False)
        ]
        # Repeatable ones go alone: a conflict of theirs is no other caller's trouble.
        done = await (self._grouped if ids is None else self._sink).append(drafts)
        return [
            Recorded(acknowledged.record_id, acknowledged.index, _decision(draft), verdict.detail)
            for draft, acknowledged, verdict in zip(drafts, done, verdicts, strict=False)
        ]

    async def _judge_what_is_free(
        self, questions: Sequence[Question], pseudonyms: Pseudonyms
    ) -> tuple[Bundle | None, list[_Verdict]]:
        """Return the bundle that was asked, and a verdict for each question; what is contained is not asked about."""
        before = await self._stops.against(questions, pseudonyms)
        asked = [question.request if stop is None else None for question, stop in zip(questions, before, strict=True)]
        bundle, judged = await self._judge(asked)
        verdicts = []
        for question, verdict, first in zip(questions, judged, before, strict=True):
            if question.request is None:
                verdicts.append(_refused(question.reason, question.detail))
            else:
                verdicts.append(verdict if first is None else _stopped(None, first))
        # INVARIANT: what was contained while the policy was asked is not permitted.
        return bundle, verdicts if not any(asked) else await self._stop(questions, verdicts, pseudonyms)

    async def _stop(
        self, questions: Sequence[Question], verdicts: Sequence[_Verdict], pseudonyms: Pseudonyms
    ) -> list[_Verdict]:
        """Return verdicts as what stands against the questions now makes them."""
        standing = await self._stops.against(questions, pseudonyms)
        return [
            verdict if then is None or verdict.enforcement in ("deny", "kill") else _stopped(verdict, then)
            for verdict, then in zip(verdicts, standing, strict=True)
        ]

    @staticmethod
    async def _with_approvals(
        questions: Sequence[Question],
        verdicts: Sequence[_Verdict],
        semantic: Semantic,
        use: Callable[[Question], Awaitable[Use]],
    ) -> list[_Verdict]:
        """Return verdicts in which what people have agreed to is permitted; no approval of an unanswered one is used.

        INVARIANT: an approval counts only where the policy says again that people must agree, and nothing else.
        """
        done: list[_Verdict] = []
        for question, verdict in zip(questions, verdicts, strict=True):
            if settled([one.enforcement == "allow" for one in done], semantic):
                break
            if question.approval is None or verdict.enforcement != "ask":
                done.append(verdict)
                continue
            used = await use(question)
            if used.decision_id is None:
                done.append(replace(verdict, detail=f"approval: {used.reason}"))
            else:
                done.append(replace(verdict, enforcement="allow", reason="approved", continues=used.decision_id))
        return [*done, *verdicts[len(done) :]]

    async def _judge(self, requests: Sequence[DecisionRequest | None]) -> tuple[Bundle | None, list[_Verdict]]:
        """Return the bundle that was asked, and a verdict for each request."""
        try:
            bundle = await self._bundles.current()
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: without a bundle that can be relied on, nothing passes
            _log.error("active_bundle_unavailable", error=type(error).__name__)
            return None, [_refused("bundle_unavailable") for _ in requests]
        if bundle is None:
            return None, [_refused("no_bundle") for _ in requests]
        asked = [request for request in requests if request is not None]
        verdicts = iter(await self._evaluate(bundle, asked))
        return bundle, [_refused("") if request is None else next(verdicts) for request in requests]

    async def _evaluate(self, bundle: Bundle, asked: Sequence[DecisionRequest]) -> list[_Verdict]:
        try:
            async with asyncio.timeout(_EVALUATION_SECONDS):
                return [_judged(evaluation) for evaluation in await self._evaluator.evaluate_many(bundle, asked)]
        except TimeoutError:
            return [_refused("evaluation_timeout") for _ in asked]
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: an engine error is a deny
            _log.error("evaluation_failed", error=type(error).__name__)
            return [_refused(Reason.ENGINE_ERROR) for _ in asked]

    def _known(self, questions: Sequence[Question], ids: Sequence[str], semantic: Semantic) -> list[Recorded]:
        """Return what was answered under these ids before; nothing if nothing was.

        Raises:
            ConflictError: Something else was asked, or less.
            ErasedError: What was asked is gone.
        """
        found: list[Recorded] = []
        for question, decision_id in zip(questions, ids, strict=True):
            record = self._find(decision_id)
            if record is None:
                break
            index, body = record
            asked = self._vault.open(self._reader.record(index), "message").payload
            if asked != question.message:
                raise ConflictError("something else was asked under this idempotency key")
            found.append(Recorded(decision_id, index, body))
        unsettling = semantic != "permit_on_first_permit"
        permits = [known.body.enforcement == "allow" for known in found] + [unsettling] * (len(questions) - len(found))
        # What was not asked then is not answered by silence now, which might pass for a permit.
        if found and answered(permits, semantic) > len(found):
            raise ConflictError("less was asked under this idempotency key")
        return found

    def _find(self, decision_id: str) -> tuple[int, bodies.Decision] | None:
        try:
            index = self._catalog.index_of(self._log_id, decision_id)
        except NotFoundError:
            return None
        # The index only finds; what a leaf is, the leaf says (invariant 3).
        record: Record = self._reader.record(index)
        if record.record_id != decision_id or not isinstance(record.body, bodies.Decision):
            raise ConflictError(f"the id {decision_id} belongs to another record")
        return index, record.body


def _decision(draft: Draft) -> bodies.Decision:
    if not isinstance(draft.body, bodies.Decision):
        raise MalformedError("not a decision")
    return draft.body


def _commit(name: str, payload: bytes) -> tuple[body_fields.Commitment, Opening]:
    return commit(name, secrets.token_bytes(SALT_BYTES), payload)


def _draft(
    decision_id: str, question: Question, verdict: _Verdict, bundle: Bundle | None, pseudonyms: Pseudonyms
) -> Draft:
    """Return the record of one answer."""
    message, opening = _commit("message", question.message)
    openings = [opening]
    request, committed = question.request, None
    if request is not None:
        committed, opening = _commit("request", encode_request(request))
        openings.append(opening)
    decision = None if verdict.evaluation is None else verdict.evaluation.decision
    body = bodies.Decision(
        agent=question.agent,
        server=question.server,
        decision=verdict.effect,
        enforcement=verdict.enforcement,
        mode="observe",
        reason=verdict.reason,
        evaluation_us=0 if verdict.evaluation is None else verdict.evaluation.duration_us,
        session=pseudonyms.session(question.session or f"{_INTERFACE}/{decision_id}"),
        message=message,
        method=question.method,
        tool=question.tool,
        bundle=None if bundle is None or request is None or not verdict.asked else _reference(bundle, verdict),
        rules=() if decision is None else decision.rules,
        failed_condition=None if decision is None else decision.failed_condition,
        obligations=() if decision is None else decision.obligations,
        facts=None if request is None else public_facts(request),
        user=pseudonyms.user(question.user),
        address=pseudonyms.address(question.address),
        request=committed,
        arguments_fingerprint=None if request is None else pseudonyms.content(request.arguments.encode()),
        tags=() if request is None else request.resource.tags,
        trace_id=question.trace_id,
        drift=() if decision is None else decision.drift,
        interface=_INTERFACE,
        restriction=verdict.restriction,
        continues=verdict.continues,
    )
    return Draft(body=body, openings=tuple(openings), record_id=decision_id)


def _reference(bundle: Bundle, verdict: _Verdict) -> bodies.BundleReference:
    decision = None if verdict.evaluation is None else verdict.evaluation.decision
    return bodies.BundleReference(
        name=bundle.manifest.name,
        revision=bundle.revision,
        engine=bundle.manifest.engine,
        engine_version=_NO_ENGINE_VERSION if decision is None else decision.engine_version,
    )
