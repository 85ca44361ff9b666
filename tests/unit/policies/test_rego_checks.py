"""What a Rego bundle may not say, and that it hears so when it is loaded: with file, line and column."""

from __future__ import annotations

import json

import pytest
from regorus.regorus import Engine

from ledger.errors import PolicySyntaxError
from policies.bundles import bundle_from_files
from policies.engines.rego import RegoEngine
from policies.engines.rego_builtins import ARITIES, BOUND, REFUSED
from policies.engines.rego_checks import MAX_RULES
from policies.engines.rego_modules import opa_layout
from policies.engines.rego_text import MAX_CHAIN, MAX_NESTING
from policies.model import Effect
from tests.support.policies import make_request, rego_bundle, rego_files

ENGINE = RegoEngine()


def refusal(policy, **options) -> str:
    """Return why a bundle is refused."""
    with pytest.raises(PolicySyntaxError) as caught:
        ENGINE.load(rego_bundle(policy, **options))
    return str(caught.value)


def loads(policy, **options) -> None:
    ENGINE.load(rego_bundle(policy, **options))


# --- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_function_that_asks_the_world_is_refused_with_its_place(name):
    assert refusal(f"default allow := false\nallow if {{\n  x := {name}({{}})\n}}").startswith(
        f"policy.rego:4:8: {name} "
    )


@pytest.mark.parametrize(
    "text",
    [
        'http["send"]({})',
        "[x | x := http.send({})]",
        "{k: v | some k, v in {1: opa.runtime()}}",
        'count({1 | rand.intn("a", 3) == 1})',
        "helper(1)\nhelper(n) := uuid.rfc4122(n)",
        'object.get(opa.runtime(), "env", {})',
    ],
)
def test_function_is_found_wherever_it_hides(text):
    assert "is not allowed" in refusal(f"allow if {text}")


def test_function_is_found_in_what_is_put_in_place_by_with():
    assert "opa.runtime is not allowed" in refusal("allow if input.a with input.a as opa.runtime()")
    assert "is not allowed" in refusal('allow if { every x in [1] { http.send({"x": x}) } }')


@pytest.mark.parametrize("target", ["count", "time.now_ns", "http.send", "data.test.f", "lib.f"])
def test_functions_are_not_replaced(target):
    policy = f"import data.lib\nf(x) := x\nallow if {{ f(input.a) == 1 with {target} as 3 }}"
    assert "`with` replaces" in refusal(
        {"policy.rego": f"package test\n{policy}", "lib.rego": "package lib\nf(x) := x"},
    )


@pytest.mark.parametrize("taken", ["time.now_ns", "f", "data.test.f", "http.send"])
def test_function_cannot_be_passed_on_under_another_name(taken):
    assert "a function can be called" in refusal(f"f(x) := x\nallow if {{ g := {taken}; g }}")


def test_function_that_is_only_known_at_run_time_is_refused():
    assert refusal("allow if http[input.name]({})").startswith("policy.rego:2:")


@pytest.mark.parametrize(
    "policy",
    ["import input.time\nallow if time.now_ns() > 3", "import data.lib as count\nallow if count([1]) == 1"],
)
def test_import_does_not_hide_a_function(policy):
    """regorus calls its own function there, OPA would not."""
    assert "no function named" in refusal(policy) or "built-in" in refusal(policy)


@pytest.mark.parametrize("rule", ["count(x) := 77", "time.now_ns() := 77", "time.now_ns := 77", "print(x) := 1"])
def test_rule_does_not_take_the_name_of_a_function(rule):
    assert "built-in function" in refusal(f"allow := true\n{rule}")


@pytest.mark.parametrize("call", ["time.clock", "time.date", "time.weekday", "time.format"])
def test_zone_of_the_machine_is_refused(call):
    assert "Local" in refusal(f'allow if {call}([0, "Local"])')


def test_functions_are_those_of_the_engine():
    """Every function that may be called is known to regorus, and none that it knows is forgotten."""
    engine = Engine()
    engine.add_policy("p.rego", "package p\nx := opa.runtime()")
    known = {
        name
        for name in json.loads(engine.eval_rule_as_json("data.p.x"))["builtins"]
        if not name.startswith("__builtin")
    }
    assert known == ARITIES.keys() | (REFUSED.keys() & known)
    assert ARITIES.keys() >= BOUND
    assert not ARITIES.keys() & REFUSED.keys()
    for name, count in ARITIES.items():
        if name != "sprintf":
            loads(f"allow if {{ false; {name}({', '.join(['{}'] * count)}) }}")


