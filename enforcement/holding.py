"""Holding a call until people have agreed, and the last look before it goes on.

What is elsewhere: who has agreed (`enforcement.approvals`), what is bound (`ledger.approvals`), what the client hears
meanwhile (`enforcement.waiting`), everything else of a decision (`enforcement.pep`).

INVARIANT: a call is held only once its decision, its payload and the terms are in the ledger: what nobody can see,
nobody can approve. Where that cannot be, and where not all of the call is kept for people to see, it is denied at once.

INVARIANT: a held call goes on once, and only if, at that moment, enough people have agreed to exactly it, nobody has
denied it, its time is not over, its client still waits, nobody has stopped caller, server or tool, the tool is the one
that was shown and the bundle the one that decided; and after ``used`` is in the ledger. Whatever is raised on the way
is a no.

INVARIANT: each held call gets one outcome, also one that is never forwarded; a restart closes it as ``not_forwarded``
(`enforcement.recorder`), for it had not gone on.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from enforcement.admission import Admission
from enforcement.approvals import IRREVERSIBLE_TAG, Approvals, Held, Rule, rule_of
from enforcement.batches import Batch, Item
from enforcement.config import ServerSettings
from enforcement.drafts import Case, Ruling, decision_draft
from enforcement.facts import Pseudonyms
from enforcement.left_open import step_draft
from enforcement.messages import Kind
from enforcement.offload import off_loop
from enforcement.policy_source import PolicySource
from enforcement.recorder import Recorder
from enforcement.state import Change
from enforcement.verdicts import Completion, Denied, Permitted, Waiting
from enforcement.waiting import progress_of
from ledger import bodies
from ledger.approvals import Terms, binding_of
from ledger.clock import Clock
from ledger.errors import LedgerError, OverloadedError, UpstreamError
from ledger.ports import Draft
from ledger.tasks import end
from policies.bundles import Bundle

__all__ = ["BUNDLE_CHANGED", "Holding", "Point"]

_LOG: Final = structlog.get_logger(__name__)
_MS_PER_SECOND: Final = 1000
_LOOK_SECONDS: Final = 1.0
"""How often a call that waits looks at the clock."""
BUNDLE_CHANGED: Final = "bundle_changed"
_ENDS: Final[dict[str, str]] = {"approval_expired": "expired"}
"""Reasons that are steps of their own. Of the others, what nobody waits for any more is cancelled, all else refused."""
_GONE: Final = frozenset({"client_disconnected", "client_cancelled", "gateway_stopped", "session_over"})
_DENIED: Final = "approval_denied"
_TOOL_METHOD: Final = "tools/call"


class Point(Protocol):
    """What holding needs of the enforcement point; `enforcement.pep.EnforcementPoint` is it."""

    def hindered(self, *, strict: bool) -> str | None:
        """Say why no call may go on now."""
        ...

    def standing_against(self, permitted: Permitted) -> str | None:
        """Return why a permitted call that had to wait must not go on after all."""
        ...

    def permitted(self, case: Case, *, strict: bool) -> Permitted:
        """Return what goes on."""
        ...

    def denied(self, case: Case, ruling: Ruling) -> Denied:
        """Return the denial of a call whose decision is recorded."""
        ...

    async def store_held(self, case: Case, ruling: Ruling, items: list[Item], change: Change) -> None:
        """Make the decision to hold durable, in the ledger."""
        ...

    async def complete(self, permitted: Permitted, completion: Completion) -> None:
        """Record what became of a permitted call."""
        ...


@dataclass(frozen=True, slots=True)
class _MarkHeld:
    """An open call is held, so that a restart knows that it has not gone on."""

    decision_id: str
    approval_id: str | None
    binding: str | None

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE open_calls SET approval_id = ?, binding = ? WHERE decision_id = ?",
            (self.approval_id, self.binding, self.decision_id),
        )


class Holding:
    """Holds calls for one enforcement point. Owned by the event loop."""

    def __init__(
        self,
        approvals: Approvals,
        *,
        admission: Admission,
        policies: PolicySource,
        recorder: Recorder,
        pseudonyms: Pseudonyms,
        clock: Clock,
    ) -> None:
        """Take the parts.

        Args:
            approvals: Knows who has agreed.
            admission: Knows what tools are now.
            policies: Which bundle decides now.
            recorder: Makes records durable.
            pseudonyms: Name what may not stand in the open.
            clock: Ends what is held.
        """
        self._approvals = approvals
        self._admission = admission
        self._policies = policies
        self._recorder = recorder
        self._pseudonyms = pseudonyms
        self._clock = clock

    def __len__(self) -> int:
        """Return how many calls are held."""
        return len(self._approvals)

    def demands(self, case: Case) -> bool:
        """Whether people must agree to a call although the policy merely permits it: its tool cannot be undone."""
        request, server, message = case.request, case.server, case.message
        if request is None or server is None or message is None or message.direction != "client":
            return False
        # A call without an id is none that could be held, and servers may do it all the same: it is denied.
        if message.kind is not Kind.REQUEST and message.method != _TOOL_METHOD:
            return False
        return IRREVERSIBLE_TAG in request.resource.tags and self._rule(case, server).irreversible == "hold"

    def _rule(self, case: Case, server: ServerSettings) -> Rule:
        return rule_of(self._approvals.settings, server, None if case.message is None else case.message.name)

    # --- holding

    async def hold(self, point: Point, case: Case, ruling: Ruling, *, cause: str) -> Held | Denied | str:
        """Hold a call.

        Args:
            point: The enforcement point.
            case: What is known of the call.
            ruling: What was decided.
            cause: ``policy`` or ``irreversible``.

        Returns:
            The held call; or why it cannot be held, if nothing is recorded of it yet; or else its denial.
        """
        if case.inbound.waiting is None or not _is_call(case):
            return "approval_required"
        if case.capturing.mode != "full":
            return "approval_not_shown"
        if (hindered := point.hindered(strict=True)) is not None:
            return hindered
        if not self._approvals.reserve():
            return "approvals_full"
        try:
            return await self._hold(point, case, ruling, cause)
        finally:
            self._approvals.release()

    async def _hold(self, point: Point, case: Case, ruling: Ruling, cause: str) -> Held | Denied | str:
        assert case.server is not None
        draft = await off_loop(len(case.inbound.body), decision_draft, case, ruling, self._pseudonyms)
        decision = draft.body
        assert isinstance(decision, bodies.Decision)
        if decision.capture is not None:
            return "approval_not_shown"
        rule = self._rule(case, case.server)
        terms = Terms(
            approval_id=self._recorder.new_record_id(),
            expires_ms=self._clock.now_ms() + int(rule.expires_seconds * _MS_PER_SECOND),
            needed=rule.needed,
            roles=rule.roles,
        )
        binding = binding_of(case.decision_id, decision, terms)
        step = bodies.Approval(
            approval_id=terms.approval_id,
            decision_id=case.decision_id,
            action="held",
            binding=binding,
            expires_ms=terms.expires_ms,
            needed=terms.needed,
            roles=terms.roles,
            cause="irreversible" if cause == "irreversible" else "policy",
        )
        items = [Item(case.decision_id, draft), Item(self._recorder.new_record_id(), Draft(body=step))]
        held = Held(
            terms=terms,
            binding=binding,
            case=case,
            ruling=ruling,
            permitted=point.permitted(case, strict=True),
        )
        try:
            await point.store_held(case, ruling, items, _MarkHeld(case.decision_id, terms.approval_id, binding))
        except OverloadedError:
            return "spool_full"
        except UpstreamError:
            # Recorded it is, and waits for the ledger: nobody may find there a call that nobody holds.
            return await self._give_up(point, held, "ledger_unavailable")
        self._approvals.add(held)
        return held

    # --- waiting

    def withdraw_all(self, reason: str) -> None:
        """End every wait."""
        self._approvals.withdraw_all(reason)

    async def conclude(self, point: Point, held: Held) -> Permitted | Denied | None:
        """Wait until a held call may go on or must not; see to its records. Not to be cancelled.

        Returns:
            What goes on, once; the denial; or None if another bundle is in force, which must decide anew.
        """
        reason: str | None = "internal_error"
        try:
            async with self._followed(held):
                reason = await self._wait(held) or self._objection(point, held) or await self._use(held)
            if reason is None:
                # All was looked at before `used` was on its way to the ledger, which takes its time.
                reason = self._said(held) or self._objection(point, held)
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: whatever went wrong, the call does not go on
            _LOG.error("held_call_failed", decision_id=held.permitted.decision_id, error=type(error).__name__)
            reason = "internal_error"
        finally:
            self._approvals.drop(held)
        if reason is None:
            return held.permitted
        denied = await self._give_up(point, held, reason)
        return None if reason == BUNDLE_CHANGED else denied

    @asynccontextmanager
    async def _followed(self, held: Held) -> AsyncIterator[None]:
        """Tell the client of a held call that it waits, and hear of it if it does no more."""
        waiting, request_id = held.case.inbound.waiting, held.permitted.message.request_id
        assert waiting is not None
        assert request_id is not None
        waiting.began(request_id, held)
        beside = [asyncio.create_task(self._tell(held, waiting)), asyncio.create_task(_leave(held, waiting))]
        try:
            yield
        finally:
            for task in beside:
                await end(task)
            waiting.ended(request_id, held)

    async def _wait(self, held: Held) -> str | None:
        """Wait until something is said of a held call; return why it goes no further, or None if it may."""
        while (verdict := self._said(held)) == "":
            held.news.clear()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await held.news.wait()
            except TimeoutError:
                continue
        return verdict

    def _said(self, held: Held) -> str | None:
        """Return why a call goes no further, None if it may, and an empty text as long as neither is known."""
        if held.withdrawn is not None:
            return held.withdrawn
        if held.denied:
            return _DENIED
        if self._clock.now_ms() >= held.terms.expires_ms:
            return "approval_expired"
        if held.mismatched:
            return "changed_binding"
        return None if held.granted else ""

    async def _tell(self, held: Held, waiting: Waiting) -> None:
        body = held.case.inbound.body
        token = await off_loop(len(body), progress_of, body)
        count = 0
        while True:
            count += 1
            try:
                await waiting.tell(token, count)
            except Exception as error:  # noqa: BLE001  # who cannot be told may yet be answered
                _LOG.info("waiting_client_not_told", error=type(error).__name__)
            await asyncio.sleep(self._approvals.settings.tell_seconds)

    # --- the last look

    def _objection(self, point: Point, held: Held) -> str | None:
        """Return why a call to which enough people have agreed must not go on all the same."""
        case = held.case
        if (standing := held.withdrawn or point.standing_against(held.permitted)) is not None:
            return standing
        # Where no definition was known, none was shown; that one is known by now takes nothing back.
        if case.tool_digest not in (None, self._admission.tool_digest_now(case)):
            return "tool_changed"
        bundle = self._policies.current()
        if case.bundle is None or not isinstance(bundle, Bundle) or bundle.revision != case.bundle.revision:
            return BUNDLE_CHANGED
        return point.hindered(strict=True)

    async def _use(self, held: Held) -> str | None:
        """Make durable that the approval is used; return why the call goes no further after all."""
        permitted = held.permitted
        batch = self._recorder.batch(step_draft(held.terms.approval_id, permitted.decision_id, held.binding, "used"))
        # From here on a restart cannot know whether it went on.
        batch = replace(batch, changes=(_MarkHeld(permitted.decision_id, None, None),))
        try:
            await self._recorder.record(batch, strict=True)
        except UpstreamError:
            return "ledger_unavailable"
        return None

    async def _give_up(self, point: Point, held: Held, reason: str) -> Denied:
        """Close a held call that is not forwarded."""
        permitted = held.permitted
        action = _ENDS.get(reason) or ("cancelled" if reason in _GONE else "refused")
        if reason != _DENIED:  # that, the service has recorded
            batch = self._recorder.batch(
                step_draft(held.terms.approval_id, permitted.decision_id, held.binding, action, reason)
            )
            await self._record(batch, permitted.decision_id)
        try:
            await point.complete(replace(permitted, strict=False), Completion(status="not_forwarded", reason=reason))
        except LedgerError as error:  # nothing is released that would have to be withheld
            _LOG.error("outcome_not_durable", decision_id=permitted.decision_id, error=type(error).__name__)
        ruling = Ruling(decision=held.ruling.decision, enforcement="deny", reason=reason)
        return replace(point.denied(held.case, ruling), withdrawn=reason == "client_cancelled")

    async def _record(self, batch: Batch, decision_id: str) -> None:
        try:
            await self._recorder.record(batch, strict=False)
        except LedgerError as error:
            self._recorder.owe(batch)
            _LOG.error("approval_step_not_durable", decision_id=decision_id, error=type(error).__name__)


async def _leave(held: Held, waiting: Waiting) -> None:
    held.withdraw(await waiting.gone())


def _is_call(case: Case) -> bool:
    """Whether a message is a request of the client's, which can wait for its answer."""
    message = case.message
    return message is not None and message.kind is Kind.REQUEST and message.direction == "client"
