"""Hostile policies and calls against a real service, in both languages: denied or refused, recorded, the service alive.

What each engine makes of them by itself is told in `tests/unit/policies`; here the same hazards meet the whole way,
from the request over the engine's process to the record.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ledger.bodies import Decision
from policies.bundles import Bundle, bundle_from_files
from policies.directories import read_library_bundle
from service.auth import Role
from tests.support.policies import cedar_files, rego_files
from tests.support.scenarios import CEDAR, REGO, scenarios
from tests.support.service import RunningService, start_service

EVALUATION = "/access/v1/evaluation"
HONEST = next(iter(scenarios())).request


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("hostile")) as running:
        yield running


@pytest.fixture(params=[CEDAR, REGO])
def client(request: pytest.FixtureRequest, service: RunningService) -> Iterator[httpx.Client]:
    """Speak to the service while the scenario bundle of one language is in force."""
    keep_in_force(service, library(request.param))
    with service.client(Role.CLIENT) as client:
        yield client


@functools.cache
def library(name: str) -> Bundle:
    return read_library_bundle(name)


def keep_in_force(service: RunningService, bundle: Bundle) -> None:
    """Have a bundle in force, whichever another test has left so: tests run in any order."""
    with service.client(token=service.token(Role.APPROVER, "bob")) as approver:
        state = approver.get("/v1/bundles").raise_for_status().json()
        if state["active"] == bundle.revision:
            return
        if bundle.revision in {item["revision"] for item in state["published"]}:
            approver.post(f"/v1/bundles/{bundle.revision}/activation", json={}).raise_for_status()
        else:
            service.put_in_force(bundle)


def question(arguments: str = HONEST.arguments, **names: Any) -> str:
    """Return the first scenario as a question, its arguments spelt as given."""
    principal, state = HONEST.principal, HONEST.state
    subject = {
        "type": "agent",
        "id": names.get("agent", principal.agent),
        "properties": {
            "user": names.get("user", principal.user),
            "roles": names.get("roles", list(principal.roles)),
            "authn": principal.authn,
            "mfa": principal.mfa,
        },
    }
    resource = {
        "type": "tool",
        "id": names.get("tool", HONEST.resource.name),
        "properties": {"server": names.get("server", HONEST.resource.server), "tags": []},
    }
    context = {
        "time": "2026-11-17T10:00:00Z",
        "address": HONEST.environment.address,
        "network": HONEST.environment.network,
        "session": state.session,
        "calls": state.calls,
        "denied": state.denied,
        "started_ms": state.started_ms,
        "windows": state.windows,
        "arguments": "@",
    }
    value = {"subject": subject, "action": {"name": "tools/call"}, "resource": resource, "context": context}
    return json.dumps(value).replace('"@"', arguments)


def ask(client: httpx.Client, body: str) -> httpx.Response:
    return client.post(EVALUATION, content=body.encode(), headers={"content-type": "application/json"})


def recorded(service: RunningService, answer: httpx.Response) -> Decision:
    """Return the record of an answered question."""
    assert answer.status_code == 200, answer.text
    body = service.services.reader.record(answer.json()["context"]["leaf_index"]).body
    assert isinstance(body, Decision)
    return body


def lives(client: httpx.Client) -> None:
    """Check that an honest question is still permitted."""
    answer = ask(client, question())
    assert answer.json()["decision"] is True, answer.text


def with_argument(name: str, text: str) -> str:
    """Return the honest arguments with one of them spelt otherwise."""
    given = {**json.loads(HONEST.arguments), name: "@"}
    return json.dumps(given).replace('"@"', text)


# Each is strict JSON, so it reaches the policy.
DENIED = {
    "2^53 + 1": ("count", "9007199254740993"),
    "2^63 - 1": ("count", "9223372036854775807"),
    "2^63": ("count", "9223372036854775808"),
    "-2^63 - 1": ("count", "-9223372036854775809"),
    "2^63 in text": ("count", '"9223372036854775808"'),
    "1e400 in text": ("amount", '"1e400"'),
    "-1e400 in text": ("amount", '"-1e400"'),
    "NaN in text": ("amount", '"NaN"'),
    "Infinity in text": ("amount", '"Infinity"'),
    "a fifth decimal": ("amount", "1.00001"),
    "a digit beyond a double": ("amount", "0.10000000000000000001"),
    "a truth for a number": ("amount", "true"),
    "a number for a truth": ("dry_run", "1"),
    "a list for a number": ("count", "[1]"),
    "nesting": ("note", "[" * 50 + "]" * 50),
    "many members": ("note", "{" + ", ".join(f'"m{number}": 1' for number in range(5000)) + "}"),
    "a long text": ("region", '"' + "eu" * 50_000 + '"'),
    "text that makes backtracking patterns run": ("region", '"' + "a" * 50_000 + '!"'),
    "a pattern as text": ("region", '"(a+)+$"'),
    "a look-alike letter": ("region", '"\\u0435u"'),
    "an invisible character": ("region", '"e\\u200bu"'),
    "capitals": ("region", '"EU"'),
    "a NUL": ("region", '"eu\\u0000"'),
    "a path that climbs": ("path", '"/data/../etc/passwd"'),
    "a path in wide dots": ("path", '"/data/\\uff0e\\uff0e/etc"'),
    "an encoded path": ("path", '"/data/%2e%2e/etc"'),
}

# Each is no strict JSON: two readers could take it for two things, so nobody is asked.
REFUSED = {
    "a member twice": with_argument("count", '5, "count": 6'),
    "a member twice by an escape": with_argument("count", '5, "\\u0063ount": 6'),
    "NaN": with_argument("amount", "NaN"),
    "Infinity": with_argument("amount", "-Infinity"),
    "1e400": with_argument("amount", "1e400"),
    "half a character": with_argument("region", '"\\ud800"'),
    "nesting without end": with_argument("note", "[" * 100_000),
    "nesting beyond the limit": with_argument("note", "[" * 5000 + "]" * 5000),
    "a list": "[]",
    "no JSON": "{",
}

NAMES = {
    "an agent that is suspended": {"agent": "Rogue-Bot"},
    "a look-alike role": {"roles": ["cl\u0435rk"]},
    "a role in capitals": {"roles": ["CLERK"]},
    "a role with a space": {"roles": ["clerk "]},
    "a role with an invisible character": {"roles": ["cle\u200brk"]},
    "a look-alike tool": {"tool": "w\u043erk"},
    "a look-alike server": {"server": "d\u0435sk"},
    "a server in capitals": {"server": "DESK"},
    "a look-alike user": {"user": "\u0430da"},
    "half a character in a role": {"roles": ["\ud800"]},
    "half a character in a tool": {"tool": "\ud800"},
    "a thousand roles": {"roles": [f"role-{number}" for number in range(1000)]},
}


@pytest.mark.parametrize("hazard", DENIED)
def test_hostile_argument_is_a_denial_that_is_recorded(service, client, hazard):
    answer = ask(client, question(with_argument(*DENIED[hazard])))
    assert answer.json()["decision"] is False
    body = recorded(service, answer)
    assert body.decision in {"DENY", "INDETERMINATE"}
    assert body.reason in {"policy", "parameter_error"}
    lives(client)


@pytest.mark.parametrize("hazard", REFUSED)
def test_arguments_that_two_readers_could_read_in_two_ways_are_refused_in_words(client, hazard):
    answer = ask(client, question(REFUSED[hazard]))
    assert answer.status_code == 400
    assert answer.json()["detail"]
    lives(client)


@pytest.mark.parametrize("hazard", NAMES)
def test_hostile_name_is_a_denial_that_is_recorded_or_is_refused(service, client, hazard):
    answer = ask(client, question(**NAMES[hazard]))
    if answer.status_code == 400:
        assert answer.json()["detail"]
    else:
        assert answer.json()["decision"] is False
        assert recorded(service, answer).decision != "PERMIT"
    lives(client)


# --- policies


def cedar(text: str) -> Bundle:
    return bundle_from_files(cedar_files(text))


def rego(text: str) -> Bundle:
    return bundle_from_files(rego_files({"policy.rego": f"package p\n{text}"}))


def condition(text: str) -> Bundle:
    return cedar(f'@id("a") permit(principal, action, resource) when {{ {text} }};')


POLICIES = {
    "brackets in Cedar": condition("(" * 5000 + "true" + ")" * 5000),
    "operators in Cedar": condition(" && ".join(["true"] * 20_000)),
    "nested conditions in Cedar": condition("if true then " * 5000 + "true" + " else true" * 5000),
    "a number beyond 64 bits in Cedar": condition("9223372036854775808 > 0"),
    "a decimal of five places in Cedar": condition('decimal("1.00001") > decimal("0.0")'),
    "text that looks other than it is in Cedar": condition('context.identity.authn == "\u202enone"'),
    "half a statement in Cedar": cedar('@id("a") permit(principal, action'),
    "a NUL in Cedar": condition("\x00true"),
    "a rule without a name in Cedar": cedar("permit(principal, action, resource);"),
    "a misspelt fact in Cedar": condition("context has amuont"),
    "recursion in Rego": rego("f(n) := f(n + 1)\nallow if f(1)"),
    "rules in a circle in Rego": rego("allow if a\na if b\nb if a"),
    "brackets in Rego": rego("allow := " + "(" * 20_000 + "1" + ")" * 20_000),
    "the network in Rego": rego('allow if http.send({"method": "get", "url": "http://localhost"}).status_code == 200'),
    "chance in Rego": rego('allow if rand.intn("a", 10) > 5'),
    "a number that no double holds in Rego": rego("allow if input.arguments.n < 9007199254740993.5"),
    "text that looks other than it is in Rego": rego("allow := true # \u202e"),
    "half a rule in Rego": rego("allow if {"),
    "a computed name in Rego": rego("allow := true\ndenies contains input.principal.agent if true"),
}


@pytest.mark.parametrize("hazard", POLICIES)
def test_hostile_policy_is_refused_in_words_and_what_is_in_force_stays(service, hazard):
    keep_in_force(service, library(CEDAR))
    bundle = POLICIES[hazard]
    with service.client(Role.ADMIN) as author:
        answer = author.post("/v1/bundles", content=bundle.archive())
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"]
        assert bundle.revision not in author.get("/v1/bundles").text
    with service.client(Role.CLIENT) as client:
        lives(client)


@pytest.mark.parametrize(
    ("policy", "hostile", "honest", "reason"),
    [
        (
            "l := input.arguments.l\n\tcount([1 | some a in l; some b in l; some c in l; some d in l]) < 9",
            json.dumps({"l": list(range(2000))}),
            '{"l": [1]}',
            "limited",
        ),
        ("count(numbers.range(1, input.arguments.n)) < 9", '{"n": 9007199254740991}', '{"n": 1}', "evaluation_error"),
        ('regex.match(input.arguments.s, "a")', '{"s": "(a{1000}){1000}"}', '{"s": "a"}', "evaluation_error"),
    ],
    ids=["comprehension", "range", "pattern"],
)
def test_policy_that_a_call_makes_run_away_denies_it_and_the_denial_is_recorded(
    service, policy, hostile, honest, reason
):
    """What cannot be told from the text is refused or stopped when it happens."""
    case = {"agent": "Bot", "server": "shop", "tool": "sell", "at": "2026-11-17T10:00:00", "arguments": honest}
    cases = {"cases": [{"name": "honest", "given": case, "expect": {"effect": "PERMIT", "rules": ["allow"]}}]}
    files = rego_files({"policy.rego": f"package p\nallow if {{\n\t{policy}\n}}"})
    keep_in_force(service, bundle_from_files(files | {"tests/cases.yaml": json.dumps(cases).encode()}))
    with service.client(Role.CLIENT) as client:
        stopped = recorded(service, ask(client, question(hostile)))
        assert (stopped.decision, stopped.reason) == ("INDETERMINATE", reason)
        assert ask(client, question(honest)).json()["decision"] is True
        assert client.get("/readyz").status_code == 200