# --- functions that are not there ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("nosuch(1)", "no function named nosuch"),
        ("crypto.sha256(1)", "no function named crypto.sha256"),
        ("data.test.nosuch(1)", "no function named data.test.nosuch"),
        ("data.other.f(1)", "no function named data.other.f"),
        ("input.f(1)", "no function named input.f"),
        ("allow2(1)", "no function named allow2"),
        ("count(1, 2, 3)", "count takes 1 arguments"),
        ("mine(1, 2, 3)", "mine does not take 3 arguments"),
    ],
)
def test_call_of_what_is_not_there_is_found_before_it_is_reached(call, told):
    """regorus would find out on the day that the rule is first reached."""
    policy = f"default allow := false\nmine(x) := x\nallow2 := 1\nallow if {{\n  false\n  {call}\n}}"
    assert refusal(policy) == f"policy.rego:7:3: {told}"


@pytest.mark.parametrize("body", ["x", "x := y", "not x", "count(x) == 1", "x > 1", "y := [1 | x]", "f(2)"])
def test_name_that_nothing_gives_a_value_is_refused(body):
    refusal(f"allow if {{ input.a; {body} }}\nf(n) if {{ n == 1; m == 3 }}" if body == "f(2)" else f"allow if {body}")


@pytest.mark.parametrize("rule", ["allow := x", "allow := x.y if { true }"])
def test_value_that_nothing_gives_is_refused(rule):
    assert refusal(rule) == "policy.rego:2:1: nothing gives x a value"


@pytest.mark.parametrize(
    "policy",
    [
        "allow if { walk(input, [path, value]); value == 1 }",
        "allow if count([1], 1)",
        'allow if { some i; input.principal.roles[i] == "a" }',
        'allow if input.principal.roles[_] == "a"',
        "allow := x if { x := true }",
        'allow := y.z if { y = {"z": true} }',
        "import input.time\nallow if time.hour > 3",
        "import input.principal.mfa\nallow := mfa",
        "import rego.v1\nallow if true",
        "import future.keywords.if\nallow if true",
        "f(x) := 1\nallow if data.test.f(1)",
        'limits := {"a": 1}\nallow if limits[input.action]',
        "allow if { count := 3; count == 3 }",
        "allow if input.a with input.a as 3 with data.x as 4",
        "default level(x) := 3\nlevel(x) := 4 if x == 2\nallow if level(1) == 3",
        'object.names[k] := v if { some k, v in {"a": 1} }\nallow if object.names.a == 1',
    ],
)
def test_sound_text_loads(policy):
    loads(policy)


# --- recursion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        "f(n) := f(n + 1)\nallow if f(1)",
        "f(n) := g(n)\ng(n) := f(n)\nallow if f(1)",
        "f(n) := x if { x := [y | y := f(n)] }\nallow if f(1)",
        "f(n) := x if { f2 := 1; x := data.test.f(n) }\nallow if f(1)",
        "f(n) if { f := n; f(n) }\nallow if f(1)",
        "allow if other\nother if allow",
        "allow if count(data.test) == 1",
        "allow if { some x; data[x].allow }",
        "allow if data[input.package]",
        "set contains 1 if count(set) == 0\nallow if set",
        "f(n) := 1 if n == 0 else := f(n - 1)\nallow if f(1)",
        "default f(n) := 1\nf(n) := f(n) if n\nallow if f(1)",
        "obj[k] := v if { some k, v in obj }\nallow if obj.a",
        "allow if input.a with input.a as allow",
    ],
)
def test_rule_that_depends_on_itself_is_refused(policy):
    """The first of these ends the process that evaluates it."""
    assert "a rule depends on itself" in refusal(policy)


def test_circle_over_files_is_told_with_its_way():
    files = {
        "a.rego": "package a\nimport data.b.lib\nallow if lib.check(1)",
        "b.rego": "package b.lib\nimport data.a as up\ncheck(x) if up.allow",
    }
    assert refusal(files) == "a.rego:3:1: a rule depends on itself: a.allow → b.lib.check → a.allow"


def test_rules_below_one_name_are_no_circle():
    loads("limits.low := 1\nlimits.high := limits.low + 1\nallow if limits.high == 2")


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "term",
    [
        "[" * 100 + "1" + "]" * 100,
        '{"a": ' * 100 + "1" + "}" * 100,
        "[1 | " * 60 + "true" + "]" * 60,
        "(" * 5000 + "1" + ")" * 5000,
        "count(" * 100 + "[1]" + ")" * 100,
        "input[" * 100 + "1" + "]" * 100,
    ],
)
def test_deep_nesting_is_refused_before_the_parser_sees_it(term):
    """Each level of lists or objects doubles the work of regorus's parser; a hundred would not end."""
    assert "nested more than" in refusal(f"allow := {term} == 1")


