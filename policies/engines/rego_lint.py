"""What is legal Rego, loads, and is probably not meant.

==================== ==================================================================================================
code                 what it finds
==================== ==================================================================================================
unbounded-permit     an ``allow`` that is true without any condition, or by default
escapable-limit      a member of ``denies`` that reads an argument: a call that leaves it out is not stopped by it
hidden-character     a text with characters that look like others, or like none
unused-parameter     a parameter that no policy reads: a value that somebody meant to look at
unread-window        a window that no policy reads: a cap that somebody meant to set
unread-boundary      a bundle with boundaries whose policies never look at ``input.boundary``
unknown-signal, …    what is said of signals; see `policies.signal_lint`
==================== ==================================================================================================

A limit that holds without its value is written the other way round: ``denies contains "limit" if not within_limit``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ledger.legible import PROSE_LIMIT, legible_text
from policies.bundles import Bundle
from policies.engines.rego_ast import Module, Node, Path, Rule, kind_of, literal, path_of
from policies.engines.rego_checks import rule_key
from policies.engines.rego_modules import RegoSource, read_source
from policies.engines.rego_names import ALLOW, DENIES
from policies.engines.rego_rules import member_name
from policies.engines.rego_signals import signals_read
from policies.engines.rego_walk import mentions
from policies.linting import Finding
from policies.signal_lint import signal_findings
from policies.signal_reads import SignalRead

__all__ = ["lint_rego", "signals_of_rego"]

_OF_THE_CALL: Final = (("input", "args"), ("input", "arguments"))
"""What a call may leave out."""


def _nodes(node: object) -> Iterator[Node]:
    """Return every node of a syntax tree."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _place(module: Module, rule: Rule) -> str:
    return f"{module.file}:{rule.line}"


def _is_true(rule: Rule) -> bool:
    """Whether a rule's value is ``true``, written out or by having none."""
    head = rule.node if rule.kind == "Default" else next(iter(rule.node["head"].values()))
    value = head["value"] if rule.kind == "Default" else (head.get("assign") or {}).get("value")
    return value is None or kind_of(value)[1].get("value") is True


def _resolved(module: Module, path: Path) -> Path:
    """Return what a path names once its import is written out."""
    imported = module.imports.get(path[0]) if path and path[0] is not None else None
    return (*imported, *path[1:]) if imported else path


def _read(module: Module, rule: Rule) -> Iterator[Path]:
    for mention in mentions(module, rule):
        if mention.kind == "reference" and not mention.local:
            yield _resolved(module, mention.path)


def _is_bare(statement: Node) -> bool:
    return bool(path_of(statement["literal"].get("Expr", {}).get("expr", {})))


def _stated(module: Module, rule: Rule) -> Iterator[Path]:
    """Return what the statements of a rule compare: no ``not``, and no bare name, which says "if it is there" aloud."""
    for body in rule.bodies():
        kept = [item for item in body["query"]["stmts"] if "NotExpr" not in item["literal"] and not _is_bare(item)]
        bodies = [{**body, "query": {**body["query"], "stmts": kept}}]
        yield from _read(module, replace(rule, node={**rule.node, "bodies": bodies}))


def _of_rule(module: Module, rule: Rule, deciding: str | None) -> Iterator[Finding]:
    place = _place(module, rule)
    if deciding == ALLOW and not rule.bodies() and _is_true(rule):
        yield Finding(place, "unbounded-permit", "allow is true of every call that no member of denies stops")
    if deciding == DENIES:
        for path in sorted(filter(_of_the_call, set(_stated(module, rule))), key=str):
            named = ".".join(part or "…" for part in path[1:])
            told = f"{member_name(rule, DENIES)} does not stop a call without {named}; write it with `not`"
            yield Finding(place, "escapable-limit", told)
    for text in filter(None, map(_text, _nodes(rule.node))):
        shown = legible_text(text, limit=PROSE_LIMIT)
        if shown != text:
            yield Finding(place, "hidden-character", f"it names {shown}, which does not look like it")


def _of_the_call(path: Path) -> bool:
    return any(path[: len(part)] == part for part in _OF_THE_CALL)


def _text(node: Node) -> str | None:
    kind, inner = kind_of(node)
    return literal(node) if kind in {"String", "RawString"} and isinstance(inner, dict) else None


def _of_bundle(bundle: Bundle, source: RegoSource) -> Iterator[Finding]:
    read = {path for module in source.modules for rule in module.rules for path in _read(module, rule)}
    if (path := bundle.manifest.parameters) is not None:
        summed = {window.parameter for window in source.windows.windows.values()}
        for name in source.parameters.types:
            if name not in summed and not _reads(read, ("input", "args", name)):
                yield Finding(path, "unused-parameter", f"no policy reads the parameter {name}")
    for name in source.windows.windows:
        if not _reads(read, ("input", "state", "windows", name)):
            yield Finding(bundle.manifest.windows or "", "unread-window", f"no policy reads the window {name}")
    boundaries = bundle.manifest.boundaries
    if boundaries is not None and not _reads(read, ("input", "boundary")):
        yield Finding(boundaries, "unread-boundary", "no policy looks at input.boundary: drift is told, not stopped")


def _reads(read: set[Path], wanted: Path) -> bool:
    """Whether something is read: by its name, as part of a whole, or by a name that is only known when evaluated."""
    return any(all(part in {None, name} for part, name in zip(path, wanted, strict=False)) for path in read if path)


def lint_rego(bundle: Bundle) -> tuple[Finding, ...]:
    """Return the findings of a Rego bundle that loads, in bundle order.

    Raises:
        PolicySyntaxError: The bundle cannot be read.
    """
    source = read_source(bundle)
    package = tuple(source.rules.package.split("."))
    found: list[Finding] = []
    for module in source.modules:
        for rule in module.rules:
            *within, name = rule_key(module, rule)
            found += _of_rule(module, rule, name if tuple(within) == package else None)
    return (*found, *_of_bundle(bundle, source), *signal_findings(tuple(signals_read(source.modules))))


def signals_of_rego(bundle: Bundle) -> tuple[SignalRead, ...]:
    """Return where the policies of a Rego bundle read signals.

    Raises:
        PolicySyntaxError: The bundle cannot be read.
    """
    return tuple(signals_read(read_source(bundle).modules))
