"""From the policy files of a bundle to a Cedar policy set and the rules in it.

Each file is parsed by itself, so that no file can begin a comment or string that another ends, and then added to one
policy set in the manifest's order. Cedar numbers policies through (``policy0``, ``policy1``, …); the number is the
rule's index in bundle order.

Annotations are closed: ``@id``, which every policy must have and no two may share, ``@obligation``, ``@needs`` and
``@description``. A misspelt ``@obligation`` would be an obligation that nobody fulfils, so any other annotation is
refused.

So is a ``has`` that can never hold, because the schema declares no such attribute or the bundle no such parameter or
window:
Cedar takes it for a condition that is false, and a ``forbid`` with a misspelt name in it would never fire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Final

import cedarpy

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle
from policies.engines.cedar_schema import CedarSchema
from policies.engines.cedar_text import Statement, split_policies
from policies.model import Obligation
from policies.parameters import ParameterSet
from policies.windows import WindowSet

__all__ = ["ARGUMENTS", "MAX_NEEDS", "MAX_RULES", "CedarRule", "compile_policies", "nodes", "parse_policies"]

MAX_RULES: Final = 5000
MAX_NEEDS: Final = 8
"""Names in one ``@needs``."""

_RULE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}")
_NEED: Final = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_ANNOTATIONS: Final = frozenset({"id", "obligation", "needs", "description"})
ARGUMENTS: Final = cedarpy.pst.GetAttr(base=cedarpy.pst.Var(name="context"), attr="args")
"""``context.args`` in a parsed policy."""

_CONTEXT: Final = cedarpy.pst.Var(name="context")
_IN_ARGUMENTS: Final = ("args",)
_IN_STATE: Final = ("state",)
_IN_WINDOWS: Final = ("state", "windows")
# What a permit lets through may be held for a person, or its result looked through; a forbid may end the session. The
# other way round none of them means anything.
_OBLIGATIONS: Final = {
    "permit": frozenset({Obligation.APPROVAL, Obligation.REDACT_RESULT, Obligation.BLOCK_RESULT}),
    "forbid": frozenset({Obligation.END_SESSION}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CedarRule:
    """One policy of a bundle.

    Attributes:
        position: Its place in bundle order, from 0.
        name: Its ``@id``.
        forbids: Whether it is a ``forbid``.
        obligations: What its ``@obligation`` asks for, sorted.
        place: ``file:line`` where it starts.
        text: Its text, annotations included.
        policy: The same, parsed.
        needs: What its ``@needs`` says that whoever it stands against would need, sorted.
    """

    position: int
    name: str
    forbids: bool
    obligations: tuple[str, ...]
    place: str
    text: str
    policy: cedarpy.pst.Template
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Declared:
    """What policies may speak of."""

    schema: CedarSchema
    parameters: ParameterSet
    windows: WindowSet


def _obligations(place: str, effect: str, annotations: Mapping[str, str]) -> tuple[str, ...]:
    if "obligation" not in annotations:
        return ()
    names = [name.strip() for name in annotations["obligation"].split(",")]
    for name in names:
        if name not in {*Obligation}:
            raise PolicySyntaxError(f"{place}: the unknown obligation {name[:64]!a}")
        if name not in _OBLIGATIONS[effect]:
            raise PolicySyntaxError(f"{place}: a {effect} cannot have the obligation {name}")
    return tuple(sorted(set(names)))


def _needs(place: str, annotations: Mapping[str, str]) -> tuple[str, ...]:
    if "needs" not in annotations:
        return ()
    names = {name.strip() for name in annotations["needs"].split(",")}
    if len(names) > MAX_NEEDS or not all(_NEED.fullmatch(name) for name in names):
        raise PolicySyntaxError(f"{place}: @needs takes at most {MAX_NEEDS} names: letters, digits and _ . : -")
    return tuple(sorted(names))


def nodes(node: object) -> Iterator[object]:
    """Return a node of a parsed policy and every node under it."""
    stack = [node]
    while stack:
        value = stack.pop()
        yield value
        if isinstance(value, tuple):
            stack.extend(value)
        elif isinstance(value, Mapping):
            stack.extend(value.values())
        elif is_dataclass(value):
            stack.extend(getattr(value, member.name) for member in fields(value))


def _place_in_context(node: object) -> tuple[str, ...] | None:
    """Return the attributes that lead from the context to an expression; None if it is none of the context's."""
    names: list[str] = []
    while isinstance(node, cedarpy.pst.GetAttr):
        names.append(node.attr)
        node = node.base
    return tuple(reversed(names)) if node == _CONTEXT else None