def test_nesting_that_is_allowed_loads():
    depth = MAX_NESTING - 1
    loads("x := " + "[" * depth + "1" + "]" * depth + "\nallow := true")


def test_a_file_full_of_nesting_is_refused():
    value = "[" * 10 + "1" + "]" * 10
    assert "too much nesting" in refusal("\n".join(f"x{n} := {value}" for n in range(100)) + "\nallow := true")


@pytest.mark.parametrize(
    "term",
    [
        "+".join(["1"] * 400),
        "+\n".join(["1"] * 20_000),
        "|\n".join(["{1}"] * 400),
        "input" + ".a" * 400,
        "input" + '["a"]' * 150 + ".a" * 60,
        "-" * 400 + "1",
    ],
)
def test_long_chains_are_refused(term):
    assert f"more than {MAX_CHAIN} operators" in refusal(f"allow := {term} == 1")


def test_many_short_expressions_are_no_chain():
    conditions = "\n".join(f"  input.state.calls + {n} != input.time.hour - 100" for n in range(200))
    loads(f"allow if {{\n{conditions}\n}}")


def test_more_rules_than_a_bundle_may_have_are_refused():
    text = "\n".join(f"x{n} := 1" for n in range(MAX_RULES))
    assert "at most 2000 rules" in refusal(f"allow := true\n{text}")


def test_more_text_than_a_file_may_have_is_refused():
    assert "words and marks" in refusal("allow := true\nx := [" + "1," * 40_000 + "1]")
    assert "column width" in refusal(f'allow := true\nx := "{"x" * 2000}"')


@pytest.mark.parametrize("first", ["%9999999d", "%.9999999f", "%*d", "%+010001d"])
def test_format_that_would_fill_the_memory_is_refused(first):
    assert "wider than" in refusal(f'allow if sprintf("{first}", [1])')


def test_format_that_a_call_could_write_is_refused():
    assert "written out" in refusal("allow if sprintf(input.arguments.f, [1])")
    loads('allow if sprintf("%5d of %v: %s %%", [1, 2, "x"])')


@pytest.mark.parametrize("char", ["\u202e", "\u200b", "\x00", "\ufeff", "\u2028"])
def test_invisible_characters_are_refused(char):
    assert "invisible character" in refusal(f"allow := true # {char}")


@pytest.mark.parametrize("text", ["allow := $", 'allow := "a', "allow := `a", "allow := {", "allow := )", "allow :="])
def test_text_that_is_none_is_refused_with_its_place(text):
    assert refusal(text).startswith("policy.rego:2")


def test_message_of_regorus_is_one_line_without_its_trace():
    told = refusal("allow if { input.x ==")
    assert told.startswith("policy.rego:2:")
    assert "\n" not in told
    assert "backtrace" not in told


@pytest.mark.parametrize(
    "number", ["99999999999999999999", "9223372036854775808", "1.00000000000000000000001", "1e999"]
)
def test_number_that_regorus_would_round_is_refused(number):
    assert refusal(f"allow if input.args.amount < {number}")


# --- what decides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        "x := 1",
        "allow contains 1",
        "allow(x) := true",
        "allow.x := true",
        "default allow(x) := true",
    ],
)
def test_package_needs_an_allow_that_is_true_or_not(policy):
    assert "allow" in refusal(policy)


@pytest.mark.parametrize("name", ["permits", "denies", "obligations"])
@pytest.mark.parametrize(
    "rule",
    [
        "{name} contains input.principal.agent if true",
        "{name} contains x if {{ x := input.principal.agent }}",
        '{name} contains x if {{ some x in ["approval"] }}',
        '{name} contains sprintf("%v", [input.principal.agent]) if true',
        '{name} := {{"approval"}}',
        '{name} := ["approval"] if true',
        '{name}["approval"] := true',
        '{name}.approval contains "x"',
        '{name} contains "two words" if true',
        '{name} contains "" if true',
        "{name} contains 3 if true",
        "default {name} := set()",
    ],
)
def test_names_that_a_record_may_hold_are_written_out(name, rule):
    """A computed member could be anything that a call says, and would stand in the open."""
    refusal("allow := true\n" + rule.format(name=name))


def test_name_that_is_assigned_in_the_body_is_written_out():
    loads('allow := true\ndenies contains name if { name := "late"; input.time.hour > 18 }')


@pytest.mark.parametrize("name", ["kill", "Approval", "end-session"])
def test_obligation_that_nobody_knows_is_refused(name):
    assert "unknown obligation" in refusal(f'allow := true\nobligations contains "{name}" if true')


def test_name_in_permits_and_denies_is_refused():
    assert "in permits and in denies" in refusal('allow := true\npermits contains "x"\ndenies contains "x"')


