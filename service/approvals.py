"""Held calls of one log: showing them to people, taking their verdicts, and telling the gateways that hold them.

Which calls are held and what was said of them follows from the log alone (`ledger.approvals`), read by every process
for itself whenever the log has grown; no table says so. Who waits for news is told as for restrictions
(`service.containments`).

INVARIANT: who agrees has opened exactly what he agrees to, has not asked for it himself, and names its binding. Every
attempt that is refused is recorded, with the reason, before it is refused.

INVARIANT: one agreement is written after the other, of all processes: its record's id follows from how many there were
when it was judged, so that of two who judged at once the later judges again.

INVARIANT: the record that somebody opened a held call's parameters is durable before they are handed out.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import structlog

from ledger.approvals import ApprovalBook, ApprovalState, HeldCall, VerdictSet, binding_of
from ledger.bodies import AccessEvent, Approval, Decision
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.errors import ConflictError, ErasedError, MalformedError, NotFoundError
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, derived_record_id
from ledger.vault import Vault
from service.auth import Caller, Permission, may, roles_holding
from service.bundle_watch import BundleWatch
from service.keyset import KeySet
from service.problems import ForbiddenError, PersonNeededError
from service.shown_call import ShownCall, shown_call

__all__ = ["Approvals", "Approver", "Opened", "Verdict", "approver_of", "require_comment"]

_log = structlog.get_logger()
_GRANTED: Final = b"tallystick/approval-granted/v1\n"

Verdict: TypeAlias = Literal["granted", "denied"]

_FORBIDDEN: Final = {
    "not_a_person": "to see and decide held calls takes a person who has logged in, and an API token is a machine's: "
    "run `tallystick login`, or `tallystick people token NAME` on the service's own machine",
    "self_approval": "who asked for a call cannot agree to it",
    "role": "under this role nobody can agree to this call",
}
_CONFLICTS: Final = {
    "changed_binding": "this is not what is held: open it again and look at what will run",
    "not_opened": "open what will run before you agree to it",
    "twice": "you have agreed to this call before; somebody else must as well",
    "used": "its approval was used: the call has been made",
    "expired": "its time is over",
    "cancelled": "nobody waits for this call any more",
    "denied": "somebody has denied this call",
    "withheld": "its gateway has refused it on its last look",
    "granted": "enough people have agreed already",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """Who says something of a held call.

    Attributes:
        name: The name over which his pseudonym is made.
        aliases: Everything else that he, or a machine of his, may be called: his subject, his address, his other
            logins.
        role: Under which role.
        lacks: Why he may not, by who he is alone; None if he may.
    """

    name: str
    aliases: tuple[str, ...]
    role: str
    lacks: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A held call with what will run.

    Attributes:
        call: What the log says of it.
        leaf_index: Of the decision.
        decision: The decision.
        message: The message's bytes, as they go to the server.
        shown: It laid out.
        said: What whoever requested it says besides, laid out; None if nothing, as of what a gateway holds.
    """

    call: HeldCall
    leaf_index: int
    decision: Decision
    message: bytes
    shown: ShownCall
    said: ShownCall | None = None


