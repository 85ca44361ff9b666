"""What the service says of its own health: readiness, and Prometheus metrics.

Metrics carry names and numbers, never who did what: that is the log's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ledger.errors import LedgerError
from service.fleet_metrics import FleetMetrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.wiring.services import Services

__all__ = ["Check", "Metrics", "ReadinessProbe", "exposition", "late_after_seconds", "readiness"]

_LOOK_SECONDS: Final = 1.0
_HTTP: Final = "tallystick_http_"
_LATE_CHECKPOINT_FACTOR: Final = 30
"""A checkpoint that should have come this many intervals ago is late."""

_LATE_AUDIT_FACTOR: Final = 3
"""An audit that should have ended this many intervals ago is late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part of readiness.

    Attributes:
        name: What was looked at.
        ok: Whether it is well.
        vital: Whether the service is not ready without it.
        detail: One sentence.
    """

    name: str
    ok: bool
    vital: bool
    detail: str


class Metrics:
    """The service's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Register all of them."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tallystick_http_requests_total", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "tallystick_http_request_seconds", "Time to the answer", ["route"], registry=self.registry
        )
        self.records = Counter(
            "tallystick_records_total", "Records acknowledged, duplicates apart", ["type"], registry=self.registry
        )
        self.duplicates = Counter(
            "tallystick_duplicate_records_total", "Records acknowledged again", registry=self.registry
        )
        self.records_ahead = Counter(
            "tallystick_records_ahead_total",
            "Records whose time is more than five minutes ahead of the service's clock",
            registry=self.registry,
        )
        self.sequenced = Gauge("tallystick_sequenced_size", "Records with an index", registry=self.registry)
        self.database_ok = Gauge(
            "tallystick_database_up", "1 if the database answered just now", registry=self.registry
        )
        self.publishing_ok = Gauge(
            "tallystick_publishing_up",
            "0 if publishing has ended for good or is in trouble; readiness says which",
            registry=self.registry,
        )
        self.published = Gauge("tallystick_published_size", "Tree size of the checkpoint", registry=self.registry)
        self.checkpoint_age = Gauge(
            "tallystick_checkpoint_age_seconds", "Age of the checkpoint by our clock", registry=self.registry
        )
        self.leads = Gauge(
            "tallystick_publisher_leads", "1 if this process publishes the checkpoints", registry=self.registry
        )
        self.anchored = Gauge("tallystick_anchored_size", "Tree size of the newest anchor copy", registry=self.registry)
        self.anchor_ok = Gauge("tallystick_anchor_up", "1 if the last anchoring succeeded", registry=self.registry)
        self.anchor_refuses = Gauge(
            "tallystick_anchor_refuses",
            "1 if the anchor's bucket refused this when it was tried",
            ["attempt"],
            registry=self.registry,
        )
        self.collected = Counter(
            "tallystick_collected_tiles_total", "Tiles whose partials were collected", registry=self.registry
        )
        self.collecting_ok = Gauge(
            "tallystick_collecting_up", "1 if the last collection of partial tiles succeeded", registry=self.registry
        )
        self.background_ok = Gauge(
            "tallystick_background_up",
            "1 if the last turn of this repeated work succeeded",
            ["work"],
            registry=self.registry,
        )
        self.audit_age = Gauge(
            "tallystick_clean_audit_age_seconds",
            "Time since an audit that found nothing ended; +Inf if there was none",
            registry=self.registry,
        )
        self.audited = Gauge("tallystick_audited_size", "Tree size that was audited last", registry=self.registry)
        self.audit_findings = Gauge("tallystick_audit_findings", "What the last audit found", registry=self.registry)
        self.witnessed = Gauge(
            "tallystick_witnessed_size",
            "Tree size of the newest checkpoint that the quorum cosigned",
            registry=self.registry,
        )
        self.witness_up = Gauge(
            "tallystick_witness_up",
            "1 if the witness cosigned what was offered last",
            ["witness"],
            registry=self.registry,
        )
        self.timestamped = Gauge(
            "tallystick_timestamped_size", "Tree size of the newest trusted timestamp", registry=self.registry
        )
        self.timestamp_age = Gauge(
            "tallystick_timestamp_age_seconds",
            "Age of the newest trusted timestamp by our clock",
            registry=self.registry,
        )
        self.timestamp_skew = Gauge(
            "tallystick_timestamp_skew_seconds",
            "The authority's clock less ours, at that token",
            registry=self.registry,
        )
        self.timestamp_ok = Gauge(
            "tallystick_timestamp_up", "1 if the authority's last answer was a valid token", registry=self.registry
        )
        self.minimum_index = Gauge(
            "tallystick_minimum_index", "Leaf under which entries are no longer served", registry=self.registry
        )
        self.policy_workers = Gauge("tallystick_policy_workers", "Processes of policy engines", registry=self.registry)
        self.policy_workers_stopped = Gauge(
            "tallystick_policy_workers_stopped",
            "Processes of policy engines that were killed or died",
            ["cause"],
            registry=self.registry,
        )
        self.policy_limited = Gauge(
            "tallystick_policy_evaluations_limited",
            "Evaluations that a limit stopped",
            ["limit"],
            registry=self.registry,
        )
        self.waiting = Gauge("tallystick_waiting_records", "Records that wait to be sequenced", registry=self.registry)
        self.webhooks = Gauge(
            "tallystick_webhooks",
            "Webhooks by how they stand: ok, failing, dead, gone",
            ["state"],
            registry=self.registry,
        )
        self.webhooks_skipped = Gauge(
            "tallystick_webhooks_skipped_records",
            "Records that were passed over because too many waited for a webhook",
            registry=self.registry,
        )
        self.fleet = FleetMetrics(self.registry)

    def render(self, services: Services) -> bytes:
        """Return the exposition text, with the gauges brought up to date."""
        self.refresh(services)
        return generate_latest(self.registry)

    def refresh(self, services: Services) -> None:
        """Bring the gauges up to date."""
        published = services.publishing.published
        receipt = services.publishing.anchor_status.receipt
        # Without its database a service still tells the rest; readiness says what is wrong.
        self.database_ok.set(0)
        with contextlib.suppress(LedgerError):
            self.sequenced.set(services.sequenced_size())
            self.database_ok.set(1)
            self.minimum_index.set(services.minimum_index.current())
        self.published.set(published.head.size if published else 0)
        if published:
            self.checkpoint_age.set(max(0.0, services.clock.now_ms() / 1000 - published.timestamp_seconds))
        self.publishing_ok.set(services.publishing.failure is None and services.publishing.trouble is None)
        self.leads.set(services.publishing.leads)
        self.anchored.set(receipt.size if receipt else 0)
        self.anchor_ok.set(0 if services.publishing.anchor_status.failure else 1)
        if report := services.anchor_report:
            for attempt in report.attempts:
                self.anchor_refuses.labels(attempt.name).set(attempt.held)
        self.collecting_ok.set(0 if services.collecting.failure else 1)
        for work in services.background:
            self.background_ok.labels(work.name.replace(" ", "_")).set(work.failure is None)
        self._refresh_outsiders(services)
        self._refresh_engines(services)
        self._refresh_webhooks(services)
        self.fleet.refresh(services.fleet.look)
        self.waiting.set(services.sequencer.waiting_records)
        audited = services.auditing.status
        age = math.inf if audited.clean_ms is None else (services.clock.now_ms() - audited.clean_ms) / 1000
        self.audit_age.set(max(0.0, age))
        self.audited.set(audited.size)
        self.audit_findings.set(audited.findings)

    def _refresh_webhooks(self, services: Services) -> None:
        """Bring the gauges up to date that tell who is told; without the database they stay as they were."""
        with contextlib.suppress(LedgerError):
            found = services.notifications.store.all()
            for state in ("ok", "failing", "dead", "gone"):
                self.webhooks.labels(state).set(sum(one.state == state for one in found))
            self.webhooks_skipped.set(sum(one.skipped for one in found))

    def _refresh_engines(self, services: Services) -> None:
        """Bring the gauges up to date that tell of policy engines, which all logs of a process share."""
        status = services.evaluator.status
        self.policy_workers.set(status.workers.running)
        for cause, count in status.workers.stopped.items():
            self.policy_workers_stopped.labels(cause).set(count)
        for limit, count in status.limited.items():
            self.policy_limited.labels(limit).set(count)

    def _refresh_outsiders(self, services: Services) -> None:
        """Bring the gauges up to date that tell of witnesses and of trusted time; without them they stay at 0."""
        if (witnesses := services.publishing.witness_status) is not None:
            self.witnessed.set(witnesses.witnessed_size)
            for name in (*witnesses.by, *witnesses.failures):
                self.witness_up.labels(name).set(name in witnesses.by)
        if services.timestamping is not None:
            status = services.timestamping.status
            self.timestamp_ok.set(0 if status.failure else 1)
            if status.newest is not None:
                self.timestamped.set(status.newest.size)
                self.timestamp_age.set(max(0.0, (services.clock.now_ms() - status.newest.time_ms) / 1000))
                self.timestamp_skew.set(status.skew_ms / 1000)


