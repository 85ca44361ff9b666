"""What a Rego bundle may not say: checked over all its files, before anything is evaluated.

* Every function that is called is one of the bundle's or a built-in one that may be called (`rego_builtins`), with as
  many arguments as it takes. regorus looks for a function only when it comes to call it; a misspelt name in a rule that
  is seldom reached would be an error on the day that it is.
* No rule depends on itself, by whatever way round. regorus would call such a function until the process dies.
* ``with`` replaces what lies under ``input`` or ``data``, and no functions.
* A function does not hide a built-in one, and no import does.
* Numbers are ones that regorus holds exactly.

INVARIANT 8: what is left is a function of bundle and request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from ledger.errors import PolicySyntaxError
from policies.engines.rego_ast import Module, Path, Rule, path_of
from policies.engines.rego_builtins import ARITIES, REFUSED, refusal
from policies.engines.rego_requests import InexactNumberError, exact_number
from policies.engines.rego_walk import Mention, mentions, span_of

__all__ = ["MAX_RULES", "Key", "RuleNames", "check_modules", "check_old_text", "rule_key", "written_out"]

MAX_RULES: Final = 2000
"""Rules of one bundle."""

_MAX_PATH_SHOWN: Final = 8
_NEW_WORDS: Final = frozenset({"if", "contains", "every", "in"})

Key: TypeAlias = tuple[str, ...]
"""A rule's place under ``data``, up to what is only known while it is evaluated."""


def written_out(path: Path) -> Key:
    """Return a path up to the first part that is only known while a policy is evaluated."""
    found: list[str] = []
    for name in path:
        if name is None:
            break
        found.append(name)
    return tuple(found)


def rule_key(module: Module, rule: Rule) -> Key:
    """Return a rule's place under ``data``."""
    return module.package + written_out(rule.path)


def _is_builtin(name: str) -> bool:
    return name in ARITIES or name in REFUSED


class RuleNames:
    """Every rule of a bundle by name."""

    def __init__(self, modules: Sequence[Module]) -> None:
        """Take the rules.

        Raises:
            PolicySyntaxError: One has no plain name, or that of a built-in function.
        """
        self.functions: dict[Key, set[int]] = {}
        self.heads: dict[tuple[str, ...], set[str]] = {}
        self.keys: set[Key] = set()
        self._below: dict[Key, set[Key]] = {}
        for module in modules:
            for rule in module.rules:
                self._add(module, rule)

    def _add(self, module: Module, rule: Rule) -> None:
        key = rule_key(module, rule)
        if not rule.path or key == module.package:
            raise PolicySyntaxError(f"{rule.place}: a rule without a plain name")
        name = ".".join(part or "" for part in rule.path)
        if _is_builtin(name):
            raise PolicySyntaxError(f"{rule.place}: the name {name} is that of a built-in function")
        self.heads.setdefault(module.package, set()).add(key[len(module.package)])
        if rule.arguments is not None:
            self.functions.setdefault(key, set()).add(rule.arguments)
        self.keys.add(key)
        for length in range(len(key) + 1):
            self._below.setdefault(key[:length], set()).add(key)

    def overlapping(self, path: Key) -> set[Key]:
        """Return the rules that a document at ``path`` is made of, or is a part of."""
        above = {path[:length] for length in range(len(path))} & self.keys
        return self._below.get(path, set()) | above

    def resolve(self, module: Module, path: Path) -> Path | None:
        """Return where under ``data`` a name leads; None if it is none of the bundle's."""
        head = path[0]
        if head == "data":
            return path[1:]
        if head is not None and head in module.imports:
            meant = module.imports[head]
            return (*meant[1:], *path[1:]) if meant[0] == "data" else None
        if head in self.heads.get(module.package, set()):
            return (*module.package, *path)
        return None


