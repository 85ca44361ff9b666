"""The registry: what is active follows from the log, and no record speaks of a bundle that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ledger.bodies import BundleEvent
from ledger.commitments import open_commitment
from ledger.errors import ConflictError, PolicySyntaxError, StorageError, UnknownBundleError
from ledger.ports import Acknowledgement, Draft
from policies.bundle_lives import Actor, Foresight, RecordedEvent, Stage, derive_state
from policies.bundles import Bundle, bundle_from_files
from policies.evaluate import Evaluator
from policies.registry import Registry
from tests.support.policies import PASSING_CASE, cedar_bundle, cedar_files

ALICE = Actor(pseudonym="a" * 32, role="admin", key_id="key-1")
BOB = Actor(pseudonym="b" * 32, role="approver", key_id="key-1")
SERVICE = Actor(pseudonym="0" * 32, role="service", key_id="key-1")


def ready_bundle(number: int, **files: bytes) -> Bundle:
    """Return a bundle with a test case that passes."""
    policy = f'@id("r{number}") permit(principal, action, resource);'
    return bundle_from_files({**cedar_files(policy), **PASSING_CASE, **files})


A, B, C, D = map(ready_bundle, range(4))
UNTESTED = cedar_bundle('@id("r") permit(principal, action, resource);')
FAILING = ready_bundle(
    9, **{"tests/always.yaml": PASSING_CASE["tests/always.yaml"].replace(b"INDETERMINATE", b"PERMIT")}
)
BROKEN = cedar_bundle("permit(principal, action, resource);")


class MemoryLedger:
    """Sink, history and bundle store in one, with the order of writes noted; real enough to be restarted on."""

    def __init__(self) -> None:
        self.archives: dict[tuple[str, str], bytes] = {}
        self.events: list[RecordedEvent] = []
        self.drafts: list[Draft] = []
        self.steps: list[str] = []
        self.fail_put = False
        self.fail_append = False
        self.key_id = "key-1"
        self.foresight = Foresight(replayed=7)
        self.foreseen: list[str] = []

    def put(self, log_id: str, revision: str, archive: bytes) -> None:
        if self.fail_put:
            raise StorageError("the disk is full")
        if self.archives.setdefault((log_id, revision), archive) != archive:
            raise ConflictError("another archive stands there")
        self.steps.append("put")

    def get(self, log_id: str, revision: str) -> bytes:
        try:
            return self.archives[log_id, revision]
        except KeyError as error:
            raise UnknownBundleError("no such archive") from error

    def bundle_events(self, log_id: str) -> Sequence[RecordedEvent]:
        assert log_id == "acme"
        return tuple(self.events)

    async def foresee(self, bundle: Bundle) -> Foresight:
        self.foreseen.append(bundle.revision)
        return self.foresight

    async def append(self, drafts: Sequence[Draft]) -> list[Acknowledgement]:
        await asyncio.sleep(0)
        if self.fail_append:
            raise StorageError("the log is away")
        acknowledged = []
        for draft in drafts:
            assert isinstance(draft.body, BundleEvent)
            index = len(self.events)
            self.events.append(RecordedEvent(index, 1000 + index, draft.body, self.key_id))
            self.drafts.append(draft)
            self.steps.append(draft.body.action)
            acknowledged.append(Acknowledgement(f"record-{index}", index))
        return acknowledged


@pytest.fixture
def ledger():
    return MemoryLedger()


@pytest.fixture
def registry(ledger, evaluator):
    return open_registry(ledger, evaluator)


def open_registry(ledger: MemoryLedger, evaluator: Evaluator, **options: bool) -> Registry:
    return Registry(
        log_id="acme",
        store=ledger,
        history=ledger,
        sink=ledger,
        evaluator=evaluator,
        tester=lambda: SERVICE,
        foresee=ledger.foresee,
        **options,
    )


def publish(registry: Registry, *bundles: Bundle) -> None:
    async def all_of_them() -> None:
        for bundle in bundles:
            await registry.publish(bundle, ALICE)

    asyncio.run(all_of_them())


def review(registry: Registry, bundle: Bundle, actor: Actor = BOB, verdict: Any = "approved", **known_as: str) -> None:
    asyncio.run(registry.review(bundle.revision, actor, verdict, known_as=known_as))


def activate(registry: Registry, *bundles: Bundle) -> None:
    """Have bundles approved, as far as they are not, and activated."""

    async def all_of_them() -> None:
        for bundle in bundles:
            if not (await registry.life(bundle.revision)).approvals:
                await registry.review(bundle.revision, BOB, "approved")
            await registry.activate(bundle.revision, ALICE)

    asyncio.run(all_of_them())


def active(registry: Registry) -> str | None:
    return asyncio.run(registry.state()).active


def test_nothing_is_active_before_the_first_activation(registry):
    assert active(registry) is None
    assert asyncio.run(registry.active_bundle()) is None
    publish(registry, A)
    assert active(registry) is None


def test_published_bundle_is_stored_before_it_is_recorded(registry, ledger):
    publish(registry, A)
    assert ledger.steps == ["put", "published", "tested"]
    event, tested = (item.event for item in ledger.events)
    assert (event.name, event.revision, event.engine) == ("test", A.revision, "cedar")
    assert (event.actor, event.actor_role, event.previous_revision) == (ALICE.pseudonym, "admin", None)
    assert (tested.actor, tested.actor_role) == (SERVICE.pseudonym, "service")
    assert (tested.cases, tested.failures, tested.uncovered_rules, tested.uncovered) == (1, 0, 1, ("r0",))
    assert asyncio.run(registry.bundle(A.revision)) == A


def test_publishing_again_records_nothing(registry, ledger):
    publish(registry, A, A)
    assert [item.event.action for item in ledger.events] == ["published", "tested"]


def test_two_publishing_at_once_record_once(registry, ledger):
    async def both() -> None:
        await asyncio.gather(registry.publish(A, ALICE), registry.publish(A, ALICE))

    asyncio.run(both())
    assert [item.event.action for item in ledger.events] == ["published", "tested"]


def test_broken_bundle_is_neither_stored_nor_recorded(registry, ledger):
    with pytest.raises(PolicySyntaxError, match=r"policy\.cedar:1"):
        publish(registry, BROKEN)
    assert ledger.steps == []


def test_store_that_fails_leaves_no_record(registry, ledger):
    ledger.fail_put = True
    with pytest.raises(StorageError):
        publish(registry, A)
    assert ledger.events == []


def test_publishing_after_a_crash_between_store_and_record_completes_it(registry, ledger):
    ledger.fail_append = True
    with pytest.raises(StorageError):
        publish(registry, A)
    with pytest.raises(UnknownBundleError):
        asyncio.run(registry.bundle(A.revision))
    ledger.fail_append = False
    publish(registry, A)
    assert asyncio.run(registry.bundle(A.revision)) == A


def test_activation_names_what_was_active_before(registry, ledger):
    publish(registry, A, B)
    activate(registry, A, B)
    events = [item.event for item in ledger.events if item.event.action == "activated"]
    assert [(event.revision, event.previous_revision) for event in events] == [
        (A.revision, None),
        (B.revision, A.revision),
    ]
    assert asyncio.run(registry.active_bundle()) == B


def test_activating_the_active_bundle_records_nothing(registry, ledger):
    publish(registry, A)
    activate(registry, A, A)
    assert ledger.steps == ["put", "published", "tested", "reviewed", "activated"]


@pytest.mark.parametrize("revision", [B.revision, "0" * 64, "", "x" * 1000])
def test_bundle_that_is_not_published_cannot_be_activated(registry, ledger, revision):
    publish(registry, A)
    with pytest.raises(UnknownBundleError):
        asyncio.run(registry.activate(revision, ALICE))
    assert len(ledger.events) == 2


def test_archive_that_is_only_stored_is_not_published(registry, ledger):
    ledger.put("acme", A.revision, A.archive())
    with pytest.raises(UnknownBundleError):
        asyncio.run(registry.activate(A.revision, ALICE))


def test_bundle_that_no_longer_loads_cannot_be_activated(registry, ledger):
    """Published under an engine that took it, activated under one that does not."""
    ledger.put("acme", BROKEN.revision, BROKEN.archive())
    ledger.events += [
        event("published", BROKEN),
        event("tested", BROKEN, cases=1),
        event("reviewed", BROKEN, actor="b" * 32, verdict="approved"),
    ]
    with pytest.raises(PolicySyntaxError):
        asyncio.run(registry.activate(BROKEN.revision, ALICE))
    assert len(ledger.events) == 3


@pytest.mark.parametrize("archive", [B.archive(), b"", A.archive()[:-1], A.archive() + b"\n"])
def test_store_that_holds_other_bytes_is_not_believed(registry, ledger, archive):
    publish(registry, A)
    activate(registry, A)
    ledger.archives["acme", A.revision] = archive
    with pytest.raises(StorageError):
        asyncio.run(registry.bundle(A.revision))
    with pytest.raises(StorageError):
        asyncio.run(registry.active_bundle())


def test_rollback_goes_back_step_by_step(registry, ledger):
    publish(registry, A, B, C)
    activate(registry, A, B, C)
    assert asyncio.run(registry.roll_back(ALICE)).active == B.revision
    assert asyncio.run(registry.roll_back(ALICE)).active == A.revision
    events = [item.event for item in ledger.events if item.event.action == "rolled_back"]
    assert [(event.revision, event.previous_revision) for event in events] == [
        (B.revision, C.revision),
        (A.revision, B.revision),
    ]
    with pytest.raises(ConflictError, match="no bundle was active before"):
        asyncio.run(registry.roll_back(ALICE))


def test_rollback_after_a_bundle_came_back_leads_to_what_it_replaced(registry):
    publish(registry, A, B)
    activate(registry, A, B, A)
    assert asyncio.run(registry.roll_back(ALICE)).active == B.revision
    activate(registry, A)
    assert asyncio.run(registry.roll_back(ALICE)).active == B.revision


def test_rollback_before_any_activation_is_refused(registry):
    publish(registry, A)
    with pytest.raises(ConflictError):
        asyncio.run(registry.roll_back(ALICE))


def test_state_after_a_restart_is_the_state_before(registry, ledger, evaluator):
    publish(registry, A, B, C)
    activate(registry, A, B)
    asyncio.run(registry.roll_back(ALICE))
    activate(registry, C)
    before = asyncio.run(registry.state())
    after = asyncio.run(open_registry(ledger, evaluator).state())
    assert after == before
    assert after.active == C.revision
    assert list(after.published) == [A.revision, B.revision, C.revision]


def test_record_that_fails_changes_nothing(registry, ledger):
    publish(registry, A, B)
    activate(registry, A)
    ledger.fail_append = True
    for step in (registry.activate(B.revision, ALICE), registry.roll_back(ALICE)):
        with pytest.raises((StorageError, ConflictError)):
            asyncio.run(step)
    assert active(registry) == A.revision


def test_comment_is_committed_to_and_never_in_the_open(registry, ledger):
    asyncio.run(registry.publish(A, ALICE, "as agreed with Bob"))
    asyncio.run(registry.review(A.revision, BOB, "approved", "as agreed with Bob"))
    asyncio.run(registry.activate(A.revision, ALICE, "as agreed with Bob"))
    digests = set()
    for draft in ledger.drafts:
        body = draft.body
        if body.action == "tested":
            continue
        assert isinstance(body, BundleEvent)
        assert body.comment is not None
        assert "Bob" not in repr(body)
        (opening,) = draft.openings
        open_commitment("comment", bytes.fromhex(body.comment.digest), opening.salt, opening.payload)
        assert opening.payload == b"as agreed with Bob"
        digests.add(body.comment.digest)
    assert len(digests) == 3


def test_history_is_that_of_the_log(registry, ledger):
    publish(registry, A)
    assert list(asyncio.run(registry.history())) == ledger.events


# --- the state that events add up to ---------------------------------------------------------------------------------


def event(action: Any, bundle: Bundle, key_id: str = "key-1", actor: str = "a" * 32, **members: Any) -> RecordedEvent:
    body = BundleEvent(
        action=action,
        name="test",
        revision=bundle.revision,
        engine="cedar",
        actor=actor,
        actor_role="admin",
        **members,
    )
    return RecordedEvent(0, 0, body, key_id)


def state_of(*steps: tuple[str, Bundle]):
    return derive_state([event(action, bundle) for action, bundle in steps])


def test_steps_of_the_life_cycle_do_not_activate():
    state = state_of(("published", A), ("tested", A), ("reviewed", A))
    assert (state.active, state.previous, list(state.published)) == (None, None, [A.revision])


def test_retired_bundle_stays_published_and_cannot_come_back(registry, ledger):
    publish(registry, A, B)
    activate(registry, A, B)
    ledger.events.append(event("retired", A))
    assert asyncio.run(registry.bundle(A.revision)) == A
    for step in (registry.activate(A.revision, ALICE), registry.roll_back(ALICE)):
        with pytest.raises(ConflictError, match="retired"):
            asyncio.run(step)
    publish(registry, A)
    with pytest.raises(ConflictError, match="retired"):
        asyncio.run(registry.activate(A.revision, ALICE))


def test_rollback_record_further_back_is_followed():
    state = state_of(("activated", A), ("activated", B), ("activated", C), ("rolled_back", A))
    assert (state.active, state.previous) == (A.revision, None)


def test_rollback_record_to_what_was_never_active_is_followed():
    state = state_of(("activated", A), ("rolled_back", D))
    assert (state.active, state.previous) == (D.revision, None)


def test_no_events_give_no_state():
    assert state_of() == derive_state([])
    assert derive_state([]).active is None


# --- tests and reviews -----------------------------------------------------------------------------------------------


def stage(registry: Registry, bundle: Bundle) -> Stage:
    return asyncio.run(registry.life(bundle.revision)).stage


def refused(registry: Registry, bundle: Bundle, why: str) -> None:
    with pytest.raises(ConflictError, match=why):
        asyncio.run(registry.activate(bundle.revision, BOB))


def test_a_bundle_goes_through_its_stages(registry):
    publish(registry, A, B)
    assert stage(registry, A) is Stage.TESTED
    review(registry, A)
    assert stage(registry, A) is Stage.REVIEWED
    activate(registry, A)
    assert stage(registry, A) is Stage.ACTIVE
    activate(registry, B)
    assert stage(registry, A) is Stage.REVIEWED
    asyncio.run(registry.retire(A.revision, BOB))
    assert stage(registry, A) is Stage.RETIRED


def test_a_bundle_without_cases_stays_a_draft_and_is_neither_approved_nor_activated(registry):
    publish(registry, UNTESTED)
    assert stage(registry, UNTESTED) is Stage.DRAFT
    with pytest.raises(ConflictError, match="no test case; it cannot be approved"):
        review(registry, UNTESTED)
    refused(registry, UNTESTED, "no test case")


def test_a_bundle_whose_cases_fail_is_published_as_a_draft_and_goes_no_further(registry):
    publish(registry, FAILING)
    assert stage(registry, FAILING) is Stage.DRAFT
    with pytest.raises(ConflictError, match="1 of the bundle's 1 test cases fail; it cannot be approved"):
        review(registry, FAILING)
    refused(registry, FAILING, "1 of the bundle's 1 test cases fail")


def test_a_bundle_whose_cases_cannot_be_read_is_not_published(registry, ledger):
    with pytest.raises(PolicySyntaxError, match=r"tests/always\.yaml"):
        publish(registry, ready_bundle(1, **{"tests/always.yaml": b"cases: 5"}))
    assert ledger.steps == []


def test_what_was_published_before_there_were_tests_is_tested_when_it_is_published_again(registry, ledger):
    ledger.put("acme", A.revision, A.archive())
    ledger.events.append(event("published", A))
    refused(registry, A, "not run yet")
    publish(registry, A)
    assert ledger.steps[-1] == "tested"
    assert stage(registry, A) is Stage.TESTED


def test_a_later_run_that_fails_takes_the_passing_one_back(registry, ledger):
    publish(registry, A)
    review(registry, A)
    ledger.events.append(event("tested", A, cases=1, failures=1))
    refused(registry, A, "test cases fail")
    asyncio.run(registry.test(A.revision))
    activate(registry, A)


def test_unreviewed_bundle_is_not_activated(registry, ledger):
    publish(registry, A)
    refused(registry, A, "nobody but the bundle's author has approved it")
    assert active(registry) is None


def test_the_author_cannot_approve_his_own_bundle_in_whatever_role(registry, ledger):
    publish(registry, A)
    for role in ("admin", "approver"):
        with pytest.raises(ConflictError, match="author cannot approve"):
            review(registry, A, Actor(ALICE.pseudonym, role, "key-1"))
    assert ledger.steps == ["put", "published", "tested"]


def test_an_approval_of_the_author_that_the_log_holds_counts_for_nothing(registry, ledger):
    publish(registry, A)
    ledger.events.append(event("reviewed", A, verdict="approved"))
    refused(registry, A, "nobody but")


def test_a_review_without_a_verdict_counts_for_nothing(registry, ledger):
    publish(registry, A)
    ledger.events.append(event("reviewed", A, actor="b" * 32))
    refused(registry, A, "nobody but")


def test_an_approval_is_of_one_revision_only(registry):
    publish(registry, A, B)
    review(registry, A)
    refused(registry, B, "nobody but")


def test_a_rejection_undoes_approvals_until_somebody_approves_again(registry):
    publish(registry, A)
    review(registry, A)
    review(registry, A, Actor("c" * 32, "approver", "key-1"), "rejected")
    assert stage(registry, A) is Stage.REJECTED
    refused(registry, A, "rejection")
    review(registry, A)
    activate(registry, A)


def test_the_author_may_reject_what_he_published(registry):
    publish(registry, A)
    review(registry, A)
    review(registry, A, ALICE, "rejected")
    refused(registry, A, "rejection")


def test_the_author_does_not_approve_under_the_pseudonym_that_a_new_key_gives_him(registry, ledger):
    publish(registry, A)
    ledger.key_id = "key-2"
    alice_now = Actor("d" * 32, "approver", "key-2")
    with pytest.raises(ConflictError, match="author cannot approve"):
        review(registry, A, alice_now, **{"key-1": ALICE.pseudonym, "key-2": "d" * 32})
    with pytest.raises(ConflictError, match="key of his pseudonym is not here"):
        review(registry, A, alice_now, **{"key-2": "d" * 32})
    assert ledger.steps[-1] == "tested"


def test_somebody_else_approves_under_a_new_key_and_the_record_says_what_he_was_called_before(registry, ledger):
    publish(registry, A)
    ledger.key_id = "key-2"
    review(registry, A, Actor("e" * 32, "approver", "key-2"), **{"key-1": BOB.pseudonym, "key-2": "e" * 32})
    assert ledger.events[-1].event.also == (BOB.pseudonym,)
    activate(registry, A)


def test_under_one_key_a_record_names_nobody_twice(registry, ledger):
    publish(registry, A)
    review(registry, A, BOB, **{"key-0": "f" * 32, "key-1": BOB.pseudonym})
    assert ledger.events[-1].event.also == ()


def test_a_recorded_approval_under_another_key_that_does_not_say_who_it_was_counts_for_nothing(registry, ledger):
    publish(registry, A)
    ledger.events.append(event("reviewed", A, "key-2", "e" * 32, verdict="approved"))
    refused(registry, A, "nobody but")


def test_alone_one_may_activate_unreviewed_and_the_record_says_so(ledger, evaluator):
    registry = open_registry(ledger, evaluator, solo=True)
    publish(registry, A, UNTESTED)
    asyncio.run(registry.activate(A.revision, ALICE))
    assert ledger.events[-1].event.unreviewed
    refused(registry, UNTESTED, "no test case")
    publish(registry, B)
    review(registry, B)
    activate(registry, B)
    assert not ledger.events[-1].event.unreviewed


def test_alone_one_does_not_activate_what_was_rejected(ledger, evaluator):
    registry = open_registry(ledger, evaluator, solo=True)
    publish(registry, A)
    review(registry, A, ALICE, "rejected")
    refused(registry, A, "rejection")


@pytest.mark.parametrize("revision", [B.revision, "0" * 64, "x"])
def test_steps_on_what_was_not_published_are_refused(registry, ledger, revision):
    publish(registry, A)
    for step in (
        registry.review(revision, BOB, "approved"),
        registry.review(revision, BOB, "rejected"),
        registry.test(revision),
        registry.retire(revision, BOB),
        registry.life(revision),
    ):
        with pytest.raises(UnknownBundleError):
            asyncio.run(step)
    assert len(ledger.events) == 2


def test_the_active_bundle_is_not_retired_and_a_retired_one_not_reviewed(registry, ledger):
    publish(registry, A, B)
    activate(registry, A)
    with pytest.raises(ConflictError, match="active"):
        asyncio.run(registry.retire(A.revision, BOB))
    for _ in range(2):
        asyncio.run(registry.retire(B.revision, BOB))
    assert [item.event.action for item in ledger.events].count("retired") == 1
    with pytest.raises(ConflictError, match="retired"):
        review(registry, B)


def test_an_activation_from_before_there_were_reviews_is_believed():
    state = state_of(("published", A), ("activated", A))
    assert state.active == A.revision
    assert state.lives[A.revision].stage is Stage.ACTIVE


# --- who may roll back -----------------------------------------------------------------------------------------------


@pytest.fixture
def two(registry):
    publish(registry, A, B)
    activate(registry, A, B)
    return registry


def test_one_person_rolls_back_where_no_denial_becomes_a_permit_and_the_record_says_how_many_were_tried(two, ledger):
    assert asyncio.run(two.roll_back(ALICE)).active == A.revision
    event = ledger.events[-1].event
    assert (event.replayed, event.loosened, event.unknown, event.unreviewed) == (7, 0, 0, False)
    assert ledger.foreseen == [A.revision]


@pytest.mark.parametrize("foresight", [Foresight(7, 1, 0), Foresight(7, 0, 1)], ids=["permits more", "unknown"])
def test_otherwise_it_takes_a_second_person(two, ledger, foresight):
    ledger.foresight = foresight
    for _ in range(2):
        with pytest.raises(ConflictError, match="somebody else must approve it first"):
            asyncio.run(two.roll_back(BOB))
        # His own word is no second one; nor is the approval of then, of which he is the author besides.
        review(two, A, BOB)
    assert active(two) == B.revision
    review(two, A, Actor("c" * 32, "approver", "key-1"))
    assert asyncio.run(two.roll_back(BOB)).active == A.revision
    event = ledger.events[-1].event
    assert (event.replayed, event.loosened, event.unknown) == foresight


def test_alone_one_rolls_back_and_the_record_says_so(two, ledger, evaluator):
    ledger.foresight = Foresight(7, 1, 0)
    solo = open_registry(ledger, evaluator, solo=True)
    assert asyncio.run(solo.roll_back(ALICE)).active == A.revision
    assert ledger.events[-1].event.unreviewed


def test_a_rollback_leads_to_no_bundle_that_was_rejected(two):
    review(two, A, BOB, "rejected")
    with pytest.raises(ConflictError, match="rejection"):
        asyncio.run(two.roll_back(ALICE))


def test_a_rollback_that_another_step_overtakes_is_not_made(two, ledger):
    async def overtaken(bundle: Bundle) -> Foresight:
        ledger.events.append(event("rolled_back", A))
        return Foresight()

    two._foresee = overtaken
    with pytest.raises(ConflictError, match="meanwhile"):
        asyncio.run(two.roll_back(ALICE))


# --- the canary


def start_canary(registry: Registry, bundle: Bundle) -> str | None:
    return asyncio.run(registry.start_canary(bundle.revision, BOB)).canary


def end_canary(registry: Registry) -> str | None:
    return asyncio.run(registry.end_canary(BOB)).canary


def test_a_canary_takes_no_approval_and_changes_nothing_that_decides(registry, ledger):
    publish(registry, A, B)
    activate(registry, A)
    assert start_canary(registry, B) == B.revision
    assert active(registry) == A.revision
    assert asyncio.run(registry.life(B.revision)).stage == Stage.TESTED
    event = ledger.events[-1].event
    assert (event.action, event.revision, event.actor) == ("canary_started", B.revision, BOB.pseudonym)


def test_starting_the_same_canary_again_records_nothing(registry, ledger):
    publish(registry, A)
    start_canary(registry, A)
    start_canary(registry, A)
    assert ledger.steps.count("canary_started") == 1


def test_there_is_one_canary_and_another_replaces_it(registry):
    publish(registry, A, B)
    start_canary(registry, A)
    assert start_canary(registry, B) == B.revision


def test_a_canary_ends_once_and_is_named_by_that_record(registry, ledger):
    publish(registry, A)
    start_canary(registry, A)
    assert end_canary(registry) is None
    assert end_canary(registry) is None
    assert ledger.steps.count("canary_ended") == 1
    assert ledger.events[-1].event.revision == A.revision


@pytest.mark.parametrize("step", ["activated", "retired", "rolled back to"])
def test_a_canary_ends_when_it_is_activated_or_retired(registry, step):
    publish(registry, A, B)
    if step == "rolled back to":
        activate(registry, A, B)
        start_canary(registry, A)
        asyncio.run(registry.roll_back(BOB))
    else:
        start_canary(registry, A)
        if step == "activated":
            activate(registry, A)
        else:
            asyncio.run(registry.retire(A.revision, BOB))
    assert asyncio.run(registry.state()).canary is None


def test_a_canary_goes_on_when_others_are_activated_or_retired(registry):
    publish(registry, A, B, C)
    start_canary(registry, A)
    activate(registry, B)
    asyncio.run(registry.retire(C.revision, BOB))
    assert asyncio.run(registry.state()).canary == A.revision


def test_the_active_bundle_is_no_canary(registry):
    publish(registry, A)
    activate(registry, A)
    with pytest.raises(ConflictError, match="nothing would be compared"):
        start_canary(registry, A)


def test_a_retired_bundle_is_no_canary(registry):
    publish(registry, A)
    asyncio.run(registry.retire(A.revision, BOB))
    with pytest.raises(ConflictError, match="retired"):
        start_canary(registry, A)


@pytest.mark.parametrize("bundle", [UNTESTED, FAILING], ids=["no test case", "a case fails"])
def test_a_bundle_whose_tests_do_not_pass_is_no_canary(registry, bundle):
    publish(registry, bundle)
    with pytest.raises(ConflictError, match="test case"):
        start_canary(registry, bundle)


def test_a_bundle_that_was_not_published_is_no_canary(registry, ledger):
    with pytest.raises(UnknownBundleError):
        start_canary(registry, A)
    assert ledger.events == []


def test_a_canary_that_could_not_be_recorded_is_none(registry, ledger):
    publish(registry, A)
    ledger.fail_append = True
    with pytest.raises(StorageError):
        start_canary(registry, A)
    assert asyncio.run(registry.state()).canary is None


def test_a_log_that_names_a_canary_nobody_published_or_that_was_retired_has_none(registry, ledger):
    publish(registry, A)
    start_canary(registry, A)
    asyncio.run(registry.retire(A.revision, BOB))
    started = next(item for item in ledger.events if item.event.action == "canary_started")
    assert derive_state([started]).canary is None
    assert derive_state([*ledger.events, started]).canary is None
