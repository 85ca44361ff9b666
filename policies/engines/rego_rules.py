"""The rules of a Rego bundle that decide, and the names that they may leave in a record.

One package decides: ``allow``, and the sets ``permits``, ``denies`` and ``obligations`` beside it if it has them. What
a set may hold is read from the text: each member is a text that is written out, in the rule's head or assigned in its
body::

    denies contains "late" if input.time.hour >= 18
    denies contains name if { name := "after-hours"; input.time.hour >= 22 }

INVARIANT 6: what a record names is a name and never a value. A member that is computed could be anything that a call's
arguments say, and so is refused; it also means that coverage knows every name that could have spoken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.errors import PolicySyntaxError
from policies.engines.rego_ast import Module, Node, Rule, literal
from policies.engines.rego_checks import rule_key
from policies.engines.rego_names import ALLOW, DENIES, NEEDS, OBLIGATIONS, PERMITS
from policies.model import Obligation

__all__ = [
    "Body",
    "DecisionRules",
    "decision_rules",
    "member_name",
]

_SETS: Final = (PERMITS, DENIES, OBLIGATIONS, NEEDS)
_RULE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The conditions of one ``allow``.

    Attributes:
        file: Its file.
        lines: The line that each of its conditions starts on, in order; the rule's own line if it has none.
    """

    file: str
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRules:
    """What decides in a bundle.

    Attributes:
        package: Its package, as a path below ``data`` with dots.
        sets: Which of ``permits``, ``denies``, ``obligations`` and ``needs`` it has → the names that each may hold, in
            bundle order.
        bodies: The conditions of each ``allow``, in bundle order.
    """

    package: str
    sets: dict[str, tuple[str, ...]]
    bodies: tuple[Body, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every rule that a decision may name: the permits, or ``allow`` where there are none, and the denies."""
        return (self.sets.get(PERMITS) or (ALLOW,)) + self.sets.get(DENIES, ())


def _assigned(rule: Rule, name: str) -> Iterator[str]:
    """Return the texts that a rule's bodies assign to a name, each written out."""
    for body in rule.bodies():
        for statement in body["query"]["stmts"]:
            assignment = statement["literal"].get("Expr", {}).get("expr", {}).get("AssignExpr")
            if assignment is not None and assignment["lhs"].get("Var", {}).get("value") == name:
                text = literal(assignment["rhs"])
                if text is not None:
                    yield text


def member_name(rule: Rule, kind: str) -> str:
    """Return the name that a rule puts into a set.

    Args:
        rule: A rule of that set.
        kind: ``permits``, ``denies`` or ``obligations``.

    Raises:
        PolicySyntaxError: It is not written out, or no name.
    """
    refused = f'{rule.place}: {kind} takes names that are written out: `{kind} contains "name" if …`'
    if rule.kind != "Set" or len(rule.path) != 1:
        raise PolicySyntaxError(refused)
    key: Node = rule.node["head"]["Set"]["key"]
    text = literal(key)
    assigned = _assigned(rule, key["Var"]["value"]) if "Var" in key else iter(())
    found = list(assigned) if text is None else [text]
    if len(found) != 1:
        raise PolicySyntaxError(refused)
    name = found[0]
    if not _RULE_NAME.fullmatch(name):
        raise PolicySyntaxError(f"{rule.place}: not a rule's name: letters, digits and _ . : / @ + -, at most 128")
    if kind == OBLIGATIONS and name not in {*Obligation}:
        raise PolicySyntaxError(f"{rule.place}: the unknown obligation {name[:64]!a}")
    return name


def _bodies(module: Module, rule: Rule) -> Iterator[Body]:
    if rule.kind == "Default":
        return
    bodies = rule.bodies()
    if not bodies:
        yield Body(file=module.file, lines=(rule.line,))
    for body in bodies:
        lines = tuple(statement["span"]["line"] for statement in body["query"]["stmts"])
        yield Body(file=module.file, lines=lines or (rule.line,))


def decision_rules(modules: Sequence[Module], package: tuple[str, ...]) -> DecisionRules:
    """Return what decides.

    Args:
        modules: Every file of the bundle.
        package: The package that decides.

    Raises:
        PolicySyntaxError: It has no ``allow``, ``allow`` is no plain rule, or a set's members are not written out.
    """
    sets: dict[str, dict[str, None]] = {}
    bodies: list[Body] = []
    allows = False
    for module in modules:
        for rule in module.rules:
            key = rule_key(module, rule)
            if key[: len(package)] != package or len(key) == len(package):
                continue
            name = key[len(package)]
            if name == ALLOW:
                if rule.kind in {"Set", "Func"} or rule.arguments is not None or key != (*package, ALLOW):
                    raise PolicySyntaxError(f"{rule.place}: allow is a rule that is true or not")
                allows = True
                bodies += _bodies(module, rule)
            elif name in _SETS:
                sets.setdefault(name, {})[member_name(rule, name)] = None
    if not allows:
        raise PolicySyntaxError(f"the package {'.'.join(package)} has no rule named allow")
    twice = sets.get(PERMITS, {}).keys() & sets.get(DENIES, {}).keys()
    if twice:
        raise PolicySyntaxError(f"the name {min(twice)} is in permits and in denies")
    return DecisionRules(
        package=".".join(package),
        sets={name: tuple(members) for name, members in sets.items()},
        bodies=tuple(bodies),
    )
