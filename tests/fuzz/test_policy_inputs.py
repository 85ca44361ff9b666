"""Whatever a bundle or a request holds, only `PolicySyntaxError` leaves loading and nothing leaves evaluation."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from ledger.errors import PolicySyntaxError
from policies.argument_paths import compile_path, find
from policies.bundles import bundle_from_files, parse_archive
from policies.directories import read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_text import check_schema_text, split_policies
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.model import Effect
from policies.parameters import parse_parameters
from policies.testing import read_cases
from policies.windows import parse_windows
from tests.support.policies import cedar_bundle, cedar_files, make_request, rego_bundle

ENGINE = CedarEngine()
REGO = RegoEngine()
DEMO = read_library_bundle("demo")

WORDS = """
@id("a") @id( " permit forbid ( ) principal , action resource ; when { } [ ] context . args price == && || ! - * + 1
9223372036854775808 if then else has in is like "x" decimal :: Tool::"a/b" // \\ ? entity type = Set < > appliesTo :
namespace Long T é \u202e
"""
TOKENS = st.sampled_from([*WORDS.split(), "\n", " "])
TEXT = st.one_of(st.lists(TOKENS, max_size=40).map(" ".join), st.text(max_size=60))


@given(TEXT)
def test_policy_text_loads_or_is_refused(text):
    bundle = cedar_bundle(text)
    with contextlib.suppress(PolicySyntaxError):
        ENGINE.load(bundle)


@given(TEXT)
def test_condition_loads_or_is_refused(text):
    with contextlib.suppress(PolicySyntaxError):
        ENGINE.load(cedar_bundle(f'@id("a") permit(principal, action, resource) when {{ {text} }};'))


REGO_WORDS = """
package p import data input as if contains else default not with some every in := = == != < > <= + - * / % & | ( ) [ ] {
} . , ; : a b f "s" `r` 1 2.5 1e400 9223372036854775808 true null set() count( time.now_ns( http.send( numbers.range( _
input.args.amount data.x allow permits denies obligations "approval" walk( rego.v1 future.keywords é \u202e #
"""
REGO_LINES = st.sampled_from(
    [
        "allow if { input.a == 1 }",
        'denies contains x if { x := "n" }',
        "f(x) := x + 1",
        "o[k] := v if { some k, v in input }",
        "e := 1 if { input.x } else := 2 if { every y in [1] { y > 0 } }",
        "allow { input.a }",
        'permits["x"] { input.a with input.a as 2 }',
    ]
)
REGO_TEXT = st.lists(st.one_of(REGO_LINES, st.sampled_from([*REGO_WORDS.split(), "\n"])), max_size=25).map(" ".join)


@given(REGO_TEXT, st.sampled_from([0, 1]))
@example("object.get", 0)
@example("allow if { x := y }", 1)
@example("[" * 12 + "]" * 12, 1)
def test_rego_loads_or_is_refused_and_then_decides(text, rego_version):
    bundle = rego_bundle({"policy.rego": f"package p\n{text}"}, rego_version=rego_version)
    with contextlib.suppress(PolicySyntaxError):
        (decision,) = REGO.evaluate(REGO.load(bundle), [make_request(arguments='{"a": 1}')])
        assert decision.engine == "rego"


@given(TEXT)
def test_schema_text_loads_or_is_refused(text):
    with contextlib.suppress(PolicySyntaxError):
        ENGINE.load(cedar_bundle('@id("a") permit(principal, action, resource);', schema=text))


@given(TEXT)
def test_guards_read_or_refuse(text):
    with contextlib.suppress(PolicySyntaxError):
        assert all(statement.text.endswith(";") for statement in split_policies("p", text))
    with contextlib.suppress(PolicySyntaxError):
        check_schema_text("s", text)


@given(st.binary(max_size=100))
@example(b'{"format":"tallystick.bundle/1","files":{}}')
def test_archives_are_read_or_refused(data):
    with contextlib.suppress(PolicySyntaxError):
        assert parse_archive(data).archive() == data


DATA_FILES = st.sampled_from(["entities.json", "parameters.json", "manifest.json", "windows.json"])


@given(DATA_FILES, st.one_of(st.binary(), TEXT.map(str.encode)))
def test_data_files_load_or_are_refused(path, data):
    files = cedar_files('@id("a") permit(principal, action, resource);', entities=[], windows="windows.json")
    files |= {"windows.json": b'{"windows": []}', path: data}
    with contextlib.suppress(PolicySyntaxError):
        ENGINE.load(bundle_from_files(files))


@given(st.binary(max_size=80))
def test_parameter_declarations_are_read_or_refused(data):
    with contextlib.suppress(PolicySyntaxError):
        parse_parameters(data)


@given(st.one_of(st.binary(max_size=80), TEXT.map(str.encode)))
@example(b'{"windows": [{"name": "w", "measure": "count", "per": "agent", "over_seconds": 1e400}]}')
@example(b'{"windows": [{"name": "w", "measure": "sum", "per": "agent", "parameter": "\\ud800", "over": "day"}]}')
def test_window_declarations_are_read_or_refused(data):
    with contextlib.suppress(PolicySyntaxError):
        parse_windows(data)


@given(st.text(st.sampled_from("ab.*[]0 "), max_size=12))
def test_paths_are_read_or_refused(path):
    with contextlib.suppress(PolicySyntaxError):
        assert isinstance(find({"a": [{"b": 1}]}, [compile_path(path)]), list)


YAML = st.sampled_from(["cases", ":", "-", " ", "\n", "[", "{", "&a", "*a", "!!", "x"])


@given(st.one_of(st.text(max_size=80), st.lists(YAML, max_size=30).map("".join)))
def test_cases_are_read_or_refused(text):
    files = cedar_files('@id("a") permit(principal, action, resource);')
    with contextlib.suppress(PolicySyntaxError):
        read_cases(bundle_from_files(files | {"tests/a.yaml": text.encode("utf-8", "replace")}))


NAMES = st.text(st.characters(), max_size=8)


@given(
    agent=NAMES,
    user=st.none() | NAMES,
    roles=st.lists(NAMES, max_size=3).map(tuple),
    server=NAMES,
    name=st.none() | NAMES,
    action=st.sampled_from(["tools/call", "tools/list", "ping"]) | NAMES,
    tags=st.lists(NAMES, max_size=3).map(tuple),
    network=NAMES,
    arguments=st.text(max_size=30),
)
def test_any_request_gets_a_decision_and_no_stranger_a_permit(**members):
    """Roles of the demonstration are words; a random request has none of them, and may at most discover."""
    evaluator = Evaluator({"cedar": ENGINE}, threads=1)
    try:
        (evaluation,) = asyncio.run(evaluator.evaluate_many(DEMO, [make_request(**members)]))
    finally:
        evaluator.close()
    decision = evaluation.decision
    assert decision.reason != "engine_error"
    if decision.effect is Effect.PERMIT:
        assert decision.rules == ("discovery",)