class _Checks:
    """Checks rule after rule."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self._names = RuleNames(modules)
        self.depends: dict[Key, set[Key]] = {}
        self.places: dict[Key, str] = {}

    def rule(self, module: Module, rule: Rule) -> None:
        key = rule_key(module, rule)
        self.places.setdefault(key, rule.place)
        depends = self.depends.setdefault(key, set())
        said = list(mentions(module, rule))
        for mention in said:
            problem = self._problem(module, mention)
            if problem is not None:
                raise PolicySyntaxError(f"{mention.place}: {problem}")
            depends |= self._leads_to(module, mention)
        self._check_values(module, rule, said)

    def _check_values(self, module: Module, rule: Rule, said: Sequence[Mention]) -> None:
        """Refuse a value that nothing gives; regorus hears of it only when it comes to evaluate it."""
        named = Counter(mention.path[0] for mention in said if mention.path)
        for value in rule.values():
            path = path_of(value)
            if path and path[0] not in {"input", "data"} and named[path[0]] == 1:
                known = path[0] in module.imports or self._names.resolve(module, path) is not None
                if not known:
                    raise PolicySyntaxError(f"{rule.place}: nothing gives {path[0]} a value")

    def _problem(self, module: Module, mention: Mention) -> str | None:
        match mention.kind:
            case "number":
                try:
                    exact_number(Decimal(mention.text))
                except InexactNumberError as error:
                    return str(error)
                return None
            case "call":
                return self._call_problem(module, mention)
            case "with":
                return self._replacement_problem(module, mention)
            case _:
                return self._reference_problem(module, mention)

    def _call_problem(self, module: Module, mention: Mention) -> str | None:
        if not mention.path or None in mention.path:
            return "a function is called by its name"
        name = ".".join(written_out(mention.path))
        target = self._names.resolve(module, mention.path)
        if target is None:
            foreign = mention.path[0] == "input" or mention.path[0] in module.imports
            told = f"no function named {name}"
            return told if foreign else refusal(name, mention.arguments, mention.literals, mention.listed)
        if _is_builtin(name):
            return f"{name} is a built-in function and something of the bundle; give that another name"
        known = self._names.functions.get(written_out(target), set())
        if not known & {mention.arguments, mention.arguments - 1}:
            return f"{name} does not take {mention.arguments} arguments" if known else f"no function named {name}"
        return None

    def _replacement_problem(self, module: Module, mention: Mention) -> str | None:
        if not mention.path or mention.local:
            return "`with` replaces something of input or data"
        if mention.path[0] == "input":
            return None
        if mention.path[0] in module.imports and module.imports[str(mention.path[0])][0] == "input":
            return None
        target = self._names.resolve(module, mention.path)
        if target is None:
            return "`with` replaces something of input or data"
        if self._names.overlapping(written_out(target)) & self._names.functions.keys():
            return "`with` replaces no functions"
        return None

    def _reference_problem(self, module: Module, mention: Mention) -> str | None:
        if mention.local or not mention.path:
            return None
        target = self._names.resolve(module, mention.path)
        if target is not None:
            if written_out(target) in self._names.functions:
                return "a function can be called, and nothing else"
            return None
        name = ".".join(written_out(mention.path))
        return "a function can be called, and nothing else" if "." in name and _is_builtin(name) else None

    def _leads_to(self, module: Module, mention: Mention) -> set[Key]:
        if mention.kind in {"with", "number"} or not mention.path:
            return set()
        # A call is never of something that the rule declares itself.
        if mention.local and mention.kind != "call":
            return set()
        target = self._names.resolve(module, mention.path)
        return set() if target is None else self._names.overlapping(written_out(target))


def _circle(depends: dict[Key, set[Key]]) -> list[Key] | None:
    """Return rules that lead back to the first of them, or None."""
    finished: set[Key] = set()
    for start in sorted(depends):
        trail: list[Key] = []
        on_trail: set[Key] = set()
        pending: list[tuple[Key, Iterator[Key]]] = []
        if start not in finished:
            pending.append((start, iter(sorted(depends[start]))))
            trail.append(start)
            on_trail.add(start)
        while pending:
            key, rest = pending[-1]
            following = next(rest, None)
            if following is None:
                pending.pop()
                trail.pop()
                on_trail.discard(key)
                finished.add(key)
            elif following in on_trail:
                return [*trail[trail.index(following) :], following]
            elif following not in finished:
                pending.append((following, iter(sorted(depends.get(following, set())))))
                trail.append(following)
                on_trail.add(following)
    return None


def check_modules(modules: Sequence[Module]) -> None:
    """Check the files of a bundle.

    Raises:
        PolicySyntaxError: They say what the module's text forbids; the message names file, line and column.
    """
    count = sum(len(module.rules) for module in modules)
    if count > MAX_RULES:
        raise PolicySyntaxError(f"a bundle has at most {MAX_RULES} rules, not {count}")
    checks = _Checks(modules)
    for module in modules:
        for rule in module.rules:
            checks.rule(module, rule)
    circle = _circle(checks.depends)
    if circle is not None:
        names = [".".join(key) for key in circle]
        if len(names) > _MAX_PATH_SHOWN:
            names[_MAX_PATH_SHOWN // 2 : -_MAX_PATH_SHOWN // 2] = ["…"]
        raise PolicySyntaxError(f"{checks.places[circle[0]]}: a rule depends on itself: {' → '.join(names)}")


def _says_contains(module: Module, rule: Rule) -> bool:
    """Tell whether a set's rule is written with ``contains``, which regorus takes in version 0 as well."""
    if rule.kind != "Set":
        return False
    head = rule.node["head"]["Set"]
    return b"contains" in module.source[span_of(head["refr"])["end"] : span_of(head["key"])["start"]]


def check_old_text(module: Module) -> None:
    """Refuse text of version 1 in a file of version 0.

    There ``allow if {…}`` is a rule ``allow`` that always holds, and another one named ``if``: it would permit all.

    Raises:
        PolicySyntaxError: A word of version 1 stands where version 0 takes it for a name.
    """
    for rule in module.rules:
        if rule.kind == "Set" and rule.node["head"]["Set"]["key"] is None:
            raise PolicySyntaxError(f"{rule.place}: the member of a set is written in brackets")
        named = [mention.path[0] for mention in mentions(module, rule) if mention.path and mention.kind != "call"]
        if _NEW_WORDS & {*rule.path, *named} or _says_contains(module, rule):
            raise PolicySyntaxError(f"{rule.place}: text of Rego version 1 in a bundle of rego_version 0")
