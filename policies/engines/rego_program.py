"""A Rego bundle in regorus: one request after the other, for the thread that made it.

regorus's objects belong to the thread that made them, and raise what is no `Exception` in any other; so every thread
has programs of its own (`program_of`).

INVARIANT 7: regorus spells *undefined* as a string, which would pass for true; only the literal ``true`` permits.
INVARIANT 6: messages of an evaluation quote values, so nothing but the place is passed on.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from regorus.regorus import Engine as RegorusEngine

from ledger.errors import PolicyError, PolicySyntaxError
from policies.engine import Reason
from policies.engines.rego_ast import parse_error
from policies.engines.rego_builtins import RecordedTime, bound_functions
from policies.engines.rego_modules import RegoSource
from policies.engines.rego_names import ALLOW
from policies.engines.rego_rules import Body

__all__ = ["EvaluationFailedError", "Program", "program_of", "stopped_at"]

_MAX_PROGRAMS: Final = 16
_MAX_NAME: Final = 128
_PROBE: Final = "tallystick_probe"
_UNDEFINED: Final = '"<undefined>"'
_PLACE: Final = re.compile(r"\s*--> ([A-Za-z0-9_./-]+):([0-9]+):[0-9]+\n")


class EvaluationFailedError(PolicyError):
    """Why there is no answer.

    Attributes:
        reason: The decision's reason.
        detail: Names of file and line, or of a rule.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Program:
    """A bundle in regorus; for the thread that made it."""

    def __init__(self, source: RegoSource) -> None:
        """Hand everything to regorus, and have it look at all of it.

        Raises:
            PolicySyntaxError: It refuses the bundle.
        """
        self.rules = source.rules
        self._files = frozenset(module.file for module in source.modules)
        self._time = RecordedTime()
        self._engine = RegorusEngine()
        try:
            for name, arguments, function in bound_functions(self._time):
                self._engine.add_extension(name, arguments, function)
            self._engine.set_gather_prints(True)
            # regorus plans all rules before it evaluates the first, and only then says which variables are unsafe.
            self._engine.add_policy(_PROBE, f"package {_PROBE}\n{ALLOW} := true\n")
            self._engine.set_rego_v0(source.version == 0)
            for module in source.modules:
                self._engine.add_policy(module.file, module.text)
            self._engine.add_data_json(source.data)
            self._engine.set_input_json("{}")
            self._engine.eval_rule_as_json(f"data.{_PROBE}.{ALLOW}")
        except RuntimeError as error:
            raise PolicySyntaxError(parse_error(error)) from error
        self._engine.set_enable_coverage(True)

    def begin(self, document: Mapping[str, object], now_ms: int) -> None:
        """Take the next request.

        Args:
            document: Its input document.
            now_ms: Its time, POSIX milliseconds.

        Raises:
            EvaluationFailedError: A text in it is no Unicode text.
        """
        self._time.now_ns = now_ms * 1_000_000
        self._engine.clear_coverage_data()
        try:
            self._engine.set_input_json(orjson.dumps(document).decode())
        except (RuntimeError, orjson.JSONEncodeError) as error:
            raise EvaluationFailedError(Reason.REQUEST_ERROR, "input") from error

    def _value(self, name: str) -> str:
        try:
            text: str = self._engine.eval_rule_as_json(f"data.{self.rules.package}.{name}")
        except RuntimeError as error:
            raise EvaluationFailedError(Reason.EVALUATION_ERROR, self._failed_at(str(error), name)) from error
        return text

    def _failed_at(self, message: str, name: str) -> str:
        """Return where an evaluation failed; what follows in the message may quote values."""
        match = _PLACE.match(message)
        return f"{match[1]}:{match[2]}" if match is not None and match[1] in self._files else name

    def allows(self) -> bool:
        """Evaluate ``allow``.

        Raises:
            EvaluationFailedError: It fails, or is neither true, false nor undefined.
        """
        text = self._value(ALLOW)
        if text not in {"true", "false", _UNDEFINED}:
            raise EvaluationFailedError(Reason.EVALUATION_ERROR, ALLOW)
        return text == "true"

    def holds(self, name: str) -> bool:
        """Evaluate a rule of the deciding package that is true or undefined; for explanations.

        Raises:
            EvaluationFailedError: It fails.
        """
        return self._value(name) == "true"

    def members(self, name: str) -> list[str]:
        """Evaluate a set of names; its members in bundle order.

        Raises:
            EvaluationFailedError: It fails, or holds anything but names that the text says.
        """
        known = self.rules.sets.get(name)
        if known is None:
            return []
        value = json.loads(self._value(name))
        if not isinstance(value, list) or not all(isinstance(item, str) and item in known for item in value):
            raise EvaluationFailedError(Reason.EVALUATION_ERROR, name)
        return [item for item in known if item in value]

    def reached_lines(self) -> Mapping[str, frozenset[int]]:
        """Return the lines of each file that were reached since `begin`."""
        report = json.loads(self._engine.get_coverage_report_as_json())
        return {file["path"]: frozenset(file["covered"]) for file in report["files"]}


def stopped_at(bodies: Sequence[Body], reached: Mapping[str, frozenset[int]]) -> str:
    """Return ``allow@file:line`` of the condition that stood against the call."""
    best: tuple[int, str] | None = None
    for body in bodies:
        lines = reached.get(body.file, frozenset())
        last = max((index for index, line in enumerate(body.lines) if line in lines), default=None)
        if last is not None and (best is None or last > best[0]):
            best = (last, f"{ALLOW}@{body.file}:{body.lines[last]}")
    return ALLOW if best is None or len(best[1]) > _MAX_NAME else best[1]


# Programs of each thread, by revision. They live here and not in the engine, because regorus's objects may be neither
# used nor destroyed by another thread: a thread's own part of this goes when the thread goes.
_programs = threading.local()


def program_of(revision: str, source: RegoSource) -> Program:
    """Return a bundle's program for the thread that asks; made if the thread has none.

    Raises:
        PolicySyntaxError: regorus refuses the bundle.
    """
    kept: OrderedDict[str, Program] | None = getattr(_programs, "kept", None)
    if kept is None:
        kept = _programs.kept = OrderedDict()
    program = kept.get(revision)
    if program is None:
        program = kept[revision] = Program(source)
        while len(kept) > _MAX_PROGRAMS:
            kept.popitem(last=False)
    kept.move_to_end(revision)
    return program