class Approvals:
    """The held calls of one log. Methods belong to one event loop, but for `look`.

    Attributes:
        watch: Holds questions until there is news.
        turn: Held while somebody's word is judged and recorded.
    """

    def __init__(
        self,
        log_id: str,
        *,
        service_id: str,
        size: Callable[[], int],
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
        vault: Vault,
        sink: RecordSink,
        clock: Clock,
        keys: Callable[[], KeySet],
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            service_id: The service's own enforcer id.
            size: Returns the number of records that have an index.
            catalog: Finds records.
            reader: Reads them.
            check: Checks that a record is signed by the service; raises if not.
            vault: Opens what will run.
            sink: Records.
            clock: Tells what is past its time.
            keys: Returns the keys that name people now.
        """
        self._log_id = log_id
        self._service_id = service_id
        self._size = size
        self._catalog = catalog
        self._reader = reader
        self._check = check
        self._vault = vault
        self._sink = sink
        self._clock = clock
        self._keys = keys
        self._lock = threading.Lock()
        # Under the lock: the book, and up to which leaf it was read.
        self._book = ApprovalBook(service_id)
        self._read = 0
        self.turn = asyncio.Lock()
        self.watch = BundleWatch(self._newest, name="news of approvals")

    def start(self) -> None:
        """Begin to look for news."""
        self.watch.start()

    async def stop(self) -> None:
        """End it."""
        await self.watch.stop()

    # --- what the log says

    def look(self) -> tuple[HeldCall, ...]:
        """Return every held call that there was, newest first; safe for any thread.

        Raises:
            LedgerError: A store failed, or holds a step of the service's that the service has not signed.
        """
        with self._lock:
            self._catch_up()
            return tuple(self._book.all)

    def _catch_up(self) -> None:
        size = self._size()
        if size <= self._read:
            return
        for index in self._catalog.of_type(self._log_id, "approval", above=self._read - 1):
            if index >= size:
                break
            record = self._reader.record(index)
            # INVARIANT: nobody but the service says what people did, whoever could write the table.
            if record.enforcer_id == self._service_id:
                self._check(index, record)
            self._book.take(index, record)
        self._read = size

    def _get(self, approval_id: str) -> HeldCall:
        with self._lock:
            self._catch_up()
            return self._book.get(approval_id)

    def _version(self) -> int:
        with self._lock:
            self._catch_up()
            return self._book.version

    async def _newest(self) -> int:
        return await asyncio.to_thread(self._version)

    async def all(self) -> tuple[HeldCall, ...]:
        """See `look`."""
        return await asyncio.to_thread(self.look)

    async def get(self, approval_id: str) -> HeldCall:
        """Return a held call.

        Raises:
            NotFoundError: There is none of that id.
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(self._get, approval_id)

    async def of_decision(self, enforcer: str, decision_id: str) -> HeldCall | None:
        """Return what an enforcer holds of a decision, if it holds it or has held it.

        Raises:
            LedgerError: A store failed.
        """

        def read() -> HeldCall | None:
            with self._lock:
                self._catch_up()
                return self._book.of_decision(enforcer, decision_id)

        return await asyncio.to_thread(read)

    async def _get_for(self, approval_id: str, person: Approver) -> HeldCall:
        """Return a held call for somebody; who may not see any learns from no answer which ones there are.

        Raises:
            NotFoundError: There is none of that id.
            ForbiddenError: He may not see any, and there is none.
            LedgerError: A store failed.
        """
        try:
            return await self.get(approval_id)
        except NotFoundError:
            if person.lacks is not None:
                raise _refusal(person.lacks, person) from None
            raise

    async def verdicts(self, enforcer_id: str) -> VerdictSet:
        """Return what people have said of the calls that a gateway holds.

        Raises:
            LedgerError: A store failed.
        """

        def read() -> VerdictSet:
            with self._lock:
                self._catch_up()
                return self._book.verdicts(enforcer_id, self._clock.now_ms())

        return await asyncio.to_thread(read)

    def decision(self, call: HeldCall) -> tuple[int, Decision]:
        """Return the decision that is held, with its leaf index; safe for any thread.

        Raises:
            NotFoundError: It is not in the log, or is another enforcer's.
            LedgerError: A store failed.
        """
        index = self._catalog.index_of(self._log_id, call.decision_id)
        record = self._reader.record(index)
        # The index is a convenience: what it led to is checked before it is shown (invariant 3).
        if record.record_id != call.decision_id or record.enforcer_id != call.enforcer:
            raise NotFoundError(f"there is no decision {call.decision_id}")
        if not isinstance(record.body, Decision):
            raise NotFoundError(f"there is no decision {call.decision_id}")
        return index, record.body

    # --- what people do

    async def open(self, approval_id: str, person: Approver) -> Opened:
        """Open what will run, and record that it was opened and by whom.

        Raises:
            NotFoundError: There is no such held call.
            ForbiddenError: It is for people to see.
            ErasedError: Its payload was erased.
            LedgerError: A store failed.
        """
        call = await self._get_for(approval_id, person)
        index, decision = await asyncio.to_thread(self.decision, call)
        if person.lacks is not None:
            await self._refuse(call, person, person.lacks)
        message = await asyncio.to_thread(self._message, index)
        shown, said = shown_call(message), await asyncio.to_thread(self._said, call)
        self._require_bound(call, decision)
        await self._record(call, person, "seen")
        return Opened(
            call=await self.get(approval_id),
            leaf_index=index,
            decision=decision,
            message=message,
            shown=shown,
            said=said,
        )

    def _message(self, index: int) -> bytes:
        return self._vault.open(self._reader.record(index), "message").payload

    def _said(self, call: HeldCall) -> ShownCall | None:
        """Return what was said with a request; it decides nothing, and may be gone."""
        record = self._reader.record(call.leaf_index)
        if call.requester is None or not isinstance(record.body, Approval) or record.body.comment is None:
            return None
        try:
            return shown_call(self._vault.open(record, "comment").payload)
        except (ErasedError, NotFoundError):
            return None

    @staticmethod
    def _require_bound(call: HeldCall, decision: Decision) -> None:
        """Refuse to show what is not what would be agreed to: the gateway's two records contradict each other.

        Raises:
            ConflictError: They do.
        """
        if binding_of(call.decision_id, decision, call.terms) != call.binding:
            raise ConflictError(f"the record that {call.approval_id} is held is not about its decision")

    async def decide(
        self, approval_id: str, verdict: Verdict, person: Approver, *, binding: str, comment: str
    ) -> HeldCall:
        """Take somebody's verdict; its gateway hears of it at once.

        Args:
            approval_id: Of which held call.
            verdict: ``granted`` or ``denied``.
            person: Who.
            binding: To what, as it was shown.
            comment: Why, for the vault.

        Raises:
            NotFoundError: There is no such held call.
            ForbiddenError: It is not for him to say; that he tried is recorded.
            ConflictError: It cannot be said of this call now; likewise.
            LedgerError: A store failed.
        """
        async with self.turn:
            call = await self._get_for(approval_id, person)
            _, decision = await asyncio.to_thread(self.decision, call)
            while True:
                reason = self._objection(call, decision, verdict, person, binding)
                if reason is not None:
                    await self._refuse(call, person, reason)
                try:
                    await self._record(call, person, verdict, comment=comment)
                except ConflictError:
                    known, call = call, await self.get(approval_id)
                    if len(call.grants) == len(known.grants):
                        raise
                else:
                    return await self.get(approval_id)

    def _objection(
        self, call: HeldCall, decision: Decision, verdict: Verdict, person: Approver, binding: str
    ) -> str | None:
        """Return why a verdict cannot be taken: the reason that is recorded."""
        if person.lacks is not None:
            return person.lacks
        if binding != call.binding or binding_of(call.decision_id, decision, call.terms) != call.binding:
            return "changed_binding"
        state = call.state(self._clock.now_ms())
        if state is not ApprovalState.WAITING and not (state is ApprovalState.GRANTED and verdict == "denied"):
            return state.value
        return None if verdict == "denied" else self._objection_to_grant(call, decision, person)

    def _objection_to_grant(self, call: HeldCall, decision: Decision, person: Approver) -> str | None:
        keys = self._keys()
        called = (person.name, *person.aliases)
        # INVARIANT: people are told apart, and not logins: whoever has two is one, by whichever he agreed.
        actors = tuple(one for name in called for one in keys.pseudonyms("actor", name))
        own = decision.agent in called or any(decision.user in keys.pseudonyms("user", name) for name in called)
        # Nor does whoever had the token issued under which it was requested.
        if own or call.requester in actors:
            return "self_approval"
        if call.roles and person.role not in call.roles:
            return "role"
        if any(grant.actor in actors for grant in call.grants) or call.has_granted(actors[0], keys.pseudonym_key_id):
            return "twice"
        # A name is what the provider calls him, and two may have one: to have opened it counts for the login that did.
        own_names = keys.pseudonyms("actor", person.name)
        return None if any(actor in own_names for actor, _ in call.seen) else "not_opened"

    async def _refuse(self, call: HeldCall, person: Approver, reason: str) -> None:
        """Record that somebody tried what he may not, then refuse it.

        Raises:
            PersonNeededError: It takes a person who has logged in.
            ForbiddenError: It is not for him.
            ConflictError: It cannot be.
        """
        await self._record(call, person, "refused", reason=reason)
        _log.warning("approval_refused", approval_id=call.approval_id, reason=reason)
        raise _refusal(reason, person)

    async def _record(
        self, call: HeldCall, person: Approver, action: str, *, reason: str | None = None, comment: str | None = None
    ) -> None:
        openings: Sequence[Opening] = ()
        commitment = None
        if comment is not None:
            commitment, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
            openings = (opening,)
        body = Approval(
            approval_id=call.approval_id,
            decision_id=call.decision_id,
            action=action,  # type: ignore[arg-type]  # called with the record type's own words
            binding=call.binding,
            reason=reason,
            actor=self._keys().pseudonyms("actor", person.name)[0],
            actor_role=person.role,
            comment=commitment,
        )
        record_id = None
        if action == "granted":
            record_id = derived_record_id(_GRANTED, self._log_id, call.approval_id, str(len(call.grants)))
        drafts = [Draft(body=body, openings=tuple(openings), record_id=record_id)]
        if action == "seen":  # a payload that is opened is an access like any other: an erasure asks who has seen it
            drafts.append(Draft(body=_access(call, body)))
        await self._sink.append(drafts)
        self.watch.work.wake()


def _refusal(reason: str, person: Approver) -> ForbiddenError | ConflictError:
    if reason == "not_permitted":
        return ForbiddenError(f"the role {person.role} may not {Permission.APPROVE}")
    if reason == "not_a_person":
        return PersonNeededError(_FORBIDDEN[reason])
    return ForbiddenError(_FORBIDDEN[reason]) if reason in _FORBIDDEN else ConflictError(_CONFLICTS[reason])


def _access(call: HeldCall, seen: Approval) -> AccessEvent:
    return AccessEvent(
        action="open_payload",
        actor=seen.actor or "",
        actor_role=seen.actor_role or "",
        target_kind="record",
        target_id=call.decision_id,
        items=1,
        result="ok",
    )


def approver_of(caller: Caller, names: Sequence[str]) -> Approver:
    """Return a caller as somebody who says something of held calls.

    Args:
        caller: Who.
        names: Every name that whoever stands behind him may have in records; see `service.people`.
    """
    person = caller.person
    lacks = None
    if caller.role not in roles_holding(Permission.APPROVE):
        lacks = "not_permitted"
    elif person is None or not may(caller, Permission.APPROVE):
        lacks = "not_a_person"
    own = (caller.name,) if person is None else (caller.name, person.name, person.subject)
    # A gateway calls a user by his subject alone, without who vouches for it (`service.persons.actor_name`).
    subjects = (name.rpartition("\n")[2] for name in names)
    aliases = tuple(dict.fromkeys((*own, *names, *subjects)))
    return Approver(name=caller.actor, aliases=aliases, role=caller.role.value, lacks=lacks)


def require_comment(text: str) -> str:
    """Return why somebody decided.

    Raises:
        MalformedError: He does not say.
    """
    said = text.strip()
    if not 8 <= len(said) <= 1000:  # noqa: PLR2004  # as everywhere
        raise MalformedError("say why, in 8 to 1000 characters")
    return said
