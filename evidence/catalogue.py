"""The control catalogues that ship with the program, read from YAML.

The edge of `controls`: files in, `controls.Framework` values out. A framework is one file in ``frameworks/``; tests
that several frameworks share stand in ``frameworks/tests.yaml``, and each framework takes along those that its controls
name.

The reader takes a small YAML on purpose: mappings, lists, text, decimal integers, ``true`` and ``false``. There are no
anchors, no tags, no dates and no ``yes``; a key that stands twice is an error. What a person reads in the file is what
the program reads.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from evidence.controls import FRAMEWORK_FORMAT, Framework, parse_framework
from ledger.canonical import JSONValue
from ledger.errors import EvidenceError, MalformedError

__all__ = ["control_table", "framework_names", "load_framework", "load_frameworks", "parse_yaml"]

_FOLDER: Final = Path(__file__).parent / "frameworks"
_SHARED: Final = "tests"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class _Loader(yaml.SafeLoader):
    """A YAML loader with few types and no second way to say a thing."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # the base class's shape

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # types-pyyaml leaves it out
        if isinstance(event, yaml.AliasEvent) or event.anchor or event.tag:
            raise MalformedError(f"YAML line {event.start_mark.line + 1}: anchors, aliases and tags are not read here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # the base class's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if not isinstance(key, str) or key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise MalformedError(f"YAML line {line}: the key {key!r} stands twice or is not text")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^(?:0|-?[1-9][0-9]*)$"), list("-0123456789"))


def parse_yaml(text: str, place: str) -> JSONValue:
    """Read the small YAML that this module's text describes.

    Args:
        text: One YAML document.
        place: Named in errors.

    Raises:
        MalformedError: Not such a document.
    """
    try:
        value: JSONValue = yaml.load(text, Loader=_Loader)  # noqa: S506  # _Loader is a SafeLoader
    except (yaml.YAMLError, MalformedError, RecursionError) as error:
        raise MalformedError(f"{place}: {error}") from error
    return value


def _read(name: str) -> dict[str, JSONValue]:
    path = _FOLDER / f"{name}.yaml"
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        raise EvidenceError(f"no framework called {name} ships with the program") from error
    if not isinstance(value, dict):
        raise MalformedError(f"{path.name} is not a mapping")
    return value


def _named_tests(controls: JSONValue) -> set[JSONValue]:
    """Return the test ids that controls name; what is not in the right shape is `parse_framework`'s to refuse."""
    named: set[JSONValue] = set()
    for control in controls if isinstance(controls, list) else []:
        if isinstance(control, dict):
            for ids in (control.get("tests", []), control.get("conditional_tests", [])):
                named.update(test for test in (ids if isinstance(ids, list) else []) if isinstance(test, str))
    return named


def framework_names() -> list[str]:
    """Return the names of the frameworks that ship with the program, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml") if path.stem != _SHARED)


@lru_cache(maxsize=64)
def load_framework(name: str) -> Framework:
    """Return a framework that ships with the program; its file is read once.

    Raises:
        EvidenceError: None of that name ships.
        MalformedError: Its file is not a sound catalogue.
    """
    if not _NAME.fullmatch(name) or name == _SHARED:
        raise EvidenceError(f"not the name of a framework: {name[:80]!a}")
    value = _read(name)
    own = value.get("tests", [])
    shared = _read(_SHARED).get("tests")
    if not isinstance(own, list) or not isinstance(shared, list):
        raise MalformedError(f"the tests of {name} are not a list")
    named = _named_tests(value.get("controls"))
    taken = [test for test in shared if isinstance(test, dict) and test.get("id") in named]
    try:
        return parse_framework({**value, "format": FRAMEWORK_FORMAT, "tests": [*own, *taken]})
    except MalformedError as error:
        raise MalformedError(f"{name}.yaml: {error}") from error


def load_frameworks(names: Sequence[str]) -> tuple[Framework, ...]:
    """Return several frameworks; see `load_framework`."""
    return tuple(load_framework(name) for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def control_table(framework: Framework) -> str:
    """Return a framework's controls as a Markdown table, for the documentation."""
    lines = [
        f"### {framework.title} ({framework.version})",
        "",
        "| control | in our words | evidence | strength | computed tests |",
        "|---|---|---|---|---|",
    ]
    for control in framework.controls:
        tests = ", ".join(f"`{test}`" for test in control.tests)
        conditional = ", ".join(f"`{test}`" for test in control.conditional_tests)
        shown = (
            f"{tests}{'; if it occurs: ' if conditional else ''}{conditional}" or f"not tested: {control.not_tested}"
        )
        cells = (control.id, control.title, ", ".join(control.evidence), control.strength.value, shown)
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"
