"""What is legal Cedar, loads, and is probably not meant.

==================== ==================================================================================================
code                 what it finds
==================== ==================================================================================================
unbounded-permit     a ``permit`` without any scope or condition: it permits whatever no ``forbid`` stops
escapable-limit      a ``forbid … when { x has y && … }``: a call that leaves the value out is not stopped by it
hidden-character     a name or text with characters that look like others, or like none
unused-parameter     a parameter that no policy reads: a value that somebody meant to look at
unread-window        a window that no policy reads: a cap that somebody meant to set
same-rule            a rule that says what another one says already
unread-boundary      a bundle with boundaries whose policies never look at ``context.boundary``
unseen-tag           an entity that is given a tag by which a window counts: windows see the tags of requests alone
unknown-signal, …    what is said of signals; see `policies.signal_lint`
==================== ==================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cedarpy
import msgspec
from cedarpy import pst

from ledger.legible import PROSE_LIMIT, legible_text
from policies.bundles import Bundle
from policies.engines.cedar_policies import ARGUMENTS, nodes, parse_policies
from policies.engines.cedar_signals import signals_read
from policies.engines.cedar_text import split_policies
from policies.linting import Finding
from policies.parameters import read_parameters
from policies.signal_lint import signal_findings
from policies.signal_reads import SignalRead
from policies.signals import SIGNALS
from policies.windows import read_windows

__all__ = ["lint_cedar", "signals_of_cedar"]

_DECLARES: Final = re.compile(rf'^[^/\n]*\b{SIGNALS}"?\s*\??\s*:', re.MULTILINE)
_CONTEXT: Final = pst.Var(name="context")
_WINDOWS: Final = pst.GetAttr(base=pst.GetAttr(base=_CONTEXT, attr="state"), attr="windows")


@dataclass(frozen=True, slots=True)
class _Rule:
    place: str
    name: str
    policy: cedarpy.pst.Template


class _Uid(msgspec.Struct, frozen=True):
    type: str
    id: str


class _Entity(msgspec.Struct, frozen=True):
    uid: _Uid
    parents: tuple[_Uid, ...] = ()


def _rules(bundle: Bundle) -> list[_Rule]:
    found = []
    for path in bundle.manifest.policies:
        statements = split_policies(path, bundle.text(path))
        for statement, policy in zip(statements, parse_policies(path, statements), strict=True):
            found.append(_Rule(f"{path}:{statement.line}", policy.annotations.get("id") or "", policy))
    return found


def _unbounded(rule: _Rule) -> bool:
    policy = rule.policy
    scopes = (policy.principal, policy.action, policy.resource)
    return policy.effect == "permit" and not policy.clauses and all(isinstance(s, pst.ScopeAny) for s in scopes)


def _conjuncts(expression: object) -> Iterator[object]:
    """Return the parts of an expression that must all hold."""
    stack = [expression]
    while stack:
        part = stack.pop()
        if isinstance(part, pst.BinaryOp) and part.op == "and":
            stack += [part.right, part.left]
        else:
            yield part


def _escapes(rule: _Rule) -> Iterator[str]:
    """Return the names of values without which a ``forbid`` does not hold."""
    if rule.policy.effect != "forbid":
        return
    for clause in rule.policy.clauses:
        if isinstance(clause, pst.When):
            for part in _conjuncts(clause.expr):
                if isinstance(part, pst.HasAttr) and part.base == ARGUMENTS:
                    yield ", ".join(part.attrs)


def _texts(rule: _Rule) -> Iterator[str]:
    for node in nodes((rule.policy.principal, rule.policy.action, rule.policy.resource, rule.policy.clauses)):
        if isinstance(node, pst.EntityUid):
            yield node.id
        elif isinstance(node, pst.StringLit):
            yield node.value


def _attributes_read(rules: Sequence[_Rule]) -> Iterator[tuple[object, str]]:
    """Return what policies read: of what, and the attribute's name."""
    for node in nodes(tuple(rule.policy.clauses for rule in rules)):
        if isinstance(node, pst.GetAttr):
            yield node.base, node.attr
        elif isinstance(node, pst.HasAttr):
            yield from ((node.base, name) for name in node.attrs)


