"""Rules in YARA's language: read, compiled within limits, and matched against bytes.

Not pure: reads rule files. A scanner belongs to the thread that made it, so each thread keeps its own for the rules
it scans with, a few at most.

Every rule says by its metadata what a match is::

    rule override_en { meta: kind = "injection" view = "folded" strings: $a = /…/ condition: $a }

``kind`` is one of the kinds of findings, ``view`` is ``text`` (as received, escapes undone) or ``folded`` (lower
case, plain letters; see `folding`), ``topic`` what a rule of kind ``intent`` tells. The rule's own name is the
finding's; every match of its patterns is a finding, but for patterns whose name starts with ``$_``, which are for
conditions only. So are rules whose name starts with ``_``.

A file may say where a match can be at all: a rule named ``_near…`` whose metadata ``near…`` are patterns in RE2's
syntax. Its rules then look only around what these match, which is what makes many of them cheap on a text that has
nothing::

    rule _near { meta: view = "folded" near = "ignor|disregard" condition: false }

What several files name so is looked for at once, and all their rules look around all of it; with ``apart = true`` those
of this file look around what it names itself.

Source: https://virustotal.github.io/yara-x/docs/
"""

from __future__ import annotations

import hashlib
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final

import yara_x

from enforcement.inspection.findings import KINDS, Kind
from enforcement.inspection.patterns import Pattern, linear
from enforcement.inspection.settings import TOPICS
from ledger.errors import ConfigError

__all__ = ["Hit", "Rules", "compile_rules", "read_folder", "shipped_rules"]

_MOST_FILES: Final = 200
_LONGEST_FILE_BYTES: Final = 1 << 20
_MOST_RULES: Final = 5_000
_KEPT_SCANNERS: Final = 12
_SMALL_BYTES: Final = 2_048
_AROUND_BYTES, _BEHIND_BYTES = 256, 640
_LONGEST_BYTES: Final = 20_000
_LONGEST_MATCH_BYTES: Final = 4_000
"""The engine ends its matches soon behind; what goes on is no less a part of it."""
_MOST_LONG: Final = 64
_BETWEEN: Final = b"\n\n\n"
_WORD: Final = re.compile(rb"[A-Za-z0-9+/=._~%-]*")
_VIEWS: Final = ("text", "folded", "asked")
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
        near: Where they look; None: everywhere.
    """

    compiled: yara_x.Rules
    limit: int
    seconds: int
    near: Pattern | None = None

    def scan(self, data: bytes) -> Iterator[Hit]:
        """Yield the matches in bytes, pattern by pattern.

        Raises:
            TimeoutError: It took too long.
        """
        if self.near is None or len(data) <= _SMALL_BYTES:
            yield from self._hits(data)
            return
        windows = _windows(self.near, data)
        if not windows:
            return
        starts: list[int] = []  # of each window in what is scanned
        length = longer = 0
        for start, end in windows:
            starts.append(length)
            length += end - start + len(_BETWEEN)
        for hit in self._hits(_BETWEEN.join([data[start:end] for start, end in windows])):
            number = bisect_right(starts, hit.start) - 1
            moved = windows[number][0] - starts[number]
            start, end = hit.start + moved, min(hit.end + moved, windows[number][1])
            if end == windows[number][1] < len(data) and longer < _MOST_LONG:
                # A key's lines may go on behind the window.
                longer += 1
                again = self._hits(data[start : start + _LONGEST_BYTES])
                end = max((start + one.end for one in again if one.rule == hit.rule and not one.start), default=end)
            yield replace(hit, start=start, end=end)

    def _hits(self, data: bytes) -> Iterator[Hit]:
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
                    end = match.offset + match.length
                    if match.length >= _LONGEST_MATCH_BYTES:
                        end = _end_of_word(data, end)
                    yield Hit(meta["kind"], rule.identifier, meta.get("topic", ""), match.offset, end)


def _windows(near: Pattern, data: bytes) -> list[tuple[int, int]]:
    """Return the stretches around what a pattern matches, those that touch put together.

    None ends within a word that could still be a part of a match: a token can be much longer than what is looked at
    behind its beginning, and without its end it is none.
    """
    found: list[tuple[int, int]] = []
    for match in near.finditer(data):
        start, end = match.span()
        start, end = max(0, start - _AROUND_BYTES), min(len(data), end + _BEHIND_BYTES)
        if found and end <= found[-1][1]:
            continue
        end = _end_of_word(data, end)
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _end_of_word(data: bytes, place: int) -> int:
    word = _WORD.match(data, place, place + _LONGEST_BYTES)
    return place if word is None else word.end()


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


def compile_rules(
    sources: Sequence[Mapping[str, bytes]], *, limit: int, seconds: int
) -> tuple[dict[str, list[Rules]], str]:
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
    groups: dict[tuple[str, str], list[tuple[str, bytes, str]]] = {}
    nears: dict[tuple[str, str], list[str]] = {}
    names: dict[str, str] = {}
    digest = hashlib.sha256()
    for number, files in enumerate(sources):
        for name, text in files.items():
            digest.update(f"{number}/{name}:{len(text)}\n".encode() + text)
            view, rules, near, apart = _read(name, text)
            for rule in rules:
                if rule in names:
                    raise ConfigError(f"{name}: rule {rule} stands in {names[rule]} too")
                names[rule] = name
            group = (view, f"{number}/{name}" if apart else "near" if near else "")
            groups.setdefault(group, []).append((f"n{number}_{len(names)}", text, name))
            nears.setdefault(group, []).extend(near)
    if len(names) > _MOST_RULES:
        raise ConfigError(f"{len(names)} rules; at most {_MOST_RULES} are compiled")
    made: dict[str, list[Rules]] = {}
    for group, texts in groups.items():
        compiler = yara_x.Compiler()
        for namespace, text, name in texts:
            compiler.new_namespace(namespace)
            compiler.add_source(text.decode(), origin=name)
        near_pattern = linear("|".join(f"(?:{part})" for part in nears[group]).encode()) if nears[group] else None
        made.setdefault(group[0], []).append(Rules(compiler.build(), limit, seconds, near_pattern))
    return made, digest.hexdigest()


def _read(name: str, text: bytes) -> tuple[str, list[str], list[str], bool]:
    """Return a file's view, the names of its rules, where they look, and whether apart from those of other files.

    A file's rules all have the same view.

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
    near: list[str] = []
    apart = False
    for rule in compiled:
        if rule.identifier.startswith("_near"):
            near += _near(name, rule)
            apart = apart or ("apart", True) in rule.metadata
        elif not rule.identifier.startswith("_"):  # a helper of others tells nothing itself
            found.setdefault(_view_of(name, rule), []).append(rule.identifier)
    if not found:
        raise ConfigError(f"{name}: holds no rule")
    if len(found) > 1:
        raise ConfigError(f"{name}: its rules are for one view; put the others into another file")
    ((view, rules),) = found.items()
    return view, rules, near, apart and bool(near)


def _near(name: str, rule: yara_x.Rule) -> list[str]:
    # A text with escapes comes as bytes.
    parts = [
        value.decode() if isinstance(value, bytes) else str(value)
        for key, value in rule.metadata
        if key.startswith("near")
    ]
    for part in parts:
        try:
            pattern = linear(part.encode())
        except ConfigError as error:
            raise ConfigError(f"{name}: rule {rule.identifier}: {error}") from None
        if pattern.matches(b""):
            raise ConfigError(f"{name}: rule {rule.identifier}: its pattern matches an empty text, which is everywhere")
    return parts


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
