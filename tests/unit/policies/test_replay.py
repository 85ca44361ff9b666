"""Replay: the same decision under the same bundle, a shown difference under another, and never a guess."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import msgspec
import pytest

from ledger.bodies import BundleReference
from ledger.bodies import Decision as DecisionBody
from ledger.body_fields import Commitment
from policies.bundles import Bundle, bundle_from_files
from policies.engine import EngineStoppedError, Limit
from policies.engines.cedar import CedarEngine
from policies.engines.opa_server import OPAServer, OPAServerEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator, LoadedBundle
from policies.model import Decision, DecisionRequest, encode_request, public_facts, with_signals
from policies.replay import COMPARED_FIELDS, RecordedDecision, ReplayClass, ReplayResult, replay, replay_many
from policies.signals import Signals
from policies.windows import read_windows
from tests.support.policies import SCHEMA, cedar_bundle, cedar_files, make_request, rego_bundle

THEN = cedar_bundle(
    '@id("work") permit(principal, action, resource);'
    '@id("night") @obligation("end_session") forbid(principal, action, resource) when { context.time.hour < 6 };'
)
CHANGED = cedar_bundle('@id("work") permit(principal, action, resource);')
COMMITMENT = Commitment(digest="0" * 64, size_bytes=0)


def recorded(evaluator: Evaluator, bundle: Bundle = THEN, **members: object) -> RecordedDecision:
    """Return what a gateway records of a decision that it has just made."""
    request = make_request(**members)
    (evaluation,) = asyncio.run(evaluator.evaluate_many(bundle, [request]))
    return as_record(evaluation.decision, request)


def as_record(decision: Decision, request: DecisionRequest) -> RecordedDecision:
    body = DecisionBody(
        agent=request.principal.agent,
        server=request.resource.server,
        decision=decision.effect.value,  # type: ignore[arg-type]
        enforcement="allow" if decision.permitted else "deny",
        mode="enforce",
        reason=decision.reason,
        evaluation_us=1,
        session="0" * 32,
        message=COMMITMENT,
        method=request.action,
        tool=request.resource.name,
        tags=request.resource.tags,
        facts=public_facts(request),
        bundle=BundleReference(
            name="test",
            revision=decision.bundle_revision,
            engine=decision.engine,
            engine_version=decision.engine_version,
        ),
        rules=decision.rules,
        failed_condition=decision.failed_condition,
        obligations=decision.obligations,
        request=COMMITMENT,
    )
    return RecordedDecision(record_id="r1", body=body, request=encode_request(request))


def changed(original: RecordedDecision, **members: object) -> RecordedDecision:
    body = msgspec.structs.replace(original.body, **members)
    return RecordedDecision(record_id=original.record_id, body=body, request=original.request)


def run(original: RecordedDecision, bundle: Bundle, evaluator: Evaluator) -> ReplayResult:
    return asyncio.run(replay(original, bundle, evaluator))


@pytest.mark.parametrize(
    "members",
    [
        {"hour": 10},
        {"hour": 3},
        {"action": "tools/destroy"},
        {"arguments": '{"price": "x"}'},
        {"arguments": '{"price": 1e0, "amount": 12345678901234567}'},
    ],
)
def test_decision_is_reproduced_under_its_own_bundle(evaluator, members):
    result = run(recorded(evaluator, **members), THEN, evaluator)
    assert (result.classification, result.explanation) == (ReplayClass.EXACT, "")
    assert result.same is True
    assert result.differences == ()
    assert result.replayed == result.original
    assert result.original.bundle_revision == THEN.revision


def test_changed_bundle_is_shown_to_differ_and_in_what(evaluator):
    result = run(recorded(evaluator, hour=3), CHANGED, evaluator)
    assert result.classification is ReplayClass.EXACT
    assert result.same is False
    assert result.differences == ("effect", "rules", "failed_condition", "obligations")
    assert result.replayed is not None
    assert (result.original.effect, result.replayed.effect) == ("DENY", "PERMIT")
    assert (result.original.rules, result.replayed.rules) == (("night",), ("work",))
    assert (result.original.bundle_revision, result.replayed.bundle_revision) == (THEN.revision, CHANGED.revision)


def test_changed_bundle_that_decides_alike_is_the_same(evaluator):
    result = run(recorded(evaluator, hour=10), CHANGED, evaluator)
    assert (result.same, result.differences) == (True, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decision", "DENY"),
        ("rules", ("other",)),
        ("rules", ()),
        ("failed_condition", "other"),
        ("obligations", ("approval",)),
        ("reason", "no_permit"),
    ],
)
def test_record_that_says_other_than_its_bundle_is_caught(evaluator, field, value):
    """Re-performance: whoever forged the decision field must have forged the bundle too."""
    forged = changed(recorded(evaluator), **{field: value})
    result = run(forged, THEN, evaluator)
    assert result.same is False
    assert result.differences == ("effect" if field == "decision" else field,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent", "intruder"),
        ("server", "bank"),
        ("tags", ("phi",)),
        ("method", "tools/list"),
        ("tool", "transfer_funds"),
    ],
)
def test_record_of_another_call_than_its_request_is_caught(evaluator, name, value):
    result = run(changed(recorded(evaluator), **{name: value}), THEN, evaluator)
    assert result.same is False
    assert result.differences == (name,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authn", "none"),
        ("mfa", True),
        ("roles", ("admin",)),
        ("zone", "Asia/Tokyo"),
        ("local_hour", 3),
        ("local_minute", 59),
        ("weekday", 7),
        ("network", "coffee-shop"),
        ("session_calls", 999),
    ],
)
def test_record_of_other_facts_than_those_of_its_request_is_caught(evaluator, name, value):
    original = recorded(evaluator, hour=10)
    facts = msgspec.structs.replace(original.body.facts, **{name: value})
    result = run(changed(original, facts=facts), THEN, evaluator)
    assert result.same is False
    assert result.differences == (name,)


@pytest.mark.parametrize("name", ["method", "tool", "facts"])
def test_record_that_leaves_out_what_is_no_name_contradicts_nothing(evaluator, name):
    assert run(changed(recorded(evaluator), **{name: None}), THEN, evaluator).same is True


def test_every_compared_field_is_one_of_both_summaries(evaluator):
    result = run(recorded(evaluator), THEN, evaluator)
    for name in COMPARED_FIELDS:
        assert getattr(result.original, name) == getattr(result.replayed, name)


def test_reason_of_the_enforcement_point_is_not_held_against_the_policy(evaluator):
    refused = changed(recorded(evaluator), reason="ledger_unavailable", enforcement="deny")
    result = run(refused, THEN, evaluator)
    assert result.same is True
    assert result.original.reason == "ledger_unavailable"


def test_erased_request_is_not_guessed(evaluator):
    whole = recorded(evaluator)
    result = run(RecordedDecision(record_id="r1", body=whole.body, request=None), THEN, evaluator)
    assert (result.classification, result.same, result.replayed) == (ReplayClass.ERASED, None, None)
    assert "payload is gone" in result.explanation


@pytest.mark.parametrize("reason", ["malformed", "unauthenticated", "session_ended", "header_mismatch"])
def test_decision_without_a_bundle_cannot_be_replayed_and_says_why(evaluator, reason):
    refused = changed(recorded(evaluator), bundle=None, reason=reason, decision="INDETERMINATE")
    result = run(refused, THEN, evaluator)
    assert (result.classification, result.same, result.replayed) == (ReplayClass.MISSING_FACT, None, None)
    assert reason in result.explanation
    assert result.original.bundle_revision is None


def test_message_of_which_no_request_was_built_is_a_missing_fact(evaluator):
    original = recorded(evaluator)
    body = msgspec.structs.replace(original.body, request=None, reason="malformed")
    result = run(RecordedDecision(record_id="r1", body=body, request=None), THEN, evaluator)
    assert result.classification is ReplayClass.MISSING_FACT
    assert "no request could be built" in result.explanation


@pytest.mark.parametrize("request_bytes", [b"", b"{}", b'{"version":2}', b"\xff", b" "])
def test_request_that_cannot_be_read_is_a_missing_fact(evaluator, request_bytes):
    original = recorded(evaluator)
    result = run(RecordedDecision(record_id="r1", body=original.body, request=request_bytes), THEN, evaluator)
    assert (result.classification, result.same) == (ReplayClass.MISSING_FACT, None)


def test_request_in_another_spelling_is_not_evaluated(evaluator):
    original = recorded(evaluator)
    assert original.request is not None
    spelt = RecordedDecision(record_id="r1", body=original.body, request=original.request + b"\n")
    assert run(spelt, THEN, evaluator).classification is ReplayClass.MISSING_FACT


@pytest.mark.parametrize(("engine", "version"), [("cedar", "4.0.0"), ("rego", "0.13.0")])
def test_decision_of_another_engine_is_marked(evaluator, engine, version):
    original = recorded(evaluator)
    assert original.body.bundle is not None
    reference = msgspec.structs.replace(original.body.bundle, engine=engine, engine_version=version)
    result = run(changed(original, bundle=reference), THEN, evaluator)
    assert result.classification is ReplayClass.ENGINE_CHANGED
    assert f"decided by {engine} {version}" in result.explanation
    assert result.same is True


def test_engine_that_is_not_installed_decides_nothing(evaluator):
    original = recorded(evaluator)
    result = run(original, cedar_bundle("//", engine="rego"), evaluator)
    assert (result.classification, result.same, result.replayed) == (ReplayClass.ENGINE_CHANGED, None, None)
    assert "no engine named rego is installed" in result.explanation


def opa_bundle() -> Bundle:
    """Return a bundle for an operator's OPA server."""
    members = {
        "format": "tallystick.bundle/1",
        "name": "outside",
        "engine": "opa_server",
        "policies": ["rules.json"],
        "package": "acme",
    }
    rules = {"format": "tallystick.opa/1"}
    return bundle_from_files({"rules.json": json.dumps(rules).encode(), "manifest.json": json.dumps(members).encode()})


