"""Signals: one spelling each, read by policies as they are, and not taken for "nothing found" where they are absent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from ledger.bodies_inspection import Inspection
from ledger.body_fields import Names
from ledger.canonical import canonical_bytes
from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.engines.rego_modules import read_source
from policies.evaluate import Evaluator, Reason
from policies.listing import Visibility, classify, listed_request
from policies.model import Decision, DecisionRequest, Effect, decode_request, encode_request, with_signals, with_windows
from policies.signals import FINDING_KINDS, MAX_FINDINGS, SIGNAL_NAMES, Signals, finding_kinds, signal_facts
from policies.testing import read_given, run_cases
from tests.support.policies import SCHEMA, cedar_bundle, cedar_files, make_request, rego_bundle

FOUND = Signals(
    inspected="complete",
    inspector="1e" * 32,
    findings=("injection/override", "secret/aws-access-key", "secret/pem-key"),
    finding_count=4,
    tool_state="pinned",
    baseline="ready",
    deviations=("hour", "tool"),
)
TYPE = (
    "{ inspected: String, inspector: String, findings: Set<String>, kinds: Set<String>, finding_count: Long,"
    " tool_state: String, baseline: String, deviations: Set<String> }"
)
SIGNALLED = SCHEMA.replace("  args: {", f"  signals: {TYPE},\n  args: {{")
ANY = '@id("any") permit(principal, action, resource);\n'
NO_SECRET = '@id("secret") forbid(principal, action, resource) when { context.signals.kinds.contains("secret") };\n'
NO_SECRET_REGO = 'allow := true\ndenies contains "secret" if "secret" in input.signals.kinds\n'


def cedar(policy: str = ANY + NO_SECRET, schema: str = SIGNALLED) -> Bundle:
    return cedar_bundle(policy, schema=schema)


def decide(bundle: Bundle, request: DecisionRequest) -> Decision:
    engine = CedarEngine() if bundle.manifest.engine == "cedar" else RegoEngine()
    (decision,) = engine.evaluate(engine.load(bundle), [request])
    return decision


BOTH = pytest.mark.parametrize("bundle", [cedar(), rego_bundle(NO_SECRET_REGO)], ids=["cedar", "rego"])


# --- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [None, {"spent": 1}])
@pytest.mark.parametrize("signals", [Signals(), FOUND])
def test_a_request_with_signals_is_of_version_3_and_has_one_spelling(signals: Signals, windows: Any) -> None:
    request = make_request() if windows is None else with_windows(make_request(), windows)
    stated = with_signals(request, signals)
    data = encode_request(stated)
    assert (stated.version, decode_request(data)) == (3, stated)
    assert set(json.loads(data)["signals"]) == set(Signals.__struct_fields__)
    assert with_windows(stated, {"spent": 2}).version == 3


def test_requests_without_signals_are_written_as_before_there_were_any() -> None:
    assert json.loads(encode_request(make_request()))["version"] == 1
    assert json.loads(encode_request(with_windows(make_request(), {"spent": 1})))["version"] == 2
    assert b"signals" not in encode_request(with_windows(make_request(), {"spent": 1}))


def changed(**members: Any) -> bytes:
    document = json.loads(encode_request(with_signals(make_request(), FOUND)))
    document["signals"] |= members
    return canonical_bytes(document)


@pytest.mark.parametrize(
    "data",
    [
        encode_request(with_signals(make_request(), FOUND)).replace(b'"version":3', b'"version":1'),
        encode_request(with_signals(make_request(), FOUND)).replace(b'"version":3', b'"version":2'),
        encode_request(make_request()).replace(b'"version":1', b'"version":3'),
        encode_request(make_request()).replace(b'"version":1', b'"version":4'),
        changed(extra=1),
        changed(findings=["secret/pem-key", "injection/override"]),
        changed(findings=["secret/pem-key", "secret/pem-key"]),
        changed(findings=["weather/rain"]),
        changed(findings=["secret/"]),
        changed(findings=["secret/AKIA IOSF"]),
        changed(findings=["secret/" + "a" * 97]),
        changed(finding_count=2),
        changed(finding_count=-1),
        changed(inspected="none"),
        changed(inspected="most"),
        changed(tool_state="trusted"),
        changed(baseline="good"),
        changed(deviations=["tool", "hour"]),
        changed(deviations=["a value of the call"]),
        changed(kinds=["secret"]),
    ],
)
def test_signals_in_any_other_form_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_request(data)


def test_more_findings_than_a_record_holds_are_refused() -> None:
    names = tuple(sorted(f"secret/rule-{number}" for number in range(MAX_FINDINGS + 1)))
    document = json.loads(encode_request(with_signals(make_request(), FOUND)))
    document["signals"] |= {"findings": list(names), "finding_count": len(names)}
    with pytest.raises(MalformedError):
        decode_request(canonical_bytes(document))


def test_a_record_holds_whatever_a_request_may_say() -> None:
    rules = tuple(sorted(f"exfiltration/{'r' * 93}{number:03}" for number in range(MAX_FINDINGS)))
    signals = msgspec.convert({"inspected": "partial", "findings": rules, "finding_count": 64}, Signals)
    said = {"extent": "partial", "inspector": "1e" * 32, "findings": signals.findings}
    assert msgspec.convert(said, Inspection).findings == rules
    assert msgspec.convert(["hour/of.day:x"], Names) == ("hour/of.day:x",)


def test_kinds_follow_from_findings_and_policies_read_every_member() -> None:
    assert finding_kinds(FOUND.findings) == ("injection", "secret")
    assert tuple(signal_facts(FOUND)) == SIGNAL_NAMES
    assert set(SIGNAL_NAMES) == {*Signals.__struct_fields__, "kinds"}
    assert len(FINDING_KINDS) == 9


# --- policies --------------------------------------------------------------------------------------------------------


@BOTH
def test_policies_read_what_safeguards_found(bundle: Bundle) -> None:
    clean = with_signals(make_request(), Signals(inspected="complete", inspector="i"))
    assert decide(bundle, clean).effect is Effect.PERMIT
    found = decide(bundle, with_signals(make_request(), FOUND))
    assert (found.effect, found.rules) == (Effect.DENY, ("secret",))


@BOTH
@pytest.mark.parametrize("request_", [make_request(), with_windows(make_request(), {"spent": 1})])
def test_a_request_without_signals_is_not_taken_for_a_clean_one(bundle: Bundle, request_: DecisionRequest) -> None:
    decision = decide(bundle, request_)
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.REQUEST_ERROR,
        "signals",
    )


@pytest.mark.parametrize("condition", [
    'context.signals.inspected == "complete"',
    'context.signals.inspector != ""',
    'context.signals.findings.contains("secret/pem-key")',
    "context.signals.finding_count == 4",
    'context.signals.tool_state == "pinned"',
    'context.signals.baseline == "ready"',
    'context.signals.deviations.containsAll(["hour", "tool"])',
])  # fmt: skip
def test_cedar_reads_every_signal(condition: str) -> None:
    bundle = cedar(f'@id("if") permit(principal, action, resource) when {{ {condition} }};')
    assert decide(bundle, with_signals(make_request(), FOUND)).effect is Effect.PERMIT
    assert decide(bundle, with_signals(make_request(), Signals())).effect is Effect.NOT_APPLICABLE


def test_rego_reads_every_signal() -> None:
    wanted = json.dumps(signal_facts(FOUND))
    bundle = rego_bundle(f"allow if input.signals == {wanted}")
    assert decide(bundle, with_signals(make_request(), FOUND)).effect is Effect.PERMIT
    assert decide(bundle, with_signals(make_request(), Signals())).effect is Effect.NOT_APPLICABLE


@pytest.mark.parametrize("schema", [SCHEMA, SCHEMA.replace("level?: Long", "level?: Long, signals?: Long")])
def test_signals_reach_no_cedar_policy_whose_schema_does_not_have_them_in_its_context(schema: str) -> None:
    bundle = cedar(ANY, schema)
    for request in (make_request(), with_signals(make_request(), FOUND)):
        assert decide(bundle, request).effect is Effect.PERMIT


def test_actions_whose_context_has_no_signals_are_asked_without_them() -> None:
    plain = SCHEMA[SCHEMA.index("type Facts") : SCHEMA.index("action ")].replace("type Facts", "type Plain")
    schema = SIGNALLED.replace(
        '"tools/list" appliesTo { principal: Agent, resource: Server, context: Facts }',
        '"tools/list" appliesTo { principal: Agent, resource: Server, context: Plain }',
    ).replace('action "tools/list"', plain + 'action "tools/list"')
    bundle = cedar(ANY, schema)
    assert decide(bundle, make_request(action="tools/list", name=None)).effect is Effect.PERMIT
    assert decide(bundle, make_request()).detail == "signals"
    assert decide(bundle, with_signals(make_request(), FOUND)).effect is Effect.PERMIT


def test_a_schema_may_leave_signals_optional_and_still_gets_no_request_without_them() -> None:
    policy = ANY + (
        '@id("secret") forbid(principal, action, resource)'
        ' when { context has signals && context.signals.kinds.contains("secret") };'
    )
    bundle = cedar(policy, SIGNALLED.replace("signals: {", "signals?: {"))
    assert decide(bundle, with_signals(make_request(), FOUND)).rules == ("secret",)
    assert decide(bundle, make_request()).detail == "signals"


@pytest.mark.parametrize(
    "type_",
    [
        "Long",
        "{ findings: Set<String> }",
        TYPE.replace("finding_count: Long", "finding_count: String"),
        TYPE.replace(" }", ", severity: String }"),
    ],
)
@pytest.mark.parametrize("mark", ["", "?"])
def test_a_schema_whose_signals_are_not_ours_is_refused_and_not_passed_over(type_: str, mark: str) -> None:
    schema = SCHEMA.replace("  args: {", f"  signals{mark}: {type_},\n  args: {{")
    with pytest.raises(PolicySyntaxError, match="does not fit requests"):
        CedarEngine().load(cedar(ANY, schema))


@pytest.mark.parametrize(
    ("policy", "reads"),
    [
        ("allow := true", False),
        ('allow if input.args.signals == "x"', False),
        ("allow if input.signals.finding_count == 0", True),
        ('allow if input["signals"].finding_count == 0', True),
        ("allow if input[name].finding_count == 0\nname := data.name", True),
        ("allow if some\nsome if { it := input; it.signals.finding_count == 0 }", True),
        ("allow if f(input)\nf(it) if it.signals.finding_count == 0", True),
        ("allow if f(input)\nf(it) if it.time.hour == 10", False),
    ],
)
def test_whether_a_rego_bundle_reads_signals_is_told_from_its_text(policy: str, *, reads: bool) -> None:
    policy = policy.replace("some\nsome if", "one\none if")
    assert read_source(rego_bundle(policy, data={"name": "signals"} if "data" in policy else None)).signalled is reads


def test_an_imported_part_of_the_input_is_seen() -> None:
    policy = "import input.signals as found\nallow if found.finding_count == 0"
    assert read_source(rego_bundle(policy)).signalled


# --- lists -----------------------------------------------------------------------------------------------------------


def listed(bundle: Bundle, state: Any = None, *, template: bool = False, baseline: Any = "none") -> Visibility:
    listing = with_signals(make_request(action="tools/list", name=None), FOUND)
    asked = listed_request(
        listing, action="tools/call", name="sell", tags=(), template=template, tool_state=state, baseline=baseline
    )
    return classify(decide(bundle, asked))


NO_QUARANTINE = (
    ANY + '@id("q") forbid(principal, action, resource) when { context.signals.tool_state == "quarantined" };'
)
NO_QUARANTINE_REGO = 'allow := true\ndenies contains "q" if input.signals.tool_state == "quarantined"\n'


@BOTH
@pytest.mark.parametrize("state", [None, "pinned", "quarantined"])
def test_findings_of_arguments_hide_nothing_since_nobody_knows_them(bundle: Bundle, state: Any) -> None:
    assert listed(bundle, state) is Visibility.SHOWN


@pytest.mark.parametrize("bundle", [cedar(NO_QUARANTINE), rego_bundle(NO_QUARANTINE_REGO)], ids=["cedar", "rego"])
def test_a_list_hides_what_the_state_of_a_tool_forbids_and_nothing_where_nobody_knows_it(bundle: Bundle) -> None:
    assert listed(bundle, "quarantined") is Visibility.HIDDEN
    assert listed(bundle, "pinned") is Visibility.SHOWN
    assert listed(bundle) is Visibility.SHOWN
    assert listed(bundle, "quarantined", template=True) is Visibility.SHOWN


KNOWN_AGENTS = (
    ANY + '@id("b") forbid(principal, action, resource) unless { context.signals.baseline == "ready"'
    " && context.signals.deviations.isEmpty() };"
)
KNOWN_AGENTS_REGO = """allow := true
denies contains "b" if input.signals.baseline != "ready"
denies contains "d" if count(input.signals.deviations) > 0
"""


@pytest.mark.parametrize("bundle", [cedar(KNOWN_AGENTS), rego_bundle(KNOWN_AGENTS_REGO)], ids=["cedar", "rego"])
def test_a_list_hides_what_an_agent_without_a_baseline_may_not_call_and_no_departure_is_guessed(bundle: Bundle) -> None:
    assert listed(bundle, "none", baseline="learning") is Visibility.HIDDEN
    assert listed(bundle, "pinned") is Visibility.HIDDEN
    assert listed(bundle, "none", baseline="ready") is Visibility.SHOWN
    assert listed(bundle) is Visibility.SHOWN  # nobody says
    assert listed(bundle, "none", baseline="learning", template=True) is Visibility.SHOWN


@pytest.mark.parametrize("bundle", [cedar(KNOWN_AGENTS), rego_bundle(KNOWN_AGENTS_REGO)], ids=["cedar", "rego"])
@pytest.mark.parametrize("baseline", ["none", "learning", "ready"])
@pytest.mark.parametrize("deviations", [(), ("hour",)])
def test_what_a_list_hides_for_its_baseline_no_call_of_that_baseline_may_do(
    bundle: Bundle, baseline: Any, deviations: tuple[str, ...]
) -> None:
    call = with_signals(make_request(name="sell"), Signals(baseline=baseline, deviations=deviations))
    shown = listed(bundle, "none", baseline=baseline) is Visibility.SHOWN
    assert shown or not decide(bundle, call).permitted


def test_one_engine_asked_with_and_without_a_state_keeps_the_answers_apart() -> None:
    engine = CedarEngine()
    loaded = engine.load(cedar(NO_QUARANTINE))
    listing = make_request(action="tools/list", name=None)
    asked = [
        listed_request(listing, action="tools/call", name="sell", tags=(), tool_state=state)
        for state in ("quarantined", None, "quarantined", "pinned")
    ]
    seen = [classify(decision) for decision in engine.evaluate(loaded, asked)]
    assert seen == [Visibility.HIDDEN, Visibility.SHOWN, Visibility.HIDDEN, Visibility.SHOWN]


# --- obligations -----------------------------------------------------------------------------------------------------


def test_a_permit_may_have_its_result_redacted_or_blocked_and_a_forbid_may_not() -> None:
    policy = '@id("any") @obligation("redact_result, approval") permit(principal, action, resource);'
    request = with_signals(make_request(), FOUND)
    assert decide(cedar(policy), request).obligations == ("approval", "redact_result")
    for name in ("redact_result", "block_result"):
        with pytest.raises(PolicySyntaxError, match=f"a forbid cannot have the obligation {name}"):
            CedarEngine().load(cedar(f'@id("x") @obligation("{name}") forbid(principal, action, resource);'))
        rego = rego_bundle(f'allow := true\nobligations contains "{name}"')
        assert decide(rego, make_request()).obligations == (name,)


# --- tests beside policies -------------------------------------------------------------------------------------------

CASES = """
defaults: {agent: Bot, server: shop, tool: sell, at: 2026-11-17T10:00:00}
cases:
  - name: clean
    given: {signals: {inspected: complete, inspector: test}}
    expect: {effect: PERMIT, rules: [any]}
  - name: a secret
    given: {signals: {inspected: complete, findings: [secret/pem-key], finding_count: 1}}
    expect: {effect: DENY, rules: [secret]}
  - name: no safeguards
    given: {}
    expect: {effect: INDETERMINATE, rules: [], reason: request_error}
"""


def test_cases_state_signals() -> None:
    files = cedar_files(ANY + NO_SECRET, schema=SIGNALLED) | {"tests/all.yaml": CASES.encode()}
    evaluator = Evaluator({"cedar": CedarEngine()})
    try:
        report = asyncio.run(run_cases(bundle_from_files(files), evaluator))
    finally:
        evaluator.close()
    assert [result.differences for result in report.results] == [(), (), ()]
    assert report.passed
    assert report.uncovered == ()


@pytest.mark.parametrize(
    "signals",
    ["[]", "{findings: [secret/x]}", "{inspected: complete, findings: [b/x]}", "{found: 1}", "{tool_state: trusted}"],
)
def test_a_case_whose_signals_are_none_is_refused(signals: str) -> None:
    with pytest.raises(PolicySyntaxError, match="the request"):
        read_given(f"{{agent: a, server: s, at: 2026-11-17T10:00:00, signals: {signals}}}")
