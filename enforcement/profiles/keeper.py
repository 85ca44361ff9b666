"""The profiles of one gateway: asked before a call is decided and told after, saved, recorded; orders carried out.

What is learned and found is in `enforcement.profiles.profile`, what is written of it in `enforcement.profiles.keeping`.
Profiles are those of this gateway: it knows the calls that it decided. What several gateways say of one agent, the
service puts side by side (`service.drift`).

INVARIANT: nothing here decides, and no call waits for a record of this: flags and steps of baselines are recorded by
work of its own. A flag becomes durable in one transaction with the profile that remembers it, so that a restart neither
forgets nor repeats it. What else was learned is saved every few seconds: a crash forgets so much of it, which makes a
baseline later and never another one.

INVARIANT: of an agent of which no profile is kept, because there are too many, the baseline is ``none``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Final

import structlog

from enforcement.batches import Batch, Item
from enforcement.config_profiles import ProfileSettings
from enforcement.drafts import Case
from enforcement.facts import Pseudonyms
from enforcement.metrics import Metrics
from enforcement.offload import off_loop
from enforcement.ports import Unavailable
from enforcement.profiles.detectors import Deviation
from enforcement.profiles.jobs import off_job
from enforcement.profiles.keeping import SaveProfile, baseline_body, drift_body, offered_body, stored_profiles
from enforcement.profiles.observing import Observation, observe
from enforcement.profiles.orders import BaselineOrder, BaselineOrders
from enforcement.profiles.profile import AgentProfile, Baseline
from enforcement.recorder import Recorder
from enforcement.state import Change, StateDatabase
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.errors import ConflictError, LedgerError, MalformedError, StateError
from ledger.ports import Draft
from ledger.tasks import Repeating

__all__ = ["PROFILED_METHODS", "Profiles"]

_LOG: Final = structlog.get_logger(__name__)

PROFILED_METHODS: Final = frozenset({"tools/call", "resources/read", "prompts/get"})
"""What an agent's work consists of; lists, pings and notifications are how its client goes about it."""

_MAX_OPEN: Final = 4096
"""Calls that were looked at and not decided yet, at most."""

_MAX_ORDERS: Final = 256


