"""The Cedar engine: AWS Cedar through cedarpy, its schema mandatory.

How a request looks to a policy
-------------------------------

* ``principal`` is ``Agent::"<agent>"``, with the parents ``Role::"<role>"`` and the attribute ``name``.
* ``action`` is ``Action::"<method>"``, such as ``Action::"tools/call"``. A method that the schema does not declare is
  refused as INDETERMINATE: unknown methods are permitted by nothing.
* ``resource`` is ``Tool::"<server>/<name>"`` where the message names something (a tool, a prompt or a resource URI: the
  action says which), with the parents ``Server::"<server>"`` and ``Tag::"<tag>"`` and the attributes ``name`` and
  ``server``. Otherwise it is ``Server::"<server>"``, with the parents ``Tag::"<tag>"`` and the attribute ``name``.
* ``context`` is the same for every action::

      {identity: {user?: String, authn: String, mfa: Bool, roles: Set<String>},
       time: {now_ms: Long, zone: String, local_date: String, hour: Long, minute: Long, weekday: Long},
       environment: {address: String, network: String},
       state: {session: String, calls: Long, denied: Long, started_ms: Long, windows?: {<each declared window>}},
       args: {<each declared parameter, optional>}}

  A bundle with boundaries has ``boundary: {known: Bool, drift: Set<String>}`` in it as well; see `policies.boundaries`.
  A ``decimal`` parameter is a Cedar ``decimal``, a ``long`` a ``Long``, a ``path`` a ``Set<String>``; see
  `policies.parameters`. ``signals`` is there for each action in whose context the schema declares it, as ``{inspected:
  String, inspector: String, findings: Set<String>, kinds: Set<String>, finding_count: Long, tool_state: String,
  baseline: String, deviations: Set<String>}``; see `policies.signals`. ``state.windows`` is there if the bundle
  declares windows, and then holds each of them: a sum as its parameter, a count as ``Long``, what was seen as ``Bool``;
  see `policies.windows`.

The bundle's entities stand beside these. A static ``Agent``, ``Server`` or ``Tool`` is merged with the request's entity
of that id: attributes and tags from the bundle, parents from both.

How Cedar's answer becomes a decision
-------------------------------------

==================================== ================ ================================================================
Cedar                                effect           reason
==================================== ================ ================================================================
any error of any policy              INDETERMINATE    ``evaluation_error``; detail: the rules that failed
request not valid under the schema   INDETERMINATE    ``request_error``; detail: which part
parameter not exact                  INDETERMINATE    ``parameter_error``, ``ambiguous_parameter``; detail: its name
window not in the request            INDETERMINATE    ``request_error``; detail: its name
declared signals not in the request  INDETERMINATE    ``request_error``; detail: ``signals``
window beyond 64 bits                INDETERMINATE    ``parameter_error``; detail: its name
Allow                                PERMIT           ``policy``; rules: the permits that hold
Deny, a forbid holds                 DENY             ``policy``; rules: the forbids that hold
Deny, none does                      NOT_APPLICABLE   ``no_permit``
==================================== ================ ================================================================

INVARIANT 7: Cedar skips a policy that errors, and so a ``forbid`` that errors fails open; here any error is a deny.
Policies are validated against the schema at load, and requests against it at each evaluation. INVARIANT 6: messages of
cedarpy quote values, so none of them is passed on from an evaluation; only names of rules and parts are.

Source: the Cedar policy language, version 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import cedarpy
import msgspec
from msgspec import UNSET

from ledger.errors import PolicyError
from policies.boundaries import Boundaries, BoundaryFacts, boundary_facts, read_boundaries
from policies.bundles import Bundle
from policies.engine import LoadedBundle, Reason
from policies.engines.cedar_listing import ListingPolicies
from policies.engines.cedar_needs import PermitNeeds
from policies.engines.cedar_policies import CedarRule, compile_policies
from policies.engines.cedar_requests import (
    EntityBase,
    cedar_context,
    cedar_request,
    read_entities,
    resource_uid,
)
from policies.engines.cedar_schema import accepted_requests, read_schema, signalled_actions
from policies.engines.cedar_selection import Chosen, PolicySelection
from policies.listing import Unknown, unknown_in
from policies.model import Decision, DecisionRequest, Effect, with_signals
from policies.parameters import ParameterError, ParameterSet, ParameterValue, read_parameters
from policies.signals import SIGNALS, Signals
from policies.windows import WindowError, WindowSet, read_windows

__all__ = ["MAX_RULES_NAMED", "CedarEngine"]

MAX_RULES_NAMED: Final = 64
"""Determining rules that one decision names, as many as a decision record holds."""

_NO_FACTS: Final = BoundaryFacts()
# Anchored at the start by `match`: what follows may quote values, and values are not to be believed.
_FAILED_POLICY: Final = re.compile(r"error while evaluating policy `([^`]*)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handles:
    """What the engine keeps of a loaded bundle.

    Attributes:
        policies: The policies, chosen by request.
        listing: The same for calls whose arguments are unknown.
        needs: What its permits say that they need.
        schema: The schema.
        entities: The bundle's entities.
        parameters: The bundle's declarations of parameters.
        windows: The bundle's declarations of windows.
        accepted: Pairs of action and resource type that the schema accepts.
        signalled: Actions in whose context the schema declares signals.
        boundaries: The bundle's descriptions of tools; None if it has none.
    """

    policies: PolicySelection
    listing: ListingPolicies
    needs: PermitNeeds
    schema: cedarpy.Schema
    entities: EntityBase
    parameters: ParameterSet
    windows: WindowSet
    accepted: frozenset[tuple[str, str]]
    signalled: frozenset[str]
    boundaries: Boundaries | None


class CedarEngine:
    """Evaluates Cedar bundles; safe for any thread."""

    def __init__(self) -> None:
        self._version = version("cedarpy")

    @property
    def name(self) -> str:
        """``cedar``."""
        return "cedar"

    @property
    def version(self) -> str:
        """Exact version of cedarpy."""
        return self._version

    def load(self, bundle: Bundle) -> LoadedBundle:
        """Parse a bundle, validate its policies against its schema, and try the schema against our requests.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names file and, for policies, line.
        """
        schema = read_schema(bundle)
        parameters = read_parameters(bundle)
        boundaries = read_boundaries(bundle)
        windows = read_windows(bundle)
        policies, rules = compile_policies(bundle, schema, parameters, windows)
        entities = read_entities(bundle, schema.handle)
        signalled = signalled_actions(schema, entities)
        accepted = accepted_requests(
            schema, entities, parameters, windows, boundaries=boundaries is not None, signalled=signalled
        )
        handles = _Handles(
            policies=PolicySelection(Chosen(policies, rules), entities),
            listing=ListingPolicies(sorted(rules.values(), key=_position), entities),
            needs=PermitNeeds(tuple(rules.values())),
            schema=schema.handle,
            entities=entities,
            parameters=parameters,
            windows=windows,
            accepted=accepted,
            signalled=signalled,
            boundaries=boundaries,
        )
        names = tuple(rule.name for rule in sorted(rules.values(), key=_position))
        return LoadedBundle(revision=bundle.revision, rules=names, handle=handles)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order; see the module's text."""
        if not isinstance(loaded.handle, _Handles):
            raise PolicyError("the bundle was loaded by another engine")
        return [self._decide(loaded.revision, loaded.handle, request) for request in requests]

    def asking(
        self, loaded: LoadedBundle, request: DecisionRequest
    ) -> Callable[[cedarpy.PolicySet], cedarpy.AuthzResult] | None:
        """Return how other policies can be asked about a request, as the bundle's would be; for explanations.

        None if the request is none that the bundle's schema accepts, so that no policy of it is ever asked.
        """
        if not isinstance(loaded.handle, _Handles):
            raise PolicyError("the bundle was loaded by another engine")
        handles = loaded.handle
        try:
            question = _question(handles, request, boundary_facts(handles.boundaries, request))
        except _RefusedError:
            return None
        return lambda policies: cedarpy.is_authorized(question.asked, policies, question.entities, handles.schema)

    def _decide(self, revision: str, handles: _Handles, request: DecisionRequest) -> Decision:
        if unknown_in(request) is not Unknown.NOTHING:
            return self._listed(revision, handles, request)
        facts = boundary_facts(handles.boundaries, request)
        decision = self._answered(revision, handles, request, facts)
        return msgspec.structs.replace(decision, drift=facts.drift) if facts.drift else decision

    def _answered(self, revision: str, handles: _Handles, request: DecisionRequest, facts: BoundaryFacts) -> Decision:
        try:
            chosen = handles.policies.of(request)
            decision = self._mapped(revision, chosen.rules, _ask(handles, chosen.policies, request, facts))
            if decision.effect is not Effect.NOT_APPLICABLE:
                return decision
            needs = handles.needs.of(lambda policies: _ask(handles, policies, request, facts))
            return msgspec.structs.replace(decision, needs=needs) if needs else decision
        except _RefusedError as error:
            return self._plain(revision, Effect.INDETERMINATE, error.reason, error.detail)

    def _listed(self, revision: str, handles: _Handles, request: DecisionRequest) -> Decision:
        """Return whether a call could be permitted with some arguments; see `policies.engines.cedar_listing`."""
        selection = handles.listing.of(request, unknown_in(request))
        rules = selection.chosen.rules
        try:
            answer = _ask(handles, selection.chosen.policies, request, _NO_FACTS)
        except _RefusedError as error:
            return self._plain(revision, Effect.INDETERMINATE, error.reason, error.detail)
        identities = _failed_identities(answer.diagnostics.errors) & rules.keys()
        failed = [rules[identity] for identity in identities]
        if answer.decision is cedarpy.Decision.NoDecision:
            return self._plain(revision, Effect.INDETERMINATE, Reason.REQUEST_ERROR, "request")
        if not selection.exact.isdisjoint(rule.name for rule in failed):
            return self._plain(revision, Effect.INDETERMINATE, Reason.EVALUATION_ERROR)
        # A permit that failed might have held with other arguments; a forbid that holds does so with all of them.
        may_hold = not answer.diagnostics.reasons and any(not rule.forbids for rule in failed)
        shown = answer.decision is cedarpy.Decision.Allow or may_hold
        effect = Effect.PERMIT if shown else Effect.DENY if answer.diagnostics.reasons else Effect.NOT_APPLICABLE
        listed = self._plain(revision, effect, Reason.NO_PERMIT if effect is Effect.NOT_APPLICABLE else Reason.POLICY)
        if not shown:
            return listed
        holding = [rules[identity] for identity in answer.diagnostics.reasons]
        granting = [rule for rule in (*holding, *failed) if not rule.forbids]
        return msgspec.structs.replace(
            listed,
            rules=tuple(sorted(rule.name for rule in granting)[:MAX_RULES_NAMED]),
            obligations=_certain(granting, [rule for rule in holding if rule.name in selection.exact]),
        )

    def _plain(self, revision: str, effect: Effect, reason: Reason, detail: str = "") -> Decision:
        return Decision(
            effect=effect,
            bundle_revision=revision,
            engine=self.name,
            engine_version=self._version,
            reason=reason,
            detail=detail,
        )

    def _mapped(self, revision: str, rules: Mapping[str, CedarRule], answer: cedarpy.AuthzResult) -> Decision:
        """Turn Cedar's answer into a decision.

        Raises:
            _RefusedError: It is no answer, or some policy failed.
        """
        diagnostics = answer.diagnostics
        # INVARIANT 7: any error denies, whatever Cedar decided without the policy that failed.
        if diagnostics.errors and answer.decision is not cedarpy.Decision.NoDecision:
            raise _RefusedError(Reason.EVALUATION_ERROR, _failed_rules(diagnostics.errors, rules))
        if answer.decision is cedarpy.Decision.NoDecision:
            raise _RefusedError(Reason.REQUEST_ERROR, "request")
        determining = sorted((rules[identity] for identity in diagnostics.reasons), key=_position)
        names = sorted(rule.name for rule in determining)
        allowed = answer.decision is cedarpy.Decision.Allow
        return Decision(
            effect=Effect.PERMIT if allowed else Effect.DENY if determining else Effect.NOT_APPLICABLE,
            bundle_revision=revision,
            engine=self.name,
            engine_version=self._version,
            rules=tuple(names[:MAX_RULES_NAMED]),
            failed_condition=next((rule.name for rule in determining if rule.forbids), None),
            obligations=tuple(sorted({name for rule in determining for name in rule.obligations})),
            reason=Reason.POLICY if determining else Reason.NO_PERMIT,
            needs=() if allowed else tuple(sorted({name for rule in determining for name in rule.needs})),
            detail=f"and {len(names) - MAX_RULES_NAMED} more rules" if len(names) > MAX_RULES_NAMED else "",
        )


