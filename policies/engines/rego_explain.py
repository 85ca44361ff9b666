"""Why Rego decided so: each deciding rule taken apart, and put to regorus statement by statement.

Explained are ``allow`` and the members of ``permits``, ``denies`` and ``obligations``, body by body. Of each body the
first statement is asked, then the first two, and so on, each time as a rule of its own beside the bundle's: what holds
is said by regorus and by nobody else. A statement that cannot stand without a later one (it uses a name that only that
one binds) is asked together with it.

INVARIANT: a name is in a set, or ``allow`` is true, exactly if some body of it applies (tested over generated
requests).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle
from policies.engines.rego import RegoEngine
from policies.engines.rego_ast import Module, Node, Rule
from policies.engines.rego_checks import rule_key
from policies.engines.rego_modules import RegoSource, read_source
from policies.engines.rego_names import ALLOW, DENIES, OBLIGATIONS, PERMITS
from policies.engines.rego_program import EvaluationFailedError, Program
from policies.engines.rego_requests import InputRefusedError
from policies.engines.rego_rules import member_name
from policies.engines.rego_walk import span_of
from policies.explaining import Condition, Explanation, Holds, RuleExplanation
from policies.model import DecisionRequest

__all__ = ["explain_rego"]

_EFFECTS = {ALLOW: "permit", PERMITS: "permit", DENIES: "forbid", OBLIGATIONS: "obligation"}
_PROBE = "tallystick_probe"
_BODY = "body"
_QUOTES = frozenset({b'"', b"`"})


@dataclass(frozen=True, slots=True)
class _Body:
    """One body of a deciding rule.

    Attributes:
        module: Its file.
        name: What it permits, denies or asks for.
        effect: What that is.
        place: ``file:line``.
        statements: Its statements; for an ``allow`` with a value, that the value is true is the last of them.
        valued: Whether it is.
        alternative: It is an ``else``: asked only if the statements of the body before it do not hold.
    """

    module: Module
    name: str
    effect: str
    place: str
    statements: tuple[str, ...]
    valued: bool
    alternative: bool


def _bodies(source: RegoSource) -> Iterator[_Body]:
    package = tuple(source.rules.package.split("."))
    for module in source.modules:
        for rule in module.rules:
            *within, kind = rule_key(module, rule)
            if tuple(within) == package and kind in _EFFECTS and rule.kind != "Default":
                yield from _rule_bodies(module, rule, kind)


def _rule_bodies(module: Module, rule: Rule, kind: str) -> Iterator[_Body]:
    name = ALLOW if kind == ALLOW else member_name(rule, kind)
    head = next(iter(rule.node["head"].values())).get("assign") if kind == ALLOW else None
    without_conditions: Node = {"query": {"stmts": []}, "is_else": False, "assign": None}
    for body in rule.bodies() or [without_conditions]:
        nodes: list[Node] = body["query"]["stmts"]
        alternative: bool = body["is_else"]
        assigned = body["assign"] if alternative and kind == ALLOW else None if alternative else head
        written = tuple(_written(module, node["span"]) for node in nodes)
        yield _Body(
            module=module,
            name=name,
            effect=_EFFECTS[kind],
            place=f"{module.file}:{nodes[0]['span']['line'] if alternative and nodes else rule.line}",
            statements=written if assigned is None else (*written, _is_true(module, assigned["value"])),
            valued=assigned is not None,
            alternative=alternative,
        )


def _is_true(module: Module, value: Node) -> str:
    return f"({_written(module, span_of(value))}) == true"


def _written(module: Module, span: Mapping[str, int]) -> str:
    """Return a statement's text; to regorus the quotation marks of a string are no part of it."""
    start, end = span["start"], span["end"]
    start -= module.source[start - 1 : start] in _QUOTES
    end += module.source[end : end + 1] in _QUOTES
    return module.source[start:end].decode()


def _probe(source: RegoSource, body: _Body, count: int) -> Module:
    """Return a file whose one rule holds if the first statements of a body do."""
    imports = [
        f"import {'.'.join(str(part) for part in path)} as {name}"
        for name, path in body.module.imports.items()
        if None not in path
    ]
    rule = "if {" if source.version else "{"
    # Semicolons: a bracket on a new line would make a call of the name before it.
    asked = ";\n".join(body.statements[:count])
    text = "\n".join((f"package {source.rules.package}", *imports, f"{_PROBE} {rule}", asked, "}", ""))
    return replace(body.module, file=f"{_PROBE}.rego", text=text, source=text.encode())


def _program(source: RegoSource, body: _Body, count: int) -> Program | None:
    """Return the bundle with a probe beside it; None if those statements cannot stand alone."""
    try:
        return Program(replace(source, modules=(*source.modules, _probe(source, body, count))))
    except PolicySyntaxError:
        if count == len(body.statements):
            raise  # the whole body stands in the bundle, which has been loaded
        return None


def _asked(source: RegoSource, body: _Body, count: int, request: DecisionRequest) -> Holds | None:
    program = _program(source, body, count)
    if program is None:
        return None
    program.begin(source.input_document(request), request.time.now_ms)
    try:
        return Holds.YES if program.holds(_PROBE) else Holds.NO
    except EvaluationFailedError:
        return Holds.FAILED


def _conditions(source: RegoSource, body: _Body, request: DecisionRequest) -> Iterator[Condition]:
    held = Holds.YES
    first = 0
    for count in range(1, len(body.statements) + 1):
        answer = Holds.NOT_REACHED if held is not Holds.YES else _asked(source, body, count, request)
        if answer is None:
            continue  # asked together with what follows
        text = "; ".join(" ".join(statement.split()) for statement in body.statements[first:count])
        yield Condition(_BODY, text, answer)
        held, first = answer, count


def _not_reached(body: _Body) -> tuple[Condition, ...]:
    return tuple(Condition(_BODY, " ".join(text.split()), Holds.NOT_REACHED) for text in body.statements)


def _hold(conditions: Sequence[Condition]) -> bool:
    return all(condition.holds is Holds.YES for condition in conditions)


def _rules(source: RegoSource, bodies: Iterable[_Body], request: DecisionRequest) -> Iterator[RuleExplanation]:
    decided = False
    for body in bodies:
        over = decided and body.alternative
        conditions = _not_reached(body) if over else tuple(_conditions(source, body, request))
        # A body whose statements hold decides what its rule is, whatever value it gives; no `else` is asked then.
        decided = over or _hold(conditions[:-1] if body.valued else conditions)
        yield RuleExplanation(body.name, body.place, body.effect, _hold(conditions) and not over, conditions)


def explain_rego(bundle: Bundle, request: DecisionRequest) -> Explanation:
    """Return what a Rego bundle decides about a request, and what each of its deciding rules had to say.

    Raises:
        PolicySyntaxError: The bundle cannot be used.
    """
    engine = RegoEngine()
    (decision,) = engine.evaluate(engine.load(bundle), [request])
    source = read_source(bundle)
    try:
        source.input_document(request)
    except InputRefusedError:  # the arguments are not exact: no rule was asked
        return Explanation(decision, ())
    return Explanation(decision, tuple(_rules(source, _bodies(source), request)))