def test_server_of_an_operator_is_not_asked_again(evaluator):
    """What it holds now is not what it held then, so its answer would be one to another question."""
    asking = Evaluator({"opa_server": OPAServerEngine(OPAServer(url="http://127.0.0.1:1"))})
    result = run(recorded(evaluator), opa_bundle(), asking)
    asking.close()
    assert (result.classification, result.same, result.replayed) == (ReplayClass.MISSING_FACT, None, None)
    assert "an OPA server decides by what it holds when it is asked" in result.explanation


def test_decision_of_an_operators_server_is_never_replayed_exactly(evaluator):
    """By our engine, under a bundle of ours: what that says, and that another engine said it."""
    original = recorded(evaluator)
    assert original.body.bundle is not None
    reference = msgspec.structs.replace(
        original.body.bundle, engine="opa_server", engine_version="1.22.2+0123456789abcdef"
    )
    result = run(changed(original, bundle=reference), THEN, evaluator)
    assert result.classification is ReplayClass.ENGINE_CHANGED
    assert "decided by opa_server 1.22.2+0123456789abcdef" in result.explanation


class FailingEngine(CedarEngine):
    """Cedar that fails at evaluation."""

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        raise RuntimeError(f"{len(requests)} requests of {loaded.revision}")


def test_engine_that_fails_now_gives_no_exact_replay(evaluator):
    original = recorded(evaluator)
    failing = Evaluator({"cedar": FailingEngine()})
    result = run(original, THEN, failing)
    failing.close()
    assert result.classification is ReplayClass.LIMITED
    assert "now" in result.explanation


