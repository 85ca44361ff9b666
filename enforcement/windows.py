"""The behaviour windows of a gateway: measured at each call, reserved while it is decided, durable with its record.

What a window is stands in `policies.windows`, how calls add up in `policies.window_history`.

A call that a policy is asked about *reserves* what it would add, before the policy sees it: calls that are decided
meanwhile count it as if it were permitted, so that two of them cannot both take the last of a cap. When it is decided,
what it adds is made durable in the transaction that stores its decision; if it was refused, the reservation is
dropped. A call that was permitted and then did not go upstream takes back what it added, with its outcome.

INVARIANT: no crash and no restart lifts a cap. What a permitted call adds is in the state file before the call goes on;
what is taken back is taken back there with the outcome ``not_forwarded``, or not at all.

A call that is let through counts as permitted, also where a policy that is only observed would have refused it: a
window says what has happened. Calls that no policy was asked about (a message that cannot be read, a principal who is
blocked) do not count.

What is kept is keyed by what a window measures, not by bundle: another bundle goes on with the windows that it has in
common with the last one, and those that it does not declare are measured for a while (`enforcement.measured_windows`),
so that a rollback finds no gap. A window that is new begins with no call. Subjects stand in the file under pseudonyms.

Everything here runs on the event loop, but for the reading of long arguments.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog

from enforcement.facts import Pseudonyms
from enforcement.measured_windows import MeasuredWindows
from enforcement.offload import off_loop
from enforcement.state import Change, StateDatabase
from enforcement.strict_windows import Asked, StrictWindows
from enforcement.window_changes import AddShares, Forget, PutElsewhere, Walk, stored_shares
from ledger.canonical import MAX_SAFE_INTEGER
from ledger.commitments import pseudonym
from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle
from policies.job_profiles import Step
from policies.model import DecisionRequest
from policies.window_history import History
from policies.window_tallies import Share
from policies.windows import Call, WindowSet, read_windows

__all__ = ["Windows"]

_LOG: Final = structlog.get_logger(__name__)
_KIND: Final = "gateway-window"


@dataclass(slots=True)
class _Hold:
    """A call that was taken up: what it reserves until it is decided, and what it adds then.

    Attributes:
        calls: The call, as seen by the windows in force and by each group of former ones.
        now_ms: Its time.
        claims: What is reserved.
        adds: What it adds, as it was last decided.
        returns: What of that it takes back if it does not go upstream after all; nothing if it was refused.
        step: What it adds to the way of its session.
        asked: What it has asked of strict windows.
        given_out: Strict windows, which count elsewhere what the call adds to them.
        settled: How it was decided was settled at least once.
        permitted: It was let through, as it was last decided.
        decided: Nothing is reserved any more; what it adds counts.
    """

    calls: tuple[Call, ...]
    now_ms: int
    claims: tuple[Share, ...]
    adds: tuple[Share, ...] = ()
    returns: tuple[Share, ...] = ()
    step: Step | None = None
    asked: Asked | None = None
    given_out: frozenset[str] = frozenset()
    settled: bool = False
    permitted: bool = False
    decided: bool = False


class Windows:
    """The windows of a gateway; owned by the event loop.

    Attributes:
        heard_ms: When other gateways were last heard of in this run, POSIX milliseconds; None if never.
    """

    def __init__(self, state: StateDatabase, pseudonyms: Pseudonyms, strict: StrictWindows | None = None) -> None:
        """Read what was counted before a restart.

        Args:
            state: The state file, on a connection of its own: it is read here and never written.
            pseudonyms: Make the keys of subjects: no name of a person stands in the file.
            strict: Asks for strict windows; None if there is nobody to ask, so that all of them count as reached.

        Raises:
            StorageError: The file failed, or what it holds is no count.
        """
        self._pseudonyms = pseudonyms
        self._strict = strict or StrictWindows(None)
        self._history = History(WindowSet(), key=self._key)
        self._history.apply(stored_shares(state, "windows"), now_ms=0)  # nothing is forgotten yet
        for step in state.read("SELECT session, ordinal, tool FROM trails"):
            self._history.walk(Step(*step))
        self._history.put_elsewhere(stored_shares(state, "fleet_totals"), now_ms=0)
        self._reserved: Counter[tuple[str, str]] = Counter()
        self._holds: dict[str, _Hold] = {}
        self._measured = MeasuredWindows(state)
        # What has changed here since the others were told, of windows across the fleet: all of it, after a restart.
        self._changed: dict[tuple[str, str, int], int | None] = {}
        self.tell_again()
        self.heard_ms: int | None = None
        self._in_force: tuple[str, WindowSet] | None = None
        self._unsaved = False
        self._lost: list[Change] = []

    def _key(self, subject: tuple[str | None, ...]) -> str:
        return pseudonym(self._pseudonyms.key, _KIND, json.dumps(subject))

    async def reserve(self, decision_id: str, bundle: Bundle, request: DecisionRequest) -> DecisionRequest:
        """Return a request with the windows that a bundle declares, having reserved what the call would add.

        Whoever calls this calls `decided` in the end.

        Args:
            decision_id: Record id of the decision to come.
            bundle: Which policy is asked.
            request: The request as far as it is known.
        """
        now_ms = request.time.now_ms
        windows = self._adopted(bundle, now_ms)
        sets = (windows, *self._measured.former)
        if not any(item.windows for item in sets):
            return request
        read = await off_loop(len(request.arguments), _read_calls, sets, request)
        asked = self._strict.questions(self._history, read[0])
        if asked is not None:
            # What it takes is given back even if nothing comes of the answer.
            self._holds[decision_id] = _Hold((), now_ms, (), asked=asked)
            asked = await self._strict.ask(decision_id, asked)
        # INVARIANT: from here to the reservation nothing else runs, or two calls could be told of the same room.
        calls = tuple(self._history.placed(call, self._reserved) for call in read)
        self._history.put_age(self.staleness_ms(now_ms))
        facts = self._history.facts(calls[0], self._reserved)
        given_out = frozenset(windows.digests[name] for name, window in windows.windows.items() if window.strict)
        claimed = _once(share for call in calls for share in self._history.claims(call))
        claims = tuple(share for share in claimed if share.digest not in given_out)
        hold = self._holds[decision_id] = _Hold(calls, now_ms, claims, asked=asked, given_out=given_out)
        for share in hold.claims:
            self._reserved[share.digest, share.subject] += share.amount
        if not windows.windows:
            return request
        if asked is None:
            return windows.stated(request, facts)
        return asked.stated(windows.stated(request, {**facts, **asked.facts(windows)}))

    def off_job(self, decision_id: str) -> tuple[str, ...]:
        """Return in what a call that was taken up lies outside of the jobs that the bundle in force declares."""
        hold = self._holds.get(decision_id)
        return tuple(sorted(set(hold.calls[0].outside.values()))) if hold is not None and hold.calls else ()

    def _adopted(self, bundle: Bundle, now_ms: int) -> WindowSet:
        """Return the windows of the bundle in force, having put them in force if they were not."""
        if self._in_force is None or self._in_force[0] != bundle.revision:
            try:
                windows = read_windows(bundle)
            except PolicySyntaxError:  # such a bundle does not load: its engine denies every request
                windows = WindowSet()
            self._measured.adopt(windows, now_ms)
            self._unsaved = True
            self._in_force = (bundle.revision, windows)
            if windows.windows:
                _LOG.info("windows_declared", revision=bundle.revision, windows=sorted(windows.windows))
        return self._in_force[1]

    def settle(self, decision_id: str, *, permitted: bool) -> list[Change]:
        """Note how a call was decided, and return what makes that durable with its record; the last word counts.

        Args:
            decision_id: Its decision.
            permitted: Whether it is let through.
        """
        hold = self._holds.get(decision_id)
        if hold is None or hold.decided:
            return []
        hold.adds, hold.permitted, hold.settled = self._shares(hold, permitted=permitted), permitted, True
        as_denied = self._shares(hold, permitted=False)
        hold.returns = tuple(share.undone() for share in hold.adds if share not in as_denied)
        steps = (self._history.step(call, permitted=permitted) for call in hold.calls)
        hold.step = next((step for step in steps if step is not None), None)  # they all say the same
        said = [] if hold.asked is None else hold.asked.changes(decision_id, permitted=permitted)
        return self._declarations() + _changes(hold.adds, hold.step) + said

    def _shares(self, hold: _Hold, *, permitted: bool) -> tuple[Share, ...]:
        shares = _once(share for call in hold.calls for share in self._history.shares(call, permitted=permitted))
        return tuple(share for share in shares if share.digest not in hold.given_out)

    def _declarations(self) -> list[Change]:
        """Return what makes new declarations durable, once; should that fail, `sweep` does it again."""
        if not self._unsaved:
            return []
        self._unsaved = False
        return [self._measured.save()]

    def decided(self, decision_id: str) -> None:
        """Drop a call's reservation; what it adds, as far as it was settled, counts from here on."""
        hold = self._holds.get(decision_id)
        if hold is None or hold.decided:
            return
        hold.decided = True
        for share in hold.claims:
            self._reserved[share.digest, share.subject] -= share.amount
            if not self._reserved[share.digest, share.subject]:
                del self._reserved[share.digest, share.subject]
        self._apply(hold.adds, hold.now_ms)
        if hold.step is not None:
            self._history.walk(hold.step)
        if not hold.permitted:
            del self._holds[decision_id]
        if hold.asked is not None and not hold.settled:
            # Nothing was recorded of it: whoever called has gone. What it took is given back with the next exchange.
            self._lost += hold.asked.changes(decision_id, permitted=False)

    def close(self, decision_id: str, *, forwarded: bool) -> list[Change]:
        """Return what becomes durable with the outcome of a permitted call.

        Args:
            decision_id: Its decision.
            forwarded: Whether it went upstream; if it did not, what only permitted calls add is taken back.
        """
        hold = self._holds.get(decision_id)
        if hold is None:
            return []
        taken = () if forwarded else hold.returns
        lost = None if forwarded or hold.step is None else hold.step.undone()
        if hold.decided:
            self._apply(taken, hold.now_ms)
            if lost is not None:
                self._history.walk(lost)
            del self._holds[decision_id]
        else:
            hold.adds, hold.returns, hold.permitted, hold.step = hold.adds + taken, (), False, lost or hold.step
        back = [] if forwarded or hold.asked is None else hold.asked.changes(decision_id, permitted=False)
        return _changes(taken, lost) + back

    # --- what is told from gateway to gateway

    @property
    def is_shared(self) -> bool:
        """Whether there is anything to tell or to hear."""
        return bool(self._measured.shared or self._lost)

    def staleness_ms(self, now_ms: int) -> int:
        """Return how long ago other gateways were heard of, milliseconds; the greatest number if never in this run."""
        return MAX_SAFE_INTEGER if self.heard_ms is None else max(0, now_ms - self.heard_ms)

    def take_changed(self, at_most: int) -> list[Share]:
        """Return totals of which the others have not heard yet; they count as told until they are put back."""
        taken = list(islice(self._changed.items(), at_most))
        for key, _ in taken:
            del self._changed[key]
        return [Share(*key, self._history.slot_total(*key), forget_ms) for key, forget_ms in taken]

    def put_back(self, shares: Iterable[Share]) -> None:
        """Note that the others have not heard of totals after all."""
        for share in shares:
            self._changed.setdefault((share.digest, share.subject, share.slot), share.forget_ms)

    def tell_again(self) -> None:
        """Note that the others have heard of nothing: all of it counts as changed."""
        for share in self._history.counted(self._measured.shared):
            self._changed[share.digest, share.subject, share.slot] = share.forget_ms

    def hear(self, shares: tuple[Share, ...], asked_ms: int, *, only_more: bool = False) -> list[Change]:
        """Take in what others have counted, and return what makes that durable, with what calls that are gone owe.

        Args:
            shares: Totals of all others, as far as they have changed.
            asked_ms: When they were asked for.
            only_more: Of what was heard before nothing is taken back.
        """
        if only_more:
            shares = tuple(share for share in shares if share.amount > self._history.slot_elsewhere(share))
        self._history.put_elsewhere(shares, asked_ms)
        self.heard_ms = asked_ms
        lost, self._lost = self._lost, []
        return [PutElsewhere(shares), *lost] if shares else lost

    def _apply(self, shares: tuple[Share, ...], now_ms: int) -> None:
        self._history.apply(shares, now_ms)
        shared = self._measured.shared
        if shared:
            for share in shares:
                if share.amount and share.digest in shared:
                    self._changed[share.digest, share.subject, share.slot] = share.forget_ms

    def sweep(self, now_ms: int, sessions: Iterable[str]) -> tuple[Change, ...]:
        """Forget what no window asks for any more, and return what forgets it in the file.

        Args:
            now_ms: The time, POSIX milliseconds.
            sessions: Names of the sessions that are not over.
        """
        going_on = {self._key((session,)) for session in sessions}
        over = tuple(sorted(self._history.session_keys() - going_on))
        self._history.end_sessions(over)
        self._history.sweep(now_ms)
        self._measured.sweep(now_ms)
        return Forget(now_ms, over), self._measured.save()


def _read_calls(sets: tuple[WindowSet, ...], request: DecisionRequest) -> tuple[Call, ...]:
    return tuple(windows.read_call(request) for windows in sets)


def _once(shares: Iterable[Share]) -> tuple[Share, ...]:
    """Return the shares of one call, each once: job profiles of two bundles may count the same volume."""
    return tuple({share.digest: share for share in shares}.values())


def _changes(shares: tuple[Share, ...], step: Step | None) -> list[Change]:
    moving = tuple(share for share in shares if share.amount)
    changes: list[Change] = [AddShares(moving)] if moving else []
    return changes if step is None else [*changes, Walk(step)]
