"""The registry: what is active follows from the log, and no record speaks of a bundle that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ledger.bodies import BundleEvent
from ledger.commitments import open_commitment
from ledger.errors import ConflictError, PolicySyntaxError, StorageError, UnknownBundleError
from ledger.ports import Acknowledgement, Draft
from policies.bundles import Bundle
from policies.evaluate import Evaluator
from policies.registry import Actor, RecordedEvent, Registry, derive_state
from tests.support.policies import cedar_bundle

ALICE = Actor(pseudonym="a" * 32, role="admin")
BUNDLES = [cedar_bundle(f'@id("r{n}") permit(principal, action, resource);') for n in range(4)]
A, B, C, D = BUNDLES
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

    async def append(self, drafts: Sequence[Draft]) -> list[Acknowledgement]:
        await asyncio.sleep(0)
        if self.fail_append:
            raise StorageError("the log is away")
        acknowledged = []
        for draft in drafts:
            assert isinstance(draft.body, BundleEvent)
            index = len(self.events)
            self.events.append(RecordedEvent(index, 1000 + index, draft.body))
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


def open_registry(ledger: MemoryLedger, evaluator: Evaluator) -> Registry:
    return Registry(log_id="acme", store=ledger, history=ledger, sink=ledger, evaluator=evaluator)


def publish(registry: Registry, *bundles: Bundle) -> None:
    async def all_of_them() -> None:
        for bundle in bundles:
            await registry.publish(bundle, ALICE)

    asyncio.run(all_of_them())


def activate(registry: Registry, *bundles: Bundle) -> None:
    async def all_of_them() -> None:
        for bundle in bundles:
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
    assert ledger.steps == ["put", "published"]
    (event,) = (item.event for item in ledger.events)
    assert (event.name, event.revision, event.engine) == ("test", A.revision, "cedar")
    assert (event.actor, event.actor_role, event.previous_revision) == (ALICE.pseudonym, "admin", None)
    assert asyncio.run(registry.bundle(A.revision)) == A


def test_publishing_again_records_nothing(registry, ledger):
    publish(registry, A, A)
    assert [item.event.action for item in ledger.events] == ["published"]


def test_two_publishing_at_once_record_once(registry, ledger):
    async def both() -> None:
        await asyncio.gather(registry.publish(A, ALICE), registry.publish(A, ALICE))

    asyncio.run(both())
    assert [item.event.action for item in ledger.events] == ["published"]


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
    assert ledger.steps == ["put", "published", "activated"]


@pytest.mark.parametrize("revision", [B.revision, "0" * 64, "", "x" * 1000])
def test_bundle_that_is_not_published_cannot_be_activated(registry, ledger, revision):
    publish(registry, A)
    with pytest.raises(UnknownBundleError):
        asyncio.run(registry.activate(revision, ALICE))
    assert len(ledger.events) == 1


def test_archive_that_is_only_stored_is_not_published(registry, ledger):
    ledger.put("acme", A.revision, A.archive())
    with pytest.raises(UnknownBundleError):
        asyncio.run(registry.activate(A.revision, ALICE))


def test_bundle_that_no_longer_loads_cannot_be_activated(registry, ledger):
    """Published under an engine that took it, activated under one that does not."""
    ledger.put("acme", BROKEN.revision, BROKEN.archive())
    event = BundleEvent(
        action="published", name="test", revision=BROKEN.revision, engine="cedar", actor="a" * 32, actor_role="admin"
    )
    ledger.events.append(RecordedEvent(0, 0, event))
    with pytest.raises(PolicySyntaxError):
        asyncio.run(registry.activate(BROKEN.revision, ALICE))
    assert len(ledger.events) == 1


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
    asyncio.run(registry.activate(A.revision, ALICE, "as agreed with Bob"))
    digests = set()
    for draft in ledger.drafts:
        body = draft.body
        assert isinstance(body, BundleEvent)
        assert body.comment is not None
        assert "Bob" not in repr(body)
        (opening,) = draft.openings
        open_commitment("comment", bytes.fromhex(body.comment.digest), opening.salt, opening.payload)
        assert opening.payload == b"as agreed with Bob"
        digests.add(body.comment.digest)
    assert len(digests) == 2


def test_history_is_that_of_the_log(registry, ledger):
    publish(registry, A)
    assert list(asyncio.run(registry.history())) == ledger.events


# --- the state that events add up to ---------------------------------------------------------------------------------


def event(action: str, bundle: Bundle) -> RecordedEvent:
    body = BundleEvent(
        action=action,  # type: ignore[arg-type]
        name="test",
        revision=bundle.revision,
        engine="cedar",
        actor="a" * 32,
        actor_role="admin",
    )
    return RecordedEvent(0, 0, body)


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
