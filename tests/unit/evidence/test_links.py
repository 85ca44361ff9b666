"""What follows for one record from the others, read off a real log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evidence.links import Links
from evidence.standalone.linked import Links as SecondLinks
from evidence.standalone.records import Record
from ledger.approvals import Terms, binding_of
from ledger.bodies import Approval, Decision, Outcome
from ledger.records import decode_entry
from tests.support.ledger import Enforcer, make_decision
from tests.support.packs import ACTOR, PackLog


def links(log: PackLog, *, whole: bool = True) -> Links:
    made = Links(whole=whole)
    for leaf, entry in enumerate(log.entries):
        made.add(leaf, decode_entry(entry))
    return made


def derived(log: PackLog, leaf: int, *, whole: bool = True) -> Any:
    """Return what follows for a leaf; the verifier that shares no code must say the same."""
    found = links(log, whole=whole).derived(leaf, decode_entry(log.entries[leaf]))
    records = [Record(at, json.loads(entry)) for at, entry in enumerate(log.entries)]
    other = SecondLinks(whole=whole)
    for record in records:
        other.add(record)
    assert other.derived(records[leaf]) == found
    return found


def decision_id(log: PackLog, leaf: int) -> str:
    return decode_entry(log.entries[leaf]).record_id


def outcome(log: PackLog, decision: str, status: Any = "completed") -> int:
    return log.add(log.gateway, Outcome(decision_id=decision, status=status, session="5" * 32))


def test_a_decision_knows_its_outcome(log: PackLog) -> None:
    log.begin()
    assert derived(log, log.call(arguments='{"amount": 1}'))["outcome"] == "completed"
    assert derived(log, log.call(arguments='{"amount": 1}', outcome=None))["outcome"] == "missing"


def test_a_second_outcome_is_counted_and_is_repeated_itself(log: PackLog) -> None:
    log.begin()
    leaf = log.call(arguments='{"amount": 1}')
    second = outcome(log, decision_id(log, leaf), "failed")
    values = derived(log, leaf)
    assert (values["outcome"], values["outcomes"]) == ("completed", 2)
    assert derived(log, second)["repeated"]
    assert not derived(log, leaf + 1)["repeated"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"arguments": '{"amount": 1}'}, "permitted"),
        ({"name": "void"}, "held"),
        ({"arguments": '{"amount": 501}'}, "refused"),
        ({"name": "dump"}, "refused"),
        ({"arguments": '{"amount": 501}', "changes": {"mode": "observe", "enforcement": "allow"}}, "observed"),
    ],
    ids=str,
)
def test_an_outcome_knows_what_its_decision_was(log: PackLog, options: dict[str, Any], expected: str) -> None:
    log.begin()
    leaf = log.call(outcome="completed", **options)
    assert derived(log, leaf + 1)["decision"] == expected


def test_an_outcome_without_decision_is_missing_it_only_if_the_range_is_the_whole_log(log: PackLog) -> None:
    log.begin()
    leaf = outcome(log, "01990000-0000-7000-8000-000000000000")
    assert derived(log, leaf)["decision"] == "missing"
    assert derived(log, leaf, whole=False)["decision"] == "unknown"


def test_a_bundle_counts_as_published_and_activated_only_at_earlier_leaves(log: PackLog) -> None:
    log.add(log.service, log.service.introduction())
    before = log.call(arguments='{"amount": 1}')
    log.bundle_event("published", log.bundle.revision)
    between = log.call(arguments='{"amount": 1}')
    log.bundle_event("activated", log.bundle.revision)
    after = log.call(arguments='{"amount": 1}')

    def steps(leaf: int) -> tuple[bool, bool]:
        values = derived(log, leaf)
        return values["bundle_published"], values["bundle_activated"]

    assert [steps(leaf) for leaf in (before, between, after)] == [(False, False), (True, False), (True, True)]


def test_a_bundle_that_was_rolled_back_to_was_activated(log: PackLog) -> None:
    log.bundle_event("published", log.bundle.revision)
    log.bundle_event("rolled_back", log.bundle.revision)
    assert derived(log, log.call(arguments='{"amount": 1}'))["bundle_activated"]


def test_another_revisions_life_says_nothing(log: PackLog) -> None:
    log.bundle_event("published", "c" * 64)
    log.bundle_event("activated", "c" * 64)
    assert not derived(log, log.call(arguments='{"amount": 1}'))["bundle_activated"]


def test_an_activation_knows_what_was_done_before_it(log: PackLog) -> None:
    revision = log.bundle.revision
    early = log.bundle_event("activated", revision)
    for action, members in (("published", {}), ("tested", {"cases": 1}), ("reviewed", {"verdict": "approved"})):
        log.bundle_event(action, revision, **members)
    own = log.bundle_event("activated", revision)
    log.bundle_event("reviewed", revision, actor="c" * 32, verdict="approved")
    reviewed = log.bundle_event("activated", revision)
    assert not any(derived(log, early).values())
    assert derived(log, own) == {
        "published_before": True,
        "tested_before": True,
        "tests_passed": True,
        "reviewed_before": True,
        "reviewed_by_another": False,
    }
    assert derived(log, reviewed)["reviewed_by_another"]


@pytest.mark.parametrize(
    "reviews",
    [
        [{"actor": ACTOR, "verdict": "approved"}],
        [{"actor": "c" * 32}],
        [{"actor": "c" * 32, "verdict": "rejected"}],
        [{"actor": "c" * 32, "verdict": "approved"}, {"actor": "d" * 32, "verdict": "rejected"}],
    ],
    ids=["by its author", "that says nothing", "that rejects", "that was taken back"],
)
def test_a_review_that_approves_nothing_is_none_by_another(log: PackLog, reviews: list[dict[str, Any]]) -> None:
    revision = log.bundle.revision
    log.bundle_event("published", revision)
    for review in reviews:
        log.bundle_event("reviewed", revision, **review)
    assert not derived(log, log.bundle_event("activated", revision, actor="e" * 32))["reviewed_by_another"]


@pytest.mark.parametrize("runs", [[], [{}], [{"cases": 2, "failures": 1}], [{"cases": 1}, {"cases": 1, "failures": 1}]])
def test_tests_that_do_not_pass_are_known(log: PackLog, runs: list[dict[str, int]]) -> None:
    revision = log.bundle.revision
    log.bundle_event("published", revision)
    for run in runs:
        log.bundle_event("tested", revision, **run)
    assert not derived(log, log.bundle_event("activated", revision))["tests_passed"]


def test_a_session_counts_its_agents_and_users(log: PackLog) -> None:
    first = log.call(session="s", agent="till-1", user="ann")
    log.call(session="s", agent="till-1", user="bob")
    log.call(session="other", agent="till-2", user="eve")
    values = derived(log, first)
    assert (values["session_agents"], values["session_users"]) == (1, 2)


def test_a_killed_session_goes_on_if_a_later_call_was_let_through(log: PackLog) -> None:
    log.call(session="s", arguments='{"amount": 1}')
    kill = log.call(session="s", name="dump")
    log.call(session="other", arguments='{"amount": 1}')
    log.call(session="s", arguments='{"amount": 501}')
    assert not derived(log, kill)["session_continued"]
    log.call(session="s", arguments='{"amount": 1}')
    assert derived(log, kill)["session_continued"]


def test_a_call_that_was_withheld_after_the_kill_does_not_continue_the_session(log: PackLog) -> None:
    kill = log.call(session="s", name="dump")
    log.call(session="s", arguments='{"amount": 1}', outcome="not_forwarded")
    assert not derived(log, kill)["session_continued"]


def test_a_call_is_forwarded_if_any_outcome_of_anybody_says_so(log: PackLog) -> None:
    log.begin()
    leaf = log.call(name="void", outcome=None)
    assert not derived(log, leaf)["forwarded"]
    outcome(log, decision_id(log, leaf), "not_forwarded")
    assert not derived(log, leaf)["forwarded"]
    outcome(log, decision_id(log, leaf), "completed")
    values = derived(log, leaf)
    assert (values["outcome"], values["outcomes"], values["forwarded"]) == ("not_forwarded", 2, True)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "unknown"])
def test_every_other_status_than_not_forwarded_means_that_a_call_was_forwarded(log: PackLog, status: str) -> None:
    leaf = log.call(name="void", outcome=status)
    assert derived(log, leaf)["forwarded"]


def test_an_outcome_of_another_enforcer_speaks_only_against_a_decision(log: PackLog) -> None:
    log.begin()
    leaf = log.call(arguments='{"amount": 1}', outcome=None)
    other = log.add(log.service, Outcome(decision_id=decision_id(log, leaf), status="completed", session="5" * 32))
    values = derived(log, leaf)
    assert (values["outcome"], values["outcomes"], values["forwarded"]) == ("missing", 0, True)
    assert links(log).outcome(decision_id(log, leaf)) is None
    for whole in (True, False):
        assert derived(log, other, whole=whole)["decision"] == "missing"


def test_a_session_goes_on_after_a_kill_if_a_second_outcome_says_that_a_call_was_forwarded(log: PackLog) -> None:
    kill = log.call(session="s", name="dump")
    leaf = log.call(session="s", arguments='{"amount": 1}', outcome="not_forwarded")
    assert not derived(log, kill)["session_continued"]
    outcome(log, decision_id(log, leaf), "completed")
    assert derived(log, kill)["session_continued"]


# --- approvals -------------------------------------------------------------------------------------------------------

APPROVAL = "01990000-0000-7000-8000-000000000001"


def step(
    log: PackLog,
    leaf: int,
    action: Any,
    *,
    by: Enforcer | None = None,
    approval_id: str = APPROVAL,
    expires_in_ms: int = 1_000_000,
    actor: str = "a",
    **changes: Any,
) -> None:
    """Write a step of the approval of a call: what people say by the service, all else by the gateway."""
    record = decode_entry(log.entries[leaf])
    assert isinstance(record.body, Decision)
    said = action in ("seen", "granted", "denied")
    members: dict[str, Any] = {"actor": actor * 32 or None, "actor_role": "approver"} if said else {}
    terms = Terms(
        approval_id=approval_id,
        expires_ms=record.time_ms + expires_in_ms,
        needed=changes.pop("needed", 1),
        roles=changes.pop("roles", ("approver",)),
    )
    if action == "held":
        members = {"expires_ms": terms.expires_ms, "needed": terms.needed, "roles": terms.roles}
    binding = binding_of(record.record_id, record.body, terms)
    members = {"binding": binding, **members, **changes}
    body = Approval(approval_id=approval_id, decision_id=record.record_id, action=action, **members)
    log.add(by or (log.service if said else log.gateway), body)


@pytest.fixture
def leaf(log: PackLog) -> int:
    """Return a call that needs a person."""
    log.begin()
    return log.call(name="void", outcome=None)


def test_an_approval_is_known_by_its_last_step_and_counts_once_it_was_used(log: PackLog, leaf: int) -> None:
    assert derived(log, leaf)["approval"] == "none"
    for action in ("held", "seen", "granted", "used"):
        step(log, leaf, action)
        values = derived(log, leaf)
        assert (values["approval"], values["approved"]) == (action, action == "used")
    outcome(log, decision_id(log, leaf))
    assert derived(log, leaf)["approved"]


@pytest.mark.parametrize(
    "actions",
    [
        ["used"],
        ["held", "used"],
        ["granted", "used"],
        ["granted", "held", "used"],
        ["held", "used", "granted"],
        ["held", "granted"],
        ["held", "granted", "cancelled", "used"],
        ["held", "granted", "denied", "used"],
        ["held", "granted", "expired", "used"],
        ["held", "granted", "refused", "used"],
        ["held", "seen", "used"],
        ["held", "denied"],
    ],
    ids=" ".join,
)
def test_an_approval_counts_only_if_it_was_held_and_granted_and_then_used(
    log: PackLog, leaf: int, actions: list[str]
) -> None:
    for action in actions:
        step(log, leaf, action)
    assert not derived(log, leaf)["approved"]


def test_an_approval_counts_only_with_as_many_people_as_it_needs(log: PackLog, leaf: int) -> None:
    for action, actor in (("held", ""), ("granted", "a"), ("granted", "a")):
        step(log, leaf, action, actor=actor, needed=2)
    step(log, leaf, "used", needed=2)
    assert not derived(log, leaf)["approved"]


def test_two_people_are_two(log: PackLog, leaf: int) -> None:
    for action, actor in (("held", ""), ("granted", "a"), ("granted", "b"), ("used", "")):
        step(log, leaf, action, actor=actor, needed=2)
    assert derived(log, leaf)["approved"]


@pytest.mark.parametrize("second", ["a", "b"])
def test_two_who_agree_under_different_pseudonym_keys_count_as_one(log: PackLog, leaf: int, second: str) -> None:
    step(log, leaf, "held", needed=2)
    step(log, leaf, "granted", actor="a", needed=2)
    log.service.pseudonym_key_id = "b" * 16
    step(log, leaf, "granted", actor=second, needed=2)
    step(log, leaf, "used", needed=2)
    assert not derived(log, leaf)["approved"]


@pytest.mark.parametrize("changes", [{"actor": ""}, {"actor_role": None}], ids=str)
def test_nobody_and_no_role_agree_to_nothing(log: PackLog, leaf: int, changes: dict[str, Any]) -> None:
    for action, members in (("held", {}), ("granted", changes), ("used", {})):
        step(log, leaf, action, roles=(), **members)
    assert not derived(log, leaf)["approved"]


@pytest.mark.parametrize("changes", [{"binding": "0" * 64}, {"actor_role": "auditor"}], ids=str)
def test_who_agrees_to_something_else_or_under_another_role_does_not_count(
    log: PackLog, leaf: int, changes: dict[str, str]
) -> None:
    step(log, leaf, "held")
    step(log, leaf, "granted", **changes)
    step(log, leaf, "used")
    assert not derived(log, leaf)["approved"]


def test_what_was_held_must_be_bound_to_its_decision(log: PackLog, leaf: int) -> None:
    for action in ("held", "granted", "used"):
        step(log, leaf, action, binding="0" * 64)
    assert not derived(log, leaf)["approved"]


def test_an_approval_that_had_expired_when_it_was_used_does_not_count(log: PackLog, leaf: int) -> None:
    for action in ("held", "granted", "used"):
        step(log, leaf, action, expires_in_ms=1)
    assert not derived(log, leaf)["approved"]


def test_the_use_of_another_approval_does_not_count(log: PackLog, leaf: int) -> None:
    step(log, leaf, "held")
    step(log, leaf, "granted")
    step(log, leaf, "used", approval_id=APPROVAL.replace("1", "2"))
    assert not derived(log, leaf)["approved"]


def test_a_gateway_agrees_to_nothing_and_nobody_else_uses_what_was_agreed(log: PackLog, leaf: int) -> None:
    step(log, leaf, "held")
    step(log, leaf, "granted", by=log.gateway)
    step(log, leaf, "used", by=log.service)
    values = derived(log, leaf)
    assert (values["approval"], values["approved"]) == ("held", False)
    step(log, leaf, "used")
    assert not derived(log, leaf)["approved"]


def test_an_approval_that_is_used_after_the_call_was_forwarded_does_not_count(log: PackLog, leaf: int) -> None:
    step(log, leaf, "held")
    step(log, leaf, "granted")
    outcome(log, decision_id(log, leaf))
    step(log, leaf, "used")
    assert not derived(log, leaf)["approved"]


# --- ids -------------------------------------------------------------------------------------------------------------


def test_an_id_that_occurs_twice_is_counted_whatever_the_records_are(log: PackLog) -> None:
    log.begin()
    leaf = log.call(outcome=None)
    assert links(log).repeated_ids == 0
    record = decode_entry(log.entries[leaf])
    log.add(log.gateway, record.body, record_id=record.record_id)
    assert links(log).repeated_ids == 1
    log.add(log.service, log.service.heartbeat(), record_id=record.record_id)
    log.add(log.gateway, log.gateway.heartbeat(), record_id=decode_entry(log.entries[0]).record_id)
    assert links(log).repeated_ids == 3


def test_other_records_have_no_derived_attributes(log: PackLog) -> None:
    assert derived(log, log.access()) == {}


# What another's enforcement point requested: the service holds it, and its decision was told, not enforced.


def test_what_the_service_holds_of_a_gateways_decision_approves_nothing(log: PackLog, leaf: int) -> None:
    step(log, leaf, "held", by=log.service, actor="c" * 32, actor_role="client")
    step(log, leaf, "granted")
    step(log, leaf, "used", by=log.service)
    values = derived(log, leaf)
    assert (values["approval"], values["approved"]) == ("granted", False)
    step(log, leaf, "used")
    assert not derived(log, leaf)["approved"]


def test_what_a_gateway_holds_of_what_the_service_was_asked_approves_nothing(log: PackLog) -> None:
    log.begin()
    asked = log.add(log.service, make_decision(enforcement="ask", mode="observe", interface="authzen")[0])
    for action in ("held", "used"):
        step(log, asked, action, by=log.gateway)
    step(log, asked, "granted", by=log.gateway)
    values = derived(log, asked)
    assert (values["approval"], values["approved"]) == ("granted", False)


def test_an_evaluation_that_was_requested_and_granted_is_no_call_of_ours_that_was_approved(log: PackLog) -> None:
    log.begin()
    asked = log.add(log.service, make_decision(enforcement="ask", mode="observe", interface="authzen")[0])
    step(log, asked, "held", by=log.service, actor="c" * 32, actor_role="client")
    step(log, asked, "granted", by=log.service)
    step(log, asked, "used", by=log.service)
    values = derived(log, asked)
    assert (values["approval"], values["approved"]) == ("used", False)