class _Labelled(Collector):
    """The samples of several registries as one, each with the name of its log."""

    def __init__(self, parts: Sequence[tuple[str, Metrics]], logs_open: Mapping[str, bool]) -> None:
        self._parts = parts
        self._logs_open = logs_open

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for log_id, metrics in self._parts:
            for found in metrics.registry.collect():
                # A process without a log has no records, queue or anchor: zeros of those would raise alarms.
                if not log_id and not found.name.startswith(_HTTP):
                    continue
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples += [sample._replace(labels={"log": log_id, **sample.labels}) for sample in found.samples]
        yield from families.values()
        up = GaugeMetricFamily("tallystick_log_open", "1 if the log is open", labels=["log"])
        for log_id, is_open in self._logs_open.items():
            up.add_metric([log_id], float(is_open))
        yield up


def exposition(parts: Sequence[tuple[str, Metrics]], *, logs_open: Mapping[str, bool]) -> bytes:
    """Return one exposition text of several logs; each sample has a label ``log``.

    Args:
        parts: Log ids with their metrics, brought up to date; the empty id is for what belongs to no log.
        logs_open: Whether each log that there should be is open.
    """
    return generate_latest(_Labelled(parts, logs_open))


def late_after_seconds(settings: Settings) -> float:
    """Return the age from which a checkpoint is late, if records wait to be covered."""
    return max(_LATE_CHECKPOINT_FACTOR * settings.checkpoint_interval_seconds, _LATE_CHECKPOINT_FACTOR)


