"""Why Cedar decided so: each policy taken apart, and each part put to Cedar by itself.

A policy holds if its scope does, every ``when`` and no ``unless``. The scope is asked constraint by constraint, each
condition conjunct by conjunct as far as its top level is a chain of ``&&``, in order: what stands behind a condition
that does not hold is not reached, as in Cedar's own evaluation. Each part is put as a policy of its own,
``permit (…) when { part }``, so that nobody but Cedar says what a part means.

INVARIANT: a policy applies here exactly if Cedar names it for the whole bundle (tested over generated requests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import cedarpy

from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_policies import parse_policies
from policies.engines.cedar_text import Token, split_policies, tokens_of
from policies.explaining import Condition, Explanation, Holds, RuleExplanation
from policies.model import DecisionRequest

__all__ = ["explain_cedar"]

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_SCOPE = ("principal", "action", "resource")

_Ask: TypeAlias = Callable[[cedarpy.PolicySet], cedarpy.AuthzResult]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a policy, and the policy that asks for it alone."""

    text: str
    probe: str


@dataclass(frozen=True, slots=True)
class _Clause:
    """A constraint of the scope, or a ``when`` or ``unless``, with the parts that must all hold."""

    kind: str
    parts: tuple[_Part, ...]


def _depths(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Yield each token with the number of brackets around it; a bracket stands outside of itself."""
    depth = 0
    for token in tokens:
        depth -= token.text in _CLOSING
        yield depth, token
        depth += token.text in _OPENING


def _split(tokens: Sequence[Token], mark: str) -> list[list[Token]]:
    """Split tokens at a mark outside all brackets."""
    parts: list[list[Token]] = [[]]
    for depth, token in _depths(tokens):
        if depth == 0 and token.text == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _text(tokens: Sequence[Token]) -> str:
    """Return what tokens say, on one line and without comments."""
    words = [tokens[0].text]
    for before, token in pairwise(tokens):
        apart = before.end < token.start and before.text not in _OPENING and token.text not in _CLOSING
        words.append(f" {token.text}" if apart else token.text)
    return "".join(words)


def _bracketed(tokens: Sequence[Token], start: int) -> tuple[Sequence[Token], int]:
    """Return what stands in the bracket that opens at ``start``, and where to go on behind it."""
    inside = enumerate(_depths(tokens[start:]))
    end = start + next(place for place, (depth, token) in inside if depth == 0 and token.text in _CLOSING)
    return tokens[start + 1 : end], end + 1


def _conjuncts(body: Sequence[Token]) -> list[list[Token]]:
    """Split a condition into what must hold; one that is no plain chain of ``&&`` stays whole."""
    outside = {token.text for depth, token in _depths(body) if depth == 0}
    return [list(body)] if outside & {"||", "if", "then", "else"} else _split(body, "&&")


def _scope(tokens: Sequence[Token]) -> Iterator[_Clause]:
    for place, (name, constraint) in enumerate(zip(_SCOPE, _split(tokens, ","), strict=True)):
        shown = _text(constraint)
        asked = (shown if position == place else other for position, other in enumerate(_SCOPE))
        if shown != name:
            yield _Clause(name, (_Part(shown, f"permit ({', '.join(asked)});"),))


def _clauses(path: str, text: str) -> Iterator[_Clause]:
    """Yield the clauses of one policy in the order in which they are asked."""
    tokens = list(tokens_of(path, text))
    position = 0
    while tokens[position].text == "@":
        position += 2
        if tokens[position].text == "(":
            _, position = _bracketed(tokens, position)
    scope, position = _bracketed(tokens, position + 1)
    yield from _scope(scope)
    while tokens[position].text in {"when", "unless"}:
        kind = tokens[position].text
        body, position = _bracketed(tokens, position + 1)
        shown = [_text(conjunct) for conjunct in _conjuncts(body)]
        probes = (_Part(part, f"permit (principal, action, resource) when {{ {part} }};") for part in shown)
        yield _Clause(kind, tuple(probes))


def _holds(part: _Part, ask: _Ask) -> Holds:
    answer = ask(cedarpy.PolicySet.from_str(part.probe))
    if answer.diagnostics.errors:
        return Holds.FAILED
    return Holds.YES if answer.decision is cedarpy.Decision.Allow else Holds.NO


def _asked(clause: _Clause, ask: _Ask) -> tuple[Condition, ...]:
    """Ask the parts of a clause in order, as far as the first that does not hold."""
    found: list[Condition] = []
    for part in clause.parts:
        over = bool(found) and found[-1].holds is not Holds.YES
        found.append(Condition(clause.kind, part.text, Holds.NOT_REACHED if over else _holds(part, ask)))
    return tuple(found)


def _met(clause: _Clause, conditions: Sequence[Condition]) -> bool:
    """Return whether a clause lets its policy apply."""
    answers = {condition.holds for condition in conditions}
    if clause.kind == "unless":
        return answers != {Holds.YES} and Holds.FAILED not in answers
    return answers == {Holds.YES}


def _rule(place: str, name: str, effect: str, clauses: Sequence[_Clause], ask: _Ask) -> RuleExplanation:
    conditions: list[Condition] = []
    applies = True
    for clause in clauses:
        # Nothing of a scope can fail, and whoever asks why wants to hear of role and tool together.
        if applies or clause.kind in _SCOPE:
            asked = _asked(clause, ask)
            applies = applies and _met(clause, asked)
        else:
            asked = tuple(Condition(clause.kind, part.text, Holds.NOT_REACHED) for part in clause.parts)
        conditions += asked
    return RuleExplanation(name, place, effect, applies, tuple(conditions))


def explain_cedar(bundle: Bundle, request: DecisionRequest) -> Explanation:
    """Return what a Cedar bundle decides about a request, and what each of its policies had to say.

    Raises:
        PolicySyntaxError: The bundle cannot be used.
    """
    engine = CedarEngine()
    loaded = engine.load(bundle)
    (decision,) = engine.evaluate(loaded, [request])
    ask = engine.asking(loaded, request)
    if ask is None:  # the request is none that the schema accepts: no policy was asked
        return Explanation(decision, ())
    rules = []
    for path in bundle.manifest.policies:
        statements = split_policies(path, bundle.text(path))
        for statement, policy in zip(statements, parse_policies(path, statements), strict=True):
            clauses = list(_clauses(path, statement.text))
            rules.append(_rule(f"{path}:{statement.line}", policy.annotations["id"], policy.effect, clauses, ask))
    return Explanation(decision, tuple(rules))
