"""The state of calls rebuilt in log order under another bundle: denied calls of a session, and behaviour windows.

Pure. With facts as recorded, a bundle is asked about calls whose counters the bundle of then has made. Here they are
what they would have been had the other bundle decided all along, and the agents made the same calls: that is the
question that is answered. `Rebuilt` restates each request before it is evaluated, and is told what came of it.

* ``state.calls`` counts calls whatever became of them, and stays as recorded.
* ``state.denied`` changes by the session's earlier calls that are now denied and were let through, or the other way
  round. A held call counts as denied, as the enforcement point counts it.
* Windows are added up by `policies.window_history`, one history for each enforcer, because each counts for itself, and
  one of all for those that are across the fleet. They are declared by the bundle. Calls under way at the same time,
  which an enforcement point counts besides, are no fact of any record, and are not in them; nor is how late gateways
  heard of each other. A window's staleness stays as it was recorded.

INVARIANT 8: nothing is guessed. A call that a policy was asked about, and of which nobody can say what the bundle
decides, leaves the rebuilt state of its session unknown, and, where windows need them, of its agent and its user. So is
the state of a session that began before what was read. What is said of such a call is no exact replay, and says why.
Behind a call that would have ended its session nothing would have been asked any more.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from datetime import date
from typing import Final

import msgspec

from ledger.bodies import Decision as DecisionBody
from ledger.errors import MalformedError, PolicyError
from policies.courses import enforced
from policies.impact import Doubt, Located
from policies.model import DecisionRequest, decode_request, encode_request
from policies.replay_results import RecordedDecision, ReplayClass, ReplayResult
from policies.window_history import History
from policies.windows import WindowSet

__all__ = ["MAX_REMEMBERED", "Rebuilt", "reach_ms"]

MAX_REMEMBERED: Final = 1_000_000
"""Sessions of which something is remembered at one time, and likewise agents and users."""

_DAY_MS: Final = 86_400_000
_NO_ANSWER: Final = frozenset({ReplayClass.LIMITED, ReplayClass.MASKED})
_BEFORE: Final = Doubt(
    ReplayClass.MISSING_FACT,
    "the session began before what was read: which of its calls would have been denied is not known",
)
_UNKNOWN: Final = Doubt(
    ReplayClass.MISSING_FACT,
    "an earlier call of the session, agent or user could not be made again: the state is not known",
)
_ENDED: Final = Doubt(
    ReplayClass.DOWNSTREAM, "an earlier call would have ended the session: this one would have been refused"
)


def reach_ms(windows: WindowSet) -> int:
    """Return how long before a call those lie that its windows may count, those of its session left out."""
    found = [0]
    for window in windows.windows.values():
        if window.over == "day" or windows.volumes.get(window.name):
            # A date of any zone, and the clock set back by one.
            found.append(3 * _DAY_MS)
        if window.over_seconds is not None:
            found.append(2 * window.over_seconds * 1000)
    return max(found)


class Rebuilt:
    """The state under one bundle; one task owns it, and feeds it decisions in log order."""

    def __init__(self, windows: WindowSet, read_from_ms: int) -> None:
        """Begin with no call.

        Args:
            windows: The bundle's windows.
            read_from_ms: From when on decisions are fed in, POSIX milliseconds.
        """
        self._windows = windows
        self._read_from_ms = read_from_ms
        self._histories: dict[str, History] = {}
        self._fleet = History(windows) if any(item.across for item in windows.windows.values()) else None
        self._denied: dict[str, int] = {}
        self._ended: set[str] = set()
        self._doubted: set[Hashable] = set()
        self._names: dict[str, tuple[str, str]] = {}
        kinds = {window.per for window in windows.windows.values()}
        self._by_agent = bool(kinds & {"agent", "agent+tool", "agent+user"})
        self._by_user = "user" in kinds

    def depends_on(self, located: Located) -> frozenset[Hashable]:
        """Return what a decision's state depends on: two that share any of it are evaluated one after the other."""
        body = located.original.body
        keys: list[Hashable] = [("session", body.session)]
        where = located.enforcer_id if self._fleet is None else None
        if self._by_agent:
            keys.append(("agent", where, body.agent))
        if self._by_user:
            keys.append(("user", where, body.user))
            if (request := _request_of(located.original)) is not None:
                # One user has two pseudonyms where their key was exchanged meanwhile.
                keys.append(("name", where, request.principal.user))
        return frozenset(keys)

    def restated(self, located: Located) -> tuple[RecordedDecision, Doubt | None]:
        """Return a decision with its request as it would have been, and why that is not known, if it is not."""
        original = located.original
        request = _request_of(original)
        if request is None:
            return original, None
        self._remember(located, request)
        state = msgspec.structs.replace(
            request.state, denied=max(0, request.state.denied + self._denied.get(original.body.session, 0))
        )
        request = msgspec.structs.replace(request, state=state)
        if self._windows.windows:
            request = self._with_windows(located.enforcer_id, request)
        return replace(original, request=encode_request(request)), self._doubt(located, request)

    def _doubt(self, located: Located, request: DecisionRequest) -> Doubt | None:
        session = located.original.body.session
        if session in self._ended:
            return _ENDED
        if request.state.calls and request.state.started_ms < self._read_from_ms:
            return _BEFORE
        return _UNKNOWN if self._doubted & self.depends_on(located) else None

    def settle(self, located: Located, result: ReplayResult) -> None:
        """Take in what came of a decision, behind all that its state depends on.

        Raises:
            PolicyError: More is to be remembered than there is room for.
        """
        body, now = located.original.body, result.replayed
        if body.bundle is None:
            # The enforcement point refused it itself, and would have under any bundle; no window counts it.
            return
        uncounted = bool(self._windows.windows) and _request_of(located.original) is None
        if now is None or result.classification in _NO_ANSWER or uncounted:
            self._doubted |= self.depends_on(located)
        else:
            self._count(located, body, enforced(now.effect, now.obligations))
        if max(map(len, (self._doubted, self._denied, self._names, self._ended))) > MAX_REMEMBERED:
            raise PolicyError(
                f"more than {MAX_REMEMBERED} sessions are open at once: ask for less, such as a shorter period"
            )

    def _count(self, located: Located, body: DecisionBody, now: str) -> None:
        if body.mode == "observe" or body.enforcement != enforced(body.decision, body.obligations):
            # Let through, or denied, whatever the policy said: under the other bundle as well.
            now = body.enforcement
        change = (now != "allow") - (body.enforcement != "allow")
        if change:
            self._denied[body.session] = self._denied.get(body.session, 0) + change
        if now == "kill" and body.enforcement != "kill":
            self._ended.add(body.session)
        request = _request_of(located.original)
        if self._windows.windows and request is not None:
            self._history(located.enforcer_id).add(request, permitted=now == "allow")
            if self._fleet is not None:
                self._fleet.add(request, permitted=now == "allow")

    def end_session(self, session: str) -> None:
        """Take in that a session has ended."""
        self._denied.pop(session, None)
        self._ended.discard(session)
        self._doubted.discard(("session", session))
        named = self._names.pop(session, None)
        if named is not None and self._windows.windows:
            self._history(named[0]).end_session(named[1])

    def _remember(self, located: Located, request: DecisionRequest) -> None:
        """Keep a session's name in requests beside its pseudonym, by which its end is recorded."""
        if self._windows.windows:
            self._names[located.original.body.session] = (located.enforcer_id, request.state.session)

    def _with_windows(self, enforcer_id: str, request: DecisionRequest) -> DecisionRequest:
        own = self._history(enforcer_id)
        facts = own.facts(own.read_call(request))
        if self._fleet is not None:
            shared = self._fleet.facts(self._fleet.read_call(request))
            facts |= {name: shared[name] for name, window in self._windows.windows.items() if window.across}
        return self._windows.stated(request, facts)

    def _history(self, enforcer_id: str) -> History:
        return self._histories.setdefault(enforcer_id, History(self._windows))


def _request_of(original: RecordedDecision) -> DecisionRequest | None:
    if original.request is None or original.withheld or original.body.bundle is None:
        return None
    try:
        request = decode_request(original.request)
        # Windows of a day go by it, and whoever records may have written anything.
        date.fromisoformat(request.time.local_date)
    except (MalformedError, ValueError):
        return None
    return request
