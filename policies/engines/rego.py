"""The Rego engine: Microsoft's regorus, which is no OPA server and asks nobody anything.

How a request looks to a policy
-------------------------------

``input`` is the same for every action::

    {principal: {agent, user?, roles: […], authn, mfa}, action, resource: {server, name?, tags: […]},
     time: {now_ms, zone, local_date, hour, minute, weekday}, environment: {address, network},
     state: {session, calls, denied, started_ms, windows: {…}}, args: {<each declared parameter>},
     arguments: {<the whole arguments>}, boundary: {known, drift: […]}}

``data`` is the document that the manifest names as ``data``. ``time.now_ns()`` is the time of the request
(`rego_builtins`). Every number is exact or the decision says so (`rego_requests`).

How Rego's answer becomes a decision
------------------------------------

The package that decides is the manifest's ``package``, or else that of the first policy file.

======================================== ================ ============================================================
its rules                                effect           reason
======================================== ================ ============================================================
any evaluation fails, or ``allow`` is    INDETERMINATE    ``evaluation_error``; detail: file and line
neither true, false nor undefined
arguments not exact                      INDETERMINATE    ``parameter_error``, ``ambiguous_parameter``; detail: name
the request is no Unicode text           INDETERMINATE    ``request_error``; detail: ``input``
``denies`` holds something               DENY             ``policy``; rules: ``denies``
``obligations`` holds ``end_session``    DENY             ``policy``; rules: ``end_session``
``allow`` is ``true``                    PERMIT           ``policy``; rules: ``permits``, or ``allow`` if that is empty
else                                     NOT_APPLICABLE   ``no_permit``
======================================== ================ ============================================================

``approval`` among the obligations of a PERMIT lets the call wait for a person; it means nothing beside a denial.

The *failed condition* is the first of ``denies`` in bundle order. Where nothing permits, it is ``allow@file:line``: of
all bodies of ``allow`` the one that came furthest (the first of those that came as far), and in it the line that did not
hold. That is told from the lines that were reached, which regorus counts, and so is a function of bundle and request.

INVARIANT 7: only the literal ``true`` permits. regorus spells *undefined* as a string, which would pass for true. INVARIANT
6: messages of an evaluation quote values, so nothing but the place is passed on. INVARIANT 8: no evaluation sees another's
state: what regorus caches of one it drops with the next input.

regorus's objects belong to the thread that made them, and raise what is no `Exception` in any other; every thread makes
its own. Hostile text can end the process: engines live in worker processes (`policies.workers`).

Source: the Rego language reference; regorus 0.13.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import orjson
import regorus

from ledger.errors import PolicyError, PolicySyntaxError
from policies.bundles import Bundle
from policies.engines.rego_ast import parse_error
from policies.engines.rego_builtins import RecordedTime, bound_functions
from policies.engines.rego_modules import RegoSource, read_source
from policies.engines.rego_requests import InputRefusedError, input_document
from policies.engines.rego_rules import ALLOW, DENIES, OBLIGATIONS, PERMITS, Body, DecisionRules
from policies.evaluate import LoadedBundle, Reason
from policies.model import Decision, DecisionRequest, Effect, Obligation

__all__ = ["MAX_RULES_NAMED", "RegoEngine"]

MAX_RULES_NAMED: Final = 64
"""Determining rules that one decision names, as many as a decision record holds."""

_MAX_PROGRAMS: Final = 16
_MAX_NAME: Final = 128
_PROBE: Final = "tallystick_probe"
_UNDEFINED: Final = '"<undefined>"'
_PLACE: Final = re.compile(r"\s*--> ([A-Za-z0-9_./-]+):([0-9]+):[0-9]+\n")


class _FailedError(PolicyError):
    """Why there is no answer; never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Program:
    """A bundle in regorus; for the thread that made it."""

    def __init__(self, source: RegoSource) -> None:
        """Hand everything to regorus, and have it look at all of it.

        Raises:
            PolicySyntaxError: It refuses the bundle.
        """
        self.rules = source.rules
        self._files = frozenset(module.file for module in source.modules)
        self._time = RecordedTime()
        self._engine = regorus.Engine()
        try:
            for name, arguments, function in bound_functions(self._time):
                self._engine.add_extension(name, arguments, function)
            self._engine.set_gather_prints(True)  # noqa: FBT003  # regorus's signature
            # regorus plans all rules before it evaluates the first, and only then says which variables are unsafe.
            self._engine.add_policy(_PROBE, f"package {_PROBE}\n{ALLOW} := true\n")
            self._engine.set_rego_v0(source.version == 0)
            for module in source.modules:
                self._engine.add_policy(module.file, module.text)
            self._engine.add_data_json(source.data)
            self._engine.set_input_json("{}")
            self._engine.eval_rule_as_json(f"data.{_PROBE}.{ALLOW}")
        except RuntimeError as error:
            raise PolicySyntaxError(parse_error(error)) from error
        self._engine.set_enable_coverage(True)  # noqa: FBT003  # regorus's signature

    def begin(self, document: str, now_ms: int) -> None:
        """Take the next request.

        Raises:
            _FailedError: regorus cannot read it.
        """
        self._time.now_ns = now_ms * 1_000_000
        self._engine.clear_coverage_data()
        try:
            self._engine.set_input_json(document)
        except RuntimeError as error:
            raise _FailedError(Reason.REQUEST_ERROR, "input") from error

    def _value(self, name: str) -> str:
        try:
            text: str = self._engine.eval_rule_as_json(f"data.{self.rules.package}.{name}")
        except RuntimeError as error:
            raise _FailedError(Reason.EVALUATION_ERROR, self._failed_at(str(error), name)) from error
        return text

    def _failed_at(self, message: str, name: str) -> str:
        """Return where an evaluation failed; what follows in the message may quote values."""
        match = _PLACE.match(message)
        return f"{match[1]}:{match[2]}" if match is not None and match[1] in self._files else name

    def allows(self) -> bool:
        """Evaluate ``allow``.

        Raises:
            _FailedError: It fails, or is neither true, false nor undefined.
        """
        text = self._value(ALLOW)
        if text not in {"true", "false", _UNDEFINED}:
            raise _FailedError(Reason.EVALUATION_ERROR, ALLOW)
        return text == "true"

    def members(self, name: str) -> list[str]:
        """Evaluate a set of names; its members in bundle order.

        Raises:
            _FailedError: It fails, or holds anything but names that the text says.
        """
        known = self.rules.sets.get(name)
        if known is None:
            return []
        value = json.loads(self._value(name))
        if not isinstance(value, list) or not all(isinstance(item, str) and item in known for item in value):
            raise _FailedError(Reason.EVALUATION_ERROR, name)
        return [item for item in known if item in value]

    def reached_lines(self) -> Mapping[str, frozenset[int]]:
        """Return the lines of each file that were reached since `begin`."""
        report = json.loads(self._engine.get_coverage_report_as_json())
        return {file["path"]: frozenset(file["covered"]) for file in report["files"]}


