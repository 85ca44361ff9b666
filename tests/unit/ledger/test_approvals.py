"""What follows from the records of held calls: who may hold, and whose word counts, where the service holds itself.

What a gateway holds is in `tests/property/test_approvals_state_machine.py`, beside a plain reading of the same steps.
"""

from __future__ import annotations

from typing import Any

import pytest

from ledger.approvals import ApprovalBook, ApprovalState, HeldCall
from ledger.bodies import Approval
from ledger.errors import NotFoundError
from tests.support.ledger import NOW_MS, Enforcer

REQUESTED, OTHER = (f"01990000-0000-7000-8000-00000000000{number}" for number in (1, 2))
EVALUATION = "01990000-0000-7000-8000-00000000000e"
BINDING = "b1" * 32
REQUESTER = "c" * 32


class Scene:
    """A book, and everybody who writes of what is in it."""

    def __init__(self) -> None:
        self.book = ApprovalBook("service")
        self.writers = {name: Enforcer(name, seed=20 + at) for at, name in enumerate(("service", "gateway-1"))}
        self.now_ms, self.index = NOW_MS, 0

    def write(self, writer: str, action: Any, approval_id: str = REQUESTED, **members: Any) -> None:
        enforcer = self.writers[writer]
        enforcer.time_ms = self.now_ms - 1
        members = {"decision_id": EVALUATION, "binding": BINDING, **members}
        self.book.take(self.index, enforcer.record(Approval(approval_id=approval_id, action=action, **members)))
        self.index += 1

    def hold(self, writer: str = "service", approval_id: str = REQUESTED, **members: Any) -> None:
        terms = {"expires_ms": NOW_MS + 1000, "needed": 1, "actor": REQUESTER, "actor_role": "client"}
        self.write(writer, "held", approval_id, **{**terms, **members})

    def grant(self, writer: str = "service", actor: str = "a") -> None:
        self.write(writer, "granted", actor=actor * 32, actor_role="approver")

    @property
    def call(self) -> HeldCall:
        return self.book.get(REQUESTED)

    @property
    def state(self) -> ApprovalState:
        return self.call.state(self.now_ms)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_was_requested_is_held_by_the_service_in_its_requesters_name(scene: Scene) -> None:
    scene.hold()
    assert (scene.call.requester, scene.call.enforcer, scene.state) == (REQUESTER, "service", ApprovalState.WAITING)
    assert scene.book.of_decision("service", EVALUATION) == scene.call
    assert scene.book.of_decision("gateway-1", EVALUATION) is None


def test_the_service_holds_nothing_that_nobody_requested(scene: Scene) -> None:
    scene.hold(actor=None)
    with pytest.raises(NotFoundError):
        scene.book.get(REQUESTED)


def test_who_holds_somebody_elses_decision_is_not_in_the_way_of_whoever_may(scene: Scene) -> None:
    scene.hold("gateway-1", OTHER)
    scene.hold()
    assert scene.book.of_decision("service", EVALUATION) == scene.call
    found = scene.book.of_decision("gateway-1", EVALUATION)
    assert found is not None
    assert found.approval_id == OTHER


def test_what_a_gateway_holds_nobody_requested_whoever_it_names(scene: Scene) -> None:
    scene.hold("gateway-1")
    assert (scene.call.enforcer, scene.call.requester) == ("gateway-1", None)


def test_an_evaluation_is_held_once(scene: Scene) -> None:
    scene.hold()
    scene.write("service", "cancelled")
    scene.hold(approval_id=OTHER)
    assert scene.state is ApprovalState.CANCELLED
    with pytest.raises(NotFoundError):
        scene.book.get(OTHER)


@pytest.mark.parametrize("action", ["used", "expired", "cancelled", "refused", "seen", "granted", "denied"])
def test_nothing_that_a_gateway_says_counts_of_what_the_service_holds(scene: Scene, action: str) -> None:
    scene.hold()
    before = scene.call
    scene.write("gateway-1", action, actor="a" * 32, actor_role="approver")
    assert scene.call == before


def test_the_service_says_what_people_did_and_what_came_of_it(scene: Scene) -> None:
    scene.hold()
    scene.write("service", "seen", actor="a" * 32)
    scene.grant()
    assert (scene.state, len(scene.call.seen), len(scene.call.grants)) == (ApprovalState.GRANTED, 1, 1)
    scene.write("service", "used", actor=REQUESTER)
    assert scene.state is ApprovalState.USED


@pytest.mark.parametrize("last", ["used", "cancelled", "expired"])
def test_what_has_ended_stays_ended(scene: Scene, last: str) -> None:
    scene.hold()
    if last == "used":
        scene.grant()
    scene.write("service", last)
    ended, grants = scene.state, scene.call.grants
    assert scene.call.ended == last
    for action in ("granted", "denied", "used", "cancelled"):
        scene.write("service", action, actor="a" * 32, actor_role="approver")
    assert (scene.state, scene.call.grants, scene.call.ended) == (ended, grants, last)


@pytest.mark.parametrize("before", ["nothing", "seen", "denied", "expired"])
def test_the_service_uses_nothing_that_does_not_stand_granted(scene: Scene, before: str) -> None:
    scene.hold()
    if before != "nothing":
        scene.grant()
        scene.write("service", before, actor="a" * 32, actor_role="approver")
    if before == "seen":
        scene.write("service", "denied", actor="a" * 32, actor_role="approver")
    state = scene.state
    assert state is not ApprovalState.GRANTED
    scene.write("service", "used", actor=REQUESTER)
    assert (scene.state, scene.call.ended) == (state, "expired" if before == "expired" else None)


def test_an_attempt_that_was_refused_does_not_end_it(scene: Scene) -> None:
    scene.hold()
    scene.grant()
    scene.write("service", "refused", reason="changed_binding", actor=REQUESTER)
    assert (scene.state, scene.call.refusals) == (ApprovalState.GRANTED, 1)


def test_no_gateway_is_told_of_what_the_service_holds(scene: Scene) -> None:
    scene.hold()
    scene.grant()
    assert scene.book.verdicts("gateway-1", scene.now_ms).items == ()


def test_the_service_ends_nothing_that_a_gateway_holds(scene: Scene) -> None:
    scene.hold("gateway-1", actor=None)
    for action in ("used", "expired", "cancelled"):
        scene.write("service", action, actor="a" * 32)
    assert scene.state is ApprovalState.WAITING
    assert scene.call.requester is None
