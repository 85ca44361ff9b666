"""The bundle in force: checked against its revision, kept on disk, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcement.config import BundleSettings
from enforcement.policy_source import PolicySource, StaleBundle
from enforcement.ports import ActiveBundle, BundleAnswer, NoBundle, Unavailable, UnchangedBundle
from ledger.clock import SimulatedClock
from ledger.envelopes import ED25519, MLDSA44
from ledger.keys import generate_key
from ledger.signers.local import LocalEnvelopeSigner
from policies.bundles import Bundle
from policies.signatures import sign_bundle
from tests.support.gateway import simple_bundle
from tests.support.gateway_keys import NOON_MS

FIRST, SECOND = simple_bundle("first"), simple_bundle("second")


class Source:
    """Answers what the test says, and remembers what it was asked."""

    def __init__(self, *answers: BundleAnswer) -> None:
        self.answers = list(answers)
        self.asked: list[str | None] = []
        self.waited: list[float] = []
        self.signatures: dict[str, bytes] = {}

    async def signature(self, revision: str) -> bytes | Unavailable:
        return self.signatures.get(revision, Unavailable("http_404"))

    async def fetch(self, known_revision: str | None, *, wait_seconds: float = 0.0) -> BundleAnswer:
        self.waited.append(wait_seconds)
        self.asked.append(known_revision)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def active(bundle: Bundle) -> ActiveBundle:
    return ActiveBundle(bundle.revision, bundle.archive())


def source_of(directory: Path, *answers: BundleAnswer, clock: SimulatedClock | None = None) -> PolicySource:
    settings = BundleSettings(poll_seconds=0.001, max_age_seconds=3600)
    return PolicySource(Source(*answers), directory, settings, clock or SimulatedClock(NOON_MS))


def refreshed(source: PolicySource, times: int = 1) -> PolicySource:
    for _ in range(times):
        asyncio.run(source.refresh())
    return source


def test_the_bundle_of_the_service_decides(tmp_path: Path) -> None:
    source = refreshed(source_of(tmp_path, active(FIRST)))
    assert source.current() == FIRST
    assert source.revision == FIRST.revision


def test_without_an_answer_nothing_decides(tmp_path: Path) -> None:
    assert source_of(tmp_path, Unavailable("unreachable")).current() is None
    assert refreshed(source_of(tmp_path, Unavailable("unreachable"))).current() is None


def test_the_service_is_asked_for_what_is_not_at_hand(tmp_path: Path) -> None:
    inner = Source(active(FIRST), UnchangedBundle())
    source = PolicySource(inner, tmp_path, BundleSettings(), SimulatedClock(NOON_MS))
    refreshed(source, 2)
    assert inner.asked == [None, FIRST.revision]
    assert source.current() == FIRST


def test_a_new_bundle_takes_over(tmp_path: Path) -> None:
    assert refreshed(source_of(tmp_path, active(FIRST), active(SECOND)), 2).current() == SECOND


@pytest.mark.parametrize(
    "bad",
    [
        ActiveBundle(SECOND.revision, FIRST.archive()),
        ActiveBundle(SECOND.revision, b"not an archive"),
        ActiveBundle(SECOND.revision, SECOND.archive()[:-1]),
        ActiveBundle(SECOND.revision, b""),
        Unavailable("http_500"),
    ],
)
def test_what_is_not_the_bundle_it_is_said_to_be_does_not_replace_the_one_in_force(
    tmp_path: Path, bad: BundleAnswer
) -> None:
    assert refreshed(source_of(tmp_path, active(FIRST), bad), 2).current() == FIRST
    assert refreshed(source_of(tmp_path / "new", bad)).current() is None


def test_the_kept_bundle_decides_when_the_service_is_away_at_start(tmp_path: Path) -> None:
    refreshed(source_of(tmp_path, active(FIRST)))
    source = refreshed(source_of(tmp_path, Unavailable("unreachable")))
    assert source.current() == FIRST


def test_a_bundle_that_nobody_confirms_gets_too_old_to_the_millisecond(tmp_path: Path) -> None:
    clock = SimulatedClock(NOON_MS)
    source = refreshed(source_of(tmp_path, active(FIRST), Unavailable("unreachable"), clock=clock), 2)
    clock.advance(3_600_000)
    assert source.current() == FIRST
    clock.advance(1)
    assert source.current() == StaleBundle(FIRST.revision)
    assert source.revision == FIRST.revision


def test_confirmation_makes_it_young_again(tmp_path: Path) -> None:
    clock = SimulatedClock(NOON_MS)
    source = refreshed(source_of(tmp_path, active(FIRST), UnchangedBundle(), clock=clock))
    clock.advance(3_600_001)
    assert isinstance(source.current(), StaleBundle)
    assert refreshed(source).current() == FIRST


def test_age_counts_over_a_restart(tmp_path: Path) -> None:
    refreshed(source_of(tmp_path, active(FIRST)))
    later = SimulatedClock(NOON_MS + 3_600_001)
    assert source_of(tmp_path, Unavailable("unreachable"), clock=later).current() == StaleBundle(FIRST.revision)


@pytest.mark.parametrize("restarted", [True, False])
def test_a_clock_that_is_set_back_keeps_no_bundle_young(tmp_path: Path, restarted: bool) -> None:
    source = refreshed(source_of(tmp_path, active(FIRST), Unavailable("unreachable"), clock=SimulatedClock(NOON_MS)))
    clock = SimulatedClock(NOON_MS - 30 * 86_400_000)
    source._clock = clock  # no clock of ours goes back
    if restarted:
        source = source_of(tmp_path, Unavailable("unreachable"), clock=clock)
    assert source.current() == FIRST
    clock.advance(3_600_000)
    assert source.current() == FIRST
    clock.advance(1)
    assert source.current() == StaleBundle(FIRST.revision)
    again = source_of(tmp_path, Unavailable("unreachable"), clock=clock)
    assert again.current() == StaleBundle(FIRST.revision), "a restart begins no second time"


def test_a_late_confirmation_is_kept_over_a_restart_within_a_minute(tmp_path: Path) -> None:
    clock = SimulatedClock(NOON_MS)
    source = refreshed(source_of(tmp_path, active(FIRST), UnchangedBundle(), clock=clock))
    clock.advance(59_999)
    refreshed(source)
    clock.advance(1)
    refreshed(source)
    at_the_edge = SimulatedClock(NOON_MS + 60_000 + 3_600_000)
    assert source_of(tmp_path, Unavailable("unreachable"), clock=at_the_edge).current() == FIRST


def test_when_the_service_says_that_none_is_in_force_none_is_even_after_a_restart(tmp_path: Path) -> None:
    assert refreshed(source_of(tmp_path, active(FIRST), NoBundle()), 2).current() is None
    assert source_of(tmp_path, Unavailable("unreachable")).current() is None


def spoil_archive(directory: Path) -> None:
    (directory / "bundle.json").write_bytes(SECOND.archive())


def truncate_archive(directory: Path) -> None:
    (directory / "bundle.json").write_bytes(FIRST.archive()[:-3])


def remove_note(directory: Path) -> None:
    (directory / "bundle-confirmed.json").unlink()


def spoil_note(directory: Path) -> None:
    (directory / "bundle-confirmed.json").write_text('{"revision":"x"}')


def forge_time(directory: Path) -> None:
    (directory / "bundle-confirmed.json").write_text(f'{{"revision":"{FIRST.revision}","confirmed_ms":true}}')


@pytest.mark.parametrize("damage", [spoil_archive, truncate_archive, remove_note, spoil_note, forge_time])
def test_a_kept_bundle_that_is_not_the_confirmed_one_is_not_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    refreshed(source_of(tmp_path, active(FIRST)))
    damage(tmp_path)
    assert source_of(tmp_path, Unavailable("unreachable")).current() is None


def test_a_disk_that_fails_does_not_stop_decisions(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").mkdir()  # the archive cannot be put there
    source = source_of(tmp_path, active(FIRST))
    assert refreshed(source).current() == FIRST


def test_polling_goes_on_after_a_fault(tmp_path: Path) -> None:
    inner = Source(active(FIRST))
    fetch, faults = inner.fetch, [RuntimeError("bug")]

    async def flaky(known: str | None, *, wait_seconds: float = 0.0) -> BundleAnswer:
        if known is not None and faults:
            raise faults.pop()
        return await fetch(known, wait_seconds=wait_seconds)

    inner.fetch = flaky  # type: ignore[method-assign]  # fails once
    source = PolicySource(inner, tmp_path, BundleSettings(poll_seconds=0.001), SimulatedClock(NOON_MS))

    async def run() -> None:
        await source.start()
        inner.answers = [active(SECOND)]
        async with asyncio.timeout(5):
            while source.current() != SECOND:  # noqa: ASYNC110  # a background task brings it about
                await asyncio.sleep(0.001)
        await source.stop()

    asyncio.run(run())
    assert not faults


class SlowToPrepare:
    """An evaluator that gets ready when it is told to."""

    def __init__(self) -> None:
        self.begun, self.done = asyncio.Event(), asyncio.Event()

    async def prepare(self, _: Bundle) -> None:
        self.begun.set()
        await self.done.wait()


@pytest.mark.parametrize(("later", "expected"), [(NoBundle(), None), (active(SECOND), SECOND)])
def test_what_was_said_while_a_bundle_was_prepared_is_not_undone_by_it(
    tmp_path: Path, later: BundleAnswer, expected: Bundle | None
) -> None:
    async def run() -> PolicySource:
        slow, inner = SlowToPrepare(), Source(active(FIRST), later)
        source = PolicySource(inner, tmp_path, BundleSettings(), SimulatedClock(NOON_MS), evaluator=slow)
        first = asyncio.create_task(source.refresh())
        async with asyncio.timeout(10):
            await slow.begun.wait()
            second = asyncio.create_task(source.refresh())
            await until_asked(inner, 2)
            if expected is None:
                await second
            slow.done.set()
            await asyncio.gather(first, second)
        return source

    assert asyncio.run(run()).current() == expected


async def until_asked(inner: Source, times: int) -> None:
    async with asyncio.timeout(10):
        while len(inner.asked) < times:  # noqa: ASYNC110  # the source has no event
            await asyncio.sleep(0.001)


def test_a_service_that_holds_questions_is_asked_again_whatever_the_pause_between_polls(tmp_path: Path) -> None:
    inner = Source(
        ActiveBundle(FIRST.revision, FIRST.archive(), may_ask_again=True), UnchangedBundle(may_ask_again=True)
    )
    source = PolicySource(inner, tmp_path, BundleSettings(poll_seconds=3600, wait_seconds=7), SimulatedClock(NOON_MS))

    async def scenario() -> None:
        await source.start()
        await until_asked(inner, 3)
        await source.stop()

    asyncio.run(scenario())
    assert inner.waited[:3] == [0.0, 7, 7], "the first answer is not waited for"


def test_who_asked_for_it_hears_of_another_bundle_once(tmp_path: Path) -> None:
    heard: list[str | None] = []
    inner = Source(active(FIRST), active(FIRST), UnchangedBundle(), ActiveBundle(SECOND.revision, b"x"), active(SECOND))
    source = PolicySource(
        inner, tmp_path, BundleSettings(), SimulatedClock(NOON_MS), on_adopted=lambda: heard.append(source.revision)
    )
    refreshed(source, 5)
    assert heard == [FIRST.revision, SECOND.revision]


# --- getting ready


class Evaluator:
    """Notes what it was to get ready for, and what decided meanwhile."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.source: PolicySource | None = None
        self.prepared: list[tuple[Bundle, object]] = []

    async def prepare(self, bundle: Bundle) -> None:
        self.prepared.append((bundle, self.source.current() if self.source is not None else None))
        if self.fails:
            raise RuntimeError


