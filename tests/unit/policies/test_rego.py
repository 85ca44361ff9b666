"""The Rego engine: how requests are mapped, how answers are, and every way in which it must not fail open."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import threading

import pytest

from ledger.body_fields import Names
from ledger.errors import PolicyError, PolicySyntaxError
from policies.bundles import bundle_from_files
from policies.engines.rego import RegoEngine
from policies.engines.rego_decisions import MAX_RULES_NAMED
from policies.evaluate import LoadedBundle, Reason
from policies.model import Decision, Effect, Obligation
from tests.support.policies import make_request, rego_bundle, rego_files

ENGINE = RegoEngine()


def decide(policy, *, bundle=None, **members) -> Decision:
    """Decide one request under one policy."""
    loaded = ENGINE.load(rego_bundle(policy, **(bundle or {})))
    (decision,) = ENGINE.evaluate(loaded, [make_request(**members)])
    return decision


def says(condition: str, **members) -> bool:
    """Tell whether a condition holds of a request."""
    decision = decide(f"allow if {{ {condition} }}", **members)
    assert decision.effect in {Effect.PERMIT, Effect.NOT_APPLICABLE}, decision
    return decision.permitted


# --- effects ---------------------------------------------------------------------------------------------------------


def test_permit_names_allow_and_the_engine_exactly():
    bundle = rego_bundle("allow := true")
    (decision,) = ENGINE.evaluate(ENGINE.load(bundle), [make_request()])
    assert decision.effect is Effect.PERMIT
    assert (decision.rules, decision.failed_condition, decision.obligations) == (("allow",), None, ())
    assert (decision.reason, decision.detail, decision.drift) == (Reason.POLICY, "", ())
    assert decision.bundle_revision == bundle.revision
    assert (decision.engine, decision.engine_version) == ("rego", importlib.metadata.version("gordon-to-regorus"))


def test_permits_that_hold_are_named_instead_of_allow():
    policy = 'allow if true\npermits contains "b" if true\npermits contains "a" if true\npermits contains "c" if false'
    assert decide(policy).rules == ("a", "b")
    assert decide(policy.replace("if true\np", "if false\np")).rules == ()


def test_deny_that_holds_denies_whatever_allow_says():
    decision = decide('allow := true\ndenies contains "late" if input.time.hour >= 10')
    assert (decision.effect, decision.rules, decision.failed_condition) == (Effect.DENY, ("late",), "late")
    assert not decision.permitted


def test_failed_condition_is_the_first_deny_in_bundle_order():
    files = {
        "z.rego": 'package a.b\nallow := true\ndenies contains "z2" if true\ndenies contains "z1" if true',
        "a.rego": 'package a.b\ndenies contains "a1" if true',
    }
    decision = decide(files)
    assert decision.failed_condition == "z2"
    assert decision.rules == ("a1", "z1", "z2")


@pytest.mark.parametrize("value", ["false", "input.nothing"])
def test_allow_that_is_false_or_undefined_is_not_applicable(value):
    decision = decide(f"allow := {value}")
    assert (decision.effect, decision.rules, decision.reason) == (Effect.NOT_APPLICABLE, (), Reason.NO_PERMIT)


@pytest.mark.parametrize("value", ["1", '"true"', "{}", "[]", "null", '"<undefined>x"', "{true}", "[true]", "set()"])
def test_nothing_but_the_literal_true_permits(value):
    decision = decide(f"allow := {value}")
    assert not decision.permitted
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.EVALUATION_ERROR,
        "allow",
    )


def test_text_that_reads_as_regorus_spells_undefined_permits_nothing():
    """regorus says ``"<undefined>"`` of what has no value; a policy may say it too."""
    assert decide('allow := "<undefined>"').effect is Effect.NOT_APPLICABLE


def test_obligations_of_a_permit_wait_for_a_person():
    decision = decide('allow := true\nobligations contains "approval" if input.time.hour == 10')
    assert (decision.effect, decision.obligations) == (Effect.PERMIT, (Obligation.APPROVAL,))


def test_approval_means_nothing_beside_a_denial():
    policy = 'allow := false\nobligations contains "approval" if true'
    assert (decide(policy).effect, decide(policy).obligations) == (Effect.NOT_APPLICABLE, ())
    denied = decide(policy + '\ndenies contains "no" if true')
    assert (denied.effect, denied.obligations) == (Effect.DENY, ())


@pytest.mark.parametrize("allow", ["true", "false"])
def test_end_session_is_a_denial_of_its_own(allow):
    decision = decide(f'allow := {allow}\nobligations contains "end_session" if true')
    assert (decision.effect, decision.rules, decision.failed_condition, decision.obligations) == (
        Effect.DENY,
        ("end_session",),
        "end_session",
        (Obligation.END_SESSION,),
    )
    decision = decide(f'allow := {allow}\nobligations contains "end_session" if true\ndenies contains "no" if true')
    assert (decision.rules, decision.obligations) == (("no",), (Obligation.END_SESSION,))


def test_decision_names_no_more_rules_than_a_record_holds():
    assert Names.__metadata__[0].max_length == MAX_RULES_NAMED  # type: ignore[attr-defined]
    decision = decide("allow := true\n" + "\n".join(f'denies contains "r{n:03}" if true' for n in range(100)))
    assert decision.rules == tuple(f"r{n:03}" for n in range(64))
    assert (decision.detail, decision.failed_condition) == ("and 36 more rules", "r000")


def test_rules_of_a_loaded_bundle_are_what_its_decisions_may_name():
    both = 'allow := true\ndenies contains "no" if false\npermits contains "yes" if true'
    assert ENGINE.load(rego_bundle(both)).rules == ("yes", "no")
    assert ENGINE.load(rego_bundle('allow := true\ndenies contains "no" if false')).rules == ("allow", "no")


# --- the first condition that fails ----------------------------------------------------------------------------------

CONDITIONS = """
default allow := false

