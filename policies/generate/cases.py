"""Tests of a generated bundle, made of the description's own examples.

Pure. For each operation, one call that must be permitted, and calls each one change away from it that must be denied.
Whether a call is inside or outside is asked of the compiled boundaries; where an example lies outside its own schema,
that is noted, for one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

from ledger.canonical import JSONValue
from policies.boundaries import Boundaries
from policies.generate.encoding import json_bytes, json_text
from policies.generate.model import Description, JSONObject, Operation
from policies.generate.rules import BOUNDARY, DISCOVERY, Rules
from policies.generate.samples import inside, outside

__all__ = ["MAX_TESTED", "CaseFiles", "make_cases"]

MAX_TESTED: Final = 200
"""Operations that are tested."""

_MAX_OUTSIDE: Final = 6
_MAX_NAMED: Final = 20
_MAX_CASES_PER_FILE: Final = 400
_MAX_ARGUMENT_BYTES: Final = 8 << 10
_MAX_BYTES: Final = 1 << 20
_AT: Final = "2026-01-05T10:00:00"

CaseFiles = dict[str, bytes]
"""Path → YAML."""


class _Dumper(yaml.SafeDumper):
    """Writes YAML without anchors: the reader of tests refuses them."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's signature
        return True


class _Maker:
    def __init__(self, server: str, description: Description, compiled: Boundaries) -> None:
        self._server = server
        self._rules = Rules(server)
        self._description = description
        self._compiled = compiled
        self.untested: list[str] = []

    def drift(self, operation: Operation, arguments: JSONObject) -> tuple[str, ...]:
        return self._compiled.facts(self._server, operation.tool, json_text(arguments)).drift

    def cases(self, operation: Operation) -> Iterator[JSONObject]:
        found = self.usual_call(operation)
        if found is None:
            self.untested.append(operation.tool)
            return
        told, arguments = found
        rule = self._rules.rule_of(operation)
        expect: JSONObject = {"effect": "PERMIT", "rules": [rule]}
        if rule == self._rules.approved_writes:
            expect["obligations"] = ["approval"]
        yield self._case(f"{operation.tool}, {told}", operation, arguments, expect)
        denied = 0
        for told, others in outside(operation.schema, arguments, self._description.definitions):
            if denied < _MAX_OUTSIDE and self._fits(others) and self.drift(operation, others):
                denied += 1
                expect = {"effect": "DENY", "rules": [BOUNDARY], "failed_condition": BOUNDARY}
                yield self._case(f"{operation.tool}, {told}", operation, others, expect)

    def _fits(self, arguments: JSONObject) -> bool:
        return len(json_bytes(arguments)) <= _MAX_ARGUMENT_BYTES

    def usual_call(self, operation: Operation) -> tuple[str, JSONObject] | None:
        for told, arguments in inside(operation, self._description.definitions):
            if not self._fits(arguments):
                continue
            drift = self.drift(operation, arguments)
            if not drift:
                return told, arguments
            if "example" in told:
                self._description.notes.assumed(
                    operation.label, f"an example lies outside its own schema: {', '.join(drift)}"
                )
        return None

    def _case(self, name: str, operation: Operation, arguments: JSONObject, expect: JSONObject) -> JSONObject:
        given: JSONObject = {
            "tool": operation.tool,
            "roles": [self._rules.role_of(operation)],
            "arguments": json_text(arguments),
        }
        return {"name": name, "given": given, "expect": expect}

    def general(self) -> Iterator[JSONObject]:
        """Return the cases that do not depend on what the operations are."""
        yield {
            "name": "who is known may ask what there is",
            "given": {"method": "tools/list", "roles": []},
            "expect": {"effect": "PERMIT", "rules": [DISCOVERY]},
        }
        yield {
            "name": "who is not known may not",
            "given": {"method": "tools/list", "roles": [], "authn": "none"},
            "expect": {"effect": "NOT_APPLICABLE", "rules": [], "reason": "no_permit"},
        }
        yield {
            "name": "a tool that the description does not have",
            "given": {"tool": "no.such.tool", "roles": [self._rules.reader, self._rules.writer]},
            "expect": {"effect": "DENY", "rules": [BOUNDARY], "failed_condition": BOUNDARY},
        }

    def stranger(self, tested: Operation, arguments: JSONObject) -> JSONObject:
        """Return the case of a role that may call nothing."""
        return {
            "name": "another role may call nothing",
            "given": {"tool": tested.tool, "roles": ["other"], "arguments": json_text(arguments)},
            "expect": {"effect": "NOT_APPLICABLE", "rules": [], "reason": "no_permit"},
        }


def make_cases(
    server: str, description: Description, operations: tuple[Operation, ...], compiled: Boundaries
) -> CaseFiles:
    """Return the tests of a bundle; the description's notes say what has none.

    Args:
        server: The server.
        description: Its description.
        operations: The operations that are in the bundle.
        compiled: The bundle's boundaries.
    """
    maker = _Maker(server, description, compiled)
    cases: list[JSONValue] = [*maker.general()]
    general = len(cases)
    size = 0
    for operation in operations[:MAX_TESTED]:
        made = list(maker.cases(operation))
        size += sum(len(json_bytes(case)) + 200 for case in made)
        if size > _MAX_BYTES:
            maker.untested.append(operation.tool)
            continue
        if made and len(cases) == general:
            cases.append(maker.stranger(operation, _arguments_of(operation, maker)))
        cases += made
    _say_untested(description, maker.untested, len(operations) - MAX_TESTED)
    defaults: JSONObject = {"agent": "Bot", "server": server, "at": _AT}
    return {
        f"tests/{server}-{number:02}.yaml": _yaml(
            {"defaults": defaults, "cases": cases[start : start + _MAX_CASES_PER_FILE]}
        )
        for number, start in enumerate(range(0, len(cases), _MAX_CASES_PER_FILE), 1)
    }


def _arguments_of(operation: Operation, maker: _Maker) -> JSONObject:
    found = maker.usual_call(operation)
    return {} if found is None else found[1]


def _say_untested(description: Description, untested: list[str], beyond: int) -> None:
    if untested:
        names = ", ".join(untested[:_MAX_NAMED]) + (", …" if len(untested) > _MAX_NAMED else "")
        description.notes.assumed("tests", f"no arguments were found to test with, for {len(untested)}: {names}")
    if beyond > 0:
        description.notes.assumed("tests", f"{beyond} operations have none: at most {MAX_TESTED} are tested")


def _yaml(value: JSONValue) -> bytes:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=120)
    return text.encode()