def test_engine_that_failed_then_gives_no_exact_replay(evaluator):
    failing = Evaluator({"cedar": FailingEngine()})
    original = recorded(failing)
    failing.close()
    result = run(original, THEN, evaluator)
    assert result.classification is ReplayClass.LIMITED
    assert "then" in result.explanation
    assert result.original.reason == "engine_error"
    assert result.same is False


class StoppedEngine(CedarEngine):
    """Cedar that is stopped at evaluation."""

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:  # noqa: ARG002  # the port's
        raise EngineStoppedError(Limit.TIME)


def test_decision_that_a_limit_stopped_then_or_now_is_of_class_limited_and_nothing_is_guessed(evaluator):
    stopping = Evaluator({"cedar": StoppedEngine()})
    original = recorded(stopping)
    assert original.body.reason == "limited"
    then, now = run(original, THEN, evaluator), run(recorded(evaluator), THEN, stopping)
    both = run(original, THEN, stopping)
    stopping.close()
    assert [result.classification for result in (then, now, both)] == [ReplayClass.LIMITED] * 3
    assert [result.explanation.rpartition("stopped ")[2] for result in (then, now, both)] == [
        "then",
        "now",
        "then and now",
    ]


def test_bundle_that_did_not_load_then_does_not_now(evaluator):
    broken = cedar_bundle("permit(principal, action, resource);")
    result = run(recorded(evaluator, broken), broken, evaluator)
    assert (result.classification, result.same) == (ReplayClass.EXACT, True)
    assert result.original.reason == "bundle_error"


def test_many_replays_keep_their_order_around_those_that_cannot_be_made(evaluator):
    day, night = recorded(evaluator, hour=10), recorded(evaluator, hour=3)
    erased = RecordedDecision(record_id="r1", body=night.body, request=None)
    originals = [day, erased, night, changed(day, bundle=None), night, day]
    results = asyncio.run(replay_many(originals, CHANGED, evaluator))
    assert [result.same for result in results] == [True, None, False, None, False, True]
    assert [result.classification.value for result in results] == [
        "exact",
        "erased",
        "exact",
        "missing_fact",
        "exact",
        "exact",
    ]


def test_no_decisions_give_no_replays(evaluator):
    assert asyncio.run(replay_many([], THEN, evaluator)) == []


# --- behaviour windows -----------------------------------------------------------------------------------------------

