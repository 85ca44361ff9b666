"""What is counted of an agent's calls: the frozen reference, the candidate for the next one, and the latest calls.

Pure, incremental, and bounded: a call costs a few dictionary steps, whatever was counted before; what is told apart has
a maximum, and a tally that has reached one says so (`Tally.saturated`), because then it cannot say what is new.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from enforcement.profiles.observing import SIZE_BUCKETS, Observation

__all__ = ["EDGE", "HOURS", "MAX_FEATURE_KINDS", "MAX_KINDS", "MIXED_TOOLS", "Recent", "Seen", "Tally", "Trace"]

_T = TypeVar("_T")

HOURS: Final = 48
"""Hours that are told apart; see `Observation.hour`."""

MAX_KINDS: Final = 512
"""Tools, and transitions, that a tally tells apart."""

MAX_FEATURE_KINDS: Final = 2048
"""Members of arguments that a tally tells apart, of all tools."""

MIXED_TOOLS: Final = 9
"""Tools whose shares are compared one by one; all others are one more share."""

MAX_SESSIONS: Final = 256
"""Sessions whose way is remembered; of one that was forgotten the next call counts as its first."""

MAX_TARGETS: Final = 4096
"""Targets of an hour that are told apart; each further one counts as none."""

_MAX_CALLED: Final = 64
_EVIDENCE: Final = 16
_MS_PER_HOUR: Final = 3_600_000

EDGE: Final = "→"
"""Between the tools of a transition. No name has it (`ledger.bodies.Name`)."""


class Trace(msgspec.Struct, kw_only=True):
    """What a session was let call.

    Attributes:
        last: Its last tool.
        called: Its tools, in order of their first call, at most 64.
        read: The tools that brought in what must not get out.
    """

    last: str = ""
    called: list[str] = []
    read: list[str] = []


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an observation was in the light of what came before it.

    Attributes:
        transition: ``tool→tool`` within its session, or None for a first call.
        chains: ``tool→tool`` from each that has read to this one, if it sends.
        fan_out: Different tools of the session, with this one.
        hour_calls: Calls in this clock hour, with this one.
        hour_targets: Different targets in this clock hour, with this one's.
        day_calls: Calls of this local day, with this one.
        gap_ms: Since the call before.
    """

    transition: str | None
    chains: tuple[str, ...]
    fan_out: int
    hour_calls: int
    hour_targets: int
    day_calls: int
    gap_ms: int


class Tally(msgspec.Struct, kw_only=True):
    """Counts over a stretch of time. All that a baseline is.

    Attributes:
        calls: Calls that taught.
        refused: Refused calls beside them; they teach how many are refused, and nothing else.
        first_ms: When the first was.
        last_ms: When the last was.
        days: Local days with a call.
        last_day: The last of them.
        servers: Server → calls.
        tools: Tool → calls.
        transitions: ``tool→tool`` → how often.
        once: ``tool`` → how many transitions from it were seen exactly once.
        left: ``tool`` → transitions from it.
        chains: ``tool→tool`` from one that reads to one that sends → how often.
        features: ``tool digest`` → how often a member was there.
        feature_once: ``tool`` → members seen exactly once.
        sizes: Calls by bucket of size.
        hours: Calls by hour.
        most_in_hour: Most calls in a clock hour.
        most_in_day: Most calls in a local day.
        most_targets: Most different targets in a clock hour.
        most_tools: Most different tools in a session.
        longest_gap_ms: Longest time between two calls.
        saturated: What has reached its maximum, sorted.
        top: The most called tools, once it is a reference.
    """

    calls: int = 0
    refused: int = 0
    first_ms: int = 0
    last_ms: int = 0
    days: int = 0
    last_day: str = ""
    servers: dict[str, int] = {}
    tools: dict[str, int] = {}
    transitions: dict[str, int] = {}
    once: dict[str, int] = {}
    left: dict[str, int] = {}
    chains: dict[str, int] = {}
    features: dict[str, int] = {}
    feature_once: dict[str, int] = {}
    sizes: list[int] = msgspec.field(default_factory=lambda: [0] * SIZE_BUCKETS)
    hours: list[int] = msgspec.field(default_factory=lambda: [0] * HOURS)
    most_in_hour: int = 0
    most_in_day: int = 0
    most_targets: int = 0
    most_tools: int = 0
    longest_gap_ms: int = 0
    saturated: list[str] = []
    top: list[str] = []

    def freeze(self) -> None:
        """Prepare for being compared with: from here on nothing is counted any more."""
        self.top = sorted(self.tools, key=lambda tool: (-self.tools[tool], tool))[:MIXED_TOOLS]

    def refuse(self) -> None:
        """Count a refused call."""
        self.refused += 1

    def learn(self, call: Observation, seen: Seen) -> None:
        """Count a call that was let through."""
        if not self.calls:
            self.first_ms = call.now_ms
        self.calls += 1
        self.last_ms = max(self.last_ms, call.now_ms)
        if call.day > self.last_day:
            self.days, self.last_day = self.days + 1, call.day
        self._add("servers", self.servers, call.server)
        self._add("tools", self.tools, call.tool)
        if seen.transition is not None:
            self._edge(seen.transition)
        for chain in seen.chains:
            self._add("chains", self.chains, chain)
        for feature in call.features:
            self._feature(call.tool, feature)
        self.sizes[call.size] += 1
        self.hours[call.hour] += 1
        self.most_in_hour = max(self.most_in_hour, seen.hour_calls)
        self.most_in_day = max(self.most_in_day, seen.day_calls)
        self.most_targets = max(self.most_targets, seen.hour_targets)
        self.most_tools = max(self.most_tools, seen.fan_out)
        self.longest_gap_ms = max(self.longest_gap_ms, seen.gap_ms)

    def _add(self, what: str, counts: dict[str, int], kind: str, most: int = MAX_KINDS) -> int:
        """Count one more of a kind; return how many there are, or 0 if it cannot be told apart any more."""
        known = counts.get(kind, 0)
        if not known and len(counts) >= most:
            if what not in self.saturated:
                self.saturated = sorted({*self.saturated, what})
            return 0
        counts[kind] = known + 1
        return known + 1

    def _edge(self, transition: str) -> None:
        before = transition.partition(EDGE)[0]
        number = self._add("transitions", self.transitions, transition)
        self._add("transitions", self.left, before)
        _once(self.once, before, number)

    def _feature(self, tool: str, feature: str) -> None:
        number = self._add("features", self.features, f"{tool} {feature}", MAX_FEATURE_KINDS)
        _once(self.feature_once, tool, number)


