"""Images and links that carry data to whoever serves them, by the shape of their addresses.

Pure. An image is fetched without a click, so its address is looked at more strictly than a link's. A badge, a chart
or a signed download has parameters too: what counts is a piece that is opaque, or named for what it carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from enforcement.inspection.patterns import linear
from enforcement.inspection.secrets import entropy
from enforcement.inspection.settings import Thresholds

__all__ = ["carrying_links"]

_LINK: Final = linear(
    rb"(?i)(?P<image>!\[[^\]\n]{0,200}\][(\[]?\s{0,4}<?(?P<a>https?://[^\s)>\"']+))"
    rb"|(?P<link>\[[^\]\n]{0,200}\]\(\s{0,4}<?(?P<b>https?://[^\s)>\"']+))"
    rb"|(?P<html><(?:img|iframe|video|audio|source|embed|object|link|script|input)\b[^>]{0,300}?(?:src|href"
    rb"|data|srcset)\s{0,3}=\s{0,3}[\"']?(?P<c>https?://[^\s\"'>]+))"
    rb"|(?P<style>url\(\s{0,3}[\"']?(?P<d>https?://[^\s)\"']+))"
    rb"|(?P<reference>\n\[[^\]\n]{1,60}\]:\s{1,4}<?(?P<e>https?://[^\s>]+))"
)
_CARRIER: Final = re.compile(
    r"^(?:d|data|q|leak|exfil|secret|token|key|api_?key|pass(?:word)?|pwd|payload|context|history"
    r"|conversation|chat|message|prompt"
    r"|content|output|result|response|env|cred(?:ential)?s?|session|cookie|summary|memory|b64|base64"
    r"|enc(?:oded)?|info|note|text|body|user(?:data)?|p|c|x)$",
    re.IGNORECASE,
)
_PLACEHOLDER: Final = re.compile(
    r"\{|\}|<|\[|%7b|%5b|\$\(|__[A-Z_]+__|[A-Z]{2,}_[A-Z_]{2,}|\bINSERT\b|\bYOUR\b", re.IGNORECASE
)
_KNOWN_SIGNED: Final = re.compile(
    r"^(?:x-amz-.*|sig(?:nature)?|expires|se|sp|sv|sr|st|v|version|token_hash|hash|integrity|ref|utm_.*|w|h|s"
    r"|size|style|logo|label|color|branch|event|t|ts)$",
    re.IGNORECASE,
)
_OPAQUE: Final = re.compile(r"[A-Za-z0-9+/=_%-]+")
_SORTS: Final = (("image", "a"), ("link", "b"), ("html", "c"), ("style", "d"), ("reference", "e"))
_OPAQUE_ENTROPY: Final = 3.5
_WORDS: Final = 4


def carrying_links(data: bytes, thresholds: Thresholds) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of each address that carries data."""
    for match in _LINK.finditer(data):
        sort, group = next((name, inner) for name, inner in _SORTS if match.group(name))
        address = match.group(group).decode(errors="replace")
        if _carries(address, thresholds, strict=sort != "link"):
            yield ("link_with_data" if sort in ("link", "reference") else "image_with_data"), *match.span(group)


def _carries(address: str, thresholds: Thresholds, *, strict: bool) -> bool:
    try:
        parts = urlsplit(address)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return False
    if _PLACEHOLDER.search(parts.query) or _PLACEHOLDER.search(parts.path):
        return True
    for name, value in pairs:
        named = _CARRIER.match(name)
        if not value and named and strict:
            return True  # the model is to write the value behind it
        if _KNOWN_SIGNED.match(name):
            continue
        opaque = (
            len(value) >= thresholds.opaque_length and _OPAQUE.fullmatch(value) and entropy(value) >= _OPAQUE_ENTROPY
        )
        spoken = len(value.split()) >= _WORDS
        if (named and (spoken or opaque or "@" in value)) or (strict and opaque):
            return True
    labels = (parts.hostname or "").split(".")
    return any(len(label) >= thresholds.opaque_length and entropy(label) >= _OPAQUE_ENTROPY for label in labels[:-2])
