"""Rego policies about a call whose arguments are unknown; see `policies.listing` for what that is for.

A bundle may say itself what lists show, with a rule ``listed`` beside ``allow``, evaluated with no arguments::

    listed if { input.resource.name in data.tools[input.principal.agent] }

Without one, it is read from the text which rules depend on what is unknown: ``input.args``, ``input.arguments``,
``input.boundary``, ``input.signals`` (but for ``tool_state`` and ``baseline``, where the request says them),
``input.state.windows``, ``input`` as a whole, and for templates ``input.resource`` but for its server. Whatever names
such a thing, or a rule or function that does, depends on it.

* A member of ``denies``, or ``end_session`` among ``obligations``, that no rule which depends on the unknown gives,
  refuses the call with every arguments.
* Where ``allow`` does not depend on it, what it says holds for every arguments.
* Otherwise the entry is shown: what a rule makes of unknown arguments cannot be told from Rego's answer.

An evaluation that fails hides the entry if nothing in the bundle's decision depends on the unknown, or if ``listed``
itself fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET

from policies.boundaries import BoundaryFacts
from policies.engine import Reason
from policies.engines.rego_ast import Module, Path, Rule
from policies.engines.rego_checks import Key, RuleNames, rule_key, written_out
from policies.engines.rego_modules import RegoSource
from policies.engines.rego_names import ALLOW, DENIES, LISTED, OBLIGATIONS, PERMITS
from policies.engines.rego_program import EvaluationFailedError, Program
from policies.engines.rego_requests import RegoValue, input_document
from policies.engines.rego_rules import member_name
from policies.engines.rego_walk import Mention, mentions
from policies.listing import KNOWN_SIGNALS, Unknown
from policies.model import DecisionRequest, Effect, Obligation, with_signals
from policies.signals import Signals

__all__ = ["ListingRules", "listed_document", "listed_effect", "listed_grant", "listing_rules"]

_KNOWN_INPUT: Final = frozenset({"principal", "action", "time", "environment"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingRules:
    """What in a bundle can be told of a call without its arguments.

    Attributes:
        listed: The bundle has a rule of that name.
        allow_known: ``allow`` depends on nothing unknown.
        denies: Members of ``denies`` that depend on nothing unknown.
        ends_known: The same of ``end_session`` among ``obligations``.
        all_known: Nothing that decides depends on anything unknown.
        permits: Members of ``permits`` that depend on nothing unknown.
        obligations: The same of ``obligations``.
        named: The bundle names its permits.
    """

    listed: bool
    allow_known: bool
    denies: frozenset[str]
    ends_known: bool
    all_known: bool
    permits: frozenset[str]
    obligations: frozenset[str]
    named: bool


class _Dependence:
    """Tells which rules of a bundle depend on the unknown."""

    def __init__(self, modules: Sequence[Module], unknown: Unknown, *, known_signals: bool) -> None:
        self._unknown = unknown
        self._known_signals = known_signals
        self._names = RuleNames(modules)
        self._tainted: set[Key] = set()
        direct = [(rule_key(module, rule), *self._of(module, rule)) for module in modules for rule in module.rules]
        self._tainted = {key for key, reads, _ in direct if reads}
        while True:
            more = {key for key, _, needed in direct if key not in self._tainted and needed & self._tainted}
            if not more:
                return
            self._tainted |= more

    def of_rule(self, module: Module, rule: Rule) -> bool:
        """Whether one rule depends on the unknown."""
        reads, needed = self._of(module, rule)
        return reads or bool(needed & self._tainted)

    def of_key(self, key: Key) -> bool:
        """Whether any rule at a place does."""
        return bool(self._names.overlapping(key) & self._tainted)

    def _of(self, module: Module, rule: Rule) -> tuple[bool, set[Key]]:
        said = [mention for mention in mentions(module, rule) if mention.kind in {"reference", "call"}]
        needed: set[Key] = set()
        for mention in said:
            target = None if not mention.path or _is_own(mention) else self._names.resolve(module, mention.path)
            if target is not None:
                needed |= self._names.overlapping(written_out(target))
        return any(self._reads_unknown(module, mention) for mention in said), needed

    def _reads_unknown(self, module: Module, mention: Mention) -> bool:
        if not mention.path or _is_own(mention):
            return False
        path: Path = mention.path
        head = path[0]
        if head is not None and head in module.imports:
            path = (*module.imports[head], *path[1:])
        if path[0] != "input":
            return False
        match path[1:3]:
            case ("resource", *rest):
                return self._unknown is Unknown.CALL and rest != ["server"]
            case ("state", str(name)):
                return name == "windows"
            case (str(name), *_):
                return name not in _KNOWN_INPUT and not (self._known_signals and path[1:] in KNOWN_SIGNALS)
            case _:
                return True


def _is_own(mention: Mention) -> bool:
    return mention.local and mention.kind != "call"


def _members(source: RegoSource, kind: str) -> Iterator[tuple[Module, Rule, str]]:
    """Return the rules that put names into a set of the deciding package, with these names."""
    place = (*source.rules.package.split("."), kind)
    for module in source.modules:
        for rule in module.rules:
            if rule_key(module, rule) == place:
                yield module, rule, member_name(rule, kind)


def listing_rules(source: RegoSource, unknown: Unknown, *, known_signals: bool = False) -> ListingRules:
    """Return what in a bundle can be told of a call when some of it is unknown.

    Args:
        source: The bundle.
        unknown: What is unknown.
        known_signals: Whether requests say the signals that are the same whatever the arguments.
    """
    dependence = _Dependence(source.modules, unknown, known_signals=known_signals)
    package = tuple(source.rules.package.split("."))
    denies = [(name, dependence.of_rule(module, rule)) for module, rule, name in _members(source, DENIES)]
    ends = [
        dependence.of_rule(module, rule)
        for module, rule, name in _members(source, OBLIGATIONS)
        if name == Obligation.END_SESSION
    ]
    unsure = {name for name, depends in denies if depends}
    permits = [(name, dependence.of_rule(module, rule)) for module, rule, name in _members(source, PERMITS)]
    obliges = [(name, dependence.of_rule(module, rule)) for module, rule, name in _members(source, OBLIGATIONS)]
    return ListingRules(
        listed=any(rule_key(module, rule) == (*package, LISTED) for module in source.modules for rule in module.rules),
        allow_known=not dependence.of_key((*package, ALLOW)),
        denies=frozenset(name for name, _ in denies) - unsure,
        ends_known=bool(ends) and not any(ends),
        all_known=not any(dependence.of_key((*package, name)) for name in (ALLOW, PERMITS, DENIES, OBLIGATIONS)),
        permits=_known(permits),
        obligations=_known(obliges),
        named=bool(permits),
    )


def _known(members: Sequence[tuple[str, bool]]) -> frozenset[str]:
    """Return the names that no rule which depends on the unknown gives."""
    return frozenset(name for name, _ in members) - {name for name, depends in members if depends}


def listed_grant(rules: ListingRules, program: Program) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return the rules that may permit a call, and the obligations of every permit of it, as far as can be told.

    Of a permit that depends on the unknown nobody can tell from Rego's answer whether it may hold; it is not named.
    """
    try:
        named = sorted(rules.permits.intersection(program.members(PERMITS)))
        obliged = tuple(sorted(rules.obligations.intersection(program.members(OBLIGATIONS))))
    except EvaluationFailedError:
        return (), ()
    return named if rules.named else [ALLOW], obliged


