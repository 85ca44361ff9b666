"""The schema of a Cedar bundle, and which requests it accepts.

`policies.engines.cedar` documents how requests look. A schema that did not fit them would turn every request into an
INDETERMINATE decision; here it is tried at load, with the least and the most that a request can hold, and refused with
a message that its author can use.

Signals (`policies.signals`) are in the context of an action if the schema declares ``signals`` there, and then they
have to fit: an optional attribute of some other type would be left out of every request, and a ``forbid`` that looks
for it would never hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import cedarpy
import msgspec

from ledger.errors import PolicySyntaxError
from policies.boundaries import BoundaryFacts
from policies.bundles import Bundle
from policies.engines.cedar_requests import EntityBase, cedar_context, cedar_request
from policies.engines.cedar_text import check_schema_text
from policies.model import DecisionRequest, Environment, Principal, Resource, SessionState, Time, with_signals
from policies.parameters import FixedDecimal, ParameterSet, ParameterValue
from policies.signals import SIGNALS, Signals
from policies.windows import WindowSet

__all__ = ["CedarSchema", "accepted_requests", "read_schema", "signalled_actions"]

_OTHER_TYPE: Final = re.compile(r"(principal|resource) type `[A-Za-z]+` is not valid for `Action::")
_NO_SUCH_ATTRIBUTE: Final = f"attribute `{SIGNALS}` in context for "
_NO_POLICIES: Final = cedarpy.PolicySet.from_str("")
_SAMPLES: Final[Mapping[str, ParameterValue]] = {
    "long": 1,
    "decimal": FixedDecimal(10_000),
    "string": "probe",
    "bool": True,
    "path": ("/probe", "/"),
}
_PROBE: Final = DecisionRequest(
    version=1,
    principal=Principal(agent="probe", roles=("probe",)),
    action="tools/call",
    resource=Resource(server="probe", tags=("probe",)),
    time=Time(now_ms=0, zone="UTC", local_date="1970-01-01", hour=0, minute=0, weekday=4),
    environment=Environment(address="127.0.0.1"),
    state=SessionState(session="probe"),
)
_LEAST_SIGNALS: Final = Signals()
_MOST_SIGNALS: Final = Signals(
    inspected="partial",
    inspector="probe",
    findings=("secret/probe",),
    finding_count=1,
    tool_state="pinned",
    baseline="ready",
    deviations=("probe",),
)


@dataclass(frozen=True, slots=True)
class CedarSchema:
    """A bundle's schema.

    Attributes:
        path: Its path in the bundle, for messages.
        handle: The parsed schema.
        attributes: Names of all attributes that it declares anywhere.
    """

    path: str
    handle: cedarpy.Schema
    attributes: frozenset[str]


def read_schema(bundle: Bundle) -> CedarSchema:
    """Return the bundle's schema.

    Raises:
        PolicySyntaxError: The bundle has none, or it does not parse.
    """
    path = bundle.manifest.schema
    if path is None:
        raise PolicySyntaxError("a Cedar bundle needs a schema")
    text = bundle.text(path)
    attributes = check_schema_text(path, text)
    try:
        return CedarSchema(path, cedarpy.Schema.from_str(text), attributes)
    except ValueError as error:
        raise PolicySyntaxError(f"{path}: {error}") from error


def signalled_actions(schema: CedarSchema, entities: EntityBase) -> frozenset[str]:
    """Return the actions in whose context the schema declares signals."""
    if SIGNALS not in schema.attributes:  # of anything
        return frozenset()
    return frozenset(action for action in entities.actions() if _declares_signals(schema.handle, action))


def _declares_signals(schema: cedarpy.Schema, action: str) -> bool:
    """Tell whether a context has signals: Cedar's validator says so of a policy that reads them.

    Whatever else it has against that policy (that they are optional), the schema knows them.
    """
    named = json.dumps(action, ensure_ascii=False)
    read = f"permit(principal, action == Action::{named}, resource) when {{ context.signals == context.signals }};"
    errors = cedarpy.validate_policies(read, schema).errors
    return not any(_NO_SUCH_ATTRIBUTE in error.error and error.error.endswith("not found") for error in errors)


def _probe(action: str, kind: str) -> DecisionRequest:
    resource = _PROBE.resource
    if kind == "Tool":
        resource = msgspec.structs.replace(resource, name="probe")
    return msgspec.structs.replace(_PROBE, action=action, resource=resource)


def _contexts(
    probe: DecisionRequest, parameters: ParameterSet, windows: WindowSet, *, boundaries: bool, signalled: bool
) -> Iterator[dict[str, object]]:
    """Return the contexts with the least and with the most in them; windows are in every request."""
    measured = {name: _SAMPLES[windows.kind(name)] for name in windows.windows}
    least = with_signals(probe, _LEAST_SIGNALS)
    yield cedar_context(least, {}, measured, BoundaryFacts() if boundaries else None, signalled=signalled)
    known = msgspec.structs.replace(probe, principal=msgspec.structs.replace(probe.principal, user="probe"))
    known = with_signals(known, _MOST_SIGNALS)
    # Only calls of tools carry parameters.
    called = probe.action == "tools/call" and probe.resource.name is not None
    arguments = {name: _SAMPLES[kind] for name, kind in parameters.types.items()} if called else {}
    facts = BoundaryFacts(known=True, drift=("probe",)) if boundaries else None
    yield cedar_context(known, arguments, measured, facts, signalled=signalled)


def _refusal(
    request: DecisionRequest, context: Mapping[str, object], entities: EntityBase, schema: cedarpy.Schema
) -> str | None:
    """Return what the schema has against a request, or None."""
    asked = cedar_request(request, context)
    answer = cedarpy.is_authorized(asked, _NO_POLICIES, entities.with_request(request), schema)
    if answer.decision is not cedarpy.Decision.NoDecision:
        return None
    return "; ".join(answer.diagnostics.errors)


def _problem(
    probe: DecisionRequest,
    entities: EntityBase,
    schema: cedarpy.Schema,
    parameters: ParameterSet,
    windows: WindowSet,
    *,
    boundaries: bool,
    signalled: bool,
) -> str | None:
    """Return what the schema has against some request of this action on this type of resource, or None.

    An action that does not apply to the type, or (a group of actions) to nothing, is told by `_OTHER_TYPE`. Of a group
    Cedar complains first that it has no context, so an empty one is tried as well.
    """
    contexts = _contexts(probe, parameters, windows, boundaries=boundaries, signalled=signalled)
    refusals = [_refusal(probe, context, entities, schema) for context in contexts]
    told = next((refusal for refusal in refusals if refusal is not None), None)
    if told is None:
        return None
    bare = _refusal(probe, {}, entities, schema)
    return bare if bare is not None and _OTHER_TYPE.search(bare) else told


def accepted_requests(
    schema: CedarSchema,
    entities: EntityBase,
    parameters: ParameterSet,
    windows: WindowSet,
    *,
    boundaries: bool = False,
    signalled: frozenset[str] = frozenset(),
) -> frozenset[tuple[str, str]]:
    """Return the pairs of action and resource type that the schema accepts, having tried each.

    A schema that fits some requests of an action and not others would turn the others into errors at run time, so its
    author hears of it now.

    Args:
        schema: The bundle's schema.
        entities: The bundle's entities.
        parameters: The bundle's declarations of parameters.
        windows: The bundle's declarations of windows.
        boundaries: Whether the bundle has any, so that requests say what they found.
        signalled: The actions in whose context the schema declares signals.

    Raises:
        PolicySyntaxError: The schema does not fit our requests, or accepts none.
    """
    path = schema.path
    accepted: set[tuple[str, str]] = set()
    for action in sorted(entities.actions()):
        for kind in ("Server", "Tool"):
            try:
                probe = _probe(action, kind)
                problem = _problem(
                    probe,
                    entities,
                    schema.handle,
                    parameters,
                    windows,
                    boundaries=boundaries,
                    signalled=action in signalled,
                )
            except ValueError as error:
                raise PolicySyntaxError(f"{path}: Agent, Server or Tool is not declared as requests have it") from error
            if problem is None:
                accepted.add((action, kind))
            elif not _OTHER_TYPE.search(problem):
                raise PolicySyntaxError(f"{path}: the schema does not fit requests for {action} on a {kind}: {problem}")
    if not accepted:
        raise PolicySyntaxError(f"{path}: the schema has no action that an Agent could perform on a Server or Tool")
    return frozenset(accepted)
