"""Property: whatever is recorded of held calls, in whatever order, one goes on only by enough different people.

The machine writes steps of two held calls as anybody could try to: by the service, by the gateway that holds them, by
another one, under another binding, by the same person twice, too late. Beside the book stands a plain reading of the
same steps. What the book tells a gateway is given to it as it would be, and it counts for itself.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from enforcement.approvals import Held
from ledger.approvals import ApprovalBook, ApprovalState, Terms
from ledger.bodies import Approval
from tests.support.ledger import NOW_MS, Enforcer

IDS = tuple(f"01990000-0000-7000-8000-00000000000{number}" for number in (1, 2))
BINDINGS = ("b1" * 32, "b2" * 32)
ACTIONS = ("seen", "granted", "denied", "used", "expired", "cancelled", "refused")
LASTS_MS = 1000


class HeldCalls(RuleBasedStateMachine):
    """Two held calls and everybody who writes of them."""

    @initialize(needed=st.integers(1, 3), roles=st.sampled_from([(), ("approver",)]))
    def hold(self, needed: int, roles: tuple[str, ...]) -> None:
        """Hold both calls."""
        self.writers = {
            name: Enforcer(enforcer_id=name, seed=20 + at)
            for at, name in enumerate(("service", "gateway-1", "gateway-2"))
        }
        self.now_ms, self.index = NOW_MS, 0
        self.needed, self.roles = needed, roles
        self.book = ApprovalBook("service")
        self.people: list[set[str]] = [set(), set()]
        self.over: list[str | None] = [None, None]
        self.forwarded = [0, 0]
        for at in range(len(IDS)):
            terms = {"expires_ms": NOW_MS + LASTS_MS, "needed": needed, "roles": roles}
            self._write("gateway-1", at, "held", BINDINGS[at], **terms)

    def _write(self, writer: str, at: int, action: Any, binding: str, **members: Any) -> None:
        enforcer = self.writers[writer]
        enforcer.time_ms = self.now_ms - 1
        body = Approval(approval_id=IDS[at], decision_id=IDS[at], action=action, binding=binding, **members)
        self.book.take(self.index, enforcer.record(body))
        self.index += 1

    @rule(
        writer=st.sampled_from(["service", "gateway-1", "gateway-2"]),
        at=st.integers(0, 1),
        action=st.sampled_from(ACTIONS),
        binding=st.sampled_from(BINDINGS),
        actor=st.sampled_from("abcd"),
        role=st.sampled_from(["approver", "auditor"]),
    )
    def write(self, writer: str, at: int, action: str, binding: str, actor: str, role: str) -> None:
        """Write a step, whether its writer may or not."""
        self._write(writer, at, action, binding, actor=actor * 32, actor_role=role)
        in_time = self.now_ms < NOW_MS + LASTS_MS
        if writer == "service" and binding == BINDINGS[at] and self.over[at] is None and in_time:
            if action == "granted" and (not self.roles or role in self.roles):
                self.people[at].add(actor)
            elif action == "denied":
                self.over[at] = "denied"
        elif (
            writer == "gateway-1" and action not in ("seen", "granted", "denied") and self.over[at] in (None, "denied")
        ):
            self.over[at] = action

    @rule(milliseconds=st.sampled_from([1, 400, LASTS_MS]))
    def wait(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds

    @rule(at=st.integers(0, 1))
    def forward(self, at: int) -> None:
        """Let the gateway that holds a call do what it would: hear, count for itself, use, forward once."""
        terms = Terms(approval_id=IDS[at], expires_ms=NOW_MS + LASTS_MS, needed=self.needed, roles=self.roles)

        class Permitted:
            decision_id = IDS[at]

        members: dict[str, Any] = {"case": None, "ruling": None, "permitted": Permitted()}
        held = Held(terms=terms, binding=BINDINGS[at], **members)
        for said in self.book.verdicts("gateway-1", self.now_ms).items:
            if said.approval_id == IDS[at]:
                held.hear(said)
        assert self.book.verdicts("gateway-2", self.now_ms).items == ()
        if held.granted and not held.denied and self.over[at] is None and self.now_ms < terms.expires_ms:
            assert len(self.people[at]) >= self.needed
            self.forwarded[at] += 1
            self.over[at] = "used"
            self._write("gateway-1", at, "used", BINDINGS[at])

    @invariant()
    def never_more_than_once_and_never_without_enough_people(self) -> None:
        """What the book says agrees with the plain reading."""
        if not hasattr(self, "book"):
            return
        for at, approval_id in enumerate(IDS):
            call = self.book.get(approval_id)
            state = call.state(self.now_ms)
            assert self.forwarded[at] <= 1
            assert len({grant.actor for grant in call.grants}) == len(call.grants) <= len(self.people[at])
            assert {grant.binding for grant in call.grants} <= {BINDINGS[at]}
            if state is ApprovalState.GRANTED:
                assert len(self.people[at]) >= self.needed
                assert self.over[at] is None
            if self.over[at] == "denied":
                assert state is ApprovalState.DENIED


TestHeldCalls = HeldCalls.TestCase
