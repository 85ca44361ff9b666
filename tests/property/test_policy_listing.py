"""Whatever some arguments would allow is shown; where policies read nothing unknown, nothing else is."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle, bundle_from_files
from policies.engine import Engine, LoadedBundle
from policies.engines import cedar_selection
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.listing import Visibility, classify, listed_request
from policies.model import DecisionRequest
from tests.support.policies import cedar_bundle, make_request

NAMES = ("a", "b")
ARGUMENTS = [
    json.dumps({name: value for name, value in zip(("amount", "dry"), values, strict=True) if value is not None})
    for values in itertools.product((None, 0, 1), (None, False, True))
]

# What a condition may say, with nothing unknown in it and with something.
KNOWN = ["context.identity.mfa", "context.state.calls > 1", 'principal in Role::"tester"', 'resource.name == "a"']
UNKNOWN = [
    "context.args has amount",
    "(context.args has amount && context.args.amount > 0)",
    "(context.args has dry && context.args.dry)",
    # Fails where an amount above 0 is given.
    "(context.args has amount && context.args.amount + 9223372036854775807 > 0)",
    "!(context.args has sku)",
]
# Fails for a session that is not new, whatever the arguments are.
FAILING = "context.state.calls + 9223372036854775807 > 0"


def expressions(atoms: list[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(atoms),
        lambda inner: st.one_of(
            st.builds("({} && {})".format, inner, inner),
            st.builds("({} || {})".format, inner, inner),
            st.builds("!({})".format, inner),
            st.builds("(if {} then {} else {})".format, inner, inner, inner),
        ),
        max_leaves=4,
    )


def policies(atoms: list[str]) -> st.SearchStrategy[list[str]]:
    resources = st.sampled_from(
        [
            "resource",
            'resource == Tool::"shop/a"',
            'resource in Server::"shop"',
            'resource in Tag::"t"',
            "resource is Tool",
        ]
    )
    conditions = st.builds("{} {{ {} }}".format, st.sampled_from(["when", "unless"]), expressions(atoms))
    return st.lists(
        st.builds(
            "{} (principal, action, {}) {};".format,
            st.sampled_from(["permit", "permit", "forbid"]),
            resources,
            st.lists(conditions, max_size=2).map(" ".join),
        ),
        min_size=1,
        max_size=5,
    )


circumstances = st.fixed_dictionaries(
    {
        "mfa": st.booleans(),
        "calls": st.integers(0, 3),
        "roles": st.sampled_from([(), ("tester",)]),
        "tags": st.sampled_from([(), ("t",)]),
    }
)


@pytest.fixture(autouse=True, scope="module")
def _always_choosing():
    """Have even the small bundles of these tests chosen from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cedar_selection, "_SMALLEST", 0)
        yield


def cedar(texts: list[str]) -> Bundle:
    return cedar_bundle("\n".join(f'@id("p{place}") {text}' for place, text in enumerate(texts)))


def loaded_by(engine: Engine, bundle: Bundle) -> LoadedBundle:
    try:
        return engine.load(bundle)
    except PolicySyntaxError:  # such as a condition that can never hold
        assume(condition=False)
        raise


def request_of(name: str, arguments: str, *, tags: tuple[str, ...] = (), **facts: object) -> DecisionRequest:
    return make_request(action="tools/call", server="shop", name=name, tags=tags, arguments=arguments, **facts)


def is_permitted(engine: Engine, loaded: LoadedBundle, requests: list[DecisionRequest]) -> bool:
    return any(decision.permitted for decision in engine.evaluate(loaded, requests))


def is_shown(engine: Engine, loaded: LoadedBundle, request: DecisionRequest, *, template: bool = False) -> bool:
    resource = request.resource
    entry = listed_request(
        request, action=request.action, name=resource.name or "", tags=resource.tags, template=template
    )
    (decision,) = engine.evaluate(loaded, [entry])
    seen = classify(decision)
    assert seen is not Visibility.FAILED
    return seen is Visibility.SHOWN


CEDAR, REGO = CedarEngine(), RegoEngine()


@settings(deadline=None, max_examples=150)
@given(policies([*KNOWN, *UNKNOWN, FAILING]), circumstances)
def test_a_tool_that_some_arguments_would_allow_is_shown(texts, facts):
    loaded = loaded_by(CEDAR, cedar(texts))
    requests = [request_of("a", arguments, **facts) for arguments in ARGUMENTS]
    permitted = is_permitted(CEDAR, loaded, requests)
    shown = is_shown(CEDAR, loaded, requests[0])
    event(f"permitted {permitted}, shown {shown}")
    assert shown or not permitted


@settings(deadline=None, max_examples=80)
@given(policies([*KNOWN, FAILING]), circumstances)
def test_where_no_policy_reads_arguments_exactly_the_permitted_is_shown(texts, facts):
    loaded = loaded_by(CEDAR, cedar(texts))
    request = request_of("a", "{}", **facts)
    assert is_shown(CEDAR, loaded, request) == is_permitted(CEDAR, loaded, [request])


