"""Secrets that only their name tells: ``password = …``, ``"api_key": "…"``, by the entropy of what follows.

Pure. Keys of known formats are found by rules (``rules/secrets.yar``); `plausible` looks at those again.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from enforcement.inspection.patterns import Stretches, linear
from enforcement.inspection.settings import Thresholds

__all__ = ["entropy", "named_secrets", "plausible"]

_NAMED: Final = linear(
    rb"(?i)(?P<name>passw(?:or)?d|passphrase|pwd|passwort|contrase(?:n|\xc3\xb1)a|mot[_ ]de[_ ]passe|secret|api[_-]?key"
    rb"|access[_-]?key|private[_-]?key|auth[_-]?key|encryption[_-]?key|signing[_-]?key|token|credentials?)"
    rb"(?:[_-]?(?:value|id|key|prod|production|live|hash|limit|count|type|url))?[\"'\]]?"
    rb"(?:[ \t]*(?:=>|:=|=|:)[ \t]*|[ \t]+(?:is|lautet|es|est)[ \t:]+)"
    rb"(?P<value>\"[^\"\r\n]+\"|'[^'\r\n]+'|[^\s\"',;(){}<>\[\]]+)"
)
_PASSWORD: Final = re.compile(r"passw|passphrase|pwd|contrase|mot.de", re.IGNORECASE)
_REFERENCE: Final = re.compile(
    r"\$|%\(|\{\{|<|\.\.\.|…|\*{3}|x{4}|(?i:example|changeme|placeholder|redacted|your[-_ ]|dummy|none$|null$"
    r"|true$|false$|undefined$"
    r"|^env[:.]|^file[:.]|^vault[:.]|^secret[:/]|^arn:|^https?://|process\.env|os\.environ|getenv|^string$"
    r"|^required$|^optional$)"
)
_CODE: Final = re.compile(r"^[A-Za-z_][\w.]*(?:\(|\[|$)|^[a-z]+(?:[-_. ][a-z]+)*$|^\W+$")
_DIGEST_NAME: Final = re.compile(
    r"hash|digest|sha|csrf|xsrf|fingerprint|public|tokenize|max_?token|token_?(count|limit|type|id|url|usage)",
    re.IGNORECASE,
)
_LONG: Final = 20
_CLASSES: Final = tuple(re.compile(pattern) for pattern in (r"[a-z]", r"[A-Z]", r"[0-9]", r"[^A-Za-z0-9]"))
_FEWEST_DISTINCT: Final = 5
_LONGEST: Final = 512
_NAME_BEFORE: Final = 12


def entropy(text: str) -> float:
    """Return the Shannon entropy of a text, in bits per character."""
    length = len(text)
    return -sum(count / length * math.log2(count / length) for count in Counter(text).values()) if length else 0.0


def plausible(text: bytes) -> bool:
    """Whether what has the format of a key may be one: no row of the same few characters."""
    return len(set(text[-24:])) >= _FEWEST_DISTINCT


def named_secrets(
    data: bytes, thresholds: Thresholds, within: Stretches | None = None
) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of each value that its name calls a secret."""
    for match in _NAMED.finditer(data, within):
        start, end = match.span("value")
        if end - start > _LONGEST:
            continue
        if data[start : start + 1] in (b'"', b"'"):
            start, end = start + 1, end - 1
        head = match.span("name")[0]
        name = data[max(0, head - _NAME_BEFORE) : start].decode("latin-1")
        value = data[start:end].decode(errors="replace")
        if _DIGEST_NAME.search(name) or _REFERENCE.search(value):
            continue
        if _is_secret(value, thresholds, spoken=bool(_PASSWORD.search(name))):
            yield ("named_password" if _PASSWORD.search(name) else "named_secret"), start, end


def _is_secret(value: str, thresholds: Thresholds, *, spoken: bool) -> bool:
    """Whether a value looks made up rather than written: long and mixed; a password may be short."""
    if len(value) < thresholds.secret_length or " " in value:
        return False
    classes = sum(bool(pattern.search(value)) for pattern in _CLASSES)
    if spoken:
        return classes >= 3 or (classes >= 2 and not _CODE.match(value) and bool(re.search(r"[0-9\W]", value)))  # noqa: PLR2004  # kinds of characters
    if _CODE.match(value) and not re.search(r"[0-9]", value):
        return False
    mixed = classes >= 3 or (classes >= 2 and len(value) >= _LONG and bool(re.search(r"[0-9]", value)))  # noqa: PLR2004
    return mixed and len(value) >= 2 * thresholds.secret_length and entropy(value) >= thresholds.entropy
