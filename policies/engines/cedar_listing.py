"""Cedar policies about a call whose arguments are unknown; see `policies.listing` for what that is for.

Each policy is rewritten once so that it speaks of no argument any more: a *permit* so that it holds whenever it could
hold with some arguments, a *forbid* so that it holds only if it holds with all. Conditions are rewritten through
``&&``, ``||``, ``!`` and ``if``; what is left and reads something unknown becomes ``true`` or ``false``, whichever errs
to the side of showing. So ``context.identity.mfa && context.args.amount <= 100`` becomes ``context.identity.mfa &&
true``, and without a second factor the tool is hidden.

Unknown are ``context.args``, ``context.boundary``, ``context.signals``, ``context.state.windows``, ``context`` where it
is used as a whole; of the signals, ``tool_state`` and ``baseline`` are known of what has a name if the request holds
signals; and for templates ``resource``, of which then only the server and the server's tags are known.

Errors: a policy that reads nothing unknown and fails, fails for all arguments, which denies them all. One that was
rewritten may fail here where Cedar would not have come that far; a permit that does might have held, a forbid might
not.

A difference between the two sides remains where the same unknown stands twice: ``context.args.a && !context.args.a``
holds for none, and is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import cedarpy

from policies.engines.cedar_policies import CedarRule
from policies.engines.cedar_requests import EntityBase
from policies.engines.cedar_selection import Chosen, PolicySelection, chosen_from
from policies.listing import KNOWN_SIGNALS, Unknown, signals_known
from policies.model import DecisionRequest

__all__ = ["ListingPolicies", "ListingSelection"]

Expression: TypeAlias = dict[str, Any]
"""A Cedar expression in Cedar's JSON format."""

_KNOWN_CONTEXT: Final = frozenset({"identity", "time", "environment"})
_OPERANDS: Final = ("left", "right", "arg", "if", "then", "else", "in")
_TRUE: Final[Expression] = {"Value": True}
_FALSE: Final[Expression] = {"Value": False}


@dataclass(frozen=True, slots=True)
class ListingSelection:
    """Rewritten policies to be asked about a request.

    Attributes:
        chosen: Them.
        exact: Names of the rules that are as the bundle has them: they read nothing unknown.
    """

    chosen: Chosen
    exact: frozenset[str]


class ListingPolicies:
    """The policies of one bundle, rewritten when they are first needed. Safe for any thread."""

    def __init__(self, rules: Iterable[CedarRule], entities: EntityBase) -> None:
        """Take the bundle's rules and entities."""
        self._rules = tuple(rules)
        self._entities = entities
        # Whatever thread comes second does its work again; the dictionary stays whole.
        self._made: dict[tuple[Unknown, bool], tuple[PolicySelection, frozenset[str]]] = {}

    def of(self, request: DecisionRequest, unknown: Unknown) -> ListingSelection:
        """Return the policies that a request is put to, given what of it is unknown."""
        key = (unknown, signals_known(request))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._rewritten(*key)
        selection, exact = made
        return ListingSelection(selection.of(request), exact)

    def _rewritten(self, unknown: Unknown, signals_known: bool) -> tuple[PolicySelection, frozenset[str]]:  # noqa: FBT001  # a part of a key
        rewriting = _Rewriting(resource_unknown=unknown is Unknown.CALL, signals_known=signals_known)
        rules = [rewriting.rule(rule) for rule in self._rules]
        exact = frozenset(new.name for new, old in zip(rules, self._rules, strict=True) if new is old)
        return PolicySelection(chosen_from(rules), self._entities), exact


