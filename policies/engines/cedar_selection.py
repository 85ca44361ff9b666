"""Which policies of a bundle can have anything to do with a request: those whose scope it can meet.

Cedar looks at every policy of a set for every request. A bundle of two thousand policies, of which five are about the
called server, would cost each call four hundred times what it must. So a request is put to the policies alone whose
``action`` and ``resource`` scopes it meets; sets of them are made when first needed, and kept.

INVARIANT 8: leaving a policy out changes nothing. A policy whose scope a request does not meet is not satisfied, and
nothing else of it is looked at: ``==``, ``in`` and ``is`` of a scope cannot fail, and conditions come after them. What
is left out here is left out by the same comparison, over the same ancestors that Cedar would find. The ``principal``
scope is Cedar's alone to judge. A property test compares both ways.

Source: the Cedar policy language reference, "Policy scope" and "Authorization".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import cedarpy

from ledger.errors import PolicySyntaxError
from policies.engines.cedar_policies import CedarRule
from policies.engines.cedar_requests import EntityBase, Uid, resource_uid
from policies.model import DecisionRequest

__all__ = ["Chosen", "PolicySelection", "chosen_from"]

_MAX_KEYS: Final = 4096
"""Requests' kinds (action, resource, tags) whose policies are remembered; a stranger can make up any number."""

_MAX_KEPT_POLICIES: Final = 20_000
"""Policies in all sets that are kept; each costs some kilobytes."""

_SMALLEST: Final = 16
"""Policies below which looking at all of them costs less than choosing."""

_Key: TypeAlias = tuple[str, Uid, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Policies to be asked.

    Attributes:
        policies: Them.
        rules: Each rule by the id that Cedar gives to its policy in this set.
    """

    policies: cedarpy.PolicySet
    rules: Mapping[str, CedarRule]


@dataclass(frozen=True, slots=True)
class _Scope:
    """What of a policy's scope can be told from action and resource.

    Attributes:
        rule: The policy's rule.
        actions: Actions of which the request's must be one or in one; None for any.
        resource: Entity that the resource must be or be in; None for any.
        resource_type: Type that the resource must be of; None for any.
        itself: Whether the resource must be that entity, and not something in it.
    """

    rule: CedarRule
    actions: frozenset[Uid] | None
    resource: Uid | None
    resource_type: str | None
    itself: bool


def _uid(entity: cedarpy.pst.EntityUid) -> Uid:
    return _type(entity.type), entity.id


def _type(entity_type: cedarpy.pst.EntityType) -> str:
    return "::".join((*entity_type.namespace, entity_type.basename))


def _actions(scope: object) -> frozenset[Uid] | None:
    if isinstance(scope, cedarpy.pst.ActionEq):
        return frozenset({_uid(scope.entity)})
    if isinstance(scope, cedarpy.pst.ActionIn):
        return frozenset(map(_uid, scope.entities))
    return None


def _required(scope: object) -> Uid | None:
    """Return the entity that the resource must be or be in; None if the scope names none that can be told."""
    if isinstance(scope, cedarpy.pst.ScopeEq | cedarpy.pst.ScopeIn | cedarpy.pst.ScopeIsIn):
        return _uid(scope.entity) if isinstance(scope.entity, cedarpy.pst.EntityUid) else None
    return None


def _required_type(scope: object) -> str | None:
    if isinstance(scope, cedarpy.pst.ScopeIs | cedarpy.pst.ScopeIsIn):
        return _type(scope.entity_type)
    return None


class PolicySelection:
    """The policies of one bundle, chosen by request. Safe for any thread."""

    def __init__(self, everything: Chosen, entities: EntityBase) -> None:
        """Sort the policies by what their scopes name.

        Args:
            everything: All policies of the bundle.
            entities: The bundle's entities.
        """
        self._everything = everything
        self._entities = entities
        self._groups = entities.action_ancestors()
        self._by_resource: dict[Uid | None, list[_Scope]] = {}
        for rule in everything.rules.values():
            scope = _scope(rule)
            self._by_resource.setdefault(scope.resource, []).append(scope)
        # Whatever thread comes second does its work again; the dictionaries stay whole.
        self._by_request: dict[_Key, Chosen] = {}
        self._sets: dict[tuple[int, ...], Chosen] = {}
        self._kept = 0

    def of(self, request: DecisionRequest) -> Chosen:
        """Return the policies that a request is put to."""
        if len(self._everything.rules) < _SMALLEST:
            return self._everything
        key = (request.action, resource_uid(request), request.resource.tags)
        chosen = self._by_request.get(key)
        if chosen is None:
            chosen = self._set_of(self._matching(request))
            if len(self._by_request) >= _MAX_KEYS:
                self._by_request.clear()
            self._by_request[key] = chosen
        return chosen

    def _matching(self, request: DecisionRequest) -> Sequence[CedarRule]:
        """Return the rules whose action and resource scopes a request meets, in bundle order."""
        resource = resource_uid(request)
        around = self._entities.resource_ancestors(request)
        action = ("Action", request.action)
        actions = self._groups.get(action, frozenset()) | {action}
        scopes = [scope for uid in (None, *around) for scope in self._by_resource.get(uid, ())]
        rules = [scope.rule for scope in scopes if _meets(scope, resource, actions)]
        return sorted(rules, key=lambda rule: rule.position)

    def _set_of(self, rules: Sequence[CedarRule]) -> Chosen:
        # Making a set costs as much as asking its policies thirty times; a set of most policies would gain little.
        if 2 * len(rules) > len(self._everything.rules):
            return self._everything
        key = tuple(rule.position for rule in rules)
        chosen = self._sets.get(key)
        if chosen is None:
            chosen = chosen_from(rules)
            if self._kept + len(rules) > _MAX_KEPT_POLICIES:
                self._sets.clear()
                self._by_request.clear()
                self._kept = 0
            self._sets[key] = chosen
            self._kept += len(rules)
        return chosen


def _scope(rule: CedarRule) -> _Scope:
    resource = rule.policy.resource
    return _Scope(
        rule=rule,
        actions=_actions(rule.policy.action),
        resource=_required(resource),
        resource_type=_required_type(resource),
        itself=isinstance(resource, cedarpy.pst.ScopeEq),
    )


def _meets(scope: _Scope, resource: Uid, actions: Collection[Uid]) -> bool:
    """Tell whether a scope is met, given that the resource is in what the scope requires."""
    if scope.itself and scope.resource != resource:
        return False
    if scope.resource_type is not None and scope.resource_type != resource[0]:
        return False
    return scope.actions is None or not scope.actions.isdisjoint(actions)


def chosen_from(rules: Iterable[CedarRule]) -> Chosen:
    """Return a set of some policies, from their own text.

    Raises:
        PolicySyntaxError: The texts are not those policies.
    """
    by_name = {rule.name: rule for rule in rules}
    policies = cedarpy.PolicySet.from_str("\n".join(rule.text for rule in by_name.values()))
    named = {identity: policy.annotations["id"] for identity, policy in policies.to_pst().static_policies.items()}
    if sorted(named.values()) != sorted(by_name):
        raise PolicySyntaxError("a selection of the bundle's policies does not add up")
    return Chosen(policies, {identity: by_name[name] for identity, name in named.items()})
