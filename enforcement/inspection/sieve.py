"""What a text can have at all: one pass over the whole that proves for most detectors that they have nothing to find.

Pure. Each detector has a *core* here: a short pattern that every match of it holds. All cores are one automaton, so
that a clean text is read once and not by one detector after the other. Where a core is, its detector looks itself:
only there, if it never reaches over the end of a line; everywhere, if it may.

INVARIANT: what a detector finds is the same with the sieve and without: a core is part of every match, and no match of
a detector that looks line by line has a line's end in it. `tests/property/test_sieve.py` holds both ways together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from enforcement.inspection.characters import HIDING, MIXING
from enforcement.inspection.patterns import Several, Stretches

__all__ = ["BACKWARDS", "EVERYWHERE", "MOVED", "Sieved", "sieved"]

MOVED: Final = rb"(?i)vtaber|qvfertneq|vafgehpgvba|flfgrz cebzcg|cerivbhf|sbetrg|cnffjbeq|hfre"
"""Words that are moved by thirteen letters."""
BACKWARDS: Final = rb"(?i)erongi|dragersid|snoitcurtsni|tpmorp|suoiverp|tegrof|drowssap"
"""Words that are written backwards."""

_BLOCK_BYTES: Final = 2_048
_NEWLINE: Final = b"\n"

# Their matches have no line's end in them. A core has one only at its own end: a text is cut behind it.
_BY_LINE: Final[dict[str, bytes]] = {
    # A mailbox; an IBAN; an international number; an address; digits as identifiers and cards have them.
    "personal": (
        rb"(?i)[a-z0-9_+-]@[a-z0-9]|\b[a-z]{2}[0-9]{2} ?[a-z0-9]{4}|\+[1-9]|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}[.-][0-9]"
        rb"|\b756\.[0-9]{4}\.|[0-9a-f]:[0-9a-f]{0,4}:[0-9a-f]{0,4}:|\b[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{6}[-+a]"
        rb"|[0-9]{3} ?[0-9]{3} ?[0-9]{2}|[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{3}|[0-9]{4}[ -][0-9]{6}"
        rb"|[0-9]{2}[a-z][0-9]{2}[a-z][0-9]{3}"
    ),
    "number": (
        rb"(?i)\b(?:(?:ssn|social security|tax (?:id|number)|tax file number|tfn|itin|dni|nie|nif|bsn"
        rb"|burgerservicenummer|cpf|pesel|aadhaar|aadhar|pan|nhs|national insurance|nino|ni number|idnr|tc kimlik"
        rb"|t\.?c\.? ?no|sin|social insurance|codice fiscale|personnummer|cpr|passport|passeport|pasaporte|phone"
        rb"|tel(?:ephone|efon(?:o|e|nummer)?)?|mobile|cell(?: ?phone)?|handy(?:nummer)?|rufnummer|whatsapp|fax"
        rb"|sort code|medicare)[\"'_ .:#=()-]{1,8}[+(]?[0-9a-z]"
        rb"|steuer-?id|num(?:e|\xc3\xa9)ro de s|rijksreg|f(?:o|\xc3\xb8)dselsn|reisepass|driver'?s? licen|call me [ao]"
        rb"|t(?:e|\xc3\xa9)l(?:e|\xc3\xa9)ph|t\xc3\xa9l[^a-z]|account n|patient [in])"
    ),
    "birth": (
        rb"(?i)\b(?:d\.?o\.?b|date[ _-]?of|birth|born|geb|date de|n(?:e|\xc3\xa9)e? ?le|fecha|nacid[oa] el"
        rb"|data[ _]di|nat[oa] il|data[ _]de|geboorted|urodzon|data urod|\xd0\xb4\xd0\xb0\xd1\x82\xd0\xb0 )"
    ),
    "named": (
        rb"(?i)(?:passw|passphrase|pwd|contrase(?:n|\xc3\xb1)a|mot[_ ]de[_ ]passe|secret|token|credential"
        rb"|(?:api|access|private|auth|encryption|signing)[_-]?key)[a-z_-]{0,24}[\"'\]]?"
        rb"(?:[ \t]*[=:]|[ \t]+(?:is|lautet|es|est)[ \t:])"
    ),
    "percent": rb"%[0-9A-Fa-f]{2}",
    "reference": rb"&(?:#[0-9xX]|[a-zA-Z]{2,8};)",
    "backslash": rb"\\[xuU0-7]",
}
_ANYWHERE: Final[dict[str, bytes]] = {
    "link": (
        rb"(?i)!\[|<(?:img|iframe|video|audio|source|embed|object|link|script|input)\b|url\("
        rb"|\](?:\(|:\s)\s{0,4}<?https?:|\](?:\(|:)\s{0,3}\n"
    ),
    "control": (
        rb"[\x00-\x08\x0e-\x1f\x7f]|\xc2[\x80-\x84\x86-\x9f]|[^\r\n]\r[^\r\n]|\\(?:x1[bB]|033|u001[bB]|e)[\[\]]"
    ),
    "moved": MOVED,
    "backwards": BACKWARDS,
    "hiding": HIDING,
    "mixing": MIXING,
}
_NAMES: Final = (*_BY_LINE, *_ANYWHERE)
_CORES: Final = Several([*_BY_LINE.values(), *_ANYWHERE.values()])


@dataclass(frozen=True, slots=True)
class Sieved:
    """Where detectors have to look.

    Attributes:
        stretches: By detector; those that are not named find nothing. None: everywhere.
    """

    stretches: dict[str, list[tuple[int, int]]] | None

    def has(self, detector: str) -> bool:
        """Whether a detector may find something."""
        return self.stretches is None or detector in self.stretches

    def within(self, detector: str) -> Stretches | None:
        """Return where a detector that looks line by line may find something; None: everywhere."""
        return None if self.stretches is None else self.stretches.get(detector, ())


EVERYWHERE: Final = Sieved(None)
"""No text was looked at: everything may be everywhere."""


def sieved(data: bytes, block_bytes: int = _BLOCK_BYTES) -> Sieved:
    """Look through a text once.

    Args:
        data: The text.
        block_bytes: How finely it is told where something is; a line is never cut.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for start, end in _blocks(data, block_bytes):
        for number in _CORES.which(data if end - start == len(data) else data[start:end]):
            stretches = found.setdefault(_NAMES[number], [])
            if stretches and stretches[-1][1] == start:
                stretches[-1] = (stretches[-1][0], end)
            else:
                stretches.append((start, end))
    return Sieved(found)


def _blocks(data: bytes, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the text in parts of whole lines."""
    start = 0
    while start < len(data):
        end = data.find(_NEWLINE, start + block_bytes) + 1 or len(data)
        yield start, end
        start = end
