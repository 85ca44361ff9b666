"""Which definitions of tools stand: what a server lists, against what stood before, and what people and manifests say.

Pure. Keeping and recording it is `enforcement.pins`' part.

A tool is *quarantined* if its definition is another one than stood (``changed``); if nobody knew it before and it looks
like another tool of the server (``look_alike``), was another tool of it before (``renamed``), is called like a tool of
another server (``shadows``) or speaks of one (``mentions``), holds characters that nobody sees (``invisible``); if the
server lists two under one name (``ambiguous``), or one that careful readers would not read alike (``unreadable``), or
declares a hash that is not the definition's (``hash_mismatch``); where only what is listed stands, if it is not
(``unlisted``); or if a person said no (``rejected``).

INVARIANT: a quarantine ends by a person's word about the definition that is listed now, or by a signed manifest that
names it, and by nothing else: not by the server's showing the old definition again, not by a restart, not by time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from enforcement.skeletons import hidden_characters, skeleton
from enforcement.tool_changes import introduced, outline, similarity
from enforcement.tool_definitions import Definition, read_definition, texts_of
from ledger.canonical import JSONValue
from ledger.tool_verdicts import ToolVerdict

__all__ = ["Judged", "Neighbours", "Pin", "PinMode", "Step", "judge", "settled", "standing"]

PinMode: TypeAlias = Literal["first_use", "listed"]
Step: TypeAlias = Literal["first_seen", "changed", "quarantined", "vouched", "returned", "gone"]

_Trust: TypeAlias = Literal["first_use", "approved", "manifest"]
_SIMILAR: Final = 0.7
_MAX_ALIKE: Final = 8
_MIN_MEMBERS: Final[Mapping[str, int]] = {"parameters": 1, "words": 4}
_TOKEN: Final = re.compile(r"[^\W_](?:[\w.:/-]{0,126}\w)?")
# A name that is an ordinary word is only spoken of where it stands as a name: marked as one, or called a tool.
_TELLING: Final = re.compile(r"[a-z0-9][A-Z]|[^\W_][_.:/-][^\W_]|\d")
_PARTS: Final = re.compile(r"[./:]")
_BEFORE: Final = re.compile(r"(?:[`\"'\u201c\u2018]|\btool[ \t]{1,4})\Z", re.IGNORECASE)
_AFTER: Final = re.compile(r"[`\"'\u201d\u2019]|\(\)|[ \t]{1,4}tool\b", re.IGNORECASE)
_NEAR_CHARS: Final = 12


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one tool of a server.

    Attributes:
        tool: Its name.
        state: Whether it stands.
        trust: Why: it was the ``first_use``, a person ``approved`` it, or a signed ``manifest`` names it; empty where
            no definition of it ever stood.
        digest: Of the definition that stands, or stood last; empty likewise.
        definition: That definition, canonical JSON.
        seen: Digest of the one that is listed; empty if that has none.
        seen_definition: That definition.
        reasons: Why it is quarantined, sorted.
        changes: What the listed definition brings in, sorted.
        other: The tool that it resembles or speaks of, as ``server/tool``.
        listed: The server lists it, as far as is known.
        after: The set of verdicts in force when it was quarantined: only what was said later ends it.
    """

    tool: str
    state: Literal["pinned", "quarantined"]
    trust: Literal["", "first_use", "approved", "manifest"] = ""
    digest: str = ""
    definition: str = ""
    seen: str = ""
    seen_definition: str = ""
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    other: str = ""
    listed: bool = True
    after: int = -1


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a tool.

    Attributes:
        pin: What is known of it now.
        step: What is recorded; None if nothing changed that is.
        previous: Digest of the definition before, or empty.
    """

    pin: Pin
    step: Step | None
    previous: str = ""


@dataclass(frozen=True)
class Neighbours:
    """The tools of other servers.

    Attributes:
        by_skeleton: Skeleton → ``server/tool``.
        by_name: Name, case folded → ``server/tool``.
    """

    by_skeleton: Mapping[str, str] = field(default_factory=dict)
    by_name: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tools: Iterable[tuple[str, str]]) -> Neighbours:
        """Index tools, given as pairs of server and name; of several with one name the first counts."""
        by_skeleton: dict[str, str] = {}
        by_name: dict[str, str] = {}
        for server, tool in tools:
            place = f"{server}/{tool}"
            by_skeleton.setdefault(skeleton(tool), place)
            by_name.setdefault(tool.casefold(), place)
        return cls(by_skeleton, by_name)

    def mentioned(self, text: str, own: frozenset[str] = frozenset()) -> str | None:
        """Return a tool that a text speaks of, other than those of the server itself; None if it speaks of none.

        Args:
            text: The text.
            own: Names of the server's own tools, case folded.
        """
        if not self.by_name:
            return None
        for found in _TOKEN.finditer(text):
            token = found[0].casefold()
            for name in (token, *_PARTS.split(token)) if _PARTS.search(token) else (token,):
                place = self.by_name.get(name)
                if place is not None and name not in own and (_TELLING.search(found[0]) or _marked(text, found)):
                    return place
        return None


def _marked(text: str, found: re.Match[str]) -> bool:
    """Whether a word stands in a text as a name: in quotes, as a call, or called a tool."""
    before, after = (
        text[max(0, found.start() - _NEAR_CHARS) : found.start()],
        text[found.end() : found.end() + _NEAR_CHARS],
    )
    return _BEFORE.search(before) is not None or _AFTER.match(after) is not None


def settled(pin: Pin, verdict: ToolVerdict | None) -> Pin:
    """Return a pin after what a person said: a quarantine ends if he approved the definition that is listed."""
    if pin.state != "quarantined" or verdict is None or verdict.leaf <= pin.after or not pin.seen:
        return pin
    if verdict.state != "approved" or verdict.digest != pin.seen:
        return pin
    return standing(pin, "approved")


def judge(
    mode: PinMode,
    listing: Sequence[Definition],
    pins: Mapping[str, Pin],
    *,
    whole: bool,
    manifest: Mapping[str, str],
    verdicts: Mapping[str, ToolVerdict],
    neighbours: Neighbours,
    version: int,
) -> list[Judged]:
    """Judge what a server lists.

    Args:
        mode: ``first_use`` or ``listed``.
        listing: The definitions; those without a name are no tools.
        pins: What is known of the server's tools, by name.
        whole: The listing is the server's whole list: what it lacks is gone.
        manifest: Name → digest of a signed manifest.
        verdicts: Name → what a person said last.
        neighbours: Tools of other servers.
        version: Of the set of verdicts.

    Returns:
        What is known now, of each tool of which it is something else than before.
    """
    by_name: dict[str, Definition] = {}
    twice: set[str] = set()
    for definition in listing:
        if definition.name is not None:
            first = by_name.setdefault(definition.name, definition)
            if (first.digest or first.text) != (definition.digest or definition.text):
                twice.add(definition.name)
    server = _Server(mode, by_name, pins, manifest, neighbours, version)
    found: list[Judged] = []
    for name, definition in by_name.items():
        judged = server.judge(definition, verdicts.get(name), ambiguous=name in twice)
        if judged.step is not None or judged.pin != pins.get(name):
            found.append(judged)
    if whole:
        for name, pin in pins.items():
            if pin.listed and name not in by_name:
                found.append(Judged(replace(pin, listed=False), "gone", pin.seen or pin.digest))
    return found


class _Server:
    """One listing, while it is judged."""

    def __init__(
        self,
        mode: PinMode,
        listed: Mapping[str, Definition],
        pins: Mapping[str, Pin],
        manifest: Mapping[str, str],
        neighbours: Neighbours,
        version: int,
    ) -> None:
        self._mode = mode
        self._listed = listed
        self._pins = pins
        self._manifest = manifest
        self._neighbours = neighbours
        self._version = version
        self._own = frozenset(name.casefold() for name in (*listed, *pins))
        self._skeletons: dict[str, list[str]] | None = None
        self._former: _Former | None = None

    def judge(self, definition: Definition, verdict: ToolVerdict | None, *, ambiguous: bool) -> Judged:
        """Return what becomes of one tool of the listing."""
        name = definition.name
        assert name is not None
        known = self._pins.get(name)
        seen = definition.digest or ""
        if known is not None and known.listed and known.seen == seen and seen and not ambiguous:
            same = settled(known, verdict)
            if not self._manifest_speaks(same, seen):
                return Judged(same, None, known.digest)
        pin = known or Pin(tool=name, state="quarantined")
        pin = replace(pin, seen=seen, seen_definition=definition.canonical, listed=True)
        reasons = self._unsound(definition, ambiguous=ambiguous)
        if verdict is not None and verdict.state == "rejected" and verdict.digest == seen:
            reasons.add("rejected")
        if reasons:
            return self._quarantined(pin, known, definition, reasons)
        trust = self._vouched(pin, known, verdict)
        if trust is not None:
            return _stands(pin, known, trust)
        return self._first_use(pin, definition) if known is None else self._again(pin, known, definition)

    def _vouched(self, pin: Pin, known: Pin | None, verdict: ToolVerdict | None) -> _Trust | None:
        """Return who answers for the definition that is listed: a manifest, or a person."""
        if self._manifest.get(pin.tool) == pin.seen:
            return "manifest"
        if known is not None and known.state == "pinned" and known.trust == "approved" and known.digest == pin.seen:
            return "approved"
        if verdict is None or verdict.state != "approved" or verdict.digest != pin.seen:
            return None
        return "approved" if known is None or known.state != "quarantined" or verdict.leaf > known.after else None

    def _first_use(self, pin: Pin, definition: Definition) -> Judged:
        """Judge a tool that nobody knew before."""
        if self._mode == "listed":
            return self._quarantined(pin, None, definition, self._not_in_manifest(pin))
        other, reasons = self._suspicious(definition)
        if reasons:
            return self._quarantined(replace(pin, other=other), None, definition, reasons)
        return _stands(pin, None, "first_use")

    def _again(self, pin: Pin, known: Pin, definition: Definition) -> Judged:
        """Judge a tool that is known, of which nobody says anything now."""
        if known.state == "quarantined":
            return self._quarantined(pin, known, definition, set(known.reasons))
        if self._mode == "listed":
            return self._quarantined(pin, known, definition, self._not_in_manifest(pin))
        if known.digest == pin.seen:
            return _stands(pin, known, known.trust or "first_use")
        return self._quarantined(pin, known, definition, {"changed"})

    def _not_in_manifest(self, pin: Pin) -> set[str]:
        return {"changed" if pin.tool in self._manifest else "unlisted"}

    def _manifest_speaks(self, pin: Pin, seen: str) -> bool:
        """Whether a manifest says something else of what is known than is known."""
        named = self._manifest.get(pin.tool) == seen
        if named:
            return pin.state != "pinned" or pin.trust != "manifest"
        return self._mode == "listed" and pin.state == "pinned" and pin.trust != "approved"

    def _quarantined(self, pin: Pin, known: Pin | None, definition: Definition, reasons: set[str]) -> Judged:
        before = read_definition(pin.definition).value if pin.definition else None
        changes = introduced(
            before, definition.value, lambda text: self._neighbours.mentioned(text, self._own) is not None
        )
        step: Step | None = "quarantined"
        if known is not None and known.state == "quarantined":
            same = known.seen == pin.seen and known.seen_definition == pin.seen_definition
            step = None if same and known.listed else ("returned" if same else "changed")
            after = known.after
            if not same and pin.digest:
                reasons = reasons | {"changed"}
        else:
            after = self._version
        now = replace(pin, state="quarantined", reasons=tuple(sorted(reasons)), changes=changes, after=after)
        return Judged(now, step, pin.digest)

    def _unsound(self, definition: Definition, *, ambiguous: bool) -> set[str]:
        reasons = {"ambiguous"} if ambiguous else set()
        if definition.digest is None:
            reasons.add("unreadable")
        elif definition.claims_another_hash:
            reasons.add("hash_mismatch")
        return reasons

    def _suspicious(self, definition: Definition) -> tuple[str, set[str]]:
        """Return what stands against a tool that nobody knew before, and which tool it resembles."""
        name, value = definition.name, definition.value
        assert name is not None
        assert value is not None
        other, reasons = "", set()
        unusual = not definition.canonical.isascii() or "\\u" in definition.canonical
        if unusual and any(hidden_characters(text) for text in texts_of(dict(value), names=True)):
            reasons.add("invisible")
        if (found := self._neighbours.by_skeleton.get(skeleton(name))) is not None:
            reasons.add("shadows")
            other = found
        if not other:
            for text in texts_of({key: item for key, item in value.items() if key != "name"}):
                if (spoken_of := self._neighbours.mentioned(text, self._own)) is not None:
                    reasons.add("mentions")
                    other = spoken_of
                    break
        if (twin := self._look_alike(name)) is not None:
            reasons.add("look_alike")
            other = other or f"/{twin}"
        if (former := self._renamed(definition)) is not None:
            reasons.add("renamed")
            other = other or f"/{former}"
        return other, reasons

    def _look_alike(self, name: str) -> str | None:
        if self._skeletons is None:
            self._skeletons = {}
            for tool in {**self._pins, **self._listed}:
                self._skeletons.setdefault(skeleton(tool), []).append(tool)
        alike = [tool for tool in self._skeletons[skeleton(name)] if tool != name]
        standing = [tool for tool in alike if tool in self._pins and self._pins[tool].state == "pinned"]
        if standing:
            return standing[0]
        # Where nobody was there first, plain letters are the original of what is written in others.
        if alike and name.isascii() and not any(tool.isascii() for tool in alike):
            return None
        return alike[0] if alike else None

    def _renamed(self, definition: Definition) -> str | None:
        """Return a tool that stood under another name and did the same."""
        if self._former is None:
            self._former = _Former(self._pins, self._listed)
        return self._former.of(definition)


class _Former:
    """The tools that stood, by what they do; looked up at a bounded cost, however many there are."""

    def __init__(self, pins: Mapping[str, Pin], listed: Mapping[str, Definition]) -> None:
        self._bodies: dict[str, str] = {}
        self._alike: dict[tuple[str, frozenset[object]], list[tuple[str, Mapping[str, JSONValue]]]] = {}
        for name, pin in pins.items():
            before = read_definition(pin.definition) if pin.definition and pin.state == "pinned" else None
            if before is None or before.value is None or not before.body:
                continue
            self._bodies.setdefault(before.body, name)
            if name in listed:
                continue
            for kind, members in outline(before.value):
                bucket = self._alike.setdefault((kind, members), [])
                if len(members) >= _MIN_MEMBERS[kind] and len(bucket) < _MAX_ALIKE:
                    bucket.append((name, before.value))

    def of(self, definition: Definition) -> str | None:
        if definition.value is None or not definition.body:
            return None
        if (name := self._bodies.get(definition.body)) is not None:
            return name
        for kind, members in outline(definition.value):
            for name, value in self._alike.get((kind, members), ()):
                if similarity(value, definition.value) >= _SIMILAR:
                    return name
        return None


def _stands(pin: Pin, known: Pin | None, trust: _Trust) -> Judged:
    step: Step | None = None
    if known is None:
        step = "first_seen"
    elif known.state == "quarantined" and trust == "manifest":
        step = "vouched"
    elif not known.listed:
        step = "returned"
    return Judged(standing(pin, trust), step, "" if known is None else known.digest)


def standing(pin: Pin, trust: _Trust) -> Pin:
    """Return a pin with the definition that is listed as the one that stands."""
    return replace(
        pin,
        state="pinned",
        trust=trust,
        digest=pin.seen,
        definition=pin.seen_definition,
        reasons=(),
        changes=(),
        other="",
        after=-1,
    )