class Profiles:
    """What agents usually do at this gateway. Owned by the event loop."""

    def __init__(
        self,
        state: StateDatabase,
        pseudonyms: Pseudonyms,
        settings: ProfileSettings,
        metrics: Metrics,
        orders: BaselineOrders | None = None,
    ) -> None:
        """Read what was learned before a restart.

        Args:
            state: The state file, on a connection of its own: it is read here and never written.
            pseudonyms: The tenant's.
            settings: What is learned.
            metrics: Counts.
            orders: Says what people ordered; None if nobody does.

        Raises:
            StorageError: The file failed.
            StateError: What it holds is no profile.
        """
        self._pseudonyms = pseudonyms
        self._settings = settings
        self._thresholds = settings.thresholds
        self._metrics = metrics
        self._orders = orders
        self._profiles = stored_profiles(state)
        self._open: dict[str, Observation] = {}
        self._dirty: set[str] = set()
        self._waiting: deque[tuple[str, BaselineEvent | Drift]] = deque()
        self._recorder: Recorder | None = None
        self._ask_at = 0.0
        self._keeping = asyncio.Lock()
        self._work = Repeating(
            "behaviour profiles",
            self._turn,
            first_seconds=settings.save_seconds,
            retry_seconds=settings.save_seconds,
            on_failure=lambda error: _LOG.warning("profiles_not_kept", error=type(error).__name__),
        )

    def start(self, recorder: Recorder) -> None:
        """Begin to record and to save."""
        self._recorder = recorder
        self._work.start()

    async def stop(self) -> None:
        """Stop, having recorded and saved what there is.

        Raises:
            LedgerError: That failed.
        """
        await self._work.stop()
        await self.keep()

    def state_of(self, agent: str) -> Baseline:
        """Return whether there is a baseline of an agent."""
        profile = self._profiles.get(agent)
        return "none" if profile is None else profile.state

    def in_state(self, state: Baseline) -> int:
        """Return of how many agents that is so."""
        return sum(profile.state == state for profile in self._profiles.values())

    def concerns(self, case: Case) -> bool:
        """Tell whether a message is a part of an agent's work."""
        request = case.request
        return request is not None and request.action in PROFILED_METHODS and case.inbound.direction == "client"

    async def look(self, case: Case) -> tuple[Baseline, tuple[Deviation, ...]]:
        """Return what is known of the agent of an admitted call, and how the call departs from it."""
        request = case.request
        assert request is not None  # it concerns this
        call = await off_loop(len(request.arguments), self._observe, case)
        while len(self._open) >= _MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[case.decision_id] = call
        profile = self._profiles.get(call.agent)
        return ("none", ()) if profile is None else (profile.state, profile.look(call, self._thresholds))

    def _observe(self, case: Case) -> Observation:
        assert case.request is not None
        settings = self._settings
        return observe(
            case.decision_id,
            case.request,
            self._pseudonyms,
            read_tags=settings.read_tags,
            send_tags=settings.send_tags,
        )

    def judged(self, case: Case) -> None:
        """Take in a call whose decision is durable. Further rounds of a call are no calls of their own."""
        call = self._open.pop(case.decision_id, None)
        ruling = case.ruling
        if ruling is None or not self.concerns(case) or case.continues is not None or case.restriction is not None:
            return
        call = call or self._observe(case)
        profile = self._profiles.get(call.agent)
        if profile is None:
            if len(self._profiles) >= self._settings.agents:
                self._metrics.unprofiled.inc()
                return
            profile = self._profiles[call.agent] = AgentProfile(agent=call.agent)
        revision = "" if case.bundle is None else case.bundle.revision
        profile.note_changes(call, revision=revision, definition=case.tool_digest)
        flags = profile.take(
            call, permitted=ruling.enforcement == "allow", teaches=not ruling.observed, thresholds=self._thresholds
        )
        for flag in (*flags, *profile.take_off_job(call, off_job(case.off_job, call.tool))):
            self._metrics.behaviour.labels(flag.deviation.detector).inc()
            drift_id = "" if self._recorder is None else self._recorder.new_record_id()
            self._tell(profile, drift_body(profile, flag, drift_id, self._thresholds))
        self._announce(profile, call)
        self._dirty.add(call.agent)

    def _announce(self, profile: AgentProfile, call: Observation) -> None:
        """Have recorded how far a baseline has come, if it has come further: at most once a day while it learns."""
        stage = f"{profile.state} {profile.version if profile.state == 'ready' else ''}"
        if profile.state != "none" and stage != profile.announced:
            profile.announced, profile.progress_day = stage, call.day
            self._tell(profile, baseline_body(profile, profile.state, self._thresholds))
        elif profile.state != "none" and call.day > profile.progress_day:
            profile.progress_day = call.day
            self._tell(profile, baseline_body(profile, "progress", self._thresholds))
        if profile.offer(call.now_ms, self._thresholds) and profile.offered is not None:
            body = offered_body(profile, profile.offered, profile.offered_digest, self._thresholds)
            self._tell(profile, body)

    def _tell(self, profile: AgentProfile, body: BaselineEvent | Drift) -> None:
        self._waiting.append((profile.agent, body))
        self._work.wake()

    # --- beside the calls

    async def keep(self) -> None:
        """Record what is to be recorded, and save what was learned.

        Raises:
            LedgerError: That failed; what is left is tried again.
        """
        assert self._recorder is not None  # it was started
        async with self._keeping:  # one record after the other, each once
            await self._keep(self._recorder)

    async def _keep(self, recorder: Recorder) -> None:
        while self._waiting:
            agent, body = self._waiting[0]
            # With it the profile that remembers it: what is recorded is not said again after a restart.
            try:
                await self._record(recorder, body, agent)
            except (MalformedError, ConflictError) as error:  # it will not be taken another time either
                _LOG.error("profile_not_recorded", error=type(error).__name__)
            self._waiting.popleft()
        dirty, self._dirty = self._dirty, set()
        if not dirty:
            return
        changes = tuple(SaveProfile.of(self._profiles[agent]) for agent in sorted(dirty))
        try:
            await recorder.record(Batch(items=(), changes=changes), strict=False)
        except LedgerError:
            self._dirty |= dirty
            raise

    async def _record(self, recorder: Recorder, body: BaselineEvent | Drift, agent: str) -> None:
        record_id = recorder.new_record_id()
        if isinstance(body, Drift):
            record_id = body.drift_id or record_id
        changes: tuple[Change, ...] = (SaveProfile.of(self._profiles[agent]),)
        await recorder.record(Batch(items=(Item(record_id, Draft(body=body)),), changes=changes), strict=False)

    async def _turn(self) -> float:
        await self.keep()
        if self._orders is not None and monotonic() >= self._ask_at:
            self._ask_at = monotonic() + self._settings.orders_seconds
            await self.follow(self._orders)
        return self._settings.save_seconds

    async def follow(self, source: BaselineOrders) -> None:
        """Carry out what people ordered since.

        Raises:
            LedgerError: What was done could not be recorded yet.
        """
        orders = await source.baseline_orders()
        if isinstance(orders, Unavailable):
            return
        for order in orders:
            profile = self._profiles.get(order.agent)
            if profile is not None and order.order_id not in profile.orders:
                profile.orders = [*profile.orders, order.order_id][-_MAX_ORDERS:]
                self._obey(profile, order)
        await self.keep()

    def _obey(self, profile: AgentProfile, order: BaselineOrder) -> None:
        self._dirty.add(profile.agent)
        if order.action == "reset_ordered":
            profile.reset()
            profile.announced = ""
            self._tell(profile, baseline_body(profile, "reset", self._thresholds, order.order_id))
            return
        try:
            profile.accept(order.digest)
        except StateError:
            _LOG.warning("baseline_not_accepted", order_id=order.order_id)
            return
        profile.announced = f"ready {profile.version}"
        self._tell(profile, baseline_body(profile, "accepted", self._thresholds, order.order_id))
