"""Hostile Rego, policies and arguments, against the engine in its processes: a denial, and the next call is decided."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ledger.errors import PolicySyntaxError
from policies.engine import Limit, Reason
from policies.evaluate import Evaluator
from policies.model import Decision, Effect
from policies.programs import installed_program
from policies.worker_process import WorkerLimits
from policies.workers import WorkerEngine, WorkerPool
from service.wiring.engines import ENGINE_KINDS, make_evaluator
from tests.support.policies import make_request, rego_bundle

LIMITS = WorkerLimits(evaluation_seconds=60)
HONEST = "allow if input.time.hour == 10"


class Rego:
    """The engine as production has it, with time as a test gives it."""

    def __init__(self, limits: WorkerLimits = LIMITS) -> None:
        self._pool = WorkerPool(limits)
        program = installed_program(next(kind for kind in ENGINE_KINDS if kind.name == "rego"))
        self.evaluator = Evaluator({"rego": WorkerEngine(program, self._pool)}, workers=self._pool)

    def decide(self, policy: str, **members) -> Decision:
        (item,) = asyncio.run(self.evaluator.evaluate_many(rego_bundle(policy), [make_request(**members)]))
        return item.decision

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Have little time for what is asked in the block: nothing honest is."""
        self._pool.limits = replace(LIMITS, evaluation_seconds=0.3)
        yield
        self._pool.limits = LIMITS


@pytest.fixture(scope="module")
def rego() -> Iterator[Rego]:
    made = Rego()
    yield made
    made.evaluator.close()


def test_engine_of_the_service_decides_rego_in_a_process():
    evaluator = make_evaluator()
    try:
        (item,) = asyncio.run(evaluator.evaluate_many(rego_bundle(HONEST), [make_request()]))
    finally:
        evaluator.close()
    assert item.decision.permitted


@pytest.mark.parametrize(
    "policy",
    [
        "r := numbers.range(1, 9000)\nallow if count([1 | some a in r; some b in r; some c in r]) == 0",
        "r := numbers.range(1, 9000)\nallow if count({[a, b] | some a in r; some b in r}) == 0",
    ],
)
def test_comprehension_that_does_not_end_is_a_denial(rego, policy):
    with rego.hurried():
        decision = rego.decide(policy)
    assert (decision.effect, decision.reason, decision.detail) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.TIME)
    assert rego.decide(HONEST).permitted


def test_text_that_doubles_until_the_memory_is_full_is_a_denial():
    """regorus's allocator, which reserves a gibibyte for itself, ends the process then."""
    rego = Rego(replace(LIMITS, memory_bytes=1500 << 20))
    doubling = "\n".join(f'x{n + 1} := concat("", [x{n}, x{n}])' for n in range(40))
    decision = rego.decide(f"x0 := input.action\n{doubling}\nallow if count(x40) > 0")
    honest = rego.decide(HONEST)
    rego.evaluator.close()
    assert (decision.effect, decision.reason, decision.detail) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.MEMORY)
    assert honest.permitted


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ('allow if regex.match("(a+)+$", input.arguments.s)', "a" * 50_000 + "!"),
        ('allow if regex.match(input.arguments.s, "a")', "(a{1000}){1000}{1000}"),
        ('allow if regex.match(input.arguments.s, "a")', "(" * 5000),
        ('allow if glob.match(input.arguments.s, [], "a")', "{" * 5000),
        ("allow if json.unmarshal(input.arguments.s)", "[" * 100_000),
        ("allow if sum(numbers.range(0, count(input.arguments.s))) < 0", "a" * 100_000),
        ("allow if to_number(input.arguments.s) > 0", "1e400"),
        ('allow if net.cidr_contains(input.arguments.s, "1.1.1.1")', "0.0.0.0/99"),
        ("allow if units.parse(input.arguments.s) < 0", "9" * 5000 + "Qi"),
        ("allow if time.parse_duration_ns(input.arguments.s) < 0", "9" * 5000 + "h"),
        ('allow if semver.compare(input.arguments.s, "1.0.0") < 0', "9" * 5000),
        ('allow if format_int(count(input.arguments.s), 99) == ""', "a"),
    ],
)
def test_text_of_a_call_never_permits_and_the_process_lives(rego, policy, text):
    """Regular expressions of regorus take linear time, so that none of these has to be stopped."""
    decision = rego.decide(policy, arguments=json.dumps({"s": text}))
    assert not decision.permitted
    assert decision.reason != Reason.LIMITED
    assert rego.decide(HONEST).permitted