SPENT = '{"windows": [{"name": "spent", "measure": "sum", "parameter": "amount", "per": "user", "over": "day"}]}'
CAPPED = '@id("cap") permit(principal, action, resource) when { context.state.windows.spent <= 10 };'


def windowed(declarations: str = SPENT, policy: str = CAPPED) -> Bundle:
    schema = SCHEMA.replace("started_ms: Long }", "started_ms: Long, windows: { spent: Long } }")
    files = cedar_files(policy, schema=schema, windows="windows.json")
    return bundle_from_files(files | {"windows.json": declarations.encode()})


def recorded_with_windows(evaluator: Evaluator, bundle: Bundle, spent: int) -> RecordedDecision:
    request = read_windows(bundle).stated(make_request(), {"spent": spent})
    (evaluation,) = asyncio.run(evaluator.evaluate_many(bundle, [request]))
    return as_record(evaluation.decision, request)


@pytest.mark.parametrize(("spent", "effect"), [(10, "PERMIT"), (11, "NOT_APPLICABLE")])
def test_recorded_windows_decide_again_as_they_did(evaluator, spent, effect):
    original = recorded_with_windows(evaluator, windowed(), spent)
    result = run(original, windowed(), evaluator)
    assert (result.classification, result.same, original.body.decision) == (ReplayClass.EXACT, True, effect)
    stricter = windowed(policy=CAPPED.replace("10", "9"))
    assert run(original, stricter, evaluator).same is (effect != "PERMIT")


def test_bundle_that_asks_for_windows_that_were_not_recorded_is_not_guessed_at(evaluator):
    result = run(recorded(evaluator), windowed(), evaluator)
    assert (result.classification, result.replayed) == (ReplayClass.MISSING_FACT, None)
    assert result.explanation == "the request does not say what the bundle's windows ask for (spent)"


def test_window_of_the_same_name_that_measured_something_else_is_not_taken_for_it(evaluator):
    original = recorded_with_windows(evaluator, windowed(SPENT.replace('"user"', '"agent"')), 1)
    assert run(original, windowed(), evaluator).classification is ReplayClass.MISSING_FACT


def test_recorded_windows_trouble_no_bundle_without_any(evaluator):
    original = recorded_with_windows(evaluator, windowed(), 1)
    result = run(original, cedar_bundle('@id("cap") permit(principal, action, resource);'), evaluator)
    assert (result.classification, result.same) == (ReplayClass.EXACT, True)


SIGNALS = (
    "signals: { inspected: String, inspector: String, findings: Set<String>, kinds: Set<String>, finding_count: Long,"
    " tool_state: String, baseline: String, deviations: Set<String> }, args: {"
)
NO_FINDING = '@id("clean") permit(principal, action, resource) when { context.signals.finding_count == 0 };'


def recorded_with(evaluator: Evaluator, bundle: Bundle, request: DecisionRequest) -> RecordedDecision:
    (evaluation,) = asyncio.run(evaluator.evaluate_many(bundle, [request]))
    return as_record(evaluation.decision, request)


def test_recorded_signals_decide_again_as_they_did(evaluator):
    bundle = cedar_bundle(NO_FINDING, schema=SCHEMA.replace("args: {", SIGNALS))
    original = recorded_with(evaluator, bundle, with_signals(make_request(), Signals()))
    result = run(original, bundle, evaluator)
    assert (result.classification, result.same, original.body.decision) == (ReplayClass.EXACT, True, "PERMIT")


@pytest.mark.parametrize("engine", ["cedar", "rego"])
def test_bundle_that_reads_signals_that_were_not_recorded_is_not_guessed_at(engine):
    bundle = (
        cedar_bundle(NO_FINDING, schema=SCHEMA.replace("args: {", SIGNALS))
        if engine == "cedar"
        else rego_bundle("allow if input.signals.finding_count == 0")
    )
    both = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()})
    try:
        result = run(recorded(both), bundle, both)
        assert (result.classification, result.same, result.replayed) == (ReplayClass.MISSING_FACT, None, None)
        assert "reads signals" in result.explanation
        # Where the request lacked them under the same bundle, it was refused for that then, and is now.
        then = recorded_with(both, bundle, make_request())
        again = run(then, bundle, both)
        assert (again.classification, again.same, then.body.decision) == (ReplayClass.EXACT, True, "INDETERMINATE")
    finally:
        both.close()


def test_bundle_whose_windows_cannot_be_read_denies_as_one_that_does_not_load(evaluator):
    result = run(recorded(evaluator), windowed("{}"), evaluator)
    assert (result.classification, result.replayed and result.replayed.reason) == (ReplayClass.EXACT, "bundle_error")
