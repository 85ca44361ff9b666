"""The control catalogues that ship with the program, read from YAML.

The edge of `controls`: files in, `controls.Framework` values out. A framework is one file in ``frameworks/``; tests
that several frameworks share stand in ``frameworks/tests.yaml``, and each framework takes along those that its controls
name. So writing one file adds a framework: nothing else lists them. What is wrong with a file is told by file, line and
member.

The reader takes a small YAML on purpose: mappings, lists, text, decimal integers, ``true`` and ``false``. There are no
anchors, no tags, no dates and no ``yes``; a key that stands twice is an error. What a person reads in the file is what
the program reads.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from evidence.controls import FRAMEWORK_FORMAT, Framework, Place, parse_framework
from evidence.crosswalk import Crosswalk, parse_crosswalk
from evidence.overlays import apply_overlay
from ledger.canonical import JSONValue
from ledger.errors import EvidenceError, MalformedError

__all__ = [
    "Catalogue",
    "control_table",
    "framework_names",
    "load_crosswalk",
    "load_framework",
    "load_frameworks",
    "parse_yaml",
    "read_crosswalk",
    "read_overlay",
]

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
    return _parse(text, place)[0]


def _parse(text: str, place: str) -> tuple[JSONValue, yaml.Node | None]:
    """Return what a document holds, and the document as it was written."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            value: JSONValue = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, MalformedError, RecursionError) as error:
        raise MalformedError(f"{place}: {error}") from error
    return value, node


def _lines(node: yaml.Node, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """Yield the line on which each part of a document begins, by its place."""
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*place, key.value), key.start_mark.line + 1
            yield from ((inner, line) for inner, line in _lines(value, (*place, key.value)) if inner[len(place) + 1 :])
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _lines(value, (*place, position))


@dataclass(frozen=True, slots=True)
class _File:
    """A YAML file that was read.

    Attributes:
        name: Its name, for errors.
        value: What it holds.
        lines: Where each part of that begins.
    """

    name: str
    value: dict[str, JSONValue]
    lines: dict[Place, int]

    def where(self, place: Place) -> str:
        """Name a place by file, line and member; what is not there itself, by the line of what it is missing from."""
        known = place
        while known not in self.lines:
            known = known[:-1]
        member = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
        return f"{self.name}, line {self.lines[known]}{f', {member}' if member else ''}"


def _read(path: Path) -> _File:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvidenceError(f"no framework called {path.stem} is there") from error
    except UnicodeDecodeError as error:
        raise MalformedError(f"{path.name} is not UTF-8") from error
    value, node = _parse(text, path.name)
    if not isinstance(value, dict) or node is None:
        raise MalformedError(f"{path.name} is not a mapping")
    return _File(path.name, value, dict(_lines(node)))


@lru_cache(maxsize=8)
def _read_shared(path: Path) -> _File:
    """Read a file of shared tests, once: every framework asks for it."""
    return _read(path)


def _named_tests(controls: JSONValue) -> set[JSONValue]:
    """Return the test ids that controls name; what is not in the right shape is `parse_framework`'s to refuse."""
    named: set[JSONValue] = set()
    for control in controls if isinstance(controls, list) else []:
        if isinstance(control, dict):
            for ids in (control.get("tests", []), control.get("conditional_tests", [])):
                named.update(test for test in (ids if isinstance(ids, list) else []) if isinstance(test, str))
    return named


def _joined(own: _File, shared: _File) -> Framework:
    """Return a framework of one file with the tests of another that it names."""
    own_tests, shared_tests = own.value.get("tests", []), shared.value.get("tests")
    for file, tests in ((own, own_tests), (shared, shared_tests)):
        if not isinstance(tests, list):
            raise MalformedError(f"{file.where(('tests',))}: the tests are not a list")
    assert isinstance(own_tests, list)  # that is what the loop above refuses
    assert isinstance(shared_tests, list)
    named = _named_tests(own.value.get("controls"))
    taken = {
        number: test for number, test in enumerate(shared_tests) if isinstance(test, dict) and test.get("id") in named
    }
    numbers = list(taken)

    def where(place: Place) -> str:
        match place:
            case ("tests", int() as number, *rest) if number >= len(own_tests):
                return shared.where(("tests", numbers[number - len(own_tests)], *rest))
            case _:
                return own.where(place)

    return parse_framework({**own.value, "format": FRAMEWORK_FORMAT, "tests": [*own_tests, *taken.values()]}, where)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The frameworks in a folder: each file is one, by its name.

    Attributes:
        folder: Where they are.
        tests: The file of tests that they share; it is read once.
    """

    folder: Path
    tests: Path = field(default=_FOLDER / f"{_SHARED}.yaml")

    def names(self) -> list[str]:
        """Return the names of the frameworks, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.yaml") if path.stem != _SHARED)

    def load(self, name: str) -> Framework:
        """Return a framework.

        Raises:
            EvidenceError: There is none of that name.
            MalformedError: Its file is not a sound catalogue; file, line and member are named.
        """
        if not _NAME.fullmatch(name) or name == _SHARED:
            raise EvidenceError(f"not the name of a framework: {name[:80]!a}")
        own = _read(self.folder / f"{name}.yaml")
        framework = _joined(own, _read_shared(self.tests))
        if framework.id != name:
            raise MalformedError(f"{own.where(('framework',))}: the file {own.name} holds the framework {framework.id}")
        return framework


_SHIPPED: Final = Catalogue(_FOLDER)


def framework_names() -> list[str]:
    """Return the names of the frameworks that ship with the program, sorted."""
    return _SHIPPED.names()


@lru_cache(maxsize=64)
def load_framework(name: str) -> Framework:
    """Return a framework that ships with the program; its file is read once.

    Raises:
        EvidenceError: None of that name ships.
        MalformedError: Its file is not a sound catalogue.
    """
    return _SHIPPED.load(name)


def load_frameworks(names: Sequence[str]) -> tuple[Framework, ...]:
    """Return several frameworks; see `load_framework`."""
    return tuple(load_framework(name) for name in names)


def read_crosswalk(path: Path) -> Crosswalk:
    """Return a map between the frameworks that ship.

    Raises:
        EvidenceError: It is not there, or names a framework that is not.
        MalformedError: It is not a sound map; file and line are named.
    """
    file = _read(path)
    return parse_crosswalk(file.value, load_framework, file.where)


@lru_cache(maxsize=1)
def load_crosswalk() -> Crosswalk:
    """Return the map between frameworks that ships with the program; its file is read once."""
    return read_crosswalk(_FOLDER.parent / "crosswalk.yaml")


def read_overlay(path: Path) -> tuple[JSONValue, Framework]:
    """Return an overlay's value, which is what signatures are over, and the framework that it makes of its base.

    Whose overlay it is has not been looked at; that is `evidence.overlays.verify_overlay`'s part.

    Raises:
        EvidenceError: It is not there, or its base does not ship.
        MalformedError: It is not a sound overlay; file and line are named.
    """
    file = _read(path)
    tests = _read_shared(_SHIPPED.tests).value["tests"]
    assert isinstance(tests, list)  # it ships
    shared = {str(test["id"]): test for test in tests if isinstance(test, dict)}
    if file.value.get("overlay") in framework_names():
        raise MalformedError(f"{file.where(('overlay',))}: a framework that ships has this name")
    return file.value, apply_overlay(file.value, load_framework, shared, file.where)


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