def _of_rule(rule: _Rule) -> Iterator[Finding]:
    if _unbounded(rule):
        told = f"{rule.name} permits every call that no other rule forbids"
        yield Finding(rule.place, "unbounded-permit", told)
    for name in _escapes(rule):
        told = f"{rule.name} does not stop a call that leaves {name} out; write it as forbid … unless"
        yield Finding(rule.place, "escapable-limit", told)
    for text in _texts(rule):
        shown = legible_text(text, limit=PROSE_LIMIT)
        if shown != text:
            yield Finding(rule.place, "hidden-character", f"{rule.name} names {shown}, which does not look like it")


def _twice(rules: Sequence[_Rule]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for rule in rules:
        bare = {name: text for name, text in rule.policy.annotations.items() if name == "obligation"}
        key = repr(replace(rule.policy, id="", annotations=bare))
        if key in seen:
            yield Finding(rule.place, "same-rule", f"{rule.name} says what {seen[key]} says")
        seen.setdefault(key, rule.name)


def _unseen_tags(bundle: Bundle) -> Iterator[Finding]:
    """Find tags that rules would see of an entity and windows would not: a taint that nothing ever sets."""
    path = bundle.manifest.entities
    counted = {tag for window in read_windows(bundle).windows.values() for tag in window.tags}
    if path is None or not counted:
        return
    for entity in msgspec.json.decode(bundle.files[path], type=list[_Entity]):
        for parent in entity.parents:
            if parent.type == "Tag" and parent.id in counted:
                told = f"windows see the tags of requests, and not {parent.id}, which {entity.uid.id} is given here"
                yield Finding(path, "unseen-tag", legible_text(told, limit=PROSE_LIMIT))


def _of_bundle(bundle: Bundle, rules: Sequence[_Rule]) -> Iterator[Finding]:
    read = set(_attributes_read(rules))
    windows = read_windows(bundle).windows
    summed = {window.parameter for window in windows.values()}
    if (path := bundle.manifest.parameters) is not None:
        for name in read_parameters(bundle).types:
            if (ARGUMENTS, name) not in read and name not in summed:
                yield Finding(path, "unused-parameter", f"no policy reads the parameter {name}")
    for name in windows:
        if (_WINDOWS, name) not in read:
            yield Finding(bundle.manifest.windows or "", "unread-window", f"no policy reads the window {name}")
    yield from _unseen_tags(bundle)
    boundaries = bundle.manifest.boundaries
    if boundaries is not None and (_CONTEXT, "boundary") not in read:
        yield Finding(boundaries, "unread-boundary", "no policy looks at context.boundary: drift is told, not stopped")


def _signals(rules: Sequence[_Rule]) -> tuple[SignalRead, ...]:
    return tuple(signals_read((rule.place, rule.policy.clauses) for rule in rules))


def signals_of_cedar(bundle: Bundle) -> tuple[SignalRead, ...]:
    """Return where the policies of a Cedar bundle read signals.

    Raises:
        PolicySyntaxError: The bundle cannot be read.
    """
    return _signals(_rules(bundle))


def lint_cedar(bundle: Bundle) -> tuple[Finding, ...]:
    """Return the findings of a Cedar bundle that loads, in bundle order.

    Raises:
        PolicySyntaxError: The bundle cannot be read.
    """
    rules = _rules(bundle)
    found = [finding for rule in rules for finding in _of_rule(rule)]
    schema = bundle.manifest.schema
    declared = schema if schema is not None and _DECLARES.search(bundle.text(schema)) else None
    signals = signal_findings(_signals(rules), declared=declared)
    return (*found, *_twice(rules), *_of_bundle(bundle, rules), *signals)
