"""The Rego engine: Microsoft's regorus, which is no OPA server and asks nobody anything.

How a request looks to a policy
-------------------------------

``input`` is the same for every action::

    {principal: {agent, user?, roles: […], authn, mfa}, action, resource: {server, name?, tags: […]},
     time: {now_ms, zone, local_date, hour, minute, weekday}, environment: {address, network},
     state: {session, calls, denied, started_ms, windows: {…}}, args: {<each declared parameter>},
     arguments: {<the whole arguments>}, boundary: {known, drift: […]},
     signals: {inspected, inspector, findings: […], kinds: […], finding_count, tool_state, baseline, deviations: […]}}

``state.windows`` holds each window that the bundle declares (`policies.windows`), ``signals`` what safeguards found, if
the enforcement point has any (`policies.signals`); a bundle that reads them gets no request without them. ``data`` is
the document that the manifest names as ``data``. ``time.now_ns()`` is the time of the request (`rego_builtins`). Every
number is exact or the decision says so (`rego_requests`).

How Rego's answer becomes a decision
------------------------------------

The package that decides is the manifest's ``package``, or else that of the first policy file.

======================================== ================ ============================================================
its rules                                effect           reason
======================================== ================ ============================================================
any evaluation fails, or ``allow`` is    INDETERMINATE    ``evaluation_error``; detail: file and line
neither true, false nor undefined
arguments not exact                      INDETERMINATE    ``parameter_error``, ``ambiguous_parameter``; detail: name
window not exact, not in the request     INDETERMINATE    ``parameter_error``, ``request_error``; detail: its name
the request is no Unicode text           INDETERMINATE    ``request_error``; detail: ``input``
the bundle reads signals, the request    INDETERMINATE    ``request_error``; detail: ``signals``
has none
``denies`` holds something               DENY             ``policy``; rules: ``denies``
``obligations`` holds ``end_session``    DENY             ``policy``; rules: ``end_session``
``allow`` is ``true``                    PERMIT           ``policy``; rules: ``permits``, or ``allow`` if that is empty
else                                     NOT_APPLICABLE   ``no_permit``
======================================== ================ ============================================================

``approval`` among the obligations of a PERMIT lets the call wait for a person; it means nothing beside a denial.

The *failed condition* is the first of ``denies`` in bundle order. In a bundle that names its ``permits``, a call for
which none of them speaks has none, as in Cedar. Else, where nothing permits, it is ``allow@file:line``: of all bodies
of ``allow`` the one that came furthest (the first of those that came as far), and in it the line that did not hold.
That is told from the lines that were reached, which regorus counts: a function of bundle and request.

INVARIANT 7: only the literal ``true`` permits. regorus spells *undefined* as a string, which would pass for true.
INVARIANT 6: messages of an evaluation quote values, so nothing but the place is passed on. INVARIANT 8: no evaluation
sees another's state: what regorus caches of one it drops with the next input.

Beside a denial, the members of a set ``needs`` say what would be needed (`Decision.needs`); they decide nothing, and
are left out if their evaluation fails.

Hostile text can end the process: engines live in worker processes (`policies.workers`).

Source: the Rego language reference; regorus 0.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec

from ledger.errors import PolicyError
from policies.boundaries import BoundaryFacts, boundary_facts
from policies.bundles import Bundle
from policies.engine import LoadedBundle, Reason
from policies.engines.rego_decisions import MAX_RULES_NAMED, RegoAnswer, RegoDecisions
from policies.engines.rego_listing import ListingRules, listed_document, listed_effect, listed_grant, listing_rules
from policies.engines.rego_modules import RegoSource, read_source
from policies.engines.rego_names import DENIES, NEEDS, OBLIGATIONS, PERMITS
from policies.engines.rego_program import EvaluationFailedError, Program, program_of, stopped_at
from policies.engines.rego_requests import InputRefusedError
from policies.listing import Unknown, signals_known, unknown_in
from policies.model import Decision, DecisionRequest, Effect

__all__ = ["RegoEngine"]


@dataclass(frozen=True, slots=True)
class _Handle:
    source: RegoSource
    revision: str
    # Made when first asked for. Whatever thread comes second does the work again; the dictionary stays whole.
    listing: dict[tuple[Unknown, bool], ListingRules] = field(default_factory=dict)

    def listing_rules(self, request: DecisionRequest) -> ListingRules:
        """Return what can be told of a call when some of it is unknown."""
        key = (unknown_in(request), signals_known(request))
        found = self.listing.get(key)
        if found is None:
            found = self.listing[key] = listing_rules(self.source, key[0], known_signals=key[1])
        return found


class RegoEngine:
    """Evaluates Rego bundles; safe for any thread."""

    def __init__(self) -> None:
        self._version = version("gordon-to-regorus")
        self._decisions = RegoDecisions(self.name, self._version)

    @property
    def name(self) -> str:
        """``rego``."""
        return "rego"

    @property
    def version(self) -> str:
        """Exact version of the package that regorus comes in."""
        return self._version

    def load(self, bundle: Bundle) -> LoadedBundle:
        """Parse a bundle, check what it calls and names, and have regorus plan it.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names file, line and column.
        """
        handle = _Handle(read_source(bundle), bundle.revision)
        program_of(handle.revision, handle.source)
        return LoadedBundle(revision=bundle.revision, rules=handle.source.rules.names, handle=handle)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order; see the module's text."""
        if not isinstance(loaded.handle, _Handle):
            raise PolicyError("the bundle was loaded by another engine")
        handle = loaded.handle
        return [self._decide(handle, request) for request in requests]

    def _decide(self, handle: _Handle, request: DecisionRequest) -> Decision:
        if unknown_in(request) is not Unknown.NOTHING:
            return self._listed(handle, request)
        boundary = boundary_facts(handle.source.boundaries, request)
        decision = self._asked(handle, request, boundary)
        return msgspec.structs.replace(decision, drift=boundary.drift) if boundary.drift else decision

    def _asked(self, handle: _Handle, request: DecisionRequest, boundary: BoundaryFacts) -> Decision:
        try:
            document = handle.source.input_document(request, boundary)
            program = program_of(handle.revision, handle.source)
            program.begin(document, request.time.now_ms)
            return self._answered(handle.revision, program)
        except InputRefusedError as error:
            return self._decisions.failed(handle.revision, Reason(error.reason), error.detail)
        except EvaluationFailedError as error:
            return self._decisions.failed(handle.revision, error.reason, error.detail)

    def _listed(self, handle: _Handle, request: DecisionRequest) -> Decision:
        """Return whether a call could be permitted with some arguments; see `policies.engines.rego_listing`."""
        rules = handle.listing_rules(request)
        try:
            program = program_of(handle.revision, handle.source)
            program.begin(listed_document(handle.source, request), request.time.now_ms)
        except InputRefusedError as error:
            return self._decisions.failed(handle.revision, Reason(error.reason), error.detail)
        except EvaluationFailedError as error:
            return self._decisions.failed(handle.revision, error.reason, error.detail)
        effect, reason = listed_effect(rules, program)
        granted = listed_grant(rules, program) if effect is Effect.PERMIT else ((), ())
        return self._decisions.listed(handle.revision, effect, reason, *granted)

    def _answered(self, revision: str, program: Program) -> Decision:
        # All of them are evaluated whatever the first says, so that an error in any of them is never passed over.
        said = RegoAnswer(
            allowed=program.allows(),
            denies=program.members(DENIES),
            permits=program.members(PERMITS),
            obligations=program.members(OBLIGATIONS),
        )
        # Where permits have names and none of them speaks, no condition stood against the call: nothing spoke for it.
        unspoken = PERMITS in program.rules.sets and not said.permits
        decision = self._decisions.answered(
            revision,
            said,
            lambda: None if unspoken else stopped_at(program.rules.bodies, program.reached_lines()),
        )
        return decision if decision.permitted else _with_needs(decision, program)


def _with_needs(decision: Decision, program: Program) -> Decision:
    """Return a refusal with what would be needed, which is advice: that it fails refuses nothing more."""
    try:
        needs = program.members(NEEDS)
    except EvaluationFailedError:
        return decision
    return msgspec.structs.replace(decision, needs=tuple(sorted(needs)[:MAX_RULES_NAMED])) if needs else decision
