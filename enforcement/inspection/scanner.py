"""Rules in YARA's language: read, compiled within limits, and matched against bytes.

Not pure: reads rule files. A scanner belongs to the thread that made it, so each thread keeps its own for the rules
it scans with, a few at most.

Every rule says by its metadata what a match is::

    rule override_en { meta: kind = "injection" view = "folded" strings: $a = /…/ condition: $a }

``kind`` is one of the kinds of findings, ``view`` is ``text`` (as received, escapes undone) or ``folded`` (lower
case, plain letters; see `folding`), ``topic`` what a rule of kind ``intent`` tells. The rule's own name is the
finding's; every match of its patterns is a finding, but for patterns whose name starts with ``$_``, which are for
conditions only. So are rules whose name starts with ``_``.

Source: https://virustotal.github.io/yara-x/docs/
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import yara_x

from enforcement.inspection.findings import KINDS, Kind
from enforcement.inspection.settings import TOPICS
from ledger.errors import ConfigError

__all__ = ["Hit", "Rules", "compile_rules", "read_folder", "shipped_rules"]

_MOST_FILES: Final = 200
_LONGEST_FILE_BYTES: Final = 1 << 20
_MOST_RULES: Final = 5_000
_KEPT_SCANNERS: Final = 12
_VIEWS: Final = ("text", "folded")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Hit:
    """One match of a pattern.

    Attributes:
        kind: Of the rule.
        rule: The rule's name.
        topic: What a rule of kind ``intent`` tells; else empty.
        start: First byte.
        end: After the last byte.
    """

    kind: Kind
    rule: str
    topic: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Compiled rules of one view.

    Attributes:
        compiled: YARA-X's own.
        limit: Matches of one pattern that are told.
        seconds: Time for one scan.
    """

    compiled: yara_x.Rules
    limit: int
    seconds: int

    def scan(self, data: bytes) -> Iterator[Hit]:
        """Yield the matches in bytes, pattern by pattern.

        Raises:
            TimeoutError: It took too long.
        """
        try:
            results = _scanner(self).scan(data)
        except yara_x.TimeoutError:
            raise TimeoutError("the scan by rules took too long") from None
        for rule in results.matching_rules:
            if rule.identifier.startswith("_"):
                continue
            meta = dict(rule.metadata)
            for pattern in rule.patterns:
                if pattern.identifier.startswith("$_"):
                    continue
                for match in pattern.matches:
                    yield Hit(
                        meta["kind"],
                        rule.identifier,
                        meta.get("topic", ""),
                        match.offset,
                        match.offset + match.length,
                    )


class _Scanners(threading.local):
    """What this thread scans with. Nobody else may even let go of it."""

    def __init__(self) -> None:
        self.kept: OrderedDict[int, tuple[Rules, yara_x.Scanner]] = OrderedDict()


_SCANNERS: Final = _Scanners()


def _scanner(rules: Rules) -> yara_x.Scanner:
    kept = _SCANNERS.kept
    entry = kept.get(id(rules))
    if entry is None:
        scanner = yara_x.Scanner(rules.compiled)
        scanner.set_timeout(rules.seconds)
        scanner.max_matches_per_pattern(rules.limit)
        entry = kept[id(rules)] = (rules, scanner)  # the rules are kept too: their id stays theirs
        if len(kept) > _KEPT_SCANNERS:
            kept.popitem(last=False)
    kept.move_to_end(id(rules))
    return entry[1]