allow if {
    input.principal.agent == "Other"
    input.time.hour >= 9
}

allow if {
    input.principal.agent == "Bot"
    input.time.hour >= 9
    input.principal.mfa
    not late
}

late if input.time.hour >= 18
"""


@pytest.mark.parametrize(
    ("members", "line"),
    [({"agent": "Nobody"}, 6), ({"hour": 8}, 12), ({}, 13), ({"mfa": True, "hour": 19}, 14)],
)
def test_condition_that_stood_against_the_call_is_named_by_its_place(members, line):
    """Of the body that came furthest: the first one, where several came as far."""
    decision = decide(CONDITIONS, **members)
    assert (decision.effect, decision.failed_condition) == (Effect.NOT_APPLICABLE, f"allow@policy.rego:{line}")
    assert decide(CONDITIONS, mfa=True).permitted


def test_condition_is_named_in_the_file_that_it_stands_in():
    files = {"a.rego": "package p\ndefault allow := false", "sub/b.rego": "package p\nallow if {\n  input.no\n}"}
    assert decide(files).failed_condition == "allow@sub/b.rego:3"


def test_bodies_without_conditions_of_their_own_are_named_by_the_rule():
    assert decide("default allow := false").failed_condition == "allow"
    assert decide("allow := input.principal.mfa").failed_condition == "allow@policy.rego:2"
    path = "a" * 120 + ".rego"
    assert decide({path: "package p\nallow if input.no"}).failed_condition == "allow"


def test_a_call_that_no_named_permit_speaks_for_has_no_failed_condition():
    policy = 'allow if {\n\tcount(permits) > 0\n\tinput.principal.mfa\n}\npermits contains "a" if input.principal.user'
    decision = decide(policy)
    assert (decision.effect, decision.failed_condition) == (Effect.NOT_APPLICABLE, None)
    assert decide(policy, user="ada").failed_condition == "allow@policy.rego:4"


def test_failed_condition_is_no_work_of_the_requests_before():
    """What one request reached is forgotten with the next."""
    loaded = ENGINE.load(rego_bundle(CONDITIONS))
    requests = [make_request(mfa=True, hour=19), make_request(agent="Nobody"), make_request(mfa=True, hour=19)]
    first, second, third = ENGINE.evaluate(loaded, requests)
    assert (first.failed_condition, second.failed_condition) == ("allow@policy.rego:14", "allow@policy.rego:6")
    assert third == first


# --- errors deny -----------------------------------------------------------------------------------------------------


def test_rule_that_fails_denies_and_names_its_line_and_no_value():
    decision = decide("allow if {\n  abs(input.arguments.n) == 1\n}", arguments='{"n": "alice-secret"}')
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.EVALUATION_ERROR,
        "policy.rego:3",
    )
    assert decision.rules == ()


@pytest.mark.parametrize(
    "policy",
    [
        'allow := true\ndenies contains "no" if abs(input.arguments.n) == 1',
        'allow := true\npermits contains "yes" if abs(input.arguments.n) == 1',
        'allow := true\nobligations contains "approval" if abs(input.arguments.n) == 1',
        'allow if abs(input.arguments.n) == 1\ndenies contains "no" if true',
    ],
)
def test_error_beside_what_holds_is_still_an_error(policy):
    assert decide(policy, arguments='{"n": "x"}').reason == Reason.EVALUATION_ERROR


def test_rules_that_contradict_each_other_deny():
    policy = "allow := true if input.time.hour > 1\nallow := false if input.time.hour > 2"
    assert decide(policy).reason == Reason.EVALUATION_ERROR


def test_an_error_leaves_nothing_behind_for_the_next_request():
    loaded = ENGINE.load(rego_bundle("allow if abs(input.arguments.n) == 1"))
    requests = [make_request(arguments=json.dumps({"n": n})) for n in ("x", 1, "x", 2, -1)]
    effects = [decision.effect for decision in ENGINE.evaluate(loaded, requests)]
    assert effects == ["INDETERMINATE", "PERMIT", "INDETERMINATE", "NOT_APPLICABLE", "PERMIT"]


def test_text_that_is_no_unicode_denies():
    decision = decide("allow := true", agent="\ud800")
    assert (decision.reason, decision.detail) == (Reason.REQUEST_ERROR, "input")


def test_bundle_of_another_engine_is_refused():
    with pytest.raises(PolicyError):
        ENGINE.evaluate(LoadedBundle(revision="0" * 64, rules=(), handle=object()), [make_request()])


# --- what a policy sees ----------------------------------------------------------------------------------------------


def test_every_fact_of_a_request_reaches_the_policy():
    members = {
        "agent": "A",
        "user": "u",
        "roles": ("r",),
        "authn": "mtls",
        "mfa": True,
        "server": "s",
        "name": "t",
        "tags": ("x", "y"),
        "session": "S",
        "calls": 3,
        "arguments": '{"price": "1.50", "deep": {"list": [1, null, true, "é"]}}',
    }
    expected = {
        "principal": {"agent": "A", "user": "u", "roles": ["r"], "authn": "mtls", "mfa": True},
        "action": "tools/call",
        "resource": {"server": "s", "name": "t", "tags": ["x", "y"]},
        "time": {
            "now_ms": 1_763_546_400_000,
            "zone": "UTC",
            "local_date": "2025-11-19",
            "hour": 10,
            "minute": 0,
            "weekday": 3,
        },
        "environment": {"address": "127.0.0.1", "network": "office"},
        "state": {"session": "S", "calls": 3, "denied": 0, "started_ms": 0, "windows": {}},
        "args": {"price": 1.5},
        "arguments": {"price": "1.50", "deep": {"list": [1, None, True, "é"]}},
        "boundary": {"known": False, "drift": []},
    }
    assert says(f"input == {json.dumps(expected)}", **members)


def test_what_a_request_does_not_have_is_undefined():
    assert says("not input.principal.user; not input.resource.name", name=None)


def test_data_of_the_bundle_is_read():
    decision = decide("allow if data.limits.refund == 500.5", bundle={"data": {"limits": {"refund": 500.5}}})
    assert decision.permitted


def test_the_time_of_now_is_the_time_of_the_request():
    loaded = ENGINE.load(rego_bundle("allow if time.now_ns() == input.time.now_ms * 1000000"))
    moments = (0, 1, 1_763_546_400_123, 4_102_444_800_000)
    assert all(decision.permitted for decision in ENGINE.evaluate(loaded, [make_request(now_ms=ms) for ms in moments]))


def test_calendar_of_a_zone_is_that_of_the_request():
    assert says('time.clock([time.now_ns(), "Europe/Berlin"]) == [11, 0, 0]')
    assert says("time.clock([time.now_ns(), input.time.zone]) == [10, 0, 0]")


def test_boundary_of_a_tool_reaches_the_policy_and_the_decision():
    described = {
        "sell": {"access": "write", "arguments": {"type": "object", "properties": {}, "additionalProperties": False}}
    }
    boundaries = {
        "format": "tallystick.boundaries/1",
        "servers": {"shop": {"source": {"kind": "mcp-tools", "title": "Shop", "digest": "0" * 64}, "tools": described}},
    }
    policy = 'allow if input.boundary == {"known": true, "drift": ["unknown_argument"]}'
    files = rego_files(policy, boundaries="boundaries.json")
    bundle = bundle_from_files({**files, "boundaries.json": json.dumps(boundaries).encode()})
    loaded = ENGINE.load(bundle)
    (decision,) = ENGINE.evaluate(loaded, [make_request(arguments='{"more": 1}')])
    assert (decision.permitted, decision.drift) == (True, ("unknown_argument",))


# --- threads ---------------------------------------------------------------------------------------------------------


def test_bundle_loaded_in_one_thread_decides_in_another(monkeypatch):
    """regorus's objects panic in another thread's hands, or when they are destroyed there."""
    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    kept = [ENGINE.load(rego_bundle("allow if input.time.hour == 10"))]
    decisions: list[Decision] = []

    def work() -> None:
        decisions.extend(ENGINE.evaluate(kept[0], [make_request()]))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.clear()
    gc.collect()
    assert [decision.permitted for decision in decisions] == [True] * 3
    assert not unraisable


def test_more_bundles_than_a_thread_keeps_all_decide():
    loaded = [ENGINE.load(rego_bundle(f"allow if input.state.calls == {n}")) for n in range(20)]
    for number, bundle in enumerate(loaded):
        (decision,) = ENGINE.evaluate(bundle, [make_request(calls=number)])
        assert decision.permitted


# --- the old language ------------------------------------------------------------------------------------------------

LEGACY = "default allow = false\nallow {\n  input.principal.mfa\n}\n"


def test_legacy_text_without_a_package_decides_under_the_manifests():
    bundle = {"rego_version": 0, "package": "legacy.rules"}
    assert decide({"p.rego": LEGACY}, bundle=bundle, mfa=True).permitted
    decision = decide({"p.rego": LEGACY}, bundle=bundle)
    assert (decision.effect, decision.failed_condition) == (Effect.NOT_APPLICABLE, "allow@p.rego:3")


def test_legacy_sets_are_named():
    policy = 'package p\nallow { true }\ndenies["late"] { input.time.hour >= 10 }\ndenies[n] { n := "x"; false }'
    assert decide(policy, bundle={"rego_version": 0}).rules == ("late",)


@pytest.mark.parametrize(
    "text",
    [
        "allow if { input.principal.mfa }",
        "allow if input.principal.mfa",
        'allow { true }\ndenies contains "x" { input.principal.mfa }',
        'allow { true }\ndenies contains "x" if { input.principal.mfa }',
        "import rego.v1\nallow { true }",
        "import future.keywords.if\nallow { true }",
        "allow { every x in input { x } }",
        "allow { some x in input }",
        'allow { "admin" in input.principal.roles }',
    ],
)
def test_new_text_in_an_old_bundle_is_refused_and_never_always_true(text):
    """regorus reads ``allow if {…}`` as a rule that always holds, and another named ``if``."""
    with pytest.raises(PolicySyntaxError):
        ENGINE.load(rego_bundle({"p.rego": f"package p\n{text}"}, rego_version=0))
    with pytest.raises(PolicySyntaxError):
        ENGINE.load(rego_bundle({"p.rego": text}, rego_version=0, package="p"))


def test_member_of_a_set_without_brackets_is_refused():
    """In version 0 ``denies.late`` is a member of ``denies``; regorus's tree does not say which."""
    with pytest.raises(PolicySyntaxError, match=r"policy\.rego:3:1: the member of a set is written in brackets"):
        ENGINE.load(rego_bundle("package p\nallow { true }\ndenies.late { true }", rego_version=0))


def test_old_text_in_a_new_bundle_is_refused():
    for text in (LEGACY, f"package p\n{LEGACY}"):
        with pytest.raises(PolicySyntaxError):
            ENGINE.load(rego_bundle({"p.rego": text}, package="p"))


def test_package_of_the_manifest_decides_and_else_that_of_the_first_file():
    files = {"a.rego": "package first\nallow := true", "b.rego": "package second\nallow := false"}
    assert decide(files).permitted
    assert not decide(files, bundle={"package": "second"}).permitted
    assert decide(files, bundle={"package": "first"}).permitted
