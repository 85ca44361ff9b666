"""What went before: the calls that behaviour windows have counted, and what the windows say of the next one.

Pure: a clock is not read, the time of a call is a fact of its request. Calls are added in the order of the log. The
enforcement point keeps one `History` (`enforcement.windows` makes it durable); a replay that recomputes the state keeps
one for each enforcer, because each counts for itself.

A window's calls are kept as totals by *subject* (whose calls) and *slot* (when), so that its memory does not grow with
the calls. Over a session there is one slot, over days one for each local date, and of a rolling window of N seconds a
thousand of N milliseconds each. The time of a call is rounded up to the end of its slot (down, if its amount is
negative): a call counts for N seconds and at most N milliseconds longer, so that a sum or count errs towards too much,
if at all. A call that lies in the future, because the clock was set back, counts. So does one of a later date. What
counts no more is kept for as long again, a day for two, so that setting the clock back does not lift a cap.

Where distinct things are counted, each has totals of its own under its subject, and those count that are not nothing.
Of a session that a job profile describes, the last tool is kept as well; of whomever its volumes are, calls and targets
are counted likewise, under digests of their own that no request holds.

When a window has calls of so many subjects that they are not told apart any more (`policies.window_tallies`), those of
further ones are counted together, and count for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from typing import Final

from msgspec import UNSET

from ledger.canonical import sha256
from policies.job_profiles import Step, Trail, tool_of
from policies.model import DecisionRequest, Time, WindowValue
from policies.window_declarations import Volume, Window
from policies.window_tallies import OTHERS, Share, Tally, element_key, owner_of
from policies.windows import Call, WindowSet

__all__ = ["SLOTS", "History", "subject_key"]

SLOTS: Final = 1000
"""Slots of a rolling window: its length in seconds is that of a slot in milliseconds."""

_DAY_MS: Final = 86_400_000
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_CALL: Final = "tools/call"
_SWEEP_EVERY: Final = 4096
_KEYS_AT_HAND: Final = 4096


def subject_key(subject: tuple[str | None, ...]) -> str:
    """Return a subject as one short text; different subjects have different texts."""
    return sha256(json.dumps(subject).encode()).hex()


def _slot(window: Window, time: Time, amount: int) -> int:
    """Return when a call counts."""
    if window.over_seconds is not None:
        width_ms = window.over_seconds
        return time.now_ms // width_ms if amount < 0 else -(-time.now_ms // width_ms)
    return date.fromisoformat(time.local_date).toordinal() if window.over == "day" else 0


def _first_slot(window: Window, time: Time) -> int:
    """Return the first slot that counts at a time."""
    if window.over_seconds is not None:
        return time.now_ms // window.over_seconds - SLOTS + 1
    return date.fromisoformat(time.local_date).toordinal() if window.over == "day" else 0


def _forget_ms(window: Window, slot: int) -> int | None:
    if window.over_seconds is not None:
        return (slot + 2 * SLOTS) * window.over_seconds
    # A date ends everywhere within two days of its beginning in UTC; the third is for a clock that is set back.
    return (slot - _EPOCH_DAY + 3) * _DAY_MS if window.over == "day" else None


class History:
    """Calls as windows have counted them."""

    def __init__(self, windows: WindowSet, key: Callable[[tuple[str | None, ...]], str] = subject_key) -> None:
        """Begin with no call.

        Args:
            windows: The windows of a bundle. Those of another bundle that measure the same go on with what these have
                counted; others begin with no call.
            key: Names a subject, each by another text; never `OTHERS`.
        """
        self._windows = windows
        self._key = lru_cache(_KEYS_AT_HAND)(key)  # asked for several times in each call
        self._tallies: dict[str, Tally] = {}
        self._elsewhere: dict[str, Tally] = {}
        self._trail = Trail()
        self._age_ms = 0
        self._added = 0

    @property
    def windows(self) -> WindowSet:
        """The windows of `restated` and `add`."""
        return self._windows

    # --- what the windows say

    def facts(self, call: Call, pending: Mapping[tuple[str, str], int] | None = None) -> dict[str, WindowValue]:
        """Return the value of each window for a call.

        Args:
            call: The call that is being decided.
            pending: What calls under way may yet add, by digest and subject.
        """
        under_way = pending or {}
        values: dict[str, WindowValue] = {}
        for name, window in call.windows.windows.items():
            digest, subject = call.windows.digests[name], self._key(window.subject(call.request))
            if window.measure == "staleness":
                values[name] = self._staleness(name, call)
                continue
            if window.measure == "distinct":
                values[name] = call.windows.written(name, self._distinct(name, call, under_way))
                continue
            value = self._total(digest, subject, _first_slot(window, call.request.time))
            if window.includes_present:
                value += call.amounts.get(name, 0)
                value += under_way.get((digest, subject), 0) + under_way.get((digest, OTHERS), 0)
            values[name] = call.windows.written(name, value)
        return values

    def read_call(self, request: DecisionRequest) -> Call:
        """Return what a call adds to the windows that it belongs to, behind the calls of this history."""
        return self.placed(self._windows.read_call(request))

    def placed(self, call: Call, pending: Mapping[tuple[str, str], int] | None = None) -> Call:
        """Return a call without the windows of job profiles that it lies within; the others it adds to.

        Args:
            call: The call that is being decided.
            pending: What calls under way may yet add, by digest and subject.
        """
        windows = call.windows.windows
        profiles = {name: profile for name in call.amounts if (profile := windows[name].profile) is not None}
        if not profiles:
            return call
        previous = self._trail.last(self._session_of(call.request))
        outside: dict[str, str] = {}
        for name, profile in profiles.items():
            reason = profile.excludes(call.request, previous) or self._beyond(name, call, pending or {})
            if reason is not None:
                outside[name] = reason
        amounts = {name: amount for name, amount in call.amounts.items() if name not in profiles or name in outside}
        return replace(call, amounts=amounts, outside=outside)

    def _beyond(self, name: str, call: Call, under_way: Mapping[tuple[str, str], int]) -> str | None:
        """Return which volume of a job profile a call goes beyond; None if it goes beyond none."""
        for volume in call.windows.volumes.get(name, ()):
            if self._is_beyond(volume, call, under_way):
                return volume.name
        return None

    def _is_beyond(self, volume: Volume, call: Call, under_way: Mapping[tuple[str, str], int]) -> bool:
        """Tell whether there is more of a job, with a call, than a volume allows."""
        window, digest = volume.window, volume.digest
        subject, first = self._key(window.subject(call.request)), _first_slot(window, call.request.time)
        tally = self._tallies.get(digest) or Tally()
        others = max(0, tally.total(OTHERS, first)) + under_way.get((digest, OTHERS), 0)
        if not volume.of_targets:
            calls = max(0, tally.total(subject, first)) + under_way.get((digest, subject), 0)
            return calls + others + 1 > volume.limit
        # Only whoever comes near the limit has what was named counted one by one.
        if tally.named_at_most(subject, first) + len(under_way) + others + 1 <= volume.limit:
            return False
        named, beyond = tally.named(subject, first)
        named |= {key for at, key in under_way if at == digest and owner_of(key) == subject}
        named.add(self._volume_key(volume, call))
        return len(named) + beyond + others > volume.limit

    def _volume_key(self, volume: Volume, call: Call) -> str:
        """Return under what a call counts in a volume."""
        subject, resource = self._key(volume.window.subject(call.request)), call.request.resource
        if not volume.of_targets:
            return subject
        return element_key(subject, self._key((resource.server, resource.name, call.target)))

    def _volume_shares(self, call: Call) -> Iterator[Share]:
        for digest, volume in call.volumes.items():
            slot = _slot(volume.window, call.request.time, 1)
            subject = self._tallies.setdefault(digest, Tally()).place(self._volume_key(volume, call))
            yield Share(digest, subject, slot, 1, _forget_ms(volume.window, slot))

    def _session_of(self, request: DecisionRequest) -> str:
        return self._key((request.state.session,))

    def restated(self, request: DecisionRequest) -> DecisionRequest:
        """Return a request with its windows as this history has them, instead of those that it holds."""
        return self._windows.stated(request, self.facts(self.read_call(request)))

    def _distinct(self, name: str, call: Call, under_way: Mapping[tuple[str, str], int]) -> int:
        """Return how many distinct things the calls of a window named."""
        window, digest = call.windows.windows[name], call.windows.digests[name]
        subject, first = self._key(window.subject(call.request)), _first_slot(window, call.request.time)
        tally, elsewhere = self._tallies.get(digest) or Tally(), self._elsewhere.get(digest) or Tally()
        named, beyond = tally.named(subject, first)
        named_elsewhere, beyond_elsewhere = elsewhere.named(subject, first)
        named |= named_elsewhere
        if window.includes_present:
            named |= {key for at, key in under_way if at == digest and owner_of(key) == subject}
            if name in call.amounts:
                named.add(self._counted_under(window, call.request))
        others = max(0, tally.total(OTHERS, first)) + max(0, elsewhere.total(OTHERS, first))
        return len(named) + beyond + beyond_elsewhere + others + under_way.get((digest, OTHERS), 0)

    def _staleness(self, name: str, call: Call) -> WindowValue:
        """Return how old is what is known of other gateways; of a call that is replayed, how old it was."""
        held = call.request.state.windows
        return self._age_ms if held is UNSET or name not in held else held[name]

    def _total(self, digest: str, subject: str, first: int) -> int:
        found = [kept[digest] for kept in (self._tallies, self._elsewhere) if digest in kept]
        # What is not told apart counts for everybody, but it lowers nobody's sum.
        return sum(tally.total(subject, first) + max(0, tally.total(OTHERS, first)) for tally in found)

    # --- what other gateways have counted

    def slot_total(self, digest: str, subject: str, slot: int) -> int:
        """Return what was counted here of a window in one slot."""
        tally = self._tallies.get(digest)
        return 0 if tally is None else tally.slot_total(subject, slot)

    def counted(self, digests: Container[str]) -> list[Share]:
        """Return all that was counted here of some windows."""
        return [
            share for digest in self._tallies if digest in digests for share in self._tallies[digest].shares(digest)
        ]

    def put_elsewhere(self, shares: Iterable[Share], now_ms: int) -> None:
        """Note what others have counted, in place of what was known of the same slots.

        Args:
            shares: Their totals.
            now_ms: The time, POSIX milliseconds.
        """
        for share in shares:
            tally = self._elsewhere.setdefault(share.digest, Tally())
            more = share.amount - tally.slot_total(share.subject, share.slot)
            if more:
                tally.add(replace(share, amount=more), now_ms)

    def slot_elsewhere(self, share: Share) -> int:
        """Return what is known of others' count in the slot of a share."""
        tally = self._elsewhere.get(share.digest)
        return 0 if tally is None else tally.slot_total(share.subject, share.slot)

    def put_age(self, age_ms: int) -> None:
        """Note how long ago others said what they have counted."""
        self._age_ms = age_ms

    # --- what they count

    def shares(self, call: Call, *, permitted: bool) -> tuple[Share, ...]:
        """Return what a call adds once it has come out so; `apply` adds it."""
        windows = call.windows.windows
        shares = self._shares((name for name in call.amounts if windows[name].counts(permitted=permitted)), call)
        return (*shares, *self._volume_shares(call)) if permitted else shares

    def step(self, call: Call, *, permitted: bool) -> Step | None:
        """Return what a call adds to the way of its session, if a job profile asks for that; `walk` adds it."""
        profiled = any(window.profile for window in call.windows.windows.values())
        if not (permitted and profiled and call.request.action == _CALL):
            return None
        return Step(self._session_of(call.request), call.request.state.calls, tool_of(call.request))

    def walk(self, step: Step) -> None:
        """Add a step."""
        self._trail.take(step)

    def place_of(self, call: Call, name: str, amount: int) -> tuple[Share, int]:
        """Return where an amount that a call adds to a window counts, and the first slot that counts for the call."""
        window, request = call.windows.windows[name], call.request
        slot = _slot(window, request.time, amount)
        subject = self._key(window.subject(request))
        share = Share(call.windows.digests[name], subject, slot, amount, _forget_ms(window, slot))
        return share, _first_slot(window, request.time)

    def claims(self, call: Call) -> tuple[Share, ...]:
        """Return what a call may yet add while it is being decided: `facts` of other calls take it as ``pending``.

        An amount that is negative makes no room before it is certain.
        """
        windows = call.windows.windows
        named = (name for name, amount in call.amounts.items() if amount > 0 and windows[name].includes_present)
        return (*self._shares(named, call), *self._volume_shares(call))

    def _shares(self, names: Iterable[str], call: Call) -> tuple[Share, ...]:
        # Two windows of one bundle may measure the same: it is counted once, and both say it.
        once = {call.windows.digests[name]: name for name in names}
        return tuple(self._share(name, call) for name in once.values())

    def _share(self, name: str, call: Call) -> Share:
        window, digest, amount = call.windows.windows[name], call.windows.digests[name], call.amounts[name]
        slot = _slot(window, call.request.time, amount)
        subject = self._tallies.setdefault(digest, Tally()).place(self._counted_under(window, call.request))
        return Share(digest, subject, slot, amount, _forget_ms(window, slot))

    def _counted_under(self, window: Window, request: DecisionRequest) -> str:
        subject = self._key(window.subject(request))
        if window.measure != "distinct":
            return subject
        return element_key(subject, self._key((request.resource.server, request.resource.name)))

    def apply(self, shares: Iterable[Share], now_ms: int) -> None:
        """Add shares.

        Args:
            shares: What calls add, or take back.
            now_ms: The time, POSIX milliseconds.
        """
        for share in shares:
            if share.amount:
                self._tallies.setdefault(share.digest, Tally()).add(share, now_ms)

    def add(self, request: DecisionRequest, *, permitted: bool) -> None:
        """Count a call that a policy was asked about.

        Args:
            request: Its request.
            permitted: Whether it was let through.
        """
        now_ms = request.time.now_ms
        call = self.read_call(request)
        self.apply(self.shares(call, permitted=permitted), now_ms)
        if (step := self.step(call, permitted=permitted)) is not None:
            self.walk(step)
        self._added += 1
        if self._added % _SWEEP_EVERY == 0:
            self.sweep(now_ms)

    # --- what is forgotten

    def sweep(self, now_ms: int) -> None:
        """Forget what has not counted for a while; no value depends on it.

        Args:
            now_ms: The time, POSIX milliseconds.
        """
        for tally in (*self._tallies.values(), *self._elsewhere.values()):
            tally.sweep(now_ms)

    def end_session(self, session: str) -> None:
        """Forget the calls of a session that is over, by its name in requests."""
        self.end_sessions([self._key((session,))])

    def session_keys(self) -> set[str]:
        """Return the keys of the sessions of which something is known until they end."""
        counted = {subject for tally in self._tallies.values() for subject in tally.session_subjects()}
        return counted | self._trail.sessions()

    def size(self) -> tuple[int, int]:
        """Return how many subjects there are in all windows, and how many slots."""
        sizes = [tally.size() for tally in self._tallies.values()]
        return sum(subjects for subjects, _ in sizes), sum(slots for _, slots in sizes)

    def end_sessions(self, keys: Iterable[str]) -> None:
        """Forget the calls of sessions that are over, by their keys."""
        for key in keys:
            self._trail.end_session(key)
            for tally in self._tallies.values():
                tally.end_session(key)