def shipped_rules() -> dict[str, bytes]:
    """Return the rules that come with this package, by the names of their files."""
    folder = resources.files("enforcement.inspection") / "rules"
    return {
        place.name: place.read_bytes()
        for place in sorted(folder.iterdir(), key=lambda place: place.name)
        if place.name.endswith(".yar")
    }


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return an operator's rules, by the names of their files: every ``*.yar`` and ``*.yara`` of a folder.

    Raises:
        ConfigError: It cannot be read, or holds too much.
    """
    try:
        places = sorted(place for place in folder.iterdir() if place.suffix in (".yar", ".yara"))
        if len(places) > _MOST_FILES:
            raise ConfigError(f"{folder}: {len(places)} rule files; at most {_MOST_FILES} are read")
        for place in places:
            if place.stat().st_size > _LONGEST_FILE_BYTES:
                raise ConfigError(f"{place}: longer than {_LONGEST_FILE_BYTES:,} bytes")
        return {place.name: place.read_bytes() for place in places}
    except OSError as error:
        raise ConfigError(f"{folder}: the rules cannot be read: {error.strerror}") from error


def compile_rules(sources: Sequence[Mapping[str, bytes]], *, limit: int, seconds: int) -> tuple[dict[str, Rules], str]:
    """Compile rules, each file for itself first, so that a bad rule is told with its file.

    Args:
        sources: File name → text; each mapping has names of its own.
        limit: Matches of one pattern that are told.
        seconds: Time for one scan.

    Returns:
        Rules by view, only those views that have any; and the SHA-256 of all sources, names and texts.

    Raises:
        ConfigError: A rule cannot be compiled, lacks its kind or view, or there are too many.
    """
    compilers = {view: yara_x.Compiler() for view in _VIEWS}
    used: set[str] = set()
    names: dict[str, str] = {}
    digest = hashlib.sha256()
    for number, files in enumerate(sources):
        for name, text in files.items():
            digest.update(f"{number}/{name}:{len(text)}\n".encode() + text)
            for view, rules in _by_view(name, text).items():
                for rule in rules:
                    if rule in names:
                        raise ConfigError(f"{name}: rule {rule} stands in {names[rule]} too")
                    names[rule] = name
                compilers[view].new_namespace(f"n{number}_{hashlib.sha256(name.encode()).hexdigest()[:16]}")
                compilers[view].add_source(text.decode(), origin=name)
                used.add(view)
    if len(names) > _MOST_RULES:
        raise ConfigError(f"{len(names)} rules; at most {_MOST_RULES} are compiled")
    return {view: Rules(compilers[view].build(), limit, seconds) for view in _VIEWS if view in used}, digest.hexdigest()


def _by_view(name: str, text: bytes) -> dict[str, list[str]]:
    """Return the rules of a file by view; a file's rules all have the same.

    Raises:
        ConfigError: It has none, cannot be compiled, or a rule lacks something.
    """
    compiler = yara_x.Compiler()
    compiler.enable_includes(False)  # noqa: FBT003  # the library's signature
    try:
        compiler.add_source(text.decode(), origin=name)
        compiled = compiler.build()
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is not UTF-8") from None
    except yara_x.CompileError as error:
        raise ConfigError(f"{name}: {_one_line(str(error))}") from None
    found: dict[str, list[str]] = {}
    for rule in compiled:
        if not rule.identifier.startswith("_"):  # a helper of others tells nothing itself
            found.setdefault(_view_of(name, rule), []).append(rule.identifier)
    if not found:
        raise ConfigError(f"{name}: holds no rule")
    if len(found) > 1:
        raise ConfigError(f"{name}: its rules are for one view, text or folded; put the others into another file")
    return found


def _view_of(name: str, rule: yara_x.Rule) -> str:
    """Return the view that a rule is for.

    Raises:
        ConfigError: It says something else than it may about itself.
    """
    meta = {str(key): str(value) for key, value in rule.metadata}
    said = f"{name}: rule {rule.identifier}"
    if not _NAME.fullmatch(rule.identifier):
        raise ConfigError(f"{said}: its name has at most 64 characters")
    if meta.get("kind") not in KINDS:
        raise ConfigError(f"{said}: meta kind is one of {', '.join(KINDS)}")
    if meta["kind"] == "intent" and meta.get("topic") not in TOPICS:
        raise ConfigError(f"{said}: meta topic is one of {', '.join(TOPICS)}")
    view = meta.get("view", "text")
    if view not in _VIEWS:
        raise ConfigError(f"{said}: meta view is one of {', '.join(_VIEWS)}")
    return view


def _one_line(text: str) -> str:
    """Return what a compiler says in one line: its first, and where."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    place = next((line.removeprefix("--> ") for line in lines if line.startswith("-->")), "")
    return f"{lines[0]} ({place})" if place else lines[0]