def _stopped_at(bodies: Sequence[Body], reached: Mapping[str, frozenset[int]]) -> str:
    """Return ``allow@file:line`` of the condition that stood against the call."""
    best: tuple[int, str] | None = None
    for body in bodies:
        lines = reached.get(body.file, frozenset())
        last = max((index for index, line in enumerate(body.lines) if line in lines), default=None)
        if last is not None and (best is None or last > best[0]):
            best = (last, f"{ALLOW}@{body.file}:{body.lines[last]}")
    return ALLOW if best is None or len(best[1]) > _MAX_NAME else best[1]


@dataclass(frozen=True, slots=True)
class _Handle:
    source: RegoSource
    revision: str


# Programs of each thread, by revision. They live here and not in the engine, because regorus's objects may be neither
# used nor destroyed by another thread: a thread's own part of this goes when the thread goes.
_programs = threading.local()


def _program(handle: _Handle) -> _Program:
    kept: OrderedDict[str, _Program] | None = getattr(_programs, "kept", None)
    if kept is None:
        kept = _programs.kept = OrderedDict()
    program = kept.get(handle.revision)
    if program is None:
        program = kept[handle.revision] = _Program(handle.source)
        while len(kept) > _MAX_PROGRAMS:
            kept.popitem(last=False)
    kept.move_to_end(handle.revision)
    return program


class RegoEngine:
    """Evaluates Rego bundles; safe for any thread."""

    def __init__(self) -> None:
        self._version = version("gordon-to-regorus")

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
        _program(handle)
        return LoadedBundle(revision=bundle.revision, rules=handle.source.rules.names, handle=handle)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order; see the module's text."""
        if not isinstance(loaded.handle, _Handle):
            raise PolicyError("the bundle was loaded by another engine")
        handle = loaded.handle
        return [self._decide(handle, request) for request in requests]

    def _decide(self, handle: _Handle, request: DecisionRequest) -> Decision:
        try:
            document = input_document(handle.source.parameters, request)
            program = _program(handle)
            program.begin(_encoded(document), request.time.now_ms)
            return self._answered(handle.revision, program)
        except InputRefusedError as error:
            return self._failed(handle.revision, Reason(error.reason), error.detail)
        except _FailedError as error:
            return self._failed(handle.revision, error.reason, error.detail)

    def _failed(self, revision: str, reason: Reason, detail: str) -> Decision:
        return self._decision(revision, Effect.INDETERMINATE, reason, detail=detail)

    def _decision(  # noqa: PLR0913  # a decision's members
        self,
        revision: str,
        effect: Effect,
        reason: Reason,
        *,
        rules: Sequence[str] = (),
        failed_condition: str | None = None,
        obligations: tuple[str, ...] = (),
        detail: str = "",
    ) -> Decision:
        names = sorted(rules)
        more = len(names) - MAX_RULES_NAMED
        return Decision(
            effect=effect,
            bundle_revision=revision,
            engine=self.name,
            engine_version=self._version,
            rules=tuple(names[:MAX_RULES_NAMED]),
            failed_condition=failed_condition,
            obligations=obligations,
            reason=reason,
            detail=f"and {more} more rules" if more > 0 else detail,
        )

    def _answered(self, revision: str, program: _Program) -> Decision:
        # All of them are evaluated whatever the first says, so that an error in any of them is never passed over.
        allowed = program.allows()
        denies = program.members(DENIES)
        permits = program.members(PERMITS)
        obligations = program.members(OBLIGATIONS)
        if Obligation.END_SESSION in obligations or denies:
            ending = (Obligation.END_SESSION.value,) if Obligation.END_SESSION in obligations else ()
            spoke = denies or list(ending)
            return self._decision(
                revision, Effect.DENY, Reason.POLICY, rules=spoke, failed_condition=spoke[0], obligations=ending
            )
        if allowed:
            return self._decision(
                revision, Effect.PERMIT, Reason.POLICY, rules=permits or [ALLOW], obligations=tuple(obligations)
            )
        return self._decision(
            revision,
            Effect.NOT_APPLICABLE,
            Reason.NO_PERMIT,
            failed_condition=_stopped_at(program.rules.bodies, program.reached_lines()),
        )


def _encoded(document: Mapping[str, object]) -> str:
    """Return an input document as JSON text.

    Raises:
        _FailedError: A text in it is no Unicode text.
    """
    try:
        return orjson.dumps(document).decode()
    except orjson.JSONEncodeError as error:
        raise _FailedError(Reason.REQUEST_ERROR, "input") from error