def readiness(services: Services) -> list[Check]:
    """Look at every part that an acknowledgement or a proof needs."""
    return [
        _database(services),
        _sequencer(services),
        _publishing(services),
        _checkpoint(services),
        _anchor(services),
        _collecting(services),
        _background(services),
        _audit(services),
        *_witnesses(services),
        *_timestamps(services),
    ]


class ReadinessProbe:
    """Looks at most once a second and once at a time, however many ask; one event loop owns it.

    Anybody may ask, and on SQLite a look takes the database's write lock, which the sequencer needs.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._looking = asyncio.Lock()
        self._seen: list[Check] = []
        self._seen_at: float | None = None

    async def look(self, services: Services) -> list[Check]:
        """Return what `readiness` says, or said less than a second ago."""
        async with self._looking:
            if self._seen_at is None or time.monotonic() - self._seen_at >= _LOOK_SECONDS:
                self._seen = await asyncio.to_thread(readiness, services)
                self._seen_at = time.monotonic()
            return self._seen


def _database(services: Services) -> Check:
    try:
        services.store.check_writable()
    except LedgerError as error:
        return Check(name="database", ok=False, vital=True, detail=str(error))
    return Check(name="database", ok=True, vital=True, detail="answers and can be written")


def _sequencer(services: Services) -> Check:
    waiting = services.sequencer.waiting_records
    if not services.sequencer.healthy:
        return Check(name="sequencer", ok=False, vital=True, detail="the last transaction failed")
    return Check(name="sequencer", ok=True, vital=True, detail=f"{waiting} records wait")


def _publishing(services: Services) -> Check:
    failure = services.publishing.failure
    if failure is not None:
        return Check(name="publishing", ok=False, vital=True, detail=f"ended for good: {failure}")
    trouble = services.publishing.trouble
    return Check(name="publishing", ok=trouble is None, vital=False, detail=trouble or "running")


def _checkpoint(services: Services) -> Check:
    published = services.publishing.published
    if published is None:
        return Check(name="checkpoint", ok=False, vital=False, detail="nothing has been published")
    age = max(0.0, services.clock.now_ms() / 1000 - published.timestamp_seconds)
    try:
        behind = services.sequenced_size() - published.head.size
    except LedgerError as error:
        return Check(name="checkpoint", ok=False, vital=False, detail=str(error))
    late = behind > 0 and age > late_after_seconds(services.settings)
    detail = f"size {published.head.size}, {age:.0f} s old, {behind} records behind"
    return Check(name="checkpoint", ok=not late, vital=False, detail=detail)


def _anchor(services: Services) -> Check:
    status = services.publishing.anchor_status
    if status.failure is not None:
        return Check(name="anchor", ok=False, vital=False, detail=status.failure)
    if status.receipt is None:
        return Check(name="anchor", ok=False, vital=False, detail="nothing has been anchored")
    # Not where it is: anybody may ask.
    return Check(name="anchor", ok=True, vital=False, detail=f"size {status.receipt.size}{_locks(services)}")


def _locks(services: Services) -> str:
    report = services.anchor_report
    if report is None:
        return ""
    weak = f"gave way to {', '.join(report.weaknesses)}, as was accepted" if report.weaknesses else "held"
    return f"; its locks were tried and {weak}"


def _collecting(services: Services) -> Check:
    failure = services.collecting.failure
    return Check(name="collecting", ok=failure is None, vital=False, detail=failure or "partial tiles are collected")


def _background(services: Services) -> Check:
    """Say whether all work that is repeated succeeded the last time; errors by their class, for anybody may ask."""
    failing = [f"{work.name} ({type(work.failure).__name__})" for work in services.background if work.failure]
    detail = f"failing: {', '.join(failing)}" if failing else "running"
    return Check(name="background", ok=not failing, vital=False, detail=detail)


def _audit(services: Services) -> Check:
    """Never vital: a log that is not in order must be looked at by a person, and goes on recording."""
    auditing, status = services.auditing, services.auditing.status
    if not auditing.enabled:
        return Check(name="audit", ok=True, vital=False, detail="not run here: TALLYSTICK_AUDIT_INTERVAL_SECONDS is 0")
    if status.findings:
        told = f"FOUND: {status.findings} at {status.size} leaves; `tallystick audit` says what"
        return Check(name="audit", ok=False, vital=False, detail=told)
    if status.failure is not None:
        return Check(name="audit", ok=False, vital=False, detail=f"could not be finished: {status.failure}")
    if status.clean_ms is None:
        return Check(name="audit", ok=True, vital=False, detail="not yet")
    age = max(0.0, (services.clock.now_ms() - status.clean_ms) / 1000)
    late = age > _LATE_AUDIT_FACTOR * auditing.interval_seconds
    return Check(name="audit", ok=not late, vital=False, detail=f"clean at {status.size} leaves, {age:.0f} s ago")


def _witnesses(services: Services) -> list[Check]:
    """Say how witnessing stands, if there is a witness policy; witnesses are named, as the checkpoint names them."""
    status = services.publishing.witness_status
    if status is None:
        return []
    published = services.publishing.published
    if status.quorum_met and (published is None or published.head.size <= status.size):
        told = f"size {status.size}, cosigned by {', '.join(status.by) or 'nobody yet'}"
        return [Check(name="witnesses", ok=True, vital=False, detail=told)]
    told = "; ".join(status.failures.values()) or "no answer yet"
    detail = f"size {status.size} lacks the quorum, {status.witnessed_size} had it: {told}"
    return [Check(name="witnesses", ok=False, vital=False, detail=detail)]


def _timestamps(services: Services) -> list[Check]:
    """Say how trusted time stands, if there is an authority."""
    if services.timestamping is None:
        return []
    status = services.timestamping.status
    if status.newest is None:
        told = status.failure or "nothing has been dated"
        return [Check(name="timestamps", ok=False, vital=False, detail=told)]
    age = max(0.0, (services.clock.now_ms() - status.newest.time_ms) / 1000)
    detail = f"size {status.newest.size}, {age:.0f} s old"
    failed = "" if status.failure is None else f": {status.failure}"
    return [Check(name="timestamps", ok=status.failure is None, vital=False, detail=detail + failed)]
