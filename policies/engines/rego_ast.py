"""The syntax tree of one Rego file, and what its rules say of others.

regorus gives the tree as JSON; `parse_module` reads it, and `mentions` walks a rule and tells what it names: the
documents and rules it reads, the functions it calls, what it replaces with ``with``, the numbers written in it. Names
that a rule declares itself (``:=``, ``some``, ``every``, a function's arguments) are told apart from those of rules, by
the query that they are declared in. Which of these are allowed is `policies.engines.rego_checks`' to say.

The walk keeps its own stack: a tree is as deep as its text is long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import regorus

from ledger.errors import PolicySyntaxError
from policies.engines.rego_text import check_text, has_package

__all__ = ["Mention", "Module", "Node", "Path", "Rule", "parse_error", "parse_module"]

Node: TypeAlias = dict[str, Any]
"""A node of regorus's syntax tree."""

Path: TypeAlias = tuple[str | None, ...]
"""Names from a document's root downwards; None for one that is only known while a policy is evaluated."""

_BACKTRACE: Final = "\n\nStack backtrace"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One policy file.

    Attributes:
        file: Its path in the bundle.
        source: Its text as regorus got it, UTF-8.
        text: The same, as text.
        shift: Characters that were put in front of its first line.
        package: Its package.
        imports: What each imported name stands for, ``data`` or ``input`` included.
        rules: Its rules, in order.
    """

    file: str
    source: bytes
    text: str
    shift: int
    package: tuple[str, ...]
    imports: Mapping[str, Path]
    rules: tuple[Rule, ...]

    def place(self, span: Mapping[str, int]) -> str:
        """Return where a node stands, as ``file:line:column``."""
        column = span["col"] - (self.shift if span["line"] == 1 else 0)
        return f"{self.file}:{span['line']}:{column}"

    def written(self, span: Mapping[str, int]) -> str:
        """Return a node's text."""
        return self.source[span["start"] : span["end"]].decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a file.

    Attributes:
        path: Its name within its package; None for a part that is only known while it is evaluated.
        arguments: How many a function takes; None if the rule is no function.
        kind: ``Compr`` (a value), ``Set`` (a part of a set), ``Func`` or ``Default``.
        node: Its node.
        place: ``file:line:column``.
        line: The line it starts on.
    """

    path: Path
    arguments: int | None
    kind: str
    node: Node
    place: str
    line: int

    def bodies(self) -> list[Node]:
        """Return its bodies, in order; a rule without conditions has none."""
        found: list[Node] = self.node.get("bodies", [])
        return found


def parse_error(error: BaseException) -> str:
    """Return what regorus has against a text, in one line: place and reason, without what it draws around them."""
    told = str(error).split(_BACKTRACE, 1)[0]
    place, reason = "", ""
    for line in told.splitlines():
        if line.startswith("--> ") and not place:
            place = line.removeprefix("--> ")
        elif line.startswith("error: ") and not reason:
            reason = line.removeprefix("error: ")
    return f"{place}: {reason}" if place and reason else " ".join(told.split())[:500]


def _literal(node: Node) -> str | None:
    """Return a text that is written out; None for any other node."""
    inner = node.get("String") or node.get("RawString")
    return None if inner is None else inner["value"]


def _spelled(node: Node) -> tuple[Node | None, list[str | Node]]:
    """Return what a chain of members starts from, and the members; a node for one that is not written out."""
    members: list[str | Node] = []
    while True:
        kind, inner = next(iter(node.items()))
        if kind == "RefDot":
            members.append(inner["field"][1])
        elif kind == "RefBrack":
            index: Node = inner["index"]
            text = _literal(index)
            members.append(index if text is None else text)
        else:
            return (node if kind == "Var" else None), members[::-1]
        node = inner["refr"]


def path_of(node: Node) -> Path:
    """Return what a chain of members names; empty if it does not start from a name."""
    base, members = _spelled(node)
    if base is None:
        return ()
    return (base["Var"]["value"], *(member if isinstance(member, str) else None for member in members))


def _innermost(node: Node) -> Node:
    while True:
        kind, inner = next(iter(node.items()))
        if kind not in {"RefDot", "RefBrack"}:
            return node
        node = inner["refr"]


def _span(node: Node) -> dict[str, int]:
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
        kind, inner = next(iter(item.items()))
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
        self._stack += [(member, everywhere) for member in _spelled(head["refr"])[1] if not isinstance(member, str)]
        yield from self._walk()

    def _head(self, rule: Rule) -> Node:
        head: Node = rule.node if rule.kind == "Default" else next(iter(rule.node["head"].values()))
        return head

    def _declared(self, query: Node) -> frozenset[str]:
        """Return the names that a query declares for itself and all within it."""
        names: set[str] = set()
        for statement in query["stmts"]:
            kind, literal = next(iter(statement["literal"].items()))
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
        kind, inner = next(iter(node.items()), ("", None))
        if kind in {"Var", "RefDot", "RefBrack"}:
            yield from self._reference(node, scope)
        elif kind == "Call":
            yield from self._call(node, inner, scope)
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
        _, members = _spelled(node)
        self._stack += [(member, scope) for member in members if not isinstance(member, str)]
        if path:
            yield self._mention("reference", path, node, scope)
        else:
            self._stack.append((_innermost(node), scope))

    def _call(self, node: Node, inner: Node, scope: frozenset[str]) -> Iterator[Mention]:
        called, parameters = inner["fcn"], inner["params"]
        _, members = _spelled(called)
        self._stack += [(item, scope) for item in (*members, *parameters) if not isinstance(item, str)]
        path = path_of(called)
        found = self._mention("call", path, called, scope)
        listed = [item for parameter in parameters for item in parameter.get("Array", {}).get("items", [])]
        yield replace(
            found,
            arguments=len(parameters),
            literals=tuple(map(_literal, parameters)),
            listed=tuple(text for text in map(_literal, listed) if text is not None),
        )

    def _replacement(self, node: Node, scope: frozenset[str]) -> Iterator[Mention]:
        _, members = _spelled(node["refr"])
        self._stack += [(member, scope) for member in members if not isinstance(member, str)]
        self._stack.append((node["as"], scope))
        yield self._mention("with", path_of(node["refr"]), node["refr"], scope)

    def _mention(self, kind: str, path: Path, node: Node, scope: frozenset[str]) -> Mention:
        span = _span(_innermost(node))
        local = bool(path) and path[0] in scope
        return Mention(kind=kind, path=path, local=local, place=self._module.place(span))


def mentions(module: Module, rule: Rule) -> Iterator[Mention]:
    """Return what a rule names, each time that it does."""
    return _Walk(module).rule(rule)


def _rule(module_file: str, shift: int, node: Node) -> Rule:
    if "Default" in node:
        inner, kind = node["Default"], "Default"
        head = inner
    else:
        inner = node["Spec"]
        kind, head = next(iter(inner["head"].items()))
    span = inner["span"]
    column = span["col"] - (shift if span["line"] == 1 else 0)
    arguments = head.get("args") if kind in {"Func", "Default"} else None
    return Rule(
        path=path_of(head["refr"]),
        arguments=len(arguments) if arguments or kind == "Func" else None,
        kind=kind,
        node=inner,
        place=f"{module_file}:{span['line']}:{column}",
        line=span["line"],
    )


def _imports(module_file: str, nodes: list[Node], source: bytes) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for node in nodes:
        path = path_of(node["refr"])
        alias = node.get("as")
        name = path[-1] if alias is None else source[alias["start"] : alias["end"]].decode()
        place = f"{module_file}:{node['span']['line']}"
        if name is None or path[0] not in {"data", "input", "rego", "future"}:
            raise PolicySyntaxError(f"{place}: an import names something of data or input")
        if path[0] in {"rego", "future"}:
            continue
        if name in found or name in {"data", "input"}:
            raise PolicySyntaxError(f"{place}: the import {name} is there already")
        found[name] = path
    return found


def _tree(path: str, text: str, version: int) -> Node:
    engine = regorus.Engine()
    engine.set_rego_v0(version == 0)
    try:
        engine.add_policy(path, text)
        tree: Node = json.loads(engine.get_ast_as_json())[0]["ast"]
    except RuntimeError as error:
        raise PolicySyntaxError(parse_error(error)) from error
    except (RecursionError, ValueError) as error:
        raise PolicySyntaxError(f"{path}: nested too deep") from error
    return tree


def parse_module(path: str, text: str, *, version: int, package: str | None) -> Module:
    """Parse one file.

    Args:
        path: Its path in the bundle.
        text: The file.
        version: The Rego it is written in, 0 or 1.
        package: The package of a file that names none; allowed in version 0 alone.

    Raises:
        PolicySyntaxError: It does not parse, is beyond a limit, or its version does not fit; the message names file
            and place.
    """
    check_text(path, text)
    shift = 0
    if version == 0 and package is not None and not has_package(path, text):
        # On the first line, so that every line keeps its number.
        prefix = f"package {package} "
        text, shift = prefix + text, len(prefix)
    tree = _tree(path, text, version)
    source = text.encode()
    named = path_of(tree["package"]["refr"])
    names = tuple(name for name in named if name is not None)
    if len(names) != len(named) or not names:
        raise PolicySyntaxError(f"{path}: a package without a plain name")
    module = Module(
        file=path,
        source=source,
        text=text,
        shift=shift,
        package=names,
        imports=_imports(path, tree["imports"], source),
        rules=tuple(_rule(path, shift, node) for node in tree["rules"]),
    )
    if version == 0:
        _check_old(module, tree)
    return module


def _says_contains(module: Module, rule: Rule) -> bool:
    """Tell whether a set's rule is written with ``contains``, which regorus takes in version 0 as well."""
    if rule.kind != "Set":
        return False
    head = rule.node["head"]["Set"]
    between = module.source[_span(head["refr"])["end"] : _span(head["key"])["start"]]
    return b"contains" in between


_NEW_WORDS: Final = frozenset({"if", "contains", "every", "in"})


def _check_old(module: Module, tree: Node) -> None:
    """Refuse text of version 1 in a file of version 0.

    There ``allow if {…}`` is a rule ``allow`` that always holds, and another one named ``if``: it would permit all.
    """
    for node in tree["imports"]:
        if path_of(node["refr"])[0] in {"rego", "future"}:
            line = node["span"]["line"]
            raise PolicySyntaxError(f"{module.file}:{line}: text of Rego version 1 in a bundle of rego_version 0")
    for rule in module.rules:
        words = {name for name in rule.path if name in _NEW_WORDS}
        words |= {
            mention.path[0]
            for mention in mentions(module, rule)
            if mention.path and mention.path[0] in _NEW_WORDS and mention.kind != "call"
        }
        if words or tree.get("rego_v1") or _says_contains(module, rule):
            raise PolicySyntaxError(f"{rule.place}: text of Rego version 1 in a bundle of rego_version 0")
