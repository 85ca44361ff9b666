"""Which policies are asked; that leaving out the others changes nothing is `tests/property/test_policy_selection`'s."""

from __future__ import annotations

from typing import Any

from policies.engines import cedar_requests, cedar_selection
from policies.engines.cedar import CedarEngine
from tests.support.policies import cedar_bundle, make_request

ENGINE = CedarEngine()
# Of each of forty servers: one rule for a tool, one for the server; and one rule for all.
POLICIES = "\n".join(
    f'@id("tool-{n}") permit (principal, action == Action::"tools/call", resource == Tool::"s{n}/pay");\n'
    f'@id("server-{n}") forbid (principal, action, resource in Server::"s{n}") when {{ context.state.calls > 5 }};'
    for n in range(40)
)
BUNDLE = cedar_bundle(POLICIES + '\n@id("list") permit (principal, action == Action::"tools/list", resource);')


def loaded() -> Any:
    return ENGINE.load(BUNDLE).handle


def names(handles: Any, **members: object) -> list[str]:
    chosen = handles.policies.of(make_request(**members))
    return sorted(rule.name for rule in chosen.rules.values())


def test_request_is_put_to_the_policies_of_its_server_tool_and_action_alone():
    handles = loaded()
    assert names(handles, server="s7", name="pay") == ["server-7", "tool-7"]
    assert names(handles, server="s7", name="look") == ["server-7"]
    assert names(handles, server="s7", name=None, action="tools/list") == ["list", "server-7"]
    assert names(handles, server="s77", name="pay") == []


def test_request_that_no_policy_can_meet_is_permitted_by_nothing():
    (decision,) = ENGINE.evaluate(ENGINE.load(BUNDLE), [make_request(server="s77", name="pay")])
    assert (decision.effect, decision.reason) == ("NOT_APPLICABLE", "no_permit")


def test_requests_that_meet_the_same_policies_share_one_set():
    handles = loaded()
    sets = {id(handles.policies.of(make_request(server="s1", name=f"made-up-{n}")).policies) for n in range(100)}
    assert len(sets) == 1


def test_what_strangers_make_up_is_forgotten_again(monkeypatch):
    monkeypatch.setattr(cedar_selection, "_MAX_KEYS", 10)
    monkeypatch.setattr(cedar_selection, "_MAX_KEPT_POLICIES", 6)
    monkeypatch.setattr(cedar_requests, "_MAX_HANDLES", 5)
    handles = loaded()
    for number in range(60):
        request = make_request(server=f"s{number % 40}", name="pay" if number % 2 else f"x{number}")
        handles.policies.of(request)
        handles.entities.with_request(request)
        assert len(handles.policies._by_request) <= 10
        assert sum(len(chosen.rules) for chosen in handles.policies._sets.values()) <= 6
        assert len(handles.entities._handles) <= 5


def test_small_bundle_and_selection_of_most_are_asked_whole():
    small = ENGINE.load(cedar_bundle('@id("a") permit (principal, action, resource in Server::"s1");')).handle
    assert names(small, server="other") == ["a"]
    general = "\n".join(f'@id("g{n}") permit (principal, action, resource);' for n in range(40))
    handles = ENGINE.load(
        cedar_bundle(general + '\n@id("s") permit (principal, action, resource in Server::"x");')
    ).handle
    assert len(names(handles, server="other")) == 41