def _once(counts: dict[str, int], key: str, number: int) -> None:
    """Keep count of what was seen exactly once, now that something was seen ``number`` times."""
    if number in {1, 2}:
        counts[key] = counts.get(key, 0) + (1 if number == 1 else -1)


class Recent(msgspec.Struct, kw_only=True):
    """The latest calls, refused ones as well.

    Attributes:
        tools: Tool of each of the latest permitted calls, oldest first.
        sizes: Bucket of the size of each.
        mix: Tool → how many of these calls.
        spread: How many of them there are of each bucket of size.
        decisions: Record ids of the latest calls of all, oldest first.
        refusals: Record ids of the latest refused ones.
        score: Cumulative sum of refusals.
        hour: Which clock hour is counted, since 1970.
        hour_calls: Calls in it.
        targets: Different targets in it.
        day: Which local day is counted.
        day_calls: Calls of it.
        last_ms: When the last call was.
        sessions: Session → what it was let call; the latest ones.
    """

    tools: list[str] = []
    sizes: list[int] = []
    mix: dict[str, int] = {}
    spread: list[int] = msgspec.field(default_factory=lambda: [0] * SIZE_BUCKETS)
    decisions: list[str] = []
    refusals: list[str] = []
    score: float = 0.0
    hour: int = 0
    hour_calls: int = 0
    targets: dict[str, None] = {}
    day: str = ""
    day_calls: int = 0
    last_ms: int = 0
    sessions: dict[str, Trace] = {}

    def seen(self, call: Observation) -> Seen:
        """Return what a call is in the light of what came before it; nothing is changed."""
        trace = self.sessions.get(call.session)
        same_hour = call.now_ms // _MS_PER_HOUR == self.hour
        known = trace.called if trace is not None else []
        new_target = not same_hour or call.target not in self.targets
        return Seen(
            transition=f"{trace.last}{EDGE}{call.tool}" if trace is not None and trace.last else None,
            chains=tuple(f"{read}{EDGE}{call.tool}" for read in trace.read) if trace is not None and call.sends else (),
            fan_out=len(known) + (call.tool not in known),
            hour_calls=(self.hour_calls if same_hour else 0) + 1,
            hour_targets=(len(self.targets) if same_hour else 0) + new_target,
            day_calls=(self.day_calls if call.day == self.day else 0) + 1,
            gap_ms=max(0, call.now_ms - self.last_ms) if self.last_ms else 0,
        )

    def take(self, call: Observation, *, permitted: bool, window: int) -> None:
        """Take a call in.

        Args:
            call: The call.
            permitted: It was let through; a refused one is a step of nobody's work.
            window: How many calls are kept.
        """
        hour = call.now_ms // _MS_PER_HOUR
        if hour != self.hour:
            self.hour, self.hour_calls, self.targets = hour, 0, {}
        if call.day != self.day:
            self.day, self.day_calls = call.day, 0
        self.hour_calls += 1
        self.day_calls += 1
        self.last_ms = max(self.last_ms, call.now_ms)
        if len(self.targets) < MAX_TARGETS:
            self.targets[call.target] = None
        _push(self.decisions, call.decision_id, _EVIDENCE)
        if not permitted:
            _push(self.refusals, call.decision_id, _EVIDENCE)
            return
        self._slide(call, window)
        trace = self.sessions.pop(call.session, None) or Trace()
        self.sessions[call.session] = trace
        while len(self.sessions) > MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        trace.last = call.tool
        if call.tool not in trace.called and len(trace.called) < _MAX_CALLED:
            trace.called.append(call.tool)
        if call.reads and call.tool not in trace.read and len(trace.read) < _MAX_CALLED:
            trace.read.append(call.tool)

    def _slide(self, call: Observation, window: int) -> None:
        """Put a call into the window, and take out what is too old for it."""
        self.tools.append(call.tool)
        self.sizes.append(call.size)
        self.mix[call.tool] = self.mix.get(call.tool, 0) + 1
        self.spread[call.size] += 1
        while len(self.tools) > window:
            gone = self.tools.pop(0)
            self.mix[gone] -= 1
            if not self.mix[gone]:
                del self.mix[gone]
            self.spread[self.sizes.pop(0)] -= 1


def _push(items: list[_T], item: _T, most: int) -> None:
    items.append(item)
    if len(items) > most:
        del items[: len(items) - most]
