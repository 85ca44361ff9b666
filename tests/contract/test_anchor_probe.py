"""Trying an anchor's bucket: what a real server refuses, what an imitation lets through, and what follows from it."""

from __future__ import annotations

import secrets
import time
from contextlib import nullcontext
from typing import Any

import pytest

from ledger.anchoring import ATTEMPTS, ProbeAttempt, ProbedAnchor, ProbeReport
from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
from ledger.clock import SimulatedClock, SystemClock
from ledger.errors import AnchorError, ConfigError
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID, NOW_MS
from tests.support.s3 import S3Server, s3_server
from tests.support.s3_proxy import Fault, s3_proxy

MOTO_GIVES_WAY = {"shorten", "downgrade", "downgrade-bypass", "remove"}
"""moto takes any new retention, which the probe has to find out."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("locked", locks=True)
        running.make_bucket("plain")
        yield running


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("moto"), imitated=True) as running:
        running.make_bucket("locked", locks=True)
        yield running


def make_anchor(
    server: S3Server, bucket: str = "locked", prefix: str = "", *, client: Any = None
) -> S3ObjectLockAnchor:
    return S3ObjectLockAnchor(
        server.bucket(bucket, AnchorError, client=client), prefix, retention_days=1, clock=SystemClock()
    )


def lies(server: S3Server, prefix: str) -> list[dict[str, Any]]:
    found = server.client().list_object_versions(Bucket="locked", Prefix=prefix)
    return [*found.get("Versions", []), *found.get("DeleteMarkers", [])]


# --- servers ---------------------------------------------------------------------------------------------------------


def test_a_real_server_refuses_everything_that_could_undo_a_lock(server):
    report = make_anchor(server).probe()
    assert {attempt.name for attempt in report.attempts} == set(ATTEMPTS)
    expected = MOTO_GIVES_WAY if server.name == "moto" else set()
    assert set(report.weaknesses) == expected
    assert report.lock_seconds == 120
    assert abs(report.skew_ms) < 60_000


def test_an_imitation_that_takes_any_retention_is_found_out_by_name(moto):
    report = make_anchor(moto).probe()
    assert set(report.weaknesses) == MOTO_GIVES_WAY
    answers = {attempt.name: attempt.answer for attempt in report.attempts}
    assert answers["shorten"] == "accepted"
    assert answers["delete"] == "AccessDenied"


def test_a_bucket_without_object_lock_cannot_be_an_anchor(server):
    with pytest.raises(ConfigError, match="without Object Lock"):
        make_anchor(server, "plain").probe()


def test_a_probe_touches_no_log(server):
    prefix = f"{secrets.token_hex(8)}/"
    anchor = make_anchor(server, prefix=prefix)
    anchor.put(LOG_ID, 5, make_checkpoint(5))
    before = lies(server, f"{prefix}{LOG_ID}/")
    anchor.probe()
    assert lies(server, f"{prefix}{LOG_ID}/") == before
    assert {one["Key"].split("/")[1] for one in lies(server, prefix)} == {".probe", LOG_ID}
    assert anchor.sizes(LOG_ID) == [5]


def test_what_earlier_probes_left_is_deleted_once_its_lock_is_over(server, monkeypatch):
    monkeypatch.setattr("ledger.anchors.probe._LOCK_SECONDS", (2,))
    prefix = f"{secrets.token_hex(8)}/"
    anchor = make_anchor(server, prefix=prefix)
    anchor.probe()
    first = {one["VersionId"] for one in lies(server, prefix)}
    time.sleep(3.1)
    anchor.probe()
    assert first
    assert first.isdisjoint({one["VersionId"] for one in lies(server, prefix)})


def test_a_server_that_insists_on_longer_locks_gets_the_shortest_that_it_takes(server):
    with s3_proxy(server) as (reached, wire):
        wire.arm(Fault.REFUSED, "PUT", ".probe/")
        report = make_anchor(reached).probe()
    assert report.lock_seconds == 3600


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET", "HEAD"])
def test_a_server_that_fails_in_the_middle_was_not_tried(server, method):
    """A failure is no refusal: who takes it for one would call an unreachable bucket safe."""
    with s3_proxy(server) as (reached, wire):
        wire.arm(Fault.LOST, method, times=99)
        with pytest.raises(AnchorError):
            make_anchor(reached).probe()


def test_a_refusal_that_was_done_all_the_same_is_no_refusal(moto):
    with s3_proxy(moto) as (reached, wire):
        wire.arm(Fault.KEPT_REFUSED, "PUT", "retention", times=99)
        report = make_anchor(reached).probe()
    assert set(report.weaknesses) == MOTO_GIVES_WAY
    assert {attempt.answer for attempt in report.attempts if attempt.name in MOTO_GIVES_WAY} == {"AccessDenied"}


# --- what follows ----------------------------------------------------------------------------------------------------


class Triable:
    """An anchor whose bucket is as a test says."""

    def __init__(self, *weak: str, error: Exception | None = None) -> None:
        self.weak = weak
        self.error = error
        self.probes = 0
        self.asked: list[str] = []

    def probe(self) -> ProbeReport:
        self.probes += 1
        if self.error is not None:
            raise self.error
        attempts = tuple(ProbeAttempt(name=name, held=name not in self.weak, answer="") for name in ATTEMPTS)
        return ProbeReport(place="s3://b/", probed_ms=1, lock_seconds=120, skew_ms=0, attempts=attempts)

    def put(self, *_: object) -> str:
        self.asked.append("put")
        return "receipt"

    def get(self, *_: object) -> bytes:
        self.asked.append("get")
        return b""

    def sizes(self, *_: object, **__: object) -> list[int]:
        self.asked.append("sizes")
        return []


def use(anchor: ProbedAnchor) -> None:
    anchor.put(LOG_ID, 1, b"")
    anchor.get(LOG_ID, 1)
    anchor.sizes(LOG_ID)


def test_a_bucket_that_holds_is_tried_once_and_used():
    inner = Triable()
    anchor = ProbedAnchor(inner)
    anchor.start()
    use(anchor)
    assert (inner.probes, inner.asked) == (1, ["put", "get", "sizes"])
    assert anchor.report.weaknesses == ()


@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_weakness_stops_the_start_unless_it_was_accepted_by_name(name):
    with pytest.raises(ConfigError, match=name):
        ProbedAnchor(Triable(name)).start()
    with pytest.raises(ConfigError, match=name):
        ProbedAnchor(Triable(name), accepted=[other for other in ATTEMPTS if other != name]).start()
    anchor = ProbedAnchor(Triable(name), accepted=[name])
    anchor.start()
    use(anchor)
    assert anchor.report.weaknesses == (name,)


def test_a_weakness_that_does_not_exist_cannot_be_accepted():
    with pytest.raises(ConfigError, match="everything"):
        ProbedAnchor(Triable(), accepted=["everything"])


def test_a_bucket_that_does_not_answer_is_tried_again_and_not_used_before():
    inner = Triable(error=AnchorError("the bucket does not answer"))
    anchor = ProbedAnchor(inner)
    anchor.start()
    assert anchor.report is None
    for refused in (lambda: anchor.put(LOG_ID, 1, b""), lambda: anchor.get(LOG_ID, 1), lambda: anchor.sizes(LOG_ID)):
        with pytest.raises(AnchorError, match="does not answer"):
            refused()
    assert inner.asked == []
    inner.error = None
    use(anchor)
    assert inner.asked == ["put", "get", "sizes"]


@pytest.mark.parametrize("error", [None, ConfigError("the bucket was created without Object Lock")])
def test_a_bucket_that_turns_out_to_be_weak_after_the_start_is_not_used(error):
    inner = Triable("shorten", error=AnchorError("the bucket does not answer"))
    anchor = ProbedAnchor(inner)
    anchor.start()
    inner.error = error
    with pytest.raises(AnchorError, match="Object Lock" if error else "shorten"):
        anchor.put(LOG_ID, 1, b"")
    assert inner.asked == []


def test_a_clock_that_is_off_shows(server):
    anchor = S3ObjectLockAnchor(
        server.bucket("locked", AnchorError),
        "",
        retention_days=1,
        clock=SimulatedClock(SystemClock().now_ms() + 600_000),
    )
    assert -660_000 < anchor.probe().skew_ms < -540_000


def test_a_clock_that_is_far_behind_locks_nothing(server):
    anchor = S3ObjectLockAnchor(
        server.bucket("locked", AnchorError), "", retention_days=1, clock=SimulatedClock(NOW_MS)
    )
    # A known gap of moto, which machines without Go fall back to: it takes a date that is over.
    with nullcontext() if server.name == "moto" else pytest.raises(AnchorError, match="takes no locked object"):
        anchor.probe()
