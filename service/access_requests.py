"""Access requests: what an enforcement point that is not ours may ask people to agree to, and what came of it.

OpenID AuthZEN's draft of a profile for access requests and approvals, over the held calls that there are anyway: a
denial for which the policy wants people to agree is *requestable*; a request makes a held call of it, in the same book
as those of gateways (`ledger.approvals`), for the same people, on the same pages, bound by the same binding. It is the
service that holds it then, and the enforcement point that asks again (mode ``reevaluate``).

INVARIANT: an approval is for the one evaluation that was denied (`service.access_submissions.same_evaluation`); by
whoever requested it; under the bundle that decided; in time; once. The record that it was used has an id that follows
from the approval, so that no two processes use it, and is durable before anything is permitted by it.

INVARIANT: an approval is no permit. The policy is asked anew; only where it says again what it said then, permit if
people agree, does the approval count.

Source: draft-mcguinness-authzen-access-request, sections named at each rule; `docs/access-requests.md` says what it
leaves open, and what is not here.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ledger.approvals import ApprovalState, HeldCall, Terms, binding_of
from ledger.bodies import Approval, Decision
from ledger.body_fields import Commitment
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.errors import ConflictError, ErasedError, MalformedError, NotFoundError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, derived_record_id, new_record_id
from ledger.vault import Vault
from service.access_submissions import (
    Submission,
    access_problem,
    approval_of,
    said_besides,
    same_evaluation,
    stamp,
    within_evaluation,
)
from service.approvals import Approvals
from service.auth import Caller
from service.authzen import Question
from service.keyset import KeySet
from service.problems import Problem

__all__ = ["MAX_OPEN", "AccessRequests", "Use", "used_id"]

MAX_OPEN: Final = 256
"""Requests of one log that wait for people at once."""

_INTERFACE: Final = "authzen"
_USED: Final = b"tallystick/approval-used/v1\n"
_SUBMITTED: Final = b"tallystick/access-request/v1\n"
_KEYED: Final = b"tallystick/access-request-key/v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What came of an approval that was presented.

    Attributes:
        decision_id: The evaluation that was approved; None if the approval does not count.
        reason: Why it does not; empty if it does.
    """

    decision_id: str | None = None
    reason: str = ""


def used_id(log_id: str, approval_id: str) -> str:
    """Return the record id of the step that an approval was used: a UUID of version 8, the same for all processes.

    Args:
        log_id: The log.
        approval_id: The approval.

    Source: RFC 9562 section 5.8.
    """
    return derived_record_id(_USED, log_id, approval_id)