class _Rewriting:
    """Rewrites policies for one kind of unknown."""

    def __init__(self, *, resource_unknown: bool, signals_known: bool) -> None:
        self._resource_unknown = resource_unknown
        self._signals_known = signals_known

    def rule(self, rule: CedarRule) -> CedarRule:
        """Return a rule that reads nothing unknown; the rule itself if it does not anyway."""
        document = json.loads(cedarpy.policies_to_json_str(rule.text))
        (policy,) = document["staticPolicies"].values()
        conditions = [self._condition(item, forbids=rule.forbids) for item in policy["conditions"]]
        scope = self._scope(policy["resource"], forbids=rule.forbids)
        if conditions == policy["conditions"] and scope == policy["resource"]:
            return rule
        policy["conditions"], policy["resource"] = conditions, scope
        text = cedarpy.policies_from_json_str(json.dumps(document))
        (parsed,) = cedarpy.policies_to_pst(text).static_policies.values()
        return replace(rule, text=text, policy=parsed)

    def _condition(self, condition: Mapping[str, Any], *, forbids: bool) -> dict[str, Any]:
        # A permit's `when` and a forbid's `unless` speak for the call: they may hold. The other two must.
        speaks_for_call = (condition["kind"] == "when") != forbids
        body = condition["body"]
        return {"kind": condition["kind"], "body": self._may(body) if speaks_for_call else self._must(body)}

    def _scope(self, scope: Mapping[str, Any], *, forbids: bool) -> Mapping[str, Any]:
        """Return what a resource scope says of a resource of which the server and its tags are known."""
        if not self._resource_unknown or scope["op"] == "All":
            return scope
        if not forbids:
            return scope if _names_server(scope) else {"op": "All"}
        # What lies in a known group does so for certain, whatever else it lies in; one that is named may be another.
        return scope if scope["op"] in {"in", "is"} else _nowhere()

    def _may(self, expression: Expression) -> Expression:
        """Return what holds whenever an expression holds for some values of the unknown."""
        if self._reads_known(expression):
            return expression
        kind, inner = next(iter(expression.items()))
        match kind:
            case "&&" | "||":
                return {kind: {"left": self._may(inner["left"]), "right": self._may(inner["right"])}}
            case "!":
                return {"!": {"arg": self._must(inner["arg"])}}
            case "if-then-else":
                then, otherwise = self._may(inner["then"]), self._may(inner["else"])
                if self._reads_known(inner["if"]):
                    return {kind: {"if": inner["if"], "then": then, "else": otherwise}}
                return {"||": {"left": then, "right": otherwise}}
            case _:
                return _TRUE

    def _must(self, expression: Expression) -> Expression:
        """Return what holds only if an expression holds for all values of the unknown."""
        if self._reads_known(expression):
            return expression
        kind, inner = next(iter(expression.items()))
        match kind:
            case "&&" | "||":
                return {kind: {"left": self._must(inner["left"]), "right": self._must(inner["right"])}}
            case "!":
                return {"!": {"arg": self._may(inner["arg"])}}
            case "if-then-else":
                then, otherwise = self._must(inner["then"]), self._must(inner["else"])
                if self._reads_known(inner["if"]):
                    return {kind: {"if": inner["if"], "then": then, "else": otherwise}}
                return {"&&": {"left": then, "right": otherwise}}
            case _:
                return _FALSE

    def _reads_known(self, expression: Expression) -> bool:
        """Whether an expression reads nothing unknown; False for what is not understood."""
        stack: list[Any] = [expression]
        while stack:
            node = stack.pop()
            if not isinstance(node, dict) or len(node) != 1:
                return False
            kind, inner = next(iter(node.items()))
            place = _place_in_context(kind, inner)
            if place is not None:
                if not _is_known(place) and not (self._signals_known and place in KNOWN_SIGNALS):
                    return False
                continue
            if kind == "Var" and self._resource_unknown and inner == "resource":
                return False
            below = _operands(kind, inner)
            if below is None:
                return False
            stack += below
        return True


def _operands(kind: str, inner: Any) -> list[Any] | None:  # noqa: ANN401  # Cedar's JSON
    """Return the expressions that an expression is made of; None for one that is not understood."""
    if kind in {"Value", "Var"}:
        return []
    if kind == "Record":
        return list(inner.values())
    if isinstance(inner, list):
        return inner
    return [inner[name] for name in _OPERANDS if name in inner] if isinstance(inner, dict) else None


def _place_in_context(kind: str, inner: Any) -> tuple[str, ...] | None:  # noqa: ANN401  # Cedar's JSON
    """Return the attributes that lead from the context to what is read or asked for; None if it is none of its own."""
    names: list[str] = []
    while kind in {".", "has"}:
        if not isinstance(inner["attr"], str):  # a test of several attributes at once
            names.clear()
        else:
            names.append(inner["attr"])
        kind, inner = next(iter(inner["left"].items()))
    return tuple(reversed(names)) if (kind, inner) == ("Var", "context") else None


def _is_known(place: tuple[str, ...]) -> bool:
    if place[:1] == ("state",):
        return len(place) > 1 and place[1] != "windows"
    return bool(place) and place[0] in _KNOWN_CONTEXT


def _names_server(scope: Mapping[str, Any]) -> bool:
    """Whether a resource scope speaks of a server or of any tool alone, which is known of every resource."""
    if scope["op"] == "is":
        inside = scope.get("in")
        return inside is None or inside["entity"]["type"] == "Server"
    entity = scope.get("entity")
    return scope["op"] == "in" and entity is not None and entity["type"] == "Server"


def _nowhere() -> dict[str, Any]:
    """Return a scope that no resource is in; the id is none that a server can have."""
    return {"op": "==", "entity": {"type": "Server", "id": "/"}}