def preparing(directory: Path, evaluator: Evaluator, *answers: BundleAnswer) -> PolicySource:
    made = PolicySource(
        Source(*answers),
        directory,
        BundleSettings(poll_seconds=3600),
        SimulatedClock(NOON_MS),
        evaluator=evaluator,
    )
    evaluator.source = made
    return made


def test_the_bundle_before_decides_until_the_new_one_is_ready(tmp_path: Path) -> None:
    evaluator = Evaluator()
    source = preparing(tmp_path, evaluator, active(FIRST), active(SECOND), active(SECOND))
    refreshed(source, 3)
    assert evaluator.prepared == [(FIRST, None), (SECOND, FIRST)], "once each, and before it is taken up"
    assert source.current() == SECOND


def test_a_bundle_that_cannot_be_made_ready_is_taken_up_all_the_same(tmp_path: Path) -> None:
    """Its own decisions deny and say why; the bundle before has been replaced."""
    source = preparing(tmp_path, Evaluator(fails=True), active(FIRST), active(SECOND))
    assert refreshed(source, 2).current() == SECOND


def test_a_bundle_that_was_kept_is_made_ready_at_the_start(tmp_path: Path) -> None:
    refreshed(source_of(tmp_path, active(FIRST)))
    evaluator = Evaluator()

    async def scenario() -> None:
        source = preparing(tmp_path, evaluator, Unavailable("unreachable"))
        await source.start()
        await source.stop()

    asyncio.run(scenario())
    assert evaluator.prepared == [(FIRST, FIRST)]