@pytest.mark.parametrize(
    "arguments",
    [
        '{"n": 1e400}',
        '{"n": -1e400}',
        '{"n": NaN}',
        '{"n": Infinity}',
        '{"n": 9223372036854775808}',
        '{"n": 18446744073709551617}',
        '{"n": 0.1234567890123456789}',
        '{"n": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"n": 1, "n": 2}',
        '{"n": 1, "\\u006e": 2}',
        '{"n": ' + "[" * 100 + "]" * 100 + "}",
        "[" * 200_000,
        "[]",
        '"text"',
        "",
        "{",
    ],
)
def test_arguments_that_are_not_exact_are_a_denial_that_says_so(rego, arguments):
    decision = rego.decide("allow := true", arguments=arguments)
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.PARAMETER_ERROR,
        "arguments",
    )


def test_numbers_at_the_edge_are_told_apart(rego):
    """2**53 + 1 is not 2**53, and 2**63 - 1 is not 2**63: a double would take the one for the other."""
    policy = "allow if input.arguments.n > 9007199254740992"
    assert rego.decide(policy, arguments='{"n": 9007199254740993}').permitted
    assert not rego.decide(policy, arguments='{"n": 9007199254740992}').permitted
    assert not rego.decide(policy, arguments='{"n": 9007199254740992.0}').permitted
    greatest = "allow if input.arguments.n == 9223372036854775807"
    assert rego.decide(greatest, arguments='{"n": 9223372036854775807}').permitted
    assert not rego.decide(greatest, arguments='{"n": 9223372036854775806}').permitted


def test_one_number_is_one_number_however_it_is_written(rego):
    for text in ("500", "500.0", "5e2", "5.00E+2", "50000e-2"):
        assert rego.decide("allow if input.arguments.n == 500", arguments=f'{{"n": {text}}}').permitted


@pytest.mark.parametrize("name", ["Finance\u200b", "Fin\u0430nce", "finance", "ﬁnance", "Finance "])
def test_names_that_look_alike_are_not_the_same(rego, name):
    assert not rego.decide('allow if "Finance" in input.principal.roles', roles=(name,)).permitted


@pytest.mark.parametrize(
    "policy",
    [
        "f(n) := f(n + 1)\nallow if f(1)",
        "allow if f(1)\nf(n) := g(n)\ng(n) := f(n)",
        "allow := " + "[" * 2000 + "]" * 2000,
        "allow := " + "(" * 20_000 + "1" + ")" * 20_000,
        "allow := [" + "1," * 200_000 + "]",
        "allow := true # \u202e",
        "allow := \x00",
        "package " * 1000,
        "{" * 1000,
        '"' * 9999,
    ],
)
def test_hostile_policy_is_refused_and_denies_every_call(rego, policy):
    bundle = rego_bundle({"policy.rego": f"package p\n{policy}"})
    with pytest.raises(PolicySyntaxError, match=r"policy\.rego"):
        asyncio.run(rego.evaluator.check(bundle))
    (item,) = asyncio.run(rego.evaluator.evaluate_many(bundle, [make_request()]))
    assert (item.decision.effect, item.decision.reason) == (Effect.INDETERMINATE, Reason.BUNDLE_ERROR)
    assert rego.decide(HONEST).permitted


def test_zone_of_the_machine_is_utc_for_a_policy_that_spells_it_together(rego):
    """A decision must not depend on where it is made."""
    policy = 'allow if time.clock([1790000000000000000, concat("", ["Lo", "cal"])]) == [14, 13, 20]'
    assert rego.decide(policy).permitted
