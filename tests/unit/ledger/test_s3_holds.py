"""Legal holds over a bucket: what is asked for again, what is remembered, and what is not believed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger import s3_holds
from ledger.errors import AnchorError
from ledger.s3 import S3Version
from ledger.s3_holds import LegalHolds

HOUR_MS = 3_600_000
NOW_MS = 1_000 * HOUR_MS


class Bucket:
    """Versions in the order of their keys, and which of them are held."""

    def __init__(self) -> None:
        self.stored: list[S3Version] = []
        self.held: dict[str, bool] = {}
        self.asked: list[str] = []
        self.failing: set[str] = set()

    def add(self, key: str, modified_ms: int, *, marker: bool = False) -> None:
        one = S3Version(key=f"a/{key}", version="1", latest=True, modified_ms=modified_ms, marker=marker)
        self.stored = sorted([*self.stored, one], key=lambda version: version.key)

    def versions(self, prefix: str) -> Iterator[S3Version]:
        return (one for one in self.stored if one.key.startswith(prefix))

    def hold(self, key: str, version: str, *, on: bool) -> None:
        assert version == "1"
        if key in self.failing:
            raise AnchorError("the bucket does not answer")
        self.asked.append(key.removeprefix("a/"))
        self.held[key.removeprefix("a/")] = on


@pytest.fixture
def bucket() -> Bucket:
    made = Bucket()
    for number in range(6):
        made.add(str(number), NOW_MS + number * HOUR_MS // 2)
    return made


def everything(_name: str) -> bool:
    return True


def test_what_is_held_is_not_asked_for_again_whatever_its_age(bucket):
    holds = LegalHolds(bucket)
    assert [holds.apply("a/", on=True, anew=False, wanted=everything) for _ in range(3)] == [6, 0, 0]


def test_what_comes_later_is_held_by_the_next_application_in_whatever_order(bucket):
    holds = LegalHolds(bucket)
    holds.apply("a/", on=True, anew=False, wanted=everything)
    newest_ms = NOW_MS + 5 * HOUR_MS // 2
    # By a slow writer: its write began before others that are held already.
    bucket.add("0-late", newest_ms - HOUR_MS + 1)
    bucket.add("6", newest_ms + 1)
    bucket.asked.clear()
    assert holds.apply("a/", on=True, anew=False, wanted=everything) == 2
    assert bucket.asked == ["0-late", "6"]


def test_what_ended_meanwhile_is_held_again_where_nothing_is_believed(bucket):
    ours, others = LegalHolds(bucket), LegalHolds(bucket)
    ours.apply("a/", on=True, anew=False, wanted=everything)
    assert others.apply("a/", on=False, anew=False, wanted=everything) == 6
    assert ours.apply("a/", on=True, anew=True, wanted=everything) == 6
    assert set(bucket.held.values()) == {True}


def test_an_application_that_was_broken_off_is_taken_up_and_leaves_nothing_out(bucket):
    holds = LegalHolds(bucket)
    bucket.failing.add("a/3")
    with pytest.raises(AnchorError):
        holds.apply("a/", on=True, anew=False, wanted=everything)
    bucket.failing.clear()
    assert holds.apply("a/", on=True, anew=False, wanted=everything) == 3
    assert bucket.held == {str(number): True for number in range(6)}


def test_markers_and_what_is_not_locked_are_left_alone(bucket):
    bucket.add("7", NOW_MS, marker=True)
    assert LegalHolds(bucket).apply("a/", on=True, anew=False, wanted=lambda name: name != "2") == 5
    assert "2" not in bucket.held
    assert "7" not in bucket.held


def test_little_is_remembered_of_a_log_of_years(bucket, monkeypatch):
    monkeypatch.setattr(s3_holds, "_MOST_RECENT", 10)
    for number in range(1000):
        bucket.add(f"{number:06d}", NOW_MS + number * HOUR_MS)
    holds = LegalHolds(bucket)
    assert holds.apply("a/", on=True, anew=False, wanted=everything) == 1006
    assert len(holds._held["a/"].recent) <= 10
    assert holds.apply("a/", on=True, anew=False, wanted=everything) == 0