class AccessRequests:
    """The access requests of one log. Methods belong to one event loop."""

    def __init__(
        self,
        log_id: str,
        *,
        service_id: str,
        approvals: Approvals,
        sink: RecordSink,
        catalog: Catalog,
        reader: EntryReader,
        vault: Vault,
        clock: Clock,
        keys: Callable[[], KeySet],
        seconds: int,
        needed: int,
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            service_id: The service's own enforcer id.
            approvals: The book of held calls.
            sink: Records.
            catalog: Finds decisions.
            reader: Reads them.
            vault: Opens what was asked.
            clock: Tells what is past its time.
            keys: Returns the keys that name callers now.
            seconds: How long a denial can be requested, and a request agreed to and used; 0: none can.
            needed: How many people must agree.
        """
        self._log_id = log_id
        self._service_id = service_id
        self._approvals = approvals
        self._sink = sink
        self._catalog = catalog
        self._reader = reader
        self._vault = vault
        self._clock = clock
        self._keys = keys
        self._seconds = seconds
        self._needed = needed

    @property
    def enabled(self) -> bool:
        """Whether anything can be requested."""
        return self._seconds > 0

    # --- the denial

    async def told(self, decision_id: str, leaf_index: int, decision: Decision) -> dict[str, object]:
        """Return what an answer's context says besides.

        Of a requestable denial, how to request it (section "Requestable Denial Context"); of a decision that an
        approval permitted, which one it was and until when that holds (section "Re-evaluation Mode").

        Raises:
            LedgerError: A store failed.
        """
        if decision.reason == "approved" and decision.continues is not None:
            call = await self._approvals.of_decision(self._service_id, decision.continues)
            return {} if call is None else {"approval": approval_of(call)}
        if not self.enabled or decision.enforcement != "ask":
            return {}
        record = await asyncio.to_thread(self._reader.record, leaf_index)
        expires = stamp(record.time_ms + self._seconds * 1000)
        hint = {"requestable": True, "reason": "approval_required", "expires_at": expires}
        return {"evaluation_id": decision_id, "evaluated_at": stamp(record.time_ms), "access_request": hint}

    def _denied(self, evaluation_id: str) -> tuple[Record, Decision, bytes]:
        """Return record, decision and question of an evaluation.

        Raises:
            Problem: There is none that was denied here.
        """
        missing = access_problem("invalid_denial_binding", "there is no such evaluation")
        try:
            record = self._reader.record(self._catalog.index_of(self._log_id, evaluation_id))
        except (NotFoundError, MalformedError):
            raise missing from None
        body = record.body
        # The index is a convenience: what it led to is checked (invariant 3).
        ours = record.record_id == evaluation_id and record.enforcer_id == self._service_id
        if not ours or not isinstance(body, Decision) or body.interface != _INTERFACE:
            raise missing
        try:
            message = self._vault.open(record, "message").payload
        except (NotFoundError, ErasedError):
            raise access_problem("invalid_denial_binding", "what was evaluated is gone") from None
        return record, body, message

    # --- the request

    async def submit(self, sent: Submission, caller: Caller, key: str | None) -> HeldCall:
        """Put a denied evaluation before people; section "Access Request Submission".

        Args:
            sent: The request.
            caller: Who asks; the task is his.
            key: Under which he may ask again.

        Raises:
            Problem: It is bound to no denial that can be requested, or something else was requested under that key.
            LedgerError: A store failed.
        """
        if not self.enabled:
            raise access_problem("not_requestable", "nothing can be requested here")
        record, decision, message = await asyncio.to_thread(self._denied, sent.evaluation_id)
        if decision.enforcement != "ask":
            raise access_problem("not_requestable", "the policy does not ask for people there")
        if not within_evaluation(message, sent.body):
            raise access_problem("invalid_denial_binding", "something else was evaluated")
        said = said_besides(message, sent.body)
        approval_id = self._approval_id(caller, key)
        await self._require_key_unused(approval_id, sent.evaluation_id, said)
        known = await self._approvals.of_decision(self._service_id, sent.evaluation_id)
        if known is None:
            await self._require_room(record.time_ms)
            draft = self._held(approval_id, sent.evaluation_id, decision, caller, said)
            with suppress(ConflictError):  # the same request, side by side with this one, was first
                await self._sink.append([draft])
            self._approvals.watch.work.wake()
            await self._require_key_unused(approval_id, sent.evaluation_id, said)
            known = await self._approvals.of_decision(self._service_id, sent.evaluation_id)
        if known is None or not self._is_his(known, caller):
            raise access_problem("duplicate_request", "somebody else has requested this")
        return known

    def _approval_id(self, caller: Caller, key: str | None) -> str:
        """Return the id of a request's approval, which under one key is always one."""
        if key is None:
            return new_record_id(self._clock.now_ms(), secrets.token_bytes(10))
        return derived_record_id(_KEYED, self._log_id, caller.actor, key)

    async def _require_key_unused(self, approval_id: str, evaluation_id: str, said: bytes | None) -> None:
        """Refuse a key under which something else was requested, or the same with other words.

        Raises:
            Problem: It was.
        """
        try:
            call = await self._approvals.get(approval_id)
        except NotFoundError:
            return
        same = call.decision_id == evaluation_id and call.enforcer == self._service_id
        if not same or not await asyncio.to_thread(self._was_said, call, said):
            raise access_problem("duplicate_request", "something else was requested under this idempotency key")

    def _was_said(self, call: HeldCall, said: bytes | None) -> bool:
        record = self._reader.record(call.leaf_index)
        if not isinstance(record.body, Approval) or record.body.comment is None:
            return said is None
        try:
            return self._vault.open(record, "comment").payload == said
        except (NotFoundError, ErasedError):
            return True  # nobody can tell any more

    async def _require_room(self, denied_ms: int) -> None:
        """Refuse what is too late, or too much.

        Raises:
            Problem: It is.
        """
        now_ms = self._clock.now_ms()
        if now_ms >= denied_ms + self._seconds * 1000:
            raise access_problem("expired_denial", "evaluate it again")
        calls = await self._approvals.all()
        if sum(one.enforcer == self._service_id and one.waits(now_ms) for one in calls) >= MAX_OPEN:
            raise Problem(429, "overloaded", "Too many requests wait", "people have to decide some of them first")

    def _held(
        self, approval_id: str, evaluation_id: str, decision: Decision, caller: Caller, said: bytes | None
    ) -> Draft:
        terms = Terms(
            approval_id=approval_id,
            expires_ms=self._clock.now_ms() + self._seconds * 1000,
            needed=self._needed,
            roles=(),
        )
        comment, openings = _commented(said)
        body = Approval(
            approval_id=terms.approval_id,
            decision_id=evaluation_id,
            action="held",
            binding=binding_of(evaluation_id, decision, terms),
            expires_ms=terms.expires_ms,
            needed=terms.needed,
            cause="policy",
            actor=self._keys().pseudonyms("actor", caller.actor)[0],
            actor_role=caller.role.value,
            comment=comment,
        )
        # INVARIANT: its record's id follows from the evaluation, so that no two processes put it before people.
        return Draft(body=body, record_id=derived_record_id(_SUBMITTED, self._log_id, evaluation_id), openings=openings)

    # --- the task

    def _is_his(self, call: HeldCall, caller: Caller) -> bool:
        return call.requester is not None and call.requester in self._keys().pseudonyms("actor", caller.actor)

    async def _find(self, approval_id: str, caller: Caller) -> HeldCall | None:
        try:
            call = await self._approvals.get(approval_id)
        except NotFoundError:
            return None
        return call if call.enforcer == self._service_id and self._is_his(call, caller) else None

    async def task(self, task_id: str, caller: Caller) -> HeldCall:
        """Return a task of somebody's; section "Task Status Endpoint".

        Raises:
            Problem: There is none of his of that id.
            LedgerError: A store failed.
        """
        call = await self._find(task_id, caller)
        if call is None:
            raise access_problem("unknown_task", "there is no such task of yours")
        return call

    async def cancel(self, task_id: str, caller: Caller, note: bytes | None = None) -> HeldCall:
        """End a task that waits; section "Cancellation".

        Args:
            task_id: Which.
            caller: Who.
            note: Why, for the vault.

        Raises:
            Problem: There is none of his, or it does not wait.
            LedgerError: It could not be recorded.
        """
        async with self._approvals.turn:
            call = await self.task(task_id, caller)
            if not call.waits(self._clock.now_ms()):
                raise access_problem("invalid_task_state", "it does not wait any more")
            await self._sink.append([self._step(call, "cancelled", caller, reason="requester_cancelled", note=note)])
            self._approvals.watch.work.wake()
            call = await self.task(task_id, caller)
        if call.state(self._clock.now_ms()) is not ApprovalState.CANCELLED:  # another process was first
            raise access_problem("invalid_task_state", "it does not wait any more")
        return call

    # --- the evaluation after it

    def _step(
        self,
        call: HeldCall,
        action: str,
        caller: Caller,
        *,
        reason: str | None = None,
        note: bytes | None = None,
        record_id: str | None = None,
    ) -> Draft:
        comment, openings = _commented(note)
        body = Approval(
            approval_id=call.approval_id,
            decision_id=call.decision_id,
            action=action,  # type: ignore[arg-type]  # called with the record type's own words
            binding=call.binding,
            reason=reason,
            actor=self._keys().pseudonyms("actor", caller.actor)[0],
            actor_role=caller.role.value,
            comment=comment,
        )
        return Draft(body=body, record_id=record_id, openings=openings)

    async def use(self, question: Question, revision: str | None, caller: Caller) -> Use:
        """Use an approval that is presented with a question; section "Re-evaluation Mode".

        What is returned as used is durable as used, whatever becomes of the answer.

        Args:
            question: What is asked, with the approval; the policy has said again that people must agree.
            revision: Of the bundle that said so.
            caller: Who asks.

        Raises:
            LedgerError: A store failed: nothing may be permitted.
        """
        call = await self._find(question.approval or "", caller)
        if call is None:
            return Use(reason="unknown_approval")
        reason = await self._objection(call, question, revision)
        if not reason:
            name = used_id(self._log_id, call.approval_id)
            try:
                (done,) = await self._sink.append([self._step(call, "used", caller, record_id=name)])
            except ConflictError:
                if not await asyncio.to_thread(self._is_written, name):
                    raise  # nothing was used: too many wrote at once
                reason = "used"
            else:
                # INVARIANT: looked at again once it is durable: of a denial or a withdrawal that another process has
                # written before it, nobody knew. A record of the same millisecond may be another process's to the byte:
                # what was there before is not ours.
                reason = "used" if done.duplicate else await self._objection_to_used(call)
        if reason:
            await self._sink.append([self._step(call, "refused", caller, reason=reason)])
            return Use(reason=reason)
        self._approvals.watch.work.wake()
        return Use(decision_id=call.decision_id)

    def _is_written(self, record_id: str) -> bool:
        try:
            self._catalog.index_of(self._log_id, record_id)
        except NotFoundError:
            return False
        return True

    async def _objection(self, call: HeldCall, question: Question, revision: str | None) -> str:
        state = call.state(self._clock.now_ms())
        if state is not ApprovalState.GRANTED:
            return state.value
        try:
            _, decision, message = await asyncio.to_thread(self._denied, call.decision_id)
        except Problem:
            return "changed_binding"
        bound = binding_of(call.decision_id, decision, call.terms) == call.binding
        if not bound or not same_evaluation(message, question.message):
            return "changed_binding"
        same_bundle = decision.bundle is not None and decision.bundle.revision == revision
        return "" if same_bundle else "bundle_changed"

    async def _objection_to_used(self, call: HeldCall) -> str:
        now = await self._approvals.get(call.approval_id)
        if now.denied_by is not None:
            return "denied"
        if now.ended != "used":
            return now.state(self._clock.now_ms()).value
        return "expired" if now.ended_ms is None or now.ended_ms >= now.expires_ms else ""


def _commented(text: bytes | None) -> tuple[Commitment | None, tuple[Opening, ...]]:
    if text is None:
        return None, ()
    commitment, opening = commit("comment", secrets.token_bytes(SALT_BYTES), text)
    return commitment, (opening,)