class _RefusedError(PolicyError):
    """Why there is no answer; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _certain(granting: Sequence[CedarRule], exact: Sequence[CedarRule]) -> tuple[str, ...]:
    """Return the obligations of every permit of a call: those of a rule that holds anyway, and those of all rules."""
    of_all = set.intersection(*(set(rule.obligations) for rule in granting)) if granting else set[str]()
    return tuple(sorted(of_all.union(*(rule.obligations for rule in exact))))


def _position(rule: CedarRule) -> int:
    return rule.position


def _failed_rules(errors: Sequence[str], rules: Mapping[str, CedarRule]) -> str:
    """Return the names of the rules that cedarpy's messages speak of, and nothing else of the messages."""
    return ", ".join(sorted(rules[identity].name for identity in _failed_identities(errors) & rules.keys()))


def _failed_identities(errors: Sequence[str]) -> set[str]:
    """Return Cedar's ids of the policies that cedarpy's messages speak of."""
    return {match[1] for error in errors for match in [_FAILED_POLICY.match(error)] if match}


@dataclass(frozen=True, slots=True)
class _Question:
    """A request as Cedar takes it: principal, action, resource and context; and the entities that it is about."""

    asked: dict[str, object]
    entities: cedarpy.Entities


def _question(handles: _Handles, request: DecisionRequest, facts: BoundaryFacts) -> _Question:
    """Put a request in Cedar's terms.

    Raises:
        _RefusedError: The request is none that the bundle's schema accepts, or a parameter or window is not exact or
            not there.
    """
    # A server with a slash in its name could pass one server's tool for another's: "a/b" + "c" and "a" + "b/c".
    if "/" in request.resource.server:
        raise _RefusedError(Reason.REQUEST_ERROR, "server")
    kind, _ = resource_uid(request)
    if (request.action, kind) not in handles.accepted:
        raise _RefusedError(Reason.REQUEST_ERROR, "action")
    if unknown_in(request) is not Unknown.NOTHING:
        stated = with_signals(request, Signals()) if request.signals is UNSET else request
        return _made_question(handles, stated, {}, handles.windows.unmeasured(), facts)
    if request.action in handles.signalled and request.signals is UNSET:
        raise _RefusedError(Reason.REQUEST_ERROR, SIGNALS)
    try:
        arguments = handles.parameters.extract(
            request.action, request.resource.server, request.resource.name, request.arguments
        )
    except ParameterError as error:
        raise _RefusedError(Reason(error.reason), error.parameter) from error
    try:
        windows = handles.windows.values(request)
    except WindowError as error:
        raise _RefusedError(Reason(error.reason), error.window) from error
    return _made_question(handles, request, arguments, windows, facts)


def _made_question(
    handles: _Handles,
    request: DecisionRequest,
    arguments: Mapping[str, ParameterValue],
    windows: Mapping[str, ParameterValue],
    facts: BoundaryFacts,
) -> _Question:
    described = None if handles.boundaries is None else facts
    context = cedar_context(request, arguments, windows, described, signalled=request.action in handles.signalled)
    try:
        return _Question(cedar_request(request, context), handles.entities.with_request(request))
    except ValueError as error:
        raise _RefusedError(Reason.REQUEST_ERROR, "entities") from error


def _ask(
    handles: _Handles, policies: cedarpy.PolicySet, request: DecisionRequest, facts: BoundaryFacts
) -> cedarpy.AuthzResult:
    """Put a request to some policies.

    Raises:
        _RefusedError: The request is none that the bundle's schema accepts, or a parameter is not exact.
    """
    question = _question(handles, request, facts)
    try:
        return cedarpy.is_authorized(question.asked, policies, question.entities, handles.schema)
    except ValueError as error:
        # Principal or resource do not fit the schema, or a name is no Unicode text. The message may quote values.
        raise _RefusedError(Reason.REQUEST_ERROR, "entities") from error
