"""The syntax tree of one Rego file, which regorus gives as JSON.

What its rules name is told by `policies.engines.rego_walk`, and what of that is allowed by
`policies.engines.rego_checks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from regorus.regorus import Engine as RegorusEngine

from ledger.errors import PolicySyntaxError
from policies.engines.rego_text import check_text, has_package

__all__ = ["Module", "Node", "Path", "Rule", "kind_of", "literal", "parse_error", "parse_module", "path_of", "spelled"]

Node: TypeAlias = dict[str, Any]
"""A node of regorus's syntax tree."""

Path: TypeAlias = tuple[str | None, ...]
"""Names from a document's root downwards; None for one that is only known while a policy is evaluated."""

_BACKTRACE: Final = "\n\nStack backtrace"


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

    def values(self) -> list[Node]:
        """Return its value, unless it is a function, and what its conditions assign with ``:=``."""
        assigned = self.node["head"].get("Compr", {}).get("assign") if self.kind == "Compr" else None
        found: list[Node] = [] if assigned is None else [assigned["value"]]
        for body in self.bodies():
            for statement in body["query"]["stmts"]:
                given = statement["literal"].get("Expr", {}).get("expr", {}).get("AssignExpr", {})
                if given.get("op") == "ColEq":
                    found.append(given["rhs"])
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


def kind_of(node: Node) -> tuple[str, Any]:
    """Return a node's kind and what it holds; nothing for an empty node."""
    for kind, inner in node.items():
        return kind, inner
    return "", {}


def literal(node: Node) -> str | None:
    """Return a text that is written out; None for any other node."""
    inner = node.get("String") or node.get("RawString")
    return None if inner is None else str(inner["value"])


def spelled(node: Node) -> tuple[Node | None, list[str | Node]]:
    """Return what a chain of members starts from, and the members; a node for one that is not written out."""
    members: list[str | Node] = []
    while True:
        kind, inner = kind_of(node)
        if kind == "RefDot":
            members.append(inner["field"][1])
        elif kind == "RefBrack":
            index: Node = inner["index"]
            text = literal(index)
            members.append(index if text is None else text)
        else:
            return (node if kind == "Var" else None), members[::-1]
        node = inner["refr"]


def path_of(node: Node) -> Path:
    """Return what a chain of members names; empty if it does not start from a name."""
    base, members = spelled(node)
    if base is None:
        return ()
    return (base["Var"]["value"], *(member if isinstance(member, str) else None for member in members))


def _rule(module_file: str, shift: int, node: Node) -> Rule:
    if "Default" in node:
        inner, kind = node["Default"], "Default"
        head = inner
    else:
        inner = node["Spec"]
        kind, head = kind_of(inner["head"])
    span = inner["span"]
    column = span["col"] - (shift if span["line"] == 1 else 0)
    arguments = head.get("args") if kind in {"Func", "Default"} else None
    return Rule(
        path=path_of(head["refr"]),
        arguments=len(arguments or ()) if arguments or kind == "Func" else None,
        kind=kind,
        node=inner,
        place=f"{module_file}:{span['line']}:{column}",
        line=span["line"],
    )


def _imports(module_file: str, nodes: list[Node], source: bytes, version: int) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for node in nodes:
        path = path_of(node["refr"])
        alias = node.get("as")
        name = path[-1] if alias is None else source[alias["start"] : alias["end"]].decode()
        place = f"{module_file}:{node['span']['line']}"
        if name is None or path[0] not in {"data", "input", "rego", "future"}:
            raise PolicySyntaxError(f"{place}: an import names something of data or input")
        if path[0] in {"rego", "future"}:
            if version == 0:
                raise PolicySyntaxError(f"{place}: text of Rego version 1 in a bundle of rego_version 0")
            continue
        if name in found or name in {"data", "input"}:
            raise PolicySyntaxError(f"{place}: the import {name} is there already")
        found[name] = path
    return found


def _tree(path: str, text: str, version: int) -> Node:
    engine = RegorusEngine()
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
    return Module(
        file=path,
        source=source,
        text=text,
        shift=shift,
        package=names,
        imports=_imports(path, tree["imports"], source, version),
        rules=tuple(_rule(path, shift, node) for node in tree["rules"]),
    )