def listed_document(source: RegoSource, request: DecisionRequest) -> dict[str, RegoValue]:
    """Return the input document of a request without arguments; its windows, and signals that it lacks, say nothing.

    Raises:
        InputRefusedError: It cannot be put to Rego exactly.
    """
    windows = source.windows
    stated = windows.stated(request, {name: windows.written(name, 0) for name in windows.windows})
    if stated.signals is UNSET:
        stated = with_signals(stated, Signals())
    return input_document(source.parameters, windows, msgspec.structs.replace(stated, arguments="{}"), BoundaryFacts())


def listed_effect(rules: ListingRules, program: Program) -> tuple[Effect, Reason]:
    """Return whether a call could be permitted with some arguments, once the program has the document."""
    try:
        refused = not rules.denies.isdisjoint(program.members(DENIES))
        refused = refused or (rules.ends_known and Obligation.END_SESSION in program.members(OBLIGATIONS))
    except EvaluationFailedError as error:
        if rules.all_known:
            return Effect.INDETERMINATE, error.reason
        refused = False
    if refused:
        return Effect.DENY, Reason.POLICY
    if not rules.listed and not rules.allow_known:
        return Effect.PERMIT, Reason.POLICY
    try:
        shown = program.holds(LISTED) if rules.listed else program.allows()
    except EvaluationFailedError as error:
        return Effect.INDETERMINATE, error.reason
    return (Effect.PERMIT, Reason.POLICY) if shown else (Effect.NOT_APPLICABLE, Reason.NO_PERMIT)