# --- who must have signed


SIGNERS = [
    LocalEnvelopeSigner(generate_key("bundle", algorithm, "ann", created_ms=1), purpose="bundle")
    for algorithm in (ED25519, MLDSA44)
]
TRUSTED = [signer.envelope_key for signer in SIGNERS]


def trusting(directory: Path, *answers: BundleAnswer, **signatures: bytes) -> PolicySource:
    inner = Source(*answers)
    inner.signatures = {bundle.revision: signatures[name] for name, bundle in NAMED.items() if name in signatures}
    return PolicySource(inner, directory, BundleSettings(), SimulatedClock(NOON_MS), trusted=TRUSTED)


NAMED = {"first": FIRST, "second": SECOND}


def test_a_bundle_that_everybody_has_signed_who_must_decides_also_after_a_restart(tmp_path: Path) -> None:
    signed = {"first": sign_bundle(FIRST, SIGNERS)}
    assert refreshed(trusting(tmp_path, active(FIRST), **signed)).current() == FIRST
    assert trusting(tmp_path, Unavailable("unreachable")).current() == FIRST


@pytest.mark.parametrize(
    "second",
    [
        None,
        b"",
        b"{}",
        sign_bundle(FIRST, SIGNERS),
        sign_bundle(SECOND, SIGNERS[:1]),
        sign_bundle(SECOND, SIGNERS)[:-2],
    ],
    ids=["none", "empty", "no envelope", "of another", "half", "cut off"],
)
def test_a_bundle_that_is_not_signed_so_is_not_taken_up_and_the_one_before_stays(
    tmp_path: Path, second: bytes | None
) -> None:
    signed = {"first": sign_bundle(FIRST, SIGNERS), **({} if second is None else {"second": second})}
    source = refreshed(trusting(tmp_path, active(FIRST), active(SECOND), **signed), 2)
    assert source.current() == FIRST
    assert trusting(tmp_path, Unavailable("unreachable")).current() == FIRST


def test_a_kept_bundle_from_before_anybody_had_to_sign_decides_no_more(tmp_path: Path) -> None:
    refreshed(source_of(tmp_path, active(FIRST)))
    assert trusting(tmp_path, Unavailable("unreachable")).current() is None


def test_what_the_service_says_of_a_canary_is_passed_on_and_silence_changes_nothing(tmp_path: Path) -> None:
    told: list[str | None] = []
    answers = [
        ActiveBundle(FIRST.revision, FIRST.archive(), canary=SECOND.revision),
        UnchangedBundle(canary=SECOND.revision),
        Unavailable("unreachable"),
        UnchangedBundle(),
        NoBundle(),
    ]
    settings, clock = BundleSettings(), SimulatedClock(NOON_MS)
    refreshed(PolicySource(Source(*answers), tmp_path, settings, clock, on_canary=told.append), 5)
    assert told == [SECOND.revision, SECOND.revision, None, None]
