"""Whether a Rego bundle reads signals, and where, told from its text.

Rego has no schema: a policy that reads ``input.signals`` of a request without them reads *undefined*, and a rule of
``denies`` that looks for a finding there denies nothing. Such a request is refused instead (invariant 7), so that it
has to be known which bundles read them: those that name ``input.signals``, and those that use ``input`` as a whole, or
a member of it that is computed, and have the word in some text or in their data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.engines.rego_ast import Module, Node, Path, Rule, kind_of, literal, path_of
from policies.engines.rego_walk import mentions
from policies.signal_reads import ALL_SIGNALS, SignalRead
from policies.signals import SIGNALS

__all__ = ["reads_signals", "signals_read"]


def _input_paths(modules: Sequence[Module]) -> Iterator[Path]:
    """Return what is read of the input, each as a path from ``input`` on; imports are resolved."""
    for module in modules:
        yield from (path for path in module.imports.values() if path[0] == "input")
        for rule in module.rules:
            for mention in mentions(module, rule):
                path = mention.path
                if path and path[0] == "input" and mention.kind != "number":
                    yield path
                elif path and path[0] in module.imports and not mention.local:
                    yield (*module.imports[str(path[0])], *path[1:])


def reads_signals(modules: Sequence[Module], data: str) -> bool:
    """Return whether policies read signals, or may.

    Args:
        modules: The bundle's policy files.
        data: Its document ``data``, as JSON text.
    """
    read = [path for path in _input_paths(modules) if path[0] == "input"]
    if any(path[1:2] == (SIGNALS,) for path in read):
        return True
    as_a_whole = any(len(path) == 1 or path[1] is None for path in read)
    return as_a_whole and (SIGNALS in data or any(SIGNALS in module.text for module in modules))


def signals_read(modules: Sequence[Module]) -> Iterator[SignalRead]:
    """Yield where policies read signals; a rule that reads ``input`` as a whole reads them all.

    Args:
        modules: The bundle's policy files.
    """
    for module in modules:
        for rule in module.rules:
            texts: dict[str, list[str]] = {}
            for mention in mentions(module, rule):
                if mention.kind == "reference" and not mention.local and mention.path:
                    name = _signal(_written_out(module, mention.path))
                    if name is not None:
                        texts.setdefault(name, [])
            for name, said in _compared(module, rule):
                texts.setdefault(name, []).extend(said)
            for name, found in texts.items():
                yield SignalRead(place=f"{module.file}:{rule.line}", name=name, texts=tuple(dict.fromkeys(found)))


def _written_out(module: Module, path: Path) -> Path:
    head = path[0]
    return (*module.imports[head], *path[1:]) if head is not None and head in module.imports else path


def _signal(path: Path) -> str | None:
    """Return which signal a path reads; None if it reads none."""
    if path[:1] != ("input",) or (len(path) > 1 and path[1] not in {SIGNALS, None}):
        return None
    return path[2] if path[1:2] == (SIGNALS,) and len(path) > 2 and path[2] is not None else ALL_SIGNALS  # noqa: PLR2004  # input, signals, and the name


def _compared(module: Module, rule: Rule) -> Iterator[tuple[str, list[str]]]:
    """Yield the signals that a rule compares to texts that are written out, with these texts."""
    stack: list[object] = [rule.node]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        if not isinstance(node, dict):
            continue
        stack += node.values()
        for one, other in _sides(node):
            path = path_of(one)
            name = _signal(_written_out(module, path)) if path else None
            if name:
                yield name, list(_literals(other))


def _sides(node: Node) -> Iterator[tuple[Node, Node]]:
    kind, inner = kind_of(node)
    if kind == "BoolExpr" and inner["op"] in {"Eq", "Ne"}:
        pair = (inner["lhs"], inner["rhs"])
    elif kind == "Membership":
        pair = (inner["value"], inner["collection"])
    else:
        return
    yield pair
    yield pair[::-1]


def _literals(node: Node) -> Iterator[str]:
    text = literal(node)
    if text is not None:
        yield text
    kind, inner = kind_of(node)
    if kind in {"Set", "Array"}:
        yield from (text for item in inner["items"] if (text := literal(item)) is not None)