@st.composite
def strict_and_loose(draw: Any) -> tuple[list[str], list[str]]:
    """Return policies, and the same without all that arguments could have a part in, so that more is allowed.

    What the second ones deny no arguments at all can make the first ones permit: a permit has lost its conditions on
    arguments, and a forbid that has one is gone.
    """
    strict, loose = [], []
    resources = st.sampled_from(["resource", 'resource == Tool::"shop/b"', 'resource in Tag::"t"'])
    for _ in range(draw(st.integers(1, 5))):
        effect, resource = draw(st.sampled_from(["permit", "permit", "forbid"])), draw(resources)
        known, unknown = (
            [
                f"{draw(st.sampled_from(['when', 'unless']))} {{ {draw(expressions(atoms))} }}"
                for _ in range(draw(st.integers(0, 1)))
            ]
            for atoms in (KNOWN, UNKNOWN)
        )
        head = f"{effect} (principal, action, {resource})"
        strict.append(" ".join([head, *draw(st.permutations([*known, *unknown]))]) + ";")
        if effect == "permit" or not unknown:
            loose.append(" ".join([head, *known]) + ";")
    return strict, loose


@settings(deadline=None, max_examples=150)
@given(strict_and_loose(), circumstances)
def test_a_tool_that_may_not_be_called_with_any_arguments_is_not_listed(both, facts):
    strict, loose = both
    request = request_of("a", "{}", **facts)
    impossible = not loose or not is_permitted(CEDAR, loaded_by(CEDAR, cedar(loose)), [request])
    loaded = loaded_by(CEDAR, cedar(strict))
    shown = is_shown(CEDAR, loaded, request)
    event(f"impossible {impossible}, shown {shown}")
    assert not (impossible and shown)
    if impossible:
        assert not is_permitted(CEDAR, loaded, [request_of("a", arguments, **facts) for arguments in ARGUMENTS])


@settings(deadline=None, max_examples=100)
@given(policies([*KNOWN, *UNKNOWN]), circumstances, st.sampled_from([(), ("t",)]))
def test_a_template_is_shown_if_some_name_under_it_is_allowed(texts, facts, own):
    loaded = loaded_by(CEDAR, cedar(texts))
    of_server = facts.pop("tags")
    tags = tuple(sorted({*of_server, *own}))
    requests = [request_of(name, arguments, tags=tags, **facts) for name in NAMES for arguments in ARGUMENTS]
    shown = is_shown(CEDAR, loaded, request_of("{any}", "{}", tags=of_server, **facts), template=True)
    assert shown or not is_permitted(CEDAR, loaded, requests)


REGO_KNOWN = ["input.principal.mfa", "input.state.calls > 1", 'input.resource.name == "a"', "helper_known"]
REGO_UNKNOWN = [
    "input.args.amount > 0",
    "not input.arguments.dry",
    'object.get(input, "args", {}).amount == 0',
    "helper_unknown",
    "positive(input.args)",
]
HELPERS = """
helper_known if { "tester" in input.principal.roles }
helper_unknown if { some name, _ in input.arguments; name == "dry" }
positive(arguments) if { arguments.amount > 0 }
"""


def rego(allows: list[list[str]], denies: list[tuple[str, list[str]]]) -> Bundle:
    rules = [f"allow if {{ {'; '.join(body)} }}" for body in allows]
    rules += [f'denies contains "{name}" if {{ {"; ".join(body)} }}' for name, body in denies]
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "test",
        "engine": "rego",
        "policies": ["policy.rego"],
        "parameters": "parameters.json",
    }
    parameters = {"parameters": [{"name": "amount", "type": "long", "paths": ["amount"]}]}
    text = "package test\n" + HELPERS + "\n".join(rules) + "\n"
    return bundle_from_files(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "policy.rego": text.encode(),
            "parameters.json": json.dumps(parameters).encode(),
        }
    )


def bodies(atoms: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(atoms), min_size=1, max_size=2, unique=True)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(bodies([*REGO_KNOWN, *REGO_UNKNOWN]), min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from(["d1", "d2"]), bodies([*REGO_KNOWN, *REGO_UNKNOWN])), max_size=2),
    circumstances,
)
def test_a_rego_bundle_shows_what_some_arguments_would_allow(allows, denies, facts):
    loaded = loaded_by(REGO, rego(allows, denies))
    requests = [request_of("a", arguments, **facts) for arguments in ARGUMENTS]
    assert is_shown(REGO, loaded, requests[0]) or not is_permitted(REGO, loaded, requests)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(bodies(REGO_KNOWN), min_size=1, max_size=2),
    st.lists(st.tuples(st.just("d1"), bodies(REGO_KNOWN)), max_size=2),
    circumstances,
)
def test_a_rego_bundle_that_reads_no_arguments_shows_exactly_the_permitted(allows, denies, facts):
    loaded = loaded_by(REGO, rego(allows, denies))
    request = request_of("a", "{}", **facts)
    assert is_shown(REGO, loaded, request) == is_permitted(REGO, loaded, [request])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(bodies([*REGO_KNOWN, *REGO_UNKNOWN]), min_size=1, max_size=2),
    st.lists(bodies(REGO_KNOWN), min_size=1, max_size=2),
    st.lists(bodies([*REGO_KNOWN, *REGO_UNKNOWN]), max_size=1),
    circumstances,
)
def test_a_tool_that_rego_denies_whatever_the_arguments_is_not_listed(allows, denies, further, facts):
    # An `allow` that reads arguments shows what it cannot be asked about, and `listed` says it better: see the engine.
    known = [("d1", body) for body in denies]
    request = request_of("a", "{}", **facts)
    impossible = not is_permitted(REGO, loaded_by(REGO, rego([["true"]], known)), [request])
    shown = is_shown(REGO, loaded_by(REGO, rego(allows, [*known, *(("d2", body) for body in further)])), request)
    event(f"impossible {impossible}, shown {shown}")
    assert not (impossible and shown)
