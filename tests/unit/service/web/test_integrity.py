"""The bar turns red, in words, whenever something is stale or failing, and never otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ledger.clock import SimulatedClock
from ledger.errors import ConflictError
from ledger.merkle import RootHash
from ledger.ports import AnchorReceipt
from ledger.proofs import TreeHead
from ledger.publisher import AnchorStatus, Published
from service.web.integrity import look

NOW = 1_763_546_400_000


def state(
    *,
    sequenced: int = 10,
    size: int | None = 10,
    age_ms: int = 2_000,
    anchored: int | None = 10,
    anchor_age_ms: int = 2_000,
    retain_until_ms: int | None = None,
    anchor_failure: str | None = None,
    failure: Exception | None = None,
    trouble: str | None = None,
    healthy: bool = True,
    interval: float = 1.0,
):
    published = None
    if size is not None:
        head = TreeHead(size=size, root=RootHash(b"\1" * 32))
        published = Published(b"", head, (NOW - age_ms) // 1000)
    receipt = None
    if anchored is not None:
        receipt = AnchorReceipt(
            size=anchored, location="s3://b", anchored_ms=NOW - anchor_age_ms, retain_until_ms=retain_until_ms
        )
    return look(
        SimpleNamespace(
            publishing=SimpleNamespace(
                published=published,
                anchor_status=AnchorStatus(receipt, anchor_failure),
                failure=failure,
                trouble=trouble,
            ),
            sequencer=SimpleNamespace(waiting_records=3, healthy=healthy),
            settings=SimpleNamespace(checkpoint_interval_seconds=interval),
            clock=SimulatedClock(NOW),
            sequenced_size=lambda: sequenced,
        )
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="all covered"),
        pytest.param({"age_ms": 86_400_000}, id="old, but nothing waits"),
        pytest.param({"sequenced": 12}, id="records wait, but not for long"),
        pytest.param({"anchored": 8, "anchor_age_ms": 5_000}, id="the anchor is a little behind"),
        pytest.param({"sequenced": 12, "age_ms": 60_000, "interval": 10.0}, id="late only for a shorter interval"),
        pytest.param({"retain_until_ms": NOW + 1}, id="locked"),
    ],
)
def test_no_trouble_is_made_of_what_is_well(changes):
    assert state(**changes).troubles == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequenced": 12, "age_ms": 240_000}, "The last checkpoint is 4 min old, and 2 records wait for the next."),
        ({"size": None, "anchored": None}, "No checkpoint has been published yet."),
        ({"age_ms": -120_000}, "The clock is 2 min behind the last checkpoint."),
        ({"anchored": None}, "No checkpoint has been anchored yet."),
        (
            {"anchored": 8, "anchor_age_ms": 120_000},
            "The newest anchored copy is 2 leaves behind the last checkpoint.",
        ),
        ({"anchor_failure": "no answer"}, "The last attempt to anchor failed and is being repeated: no answer."),
        ({"retain_until_ms": NOW}, "The lock of the newest anchored copy ended at 2025-11-19 10:00:00 UTC."),
        ({"trouble": "disk full"}, "The last attempt to publish failed and is being repeated: disk full."),
        (
            {"failure": ConflictError("another checkpoint")},
            "Publishing has ended for good; a person must look: another checkpoint.",
        ),
        (
            {"healthy": False},
            "The last transaction of the sequencer failed; nothing is acknowledged until one holds.",
        ),
    ],
)
def test_each_trouble_has_its_sentence(changes, words):
    assert state(**changes).troubles == (words,)


def test_troubles_add_up():
    found = state(healthy=False, trouble="x", anchor_failure="y", sequenced=99, age_ms=999_000).troubles
    assert len(found) == 4


def test_lags_are_counted_from_what_there_is():
    assert state(sequenced=12, anchored=7).behind == 2
    assert state(sequenced=12, anchored=7).anchor_behind == 3
    assert state(size=None, anchored=None).behind == 10
    assert state().waiting == 3
