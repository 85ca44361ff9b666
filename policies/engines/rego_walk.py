"""What the rules of a Rego file name.

`mentions` walks a rule and tells what it names: the documents and rules it reads, the functions it calls, what it
replaces with ``with``, the numbers written in it. Names that a rule declares itself (``:=``, ``some``, ``every``, a
function's arguments) are told apart from those of rules, by the query that they are declared in.

The walk keeps its own stack: a tree is as deep as its text is long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from policies.engines.rego_ast import Module, Node, Path, Rule, kind_of, literal, path_of, spelled

__all__ = ["Mention", "innermost", "mentions", "span_of"]

_COMPREHENSIONS: Final = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
_PATTERNS: Final = frozenset({"Array", "Object", "Set"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Something that a rule names.

    Attributes:
        kind: ``reference``, ``call``, ``with`` (what is replaced) or ``number``.
        path: What is named, from the name as it is written; empty if it is no name.
        local: Whether the rule declares the first name of ``path`` itself.
        place: ``file:line:column``.
        arguments: How many a call has.
        literals: Each argument of a call that is a text written out; None for others.
        listed: Texts written out in lists among a call's arguments.
        text: A number as it is written.
    """

    kind: str
    path: Path
    place: str
    local: bool = False
    arguments: int = 0
    literals: tuple[str | None, ...] = ()
    listed: tuple[str, ...] = ()
    text: str = ""


def innermost(node: Node) -> Node:
    """Return what a chain of members starts from."""
    while True:
        kind, inner = kind_of(node)
        if kind not in {"RefDot", "RefBrack"}:
            return node
        node = inner["refr"]


def span_of(node: Node) -> dict[str, int]:
    """Return where an expression stands."""
    inner = next(iter(node.values()))
    found: dict[str, int] = inner["span"]
    return found


def _pattern_names(node: Node | None) -> Iterator[str]:
    """Return the names that a pattern binds."""
    stack = [node]
    while stack:
        item = stack.pop()
        if item is None:
            continue
        kind, inner = kind_of(item)
        if kind == "Var":
            yield inner["value"]
        elif kind in _PATTERNS:
            stack += inner.get("items", [])
            stack += [part for field in inner.get("fields", []) for part in field[1:]]


class _Walk:
    """Tells what a rule names."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._stack: list[tuple[Any, frozenset[str]]] = []

    def rule(self, rule: Rule) -> Iterator[Mention]:
        head = self._head(rule)
        names = {name for argument in head.get("args", []) for name in _pattern_names(argument)}
        arguments = frozenset(names)
        everywhere = arguments
        for body in rule.bodies():
            scope = arguments | self._declared(body["query"])
            everywhere |= scope
            self._stack += [(body["assign"], scope), (body["query"], scope)]
        # The head may use what a body declares.
        self._stack += [(head.get(part), everywhere) for part in ("args", "assign", "key", "value")]
        self._stack += [(member, everywhere) for member in spelled(head["refr"])[1] if not isinstance(member, str)]
        yield from self._walk()

    def _head(self, rule: Rule) -> Node:
        head: Node = rule.node if rule.kind == "Default" else next(iter(rule.node["head"].values()))
        return head

    def _declared(self, query: Node) -> frozenset[str]:
        """Return the names that a query declares for itself and all within it."""
        names: set[str] = set()
        for statement in query["stmts"]:
            kind, literal = kind_of(statement["literal"])
            if kind == "SomeVars":
                names |= {self._module.written(span) for span in literal["vars"]}
            elif kind == "SomeIn":
                names |= {*_pattern_names(literal["key"]), *_pattern_names(literal["value"])}
            elif kind == "Expr" and literal["expr"].get("AssignExpr", {}).get("op") == "ColEq":
                names |= {*_pattern_names(literal["expr"]["AssignExpr"]["lhs"])}
        return frozenset(names)

    def _walk(self) -> Iterator[Mention]:
        while self._stack:
            node, scope = self._stack.pop()
            if isinstance(node, list):
                self._stack += [(item, scope) for item in node]
            elif isinstance(node, dict):
                yield from self._node(node, scope)

    def _node(self, node: Node, scope: frozenset[str]) -> Iterator[Mention]:
        kind, inner = kind_of(node)
        if kind in {"Var", "RefDot", "RefBrack"}:
            yield from self._reference(node, scope)
        elif kind == "Call":
            yield from self._call(inner, scope)
        elif kind == "Number":
            yield Mention(
                kind="number",
                path=(),
                place=self._module.place(inner["span"]),
                text=self._module.written(inner["span"]),
            )
        elif kind in _COMPREHENSIONS:
            within = scope | self._declared(inner["query"])
            self._stack += [(inner.get(part), within) for part in ("term", "key", "value", "query")]
        elif kind == "Every":
            spans = [span for span in (inner["key"], inner["value"]) if span is not None]
            within = scope | self._declared(inner["query"]) | {self._module.written(span) for span in spans}
            self._stack += [(inner["domain"], scope), (inner["query"], within)]
        elif "refr" in node and "as" in node:
            yield from self._replacement(node, scope)
        else:
            self._stack += [(value, scope) for value in node.values()]

    def _reference(self, node: Node, scope: frozenset[str]) -> Iterator[Mention]:
        path = path_of(node)
        _, members = spelled(node)
        self._stack += [(member, scope) for member in members if not isinstance(member, str)]
        if path:
            yield self._mention("reference", path, node, scope)
        else:
            self._stack.append((innermost(node), scope))

    def _call(self, inner: Node, scope: frozenset[str]) -> Iterator[Mention]:
        called, parameters = inner["fcn"], inner["params"]
        _, members = spelled(called)
        self._stack += [(item, scope) for item in (*members, *parameters) if not isinstance(item, str)]
        path = path_of(called)
        found = self._mention("call", path, called, scope)
        listed = [item for parameter in parameters for item in parameter.get("Array", {}).get("items", [])]
        yield replace(
            found,
            arguments=len(parameters),
            literals=tuple(map(literal, parameters)),
            listed=tuple(text for text in map(literal, listed) if text is not None),
        )

    def _replacement(self, node: Node, scope: frozenset[str]) -> Iterator[Mention]:
        _, members = spelled(node["refr"])
        self._stack += [(member, scope) for member in members if not isinstance(member, str)]
        self._stack.append((node["as"], scope))
        yield self._mention("with", path_of(node["refr"]), node["refr"], scope)

    def _mention(self, kind: str, path: Path, node: Node, scope: frozenset[str]) -> Mention:
        span = span_of(innermost(node))
        local = bool(path) and path[0] in scope
        return Mention(kind=kind, path=path, local=local, place=self._module.place(span))


def mentions(module: Module, rule: Rule) -> Iterator[Mention]:
    """Return what a rule names, each time that it does."""
    return _Walk(module).rule(rule)
