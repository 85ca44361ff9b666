"""The policy enforcement point: decision, record, enforcement. One core behind every transport.

What is elsewhere: reading the message and gathering the facts (`enforcement.admission`), the policy's answer
(`policies.evaluate`), the words of the records (`enforcement.drafts`), durability (`enforcement.recorder`), forwarding
(`enforcement.gateway`).

INVARIANT: every message gets exactly one decision record, whatever it is and whatever goes wrong. Its id is made before
anything else, so that a second attempt cannot become a second record. What cannot be recorded at all is still denied.

INVARIANT: nothing is permitted before its decision is durable: in the ledger (strict) or in the spool (available). A
denial is durable, in the spool at least, before the client is answered.

The answer of a client to a server's request is no decision of its own but the outcome of that request, which was
decided when the server sent it (ADR 0034).

INVARIANT: every permitted decision gets exactly one outcome. "Permitted" is a decision PERMIT, or an enforcement
``allow``; where such a call is not let through, the outcome ``not_forwarded`` says why (`enforcement.spool` refuses a
second outcome).

INVARIANT: what a permitted call adds to behaviour windows is durable before the call goes on (`enforcement.windows`).

INVARIANT 7: deny by default, fail closed. Whatever is raised on the way to a decision is INDETERMINATE, and denied.

INVARIANT: what is contained goes no further, in either mode: that is looked up before a policy is asked, and again as
the last thing before a call goes on, so that a call under way in judgement is stopped as well.

Observing relaxes what *policies* say, and nothing else: a message that cannot be read, a caller who is not known, a
blocked principal, what is contained, and a call that cannot be recorded are refused in either mode. ``mode`` in the
record says whether this decision was enforced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Final

import structlog
from msgspec import UNSET

from enforcement.admission import Admission, refusing
from enforcement.approvals import Held
from enforcement.batches import Batch, Item, Room, opens_call
from enforcement.drafts import Case, Ruling, decision_draft, minimal_draft, outcome_draft, outcome_of
from enforcement.facts import UNKNOWN, Pseudonyms
from enforcement.holding import Holding
from enforcement.judging import OpenTrace, PolicyEvaluator, Tracing
from enforcement.metrics import Metrics
from enforcement.offload import off_loop
from enforcement.policy_source import PolicySource, StaleBundle
from enforcement.recorder import Recorder
from enforcement.sessions import Sessions
from enforcement.signals import NO_SAFEGUARDS, Safeguards, SignalsUnavailableError
from enforcement.state import Change
from enforcement.strictness import handling_of
from enforcement.verdicts import (
    INPUT_REQUIRED,
    RESULT_OBLIGATIONS,
    Completion,
    Denial,
    Denied,
    Inbound,
    Permitted,
    Verdict,
    denial_reply,
    enforcement_of,
)
from enforcement.windows import Windows
from ledger import body_fields
from ledger.errors import ConflictError, LedgerError, OverloadedError, StorageError, UpstreamError
from ledger.ports import Draft
from policies.evaluate import Evaluation, Reason
from policies.model import Decision, DecisionRequest, Effect, Obligation

__all__ = ["EnforcementPoint", "OpenTrace", "PolicyEvaluator", "Tracing"]

_LOG: Final = structlog.get_logger(__name__)
_EFFECTS: Final[Mapping[Effect, body_fields.Effect]] = {
    Effect.PERMIT: "PERMIT",
    Effect.DENY: "DENY",
    Effect.INDETERMINATE: "INDETERMINATE",
    Effect.NOT_APPLICABLE: "NOT_APPLICABLE",
}


class _NoAnswerError(Exception):
    """No policy answered; the text is the reason that is recorded."""


class EnforcementPoint:
    """Judges messages and records what became of them; one for a gateway, owned by the event loop."""

    def __init__(
        self,
        admission: Admission,
        *,
        evaluator: PolicyEvaluator,
        evaluation_seconds: float,
        policies: PolicySource,
        recorder: Recorder,
        sessions: Sessions,
        windows: Windows,
        pseudonyms: Pseudonyms,
        metrics: Metrics,
        on_settled: Callable[[str, DecisionRequest, Decision], None] = lambda *_: None,
        disputed: Callable[[], bool] = lambda: False,
        tracing: Tracing | None = None,
        safeguards: Safeguards = NO_SAFEGUARDS,
        on_judged: Callable[[Case], None] = lambda _: None,
        holding: Holding | None = None,
    ) -> None:
        """Take the parts.

        Args:
            admission: Reads messages and gathers facts.
            evaluator: Asks a policy.
            evaluation_seconds: It must have answered by then.
            policies: Says which policy decides.
            recorder: Makes records durable.
            sessions: Knows sessions and blocks.
            windows: Measures and keeps behaviour windows.
            pseudonyms: Name what may not stand in the open.
            metrics: Counts.
            on_settled: Told what a policy has said of which request, by decision id, once that is settled and durable;
                it must not wait, and whatever it raises changes nothing.
            disputed: Whether the ledger's proofs contradict its word.
            tracing: Traces calls; None where nobody asked for it.
            safeguards: Say what policies read of a call beside its facts.
            on_judged: Told of each message whose decision is durable, whatever it is; as `on_settled` otherwise.
            holding: Holds calls until people have agreed; None where what needs that is denied.
        """
        self._safeguards = safeguards
        self._admission = admission
        self._evaluator = evaluator
        self._evaluation_seconds = evaluation_seconds
        self._policies = policies
        self._recorder = recorder
        self._sessions = sessions
        self._windows = windows
        self._pseudonyms = pseudonyms
        self._metrics = metrics
        self._on_settled = on_settled
        self._disputed = disputed
        self._tracing = tracing
        self._on_judged = on_judged
        self.holding = holding

    async def handle(self, inbound: Inbound) -> Verdict:
        """Judge one message, which cannot wait for people; see `take`."""
        verdict = await self.take(replace(inbound, waiting=None))
        assert not isinstance(verdict, Held)  # nobody waits for it
        return verdict

    async def take(self, inbound: Inbound) -> Verdict | Held:
        """Judge one message; the decision is durable when this returns.

        Nothing is raised but cancellation; that leaves at worst a permitted call without outcome, which the next start
        closes as ``unknown``.
        """
        case = self._admission.open_case(inbound, self._recorder.new_record_id())
        if self._tracing is None:
            return await self._handle(case)
        case.trace = trace = self._tracing.begin(inbound)
        verdict = await self._handle(case)
        trace.judged(case, verdict.permitted if isinstance(verdict, Held) else verdict)
        return verdict

    async def _handle(self, case: Case) -> Verdict | Held:
        started = perf_counter()
        try:
            verdict = await self._judge(case)
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: whatever went wrong, the call is denied and recorded
            _LOG.error("decision_failed", decision_id=case.decision_id, error=type(error).__name__)
            return await self._fail(case)
        finally:
            self._windows.decided(case.decision_id)
            self._metrics.decision_seconds.observe(perf_counter() - started)
        self._tell_settled(case)
        return verdict

    def _tell_settled(self, case: Case) -> None:
        if case.recorded:
            try:
                self._on_judged(case)
            except Exception as error:  # noqa: BLE001  # the decision stands, whoever cannot be told of it
                _LOG.error("judged_not_told", decision_id=case.decision_id, error=type(error).__name__)
        if not case.recorded or case.request is None or case.evaluation is None:
            return
        try:
            self._on_settled(case.decision_id, case.request, case.evaluation.decision)
        except Exception as error:  # noqa: BLE001  # the decision stands, whoever cannot be told of it
            _LOG.error("settled_not_told", decision_id=case.decision_id, error=type(error).__name__)

    async def complete(self, permitted: Permitted, completion: Completion) -> None:
        """Record what became of a permitted call, before anything of its result is released.

        Raises:
            LedgerError: The outcome is not as durable as it must be; the result must be withheld.
        """
        # A call that is not done yet counts in its last round, and not in each.
        forwarded = completion.status != "not_forwarded" and completion.reason != INPUT_REQUIRED
        size = len(completion.answer or b"")
        failure: Exception | None = None
        try:
            draft = await off_loop(size, outcome_draft, permitted, completion, self._pseudonyms)
        except Exception as error:  # noqa: BLE001  # whatever a server answered: its call has one outcome
            _LOG.error("outcome_not_described", decision_id=permitted.decision_id, error=type(error).__name__)
            failure = error
            completion = replace(completion, status="failed", reason="internal_error", answer=None, result=None)
            draft = outcome_draft(permitted, completion, self._pseudonyms)
        batch = replace(
            self._recorder.batch(draft),
            changes=tuple(self._windows.close(permitted.decision_id, forwarded=forwarded)),
        )
        try:
            await self._recorder.record(batch, strict=permitted.strict)
        except StorageError:
            self._recorder.owe(batch)  # what happened is known: it must not become "unknown" at the next start
            raise
        finally:
            if permitted.trace is not None:
                permitted.trace.completed(completion)
        self._metrics.outcomes.labels(permitted.server.name, completion.status).inc()
        if failure is not None:
            raise StorageError("the answer could not be described, and is not released") from failure

    async def _judge(self, case: Case) -> Verdict | Held:
        objection = await self._admission.admit(case)
        if case.trace is not None and case.answered is None:
            case.trace.read(case.message or case.refusal)
        if objection is not None:
            return await self._deny(case, objection)
        if case.answered is not None:
            return case.answered
        try:
            await self._safeguards.gather(case)
            case.evaluation = await self._evaluate(case)
        except (_NoAnswerError, SignalsUnavailableError) as error:
            return await self._apply(case, refusing("INDETERMINATE", str(error)))
        answer = case.evaluation.decision
        enforcement, reason = enforcement_of(answer, fulfils=self._fulfils(case))
        return await self._apply(case, Ruling(decision=_EFFECTS[answer.effect], enforcement=enforcement, reason=reason))

    def _fulfils(self, case: Case) -> frozenset[Obligation]:
        """Return what can be done about the result of a call."""
        if case.server is None or case.message is None:
            return frozenset()
        return RESULT_OBLIGATIONS if self._safeguards.looks_through(case.server, case.message) else frozenset()

    async def _evaluate(self, case: Case) -> Evaluation:
        assert case.request is not None  # an admitted message has facts
        bundle = self._policies.current()
        if bundle is None:
            raise _NoAnswerError("no_bundle")
        if isinstance(bundle, StaleBundle):
            raise _NoAnswerError("bundle_stale")
        case.bundle = bundle
        try:
            async with asyncio.timeout(self._evaluation_seconds):
                case.request = await self._windows.reserve(case.decision_id, bundle, case.request)
                case.off_job = self._windows.off_job(case.decision_id)
                (evaluation,) = await self._evaluator.evaluate_many(bundle, [case.request])
        except TimeoutError as error:
            raise _NoAnswerError(Reason.LIMITED) from error
        except Exception as error:
            _LOG.error("evaluation_failed", decision_id=case.decision_id, error=type(error).__name__)
            raise _NoAnswerError(Reason.ENGINE_ERROR) from error
        return evaluation

    async def _apply(self, case: Case, ruling: Ruling) -> Verdict | Held:
        """Do what was decided, or, where the server or tool is only observed, let the call through."""
        assert case.identity is not None
        assert case.server is not None
        assert case.message is not None
        tags = () if case.request is None else case.request.resource.tags
        mode, strict = handling_of(case.server, case.message, tags)
        if mode == "observe":
            return await self._permit(case, replace(ruling, enforcement="allow", observed=True), strict=strict)
        if ruling.enforcement == "allow" and self.holding is not None and self.holding.demands(case):
            return await self._ask(case, replace(ruling, enforcement="ask"), cause="irreversible")
        if ruling.enforcement == "allow":
            return await self._permit(case, ruling, strict=strict)
        if ruling.enforcement == "ask":
            return await self._ask(case, ruling, cause="policy")
        if ruling.enforcement == "kill":
            # From here on the principal is blocked; the block becomes durable with the decision's record.
            case.block = self._sessions.block(case.identity, decision_id=case.decision_id, now_ms=case.now_ms)
            return await self._deny(case, ruling, not_forwarded="session_ended")
        return await self._deny(case, ruling)

    async def _ask(self, case: Case, ruling: Ruling, *, cause: str) -> Verdict | Held:
        """Hold a call until people have agreed, or deny it where that cannot be."""
        if standing := self._standing_against(case):
            return await self._deny(case, _instead(ruling, standing))
        found: Held | Denied | str = "approval_required"
        if self.holding is not None:
            found = await self.holding.hold(self, case, ruling, cause=cause)
        return await self._deny(case, ruling, not_forwarded=found) if isinstance(found, str) else found

    async def store_held(self, case: Case, ruling: Ruling, items: list[Item], change: Change) -> None:
        """Make the decision to hold a call durable, in the ledger; it counts as permitted until it is given up.

        Raises:
            LedgerError: It is not; as `Recorder.record`.
        """
        await self._record(case, ruling, items, strict=True, held=change)

    # --- permits

    async def _permit(self, case: Case, ruling: Ruling, *, strict: bool) -> Verdict:
        """Make the permit durable, then let the call go; if it cannot be made so, do not."""
        assert case.identity is not None
        # Since this one was evaluated, another call may have killed, and a responder may have contained.
        if hindered := self._standing_against(case) or self.hindered(strict=strict):
            return await self._deny(case, _instead(ruling, hindered))
        try:
            await self._store(case, ruling, strict=strict)
        except OverloadedError:
            return await self._deny(case, _instead(ruling, "spool_full"))
        except UpstreamError:
            return await self._withhold(case, ruling, "ledger_unavailable")
        if standing := self._standing_against(case):  # while the ledger was asked
            return await self._withhold(case, ruling, standing)
        return self.permitted(case, strict=strict)

    def hindered(self, *, strict: bool) -> str | None:
        """Say why no call may go on now, as far as that is known before anything is recorded."""
        if strict and not self._recorder.reachable:
            return "ledger_unavailable"
        if strict and self._disputed():
            return "ledger_disputed"
        if strict and self._admission.restrictions_stale:
            return "restrictions_stale"
        return "spool_overdue" if self._recorder.overdue else None

    def _standing_against(self, case: Case) -> str | None:
        """Return why a call must not go on, whatever a policy said of it: a kill by another call, or a restriction."""
        assert case.identity is not None
        return "session_ended" if self._sessions.blocked(case.identity) else self._admission.restricted(case)

    def standing_against(self, permitted: Permitted) -> str | None:
        """Return why a permitted call that had to wait must not go on after all, as `handle` would say now.

        Raises:
            StorageError: Whether the caller was released could not be read.
        """
        identity = None if permitted.inbound is None else permitted.inbound.identity
        if identity is None:
            return None
        if self._sessions.blocked(identity):
            return "session_ended"
        return self._admission.stopped(identity, permitted)

    async def _withhold(self, case: Case, ruling: Ruling, reason: str) -> Denied:
        """Close a call whose permit is recorded but that must not go upstream."""
        await self.complete(self.permitted(case, strict=False), Completion(status="not_forwarded", reason=reason))
        return self.denied(case, _instead(ruling, reason))

    def permitted(self, case: Case, *, strict: bool) -> Permitted:
        """Return what goes on of a call."""
        assert case.message is not None
        assert case.server is not None
        assert case.identity is not None
        return Permitted(
            decision_id=case.decision_id,
            message=case.message,
            server=case.server,
            session=self._pseudonyms.session(case.session_name),
            user=self._pseudonyms.user(case.identity.user),
            strict=strict,
            request=case.request,
            inbound=case.inbound,
            continues=case.continues,
            rewritten=None if case.round is None else case.round.body,
            trace=case.trace,
            obligations=frozenset() if case.evaluation is None else frozenset(case.evaluation.decision.obligations),
        )

    # --- denials

    async def _deny(self, case: Case, ruling: Ruling, *, not_forwarded: str | None = None) -> Denied:
        """Make a denial durable in the spool, then answer; if that fails, answer all the same."""
        try:
            await self._store(case, ruling, strict=False, not_forwarded=not_forwarded or ruling.reason)
        except (StorageError, OverloadedError) as error:
            return self._unrecorded(case, ruling, error)
        return self.denied(case, ruling)

    async def _fail(self, case: Case) -> Denied:
        """Deny a message on which the gateway itself failed, with a record that holds no more than it must."""
        ruling = refusing("INDETERMINATE", "internal_error")
        try:
            if not case.recorded:
                await self._record(case, ruling, [Item(case.decision_id, minimal_draft(case, self._pseudonyms))])
                return self.denied(case, ruling)
        except ConflictError:
            _LOG.warning("decision_was_recorded", decision_id=case.decision_id)
        except Exception as error:  # noqa: BLE001  # the last resort must not raise: a denial it is, recorded or not
            return self._unrecorded(case, ruling, error)
        # The decision had been recorded before the failure: it is the one record, and its call is closed.
        closing = self._recorder.batch(outcome_of(case, self._pseudonyms, "internal_error"))
        taken_back = tuple(self._windows.close(case.decision_id, forwarded=False))
        try:
            await self._recorder.record(replace(closing, changes=taken_back), strict=False)
        except LedgerError as error:
            # A denial has no call to close; for a permit, the next start closes it as unknown.
            _LOG.warning("call_not_closed", decision_id=case.decision_id, error=type(error).__name__)
        return self.denied(case, ruling)

    def _unrecorded(self, case: Case, ruling: Ruling, error: Exception) -> Denied:
        _LOG.error("denial_not_recorded", decision_id=case.decision_id, error=type(error).__name__)
        self._metrics.unrecorded.inc()
        return self.denied(case, ruling, recorded=False)

    def denied(self, case: Case, ruling: Ruling, *, recorded: bool = True) -> Denied:
        """Return the denial of a call, and count it."""
        self._metrics.denials.labels(_server(case), ruling.reason).inc()
        case.ruling = ruling
        refused = case.refusal is not None and ruling.reason == case.refusal.reason
        denial = Denial(
            reason=ruling.reason,
            enforcement=ruling.enforcement,
            decision_id=case.decision_id if recorded else None,
            rule=None if case.evaluation is None else case.evaluation.decision.failed_condition,
            refusal=case.refusal if refused else None,
            drift=() if case.evaluation is None else case.evaluation.decision.drift,
            challenge=self._admission.challenge(case.inbound, ruling.reason),
            needs=() if case.evaluation is None else case.evaluation.decision.needs,
            tell="full" if case.evaluation is None or case.server is None else case.server.tell,
            restriction=None if case.restriction is None else case.restriction.restriction_id,
            until_ms=None if case.restriction is None else case.restriction.until_ms,
        )
        return Denied(denial_reply(case.message, denial))

    # --- records

    async def _store(self, case: Case, ruling: Ruling, *, strict: bool, not_forwarded: str | None = None) -> None:
        """Record the decision and, for a permit that is not let through, its outcome with it."""
        draft = await off_loop(len(case.inbound.body), decision_draft, case, ruling, self._pseudonyms)
        items = [Item(case.decision_id, draft)]
        if not_forwarded is not None and opens_call(draft.body):
            closing: Draft = outcome_of(case, self._pseudonyms, not_forwarded)
            items.append(Item(self._recorder.new_record_id(), closing))
        await self._record(case, ruling, items, strict=strict)

    async def _record(
        self, case: Case, ruling: Ruling, items: list[Item], *, strict: bool = False, held: Change | None = None
    ) -> None:
        allowed = ruling.enforcement == "allow" or held is not None
        changes = [change for change in (case.block, held) if change is not None]
        changes += self._windows.settle(case.decision_id, permitted=allowed)
        changes += self._admission.settle_round(case, permitted=allowed)
        if case.identity is not None and case.session is not None:
            changes.append(self._sessions.settle(case.identity, denied=not allowed))
            ends = self._sessions.ends(case.identity, killed=case.block is not None)
            items = [*items, *(Item(self._recorder.new_record_id(), Draft(body=end)) for end in ends)]
        batch = Batch(items=tuple(items), changes=tuple(changes), room=_room(case, ruling))
        try:
            await self._recorder.record(batch, strict=strict)
        except UpstreamError:
            self._recorded(case, ruling)  # in the spool it is
            raise
        except LedgerError:
            self._owe_block(case)
            raise
        self._recorded(case, ruling)

    def _owe_block(self, case: Case) -> None:
        """Have a kill's block made durable later, although its record could not be: a restart must not lift it."""
        identity = case.identity
        if case.block is not None and identity is not None and not self._sessions.block_is_durable(identity):
            self._recorder.owe(Batch(items=(), changes=(case.block,)), lambda: self._sessions.confirm_block(identity))

    def _recorded(self, case: Case, ruling: Ruling) -> None:
        case.recorded, case.ruling = True, ruling
        if case.identity is not None and case.session is not None:
            self._sessions.confirm_ends(case.identity)
        if case.block is not None and case.identity is not None:
            self._sessions.confirm_block(case.identity)
        mode = "observe" if ruling.observed else "enforce"
        self._metrics.decisions.labels(_server(case), ruling.decision, ruling.enforcement, mode).inc()
        if case.request is not None and case.request.signals is not UNSET:
            self._metrics.count_findings(_server(case), "message", case.request.signals)
        drift = () if case.evaluation is None else case.evaluation.decision.drift
        for kind in {code.partition(":")[0] for code in drift}:
            self._metrics.drift.labels(_server(case), kind).inc()


def _room(case: Case, ruling: Ruling) -> Room:
    """Return how much of the spool a decision may use; strangers must not be able to use up what others need."""
    if case.identity is None:
        return Room.STRANGER
    if case.block is not None:
        return Room.KILL
    return Room.PERMIT if ruling.enforcement == "allow" else Room.DENIAL


def _server(case: Case) -> str:
    return UNKNOWN if case.server is None else case.server.name


def _instead(ruling: Ruling, reason: str) -> Ruling:
    """Return the same answer of the policy, but denied for a reason of the enforcement point's own."""
    return Ruling(decision=ruling.decision, enforcement="deny", reason=reason)