def _check_existence_tests(place: str, policy: cedarpy.pst.Template, declared: _Declared) -> None:
    windows = declared.windows.windows
    for test in (node for node in nodes(policy.clauses) if isinstance(node, cedarpy.pst.HasAttr)):
        base = _place_in_context(test.base)
        for count, name in enumerate(test.attrs):
            if name not in declared.schema.attributes:
                raise PolicySyntaxError(f"{place}: the schema declares no attribute named {name[:64]!a}")
            inside = None if base is None else base + tuple(test.attrs[:count])
            if inside == _IN_ARGUMENTS and name not in declared.parameters.types:
                raise PolicySyntaxError(f"{place}: the bundle declares no parameter named {name[:64]!a}")
            if inside == _IN_WINDOWS and name not in windows:
                raise PolicySyntaxError(f"{place}: the bundle declares no window named {name[:64]!a}")
            if inside == _IN_STATE and name == "windows" and not windows:
                raise PolicySyntaxError(f"{place}: the bundle declares no windows")


def _rule(position: int, place: str, text: str, policy: cedarpy.pst.Template) -> CedarRule:
    name = policy.annotations.get("id")
    if not name:
        raise PolicySyntaxError(f'{place}: a policy needs an @id("…")')
    if not _RULE_NAME.fullmatch(name):
        raise PolicySyntaxError(f"{place}: {name[:64]!a} is not a rule name")
    for annotation in policy.annotations:
        if annotation not in _ANNOTATIONS:
            raise PolicySyntaxError(f"{place}: the unknown annotation @{annotation}")
    return CedarRule(
        position=position,
        name=name,
        forbids=policy.effect == "forbid",
        obligations=_obligations(place, policy.effect, policy.annotations),
        place=place,
        text=text,
        policy=policy,
        needs=_needs(place, policy.annotations),
    )


def parse_policies(path: str, statements: Sequence[Statement]) -> list[cedarpy.pst.Template]:
    """Parse policies one by one; cedarpy's messages name no place, so the place is the policy that fails.

    Args:
        path: Their file, for messages.
        statements: The policies, from `policies.engines.cedar_text.split_policies`.

    Raises:
        PolicySyntaxError: One does not parse, or is a template.
    """
    policies: list[cedarpy.pst.Template] = []
    for statement in statements:
        place = f"{path}:{statement.line}"
        try:
            parsed = cedarpy.policies_to_pst(statement.text)
        except ValueError as error:
            raise PolicySyntaxError(f"{place}: {error}") from error
        if parsed.templates or len(parsed.static_policies) != 1:
            raise PolicySyntaxError(f"{place}: not one policy without slots")
        policies += parsed.static_policies.values()
    return policies


def _parse_file(path: str, text: str, declared: _Declared, known: dict[str, CedarRule]) -> None:
    """Add one file's rules to those ``known`` by name."""
    statements = split_policies(path, text)
    for statement, policy in zip(statements, parse_policies(path, statements), strict=True):
        rule = _rule(len(known), f"{path}:{statement.line}", statement.text, policy)
        _check_existence_tests(rule.place, policy, declared)
        if rule.name in known:
            raise PolicySyntaxError(f"{rule.place}: the rule {rule.name} is already at {known[rule.name].place}")
        known[rule.name] = rule
    if len(known) > MAX_RULES:
        raise PolicySyntaxError(f"{path}: a bundle has at most {MAX_RULES} policies")


def _validate(path: str, text: str, rules: Mapping[str, CedarRule], schema: cedarpy.Schema) -> None:
    """Check one file's policies against the schema."""
    result = cedarpy.validate_policies(text, schema)
    for error in result.errors:
        name = result.id_annotations_by_policy_id.get(error.policy_id)
        place = rules[name].place if name is not None and name in rules else path
        raise PolicySyntaxError(f"{place}: {error.error.removeprefix(f'for policy `{error.policy_id}`, ')}")
    if not result.validation_passed:
        raise PolicySyntaxError(f"{path}: the policies do not fit the schema")


def compile_policies(
    bundle: Bundle, schema: CedarSchema, parameters: ParameterSet, windows: WindowSet
) -> tuple[cedarpy.PolicySet, Mapping[str, CedarRule]]:
    """Return the bundle's policy set, and its rules by the ids that Cedar gives to policies.

    Args:
        bundle: The bundle.
        schema: Its schema.
        parameters: Its declarations of parameters.
        windows: Its declarations of windows.

    Raises:
        PolicySyntaxError: A policy does not parse, does not fit the schema, or breaks a rule of this module; the
            message names file and line.
    """
    policies = cedarpy.PolicySet.from_str("")
    rules: dict[str, CedarRule] = {}
    for path in bundle.manifest.policies:
        text = bundle.text(path)
        _parse_file(path, text, _Declared(schema, parameters, windows), rules)
        _validate(path, text, rules, schema.handle)
        policies = policies.with_added_str(text)
    if not rules:
        raise PolicySyntaxError("the bundle has no policy")
    by_id = {identity: policy.annotations["id"] for identity, policy in policies.to_pst().static_policies.items()}
    # What was read policy by policy must be what Cedar will evaluate, no more and no less.
    if sorted(by_id.values()) != sorted(rules):
        raise PolicySyntaxError("the bundle's files do not add up to its policies")
    return policies, {identity: rules[name] for identity, name in by_id.items()}
