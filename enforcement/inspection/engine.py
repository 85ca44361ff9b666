"""The inspector: one text or JSON text in, findings out.

Every layer of a text is looked at in the same way: as received with its escapes undone, folded, and, where letters of
other scripts look like Latin ones, with those made Latin. What an encoding hides is a layer of its own. A whole text
meets only engines that read it once (YARA-X, RE2, translation tables); Python looks at candidates.

INVARIANT: what was not looked at is said: too long, too deep, too many, out of time make the findings incomplete.
Nothing is passed over in silence.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from enforcement.inspection import characters, encodings, folding, json_text, links, personal, secrets, terminal
from enforcement.inspection.findings import Finding, Findings, Kind
from enforcement.inspection.intent import strange_paths, verb_of
from enforcement.inspection.scanner import Hit, Rules, compile_rules, shipped_rules
from enforcement.inspection.settings import Role, Settings
from enforcement.inspection.sieve import Sieved, sieved
from enforcement.inspection.squeezed import squeezed_orders
from enforcement.inspection.tenants import Tenants
from enforcement.inspection.views import View, pieces

__all__ = ["Inspector"]

_VERSION: Final = 2
"""Counts up with every change of what a detector finds that no rule file shows."""

_LIBRARIES: Final = ("yara-x", "google-re2", "phonenumberslite", "python-stdnum")
_SEAM: Final = 256
_LONGEST_WORD: Final = 8192
_SHORT_JSON: Final = 2
_NEWLINE: Final = b"\n"
_Span = tuple[Kind, str, int, int]
_Detector = Callable[[bytes], Iterable[tuple[str, int, int]]]


class Inspector:
    """Finds what settings and rules say. Threads may share one; it keeps nothing of what it saw."""

    def __init__(self, settings: Settings | None = None, extra_rules: Mapping[str, bytes] | None = None) -> None:
        """Compile the rules.

        Args:
            settings: What is looked for.
            extra_rules: An operator's rule files, name → text; see `scanner.read_folder`.

        Raises:
            ConfigError: A rule or pattern is wrong; the message names its file.
        """
        self.settings = settings or Settings()
        limits = self.settings.limits
        self._rules, sources = compile_rules(
            [shipped_rules(), extra_rules or {}], limit=limits.max_candidates, seconds=limits.scan_seconds
        )
        self._tenants = Tenants(self.settings)
        self.digest = _digest(self.settings, sources)
        """SHA-256 over rules, settings, thresholds and the versions of the libraries: what stands in records."""

    def text(self, text: str, *, role: Role | None = None) -> Findings:
        """Inspect a text; spans are characters, places are lines."""
        data = text.encode(errors="replace")
        run = self._run(data, role)
        return run.of_text(text if text.isascii() else data.decode())

    def json(self, data: bytes, *, role: Role | None = None, tool: str = "") -> Findings:
        """Inspect a JSON text; spans are bytes, places are pointers. What is no JSON is inspected as a text of bytes.

        Args:
            data: As received.
            role: What the agent that sent it is there for; without one nothing is off it.
            tool: Name of the tool that is called with it, if any.
        """
        if not json_text.is_json(data):
            return self._run(data, role, tool=tool).of_bytes()
        limits = self.settings.limits
        bombs: list[_Span] = []
        whole = data[: limits.max_bytes]
        if json_text.exceeds_depth(whole, limits.max_depth):
            bombs.append(("bomb", "depth", 0, len(whole)))
        if whole.count(b",") + whole.count(b"[") + whole.count(b"{") > limits.max_nodes:
            bombs.append(("bomb", "nodes", 0, len(whole)))
        run = self._run(data, role, tool=tool, is_json=True)
        run.spans += bombs
        run.complete = run.complete and not bombs
        return run.of_json()

    def _run(self, data: bytes, role: Role | None, *, tool: str = "", is_json: bool = False) -> _Run:
        run = _Run(self.settings, self._rules, self._tenants, data[: self.settings.limits.max_bytes], role)
        run.complete = len(run.data) == len(data)
        run.inspect(is_json=is_json)
        verb = verb_of(tool)
        if role is not None and role.verbs and verb and verb not in role.verbs and "intent" in self.settings.kinds:
            run.spans.append(("intent", f"verb.{verb}", 0, 0))
        return run


def _digest(settings: Settings, sources: str) -> str:
    def plain(value: object) -> object:
        return sorted(value) if isinstance(value, frozenset) else str(value)

    said = {
        "version": _VERSION,
        "rules": sources,
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "settings": dataclasses.asdict(settings),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=plain).encode()).hexdigest()


class _Run:
    """One inspection, under way."""

    def __init__(
        self, settings: Settings, rules: Mapping[str, Sequence[Rules]], tenants: Tenants, data: bytes, role: Role | None
    ) -> None:
        self.data = data
        self.spans: list[_Span] = []
        self.complete = True
        self._settings = settings
        self._kinds = settings.kinds
        self._limits = settings.limits
        self._rules = rules
        self._tenants = tenants
        self._role = role
        self._budget = settings.limits.max_decoded
        self._seamed: View | None = None

    # --- looking

    def inspect(self, *, is_json: bool) -> None:
        received = View(self.data)
        first = json_text.unescaped(received) if is_json else received
        self._bombs(first, is_json=is_json)
        waiting = [first]
        if is_json:
            seams = self._seams()
            if seams is not None:
                self._seamed = seams if seams.parent is None or seams.parent.parent is None else seams.parent
                waiting.append(seams)
        while waiting:
            view = waiting.pop(0)
            where = sieved(view.data)
            self._look(view, where)
            deeper = encodings.opened(view, self._limits, self._settings.thresholds.compression, self._budget, where)
            self._budget -= deeper.spent
            self.complete = self.complete and deeper.complete
            self.spans += [("bomb", rule, *view.origin(start, end)) for rule, start, end in deeper.bombs]
            waiting += deeper.views

    def _bombs(self, view: View, *, is_json: bool) -> None:
        data, most = view.data, self._limits.max_line
        if len(data) <= most:
            return
        sign = b'"' if is_json else _NEWLINE
        start = 0
        while len(data) - start > most:
            last = data.rfind(sign, start, start + most + 1)
            if last >= 0:  # all up to it is in lines that are short enough
                start = last + 1
                continue
            end = data.find(sign, start)
            end = len(data) if end < 0 else end
            self.spans.append(("bomb", "long_string" if is_json else "long_line", *view.origin(start, end)))
            start = end + 1

    def _seams(self) -> View | None:
        """Return where pieces of a text that a reader puts behind one another meet; None if there are none."""
        values = json_text.text_values(self.data)
        if len(values) < _SHORT_JSON:
            return None
        parts: list[tuple[int, int, bytes]] = []
        for start, end in values:
            head, tail = _reach(self.data, start, end)
            if head >= tail:
                parts.append((start, end, self.data[start:end]))
                continue
            # Of a long one the middle touches no other.
            parts.append((start, head, self.data[start:head]))
            parts.append((head, head, b"\n\n"))
            parts.append((tail, end, self.data[tail:end]))
        return json_text.unescaped(pieces(View(self.data), parts, layers=0, between=b""))

    def _look(self, view: View, where: Sieved) -> None:
        data = view.data
        thresholds = self._settings.thresholds
        text_hits = self._scan("text", data)
        self._take_hits(view, text_hits)
        detectors: tuple[tuple[Kind, _Detector], ...] = (
            ("secret", lambda found: secrets.named_secrets(found, thresholds, where.within("named"))),
            ("personal", lambda found: self._personal(found, where)),
            ("tenant", self._tenants.found),
            ("exfiltration", lambda found: links.carrying_links(found, thresholds) if where.has("link") else ()),
            ("ansi", lambda found: terminal.control_sequences(found) if where.has("control") else ()),
        )
        for kind, detect in detectors:
            if kind in self._kinds:
                self._take(view, kind, detect(data))
        if self._role is not None and "intent" in self._kinds and "filesystem" not in self._role.topics:
            self._take(view, "intent", strange_paths(data, self._role))
        if "unicode" in self._kinds and not data.isascii():
            self._characters(view, where)
        self._folded(view, where)

    def _personal(self, data: bytes, where: Sieved) -> Iterator[tuple[str, int, int]]:
        return personal.personal_data(
            data,
            regions=self._settings.regions,
            public_only=self._settings.public_addresses_only,
            most=self._limits.max_candidates,
            sieved=where,
        )

    def _characters(self, view: View, where: Sieved) -> None:
        hides, mixes = where.has("hiding"), where.has("mixing")
        if not hides and not mixes:
            return
        text = view.data.decode(errors="replace")
        found = list(characters.odd_characters(text, self._settings.thresholds)) if hides else []
        found += characters.odd_words(text) if mixes else ()
        offsets = _byte_offsets(text, [place for _, start, end in found for place in (start, end)])
        self._take(view, "unicode", ((rule, offsets[start], offsets[end]) for rule, start, end in found))

    def _folded(self, view: View, where: Sieved) -> None:
        if not self._kinds & {"injection", "exfiltration", "intent"}:
            return
        folded = folding.fold(view)
        readings = [folded]
        if (
            where.has("mixing")
            and not view.data.isascii()
            and any(characters.odd_words(view.data.decode(errors="replace")))
        ):
            readings.append(folding.skeleton(folded))
        backwards, moved = encodings.reversed_or_moved(view, where)
        if moved:
            readings.append(folding.rot13(folding.fold(view)))
        if backwards:
            readings.append(View(folded.data[::-1], folded, layers=view.layers, mirrored=True))
        for reading in readings:
            self._take_hits(reading, self._scan("folded", reading.data))
            if self._role is not None:
                self._take_hits(reading, self._scan("asked", reading.data))
        if "injection" in self._kinds:
            self._take(folded, "injection", squeezed_orders(folded.data))

    # --- taking down

    def _scan(self, view: str, data: bytes) -> list[Hit]:
        try:
            return [hit for rules in self._rules.get(view, ()) for hit in rules.scan(data)]
        except TimeoutError:
            self.complete = False
            return []

    def _take_hits(self, view: View, hits: Sequence[Hit]) -> None:
        for hit in hits:
            if hit.kind not in self._kinds:
                continue
            rule = hit.rule
            if hit.kind == "intent":
                if self._role is None or hit.topic in self._role.topics:
                    continue
                rule = hit.topic
            elif hit.kind == "secret" and not secrets.plausible(view.data[hit.start : hit.end]):
                continue
            self._add(view, hit.kind, rule, hit.start, hit.end)

    def _take(self, view: View, kind: Kind, found: Iterable[tuple[str, int, int]]) -> None:
        most = self._limits.max_candidates
        candidates = iter(found)
        for rule, start, end in islice(candidates, most):
            self._add(view, kind, rule, start, end)
        if next(candidates, None) is not None:
            self.complete = False

    def _add(self, view: View, kind: Kind, rule: str, start: int, end: int) -> None:
        for first, last in self._seam_parts(view, start, end):
            self.spans.append((kind, rule, *view.origin(first, last)))

    def _seam_parts(self, view: View, start: int, end: int) -> Iterable[tuple[int, int]]:
        """Return a span of a view, cut where it reaches over a seam: between the two stands what was not found."""
        if self._seamed is not None:
            inner = view
            while inner is not self._seamed and inner.parent is not None and not inner.edits and not inner.mirrored:
                inner = inner.parent
            if inner is self._seamed:
                return inner.parts(start, end) if inner is view or not view.edits else ((start, end),)
        return ((start, end),)

    # --- telling

    def _sorted(self) -> list[_Span]:
        """Return the spans, in order; of those of one rule that touch each other, the whole."""
        merged: dict[tuple[Kind, str], list[tuple[int, int]]] = {}
        for kind, rule, start, end in sorted(self.spans, key=lambda span: span[2:]):
            kept = merged.setdefault((kind, rule), [])
            if kept and start < kept[-1][1]:
                kept[-1] = (kept[-1][0], max(kept[-1][1], end))
            else:
                kept.append((start, end))
        spans = [(kind, rule, start, end) for (kind, rule), kept in merged.items() for start, end in kept]
        return sorted(spans, key=lambda span: (span[2], span[3], span[0], span[1]))

    def _told(self, spans: Sequence[_Span], findings: Iterable[Finding]) -> Findings:
        most = self._limits.max_findings
        found = tuple(islice(findings, most + 1))
        # One that reaches over several values is told once for each: there can be more findings than spans.
        kept, count = found[:most], max(len(spans), len(found))
        if count > most:
            kept = (*kept, Finding("bomb", "findings", "", 0, 0))
            count += 1
            self.complete = False
        return Findings(kept, self.complete, count)

    def of_text(self, text: str) -> Findings:
        spans = self._sorted()
        told = self._kept(spans)
        offsets = _character_offsets(self.data, [place for _, _, start, end in told for place in (start, end)])
        lines = _lines(self.data, [start for _, _, start, _ in told])
        del text
        return self._told(
            spans,
            (
                Finding(kind, rule, f"line {line}", offsets[start], offsets[end])
                for (kind, rule, start, end), line in zip(told, lines, strict=True)
            ),
        )

    def of_bytes(self) -> Findings:
        spans = self._sorted()
        told = self._kept(spans)
        lines = _lines(self.data, [start for _, _, start, _ in told])
        return self._told(
            spans,
            (
                Finding(kind, rule, f"line {line}", start, end)
                for (kind, rule, start, end), line in zip(told, lines, strict=True)
            ),
        )

    def of_json(self) -> Findings:
        spans = self._sorted()
        told = self._kept(spans)
        # A bomb is the whole text: to look for its place would be to walk through it.
        placed = iter(json_text.spots(self.data, [(start, end) for kind, _, start, end in told if kind != "bomb"]))
        findings: list[Finding] = []
        for kind, rule, start, end in told:
            spots = [] if kind == "bomb" else next(placed)
            if not spots:
                findings.append(Finding(kind, rule, "", start, end))
            else:
                # Names and punctuation between two values are not what was found in them.
                values = [spot for spot in spots if not spot.is_name] or spots
                findings += [Finding(kind, rule, spot.place, spot.start, spot.end) for spot in values]
        return self._told(spans, findings)

    def _kept(self, spans: list[_Span]) -> list[_Span]:
        return spans[: self._limits.max_findings]


def _reach(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return up to where a text goes on what stands before it, and from where on it may go on in what stands behind.

    That is its first and its last word, and as much beyond as a rule looks around one. What is long and split is one
    word, such as a token; of a key in armour only the lines above and below it have spaces.
    """
    head = data.find(b" ", start, min(end, start + _LONGEST_WORD))
    tail = data.rfind(b" ", max(start, end - _LONGEST_WORD), end)
    head = start + _LONGEST_WORD if head < 0 else head
    tail = end - _LONGEST_WORD if tail < 0 else tail
    return min(end, head + _SEAM), max(start, tail - _SEAM)


def _lines(data: bytes, offsets: Sequence[int]) -> list[int]:
    lines: list[int] = []
    line, done = 1, 0
    for offset in offsets:
        line += data.count(_NEWLINE, done, offset)
        done = offset
        lines.append(line)
    return lines


def _byte_offsets(text: str, places: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    offset = done = 0
    for place in sorted(set(places)):
        offset += len(text[done:place].encode(errors="replace"))
        found[place], done = offset, place
    return found


def _character_offsets(data: bytes, places: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    offset = done = 0
    for place in sorted(set(places)):
        offset += len(data[done:place].decode(errors="replace"))
        found[place], done = offset, place
    return found