# --- bundles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"1",
        b"{",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a": 18446744073709551617}',
        b'{"a": 0.1234567890123456789}',
        b'{"a": "\\ud800"}',
        b'{"test": {"x": 1}}',
        b'{"test": 1}',
        b"\xff",
    ],
)
def test_data_that_is_not_strict_or_stands_where_rules_do_is_refused(data):
    assert refusal("allow := true", data=data).startswith("data.json: ")


@pytest.mark.parametrize("member", ["schema", "entities"])
def test_rego_bundle_has_no_files_of_cedar(member):
    files = {"policy.rego": "package p\nallow := true", "more.json": "[]"}
    bundle = bundle_from_files({**rego_files(files, policies=["policy.rego"], **{member: "more.json"})})
    with pytest.raises(PolicySyntaxError, match=f"no {member}"):
        ENGINE.load(bundle)


@pytest.mark.parametrize("package", ["", "a b", "a..b", "a.b.", "1a", "data[x]", "a-b"])
def test_package_that_is_no_name_is_refused(package):
    assert "not a package" in refusal("allow := true", package=package)


def test_package_that_no_file_has_is_refused():
    assert "has no rule named allow" in refusal("allow := true", package="other")


def test_layout_for_opa_has_what_the_engine_has():
    files = {"a.rego": "default allow = false\nallow { data.x == 1 }", "b.rego": "package lib\nf(x) = x { true }"}
    layout = opa_layout(rego_bundle(files, data={"x": 1}, rego_version=0, package="a.b"))
    assert (layout.rego_version, layout.package, layout.data) == (0, "a.b", {"x": 1})
    assert layout.modules["a.rego"] == "package a.b " + files["a.rego"]
    assert layout.modules["b.rego"] == files["b.rego"]


# --- bound functions -------------------------------------------------------------------------------------------------


def decide(condition: str, arguments: object):
    loaded = ENGINE.load(rego_bundle(f"allow if {{ {condition} }}"))
    (decision,) = ENGINE.evaluate(loaded, [make_request(arguments=json.dumps(arguments))])
    return decision.effect


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("numbers.range(1, input.arguments.v) == [1, 2, 3]", 3),
        ("numbers.range(input.arguments.v, 1) == [3, 2, 1]", 3),
        ("numbers.range_step(1, input.arguments.v, 2) == [1, 3, 5]", 5),
        ("numbers.range_step(input.arguments.v, 1, 2) == [5, 3, 1]", 5),
        ("to_number(input.arguments.v) == 500", "5e2"),
        ("to_number(input.arguments.v) == 9007199254740993", "9007199254740993"),
        ("to_number(input.arguments.v) == 0.1", "0.1"),
        ("to_number(input.arguments.v) == 1", True),
        ("to_number(input.arguments.v) == 0", None),
        ("to_number(input.arguments.v) == 2.5", 2.5),
        (
            'json.unmarshal(input.arguments.v) == {"a": [1.5, null, true, 9007199254740993]}',
            '{"a": [1.50, null, true, 9007199254740993]}',
        ),
    ],
)
def test_bound_function_answers_as_rego_does(condition, value):
    assert decide(condition, {"v": value}) is Effect.PERMIT


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("sum(numbers.range(3, input.arguments.v)) > 1", 9007199254740993),
        ("sum(numbers.range(input.arguments.v, 3)) < 1", -(2**63)),
        ("numbers.range(1, input.arguments.v)", 1.5),
        ("numbers.range(1, input.arguments.v)", "3"),
        ("numbers.range_step(1, 5, input.arguments.v)", 0),
        ("numbers.range_step(1, 5, input.arguments.v)", -1),
        ("to_number(input.arguments.v) > 0", "9223372036854775808"),
        ("to_number(input.arguments.v) > 0", "0.1234567890123456789"),
        ("to_number(input.arguments.v) > 0", "1e400"),
        ("to_number(input.arguments.v) > 0", " 5"),
        ("to_number(input.arguments.v) > 0", "0x10"),
        ("to_number(input.arguments.v) > 0", "NaN"),
        ("to_number(input.arguments.v) > 0", "9" * 500),
        ("to_number(input.arguments.v) > 0", []),
        ("json.unmarshal(input.arguments.v)", '{"a": 1, "a": 2}'),
        ("json.unmarshal(input.arguments.v)", '{"a": 18446744073709551617}'),
        ("json.unmarshal(input.arguments.v)", "[" * 1000),
        ("json.unmarshal(input.arguments.v)", 3),
    ],
)
def test_bound_function_refuses_what_is_not_exact_or_too_much(condition, value):
    """Unbound, the first of these ends the process."""
    assert decide(condition, {"v": value}) is Effect.INDETERMINATE
