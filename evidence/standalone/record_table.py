"""The table of the record format: which paths there are, what may be asked of each, what a field left out means.

Pure, standard library only. The text itself is put in when the one file is put together (`evidence.standalone_file`);
here it is empty. A line is: subject, path, kind, and the default where there is one.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from evidence.standalone.records import Record

__all__ = ["MAPPINGS", "TABLE", "kinds_of", "value_at"]

TABLE = ""
MAPPINGS = "{}"
"""SHA-256 of the control catalogues that the verifier was published with, by name; JSON."""


@lru_cache(maxsize=1)
def _subjects() -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    kinds: dict[str, dict[str, str]] = {}
    defaults: dict[str, Any] = {}
    for line in TABLE.splitlines():
        subject, path, kind, *default = line.split(" ", 3)
        kinds.setdefault(subject, {})[path] = kind
        if default:
            defaults[path] = json.loads(default[0])
    return kinds, defaults


def kinds_of(subject: str) -> dict[str, str]:
    """Return what may be asked of a subject, by path; nothing if there is no such subject."""
    return _subjects()[0].get(subject, {})


@lru_cache(maxsize=2048)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split(".")[1:])


def value_at(record: Record, path: str) -> Any:  # noqa: ANN401  # JSON of any shape
    """Return what stands at a path of a record or its envelope, its default if it is left out, or None."""
    node: Any = record.value if path.startswith("envelope.") else record.body
    for step in _steps(path):
        if not isinstance(node, dict):
            return None
        if step not in node:
            return _subjects()[1].get(path)
        node = node[step]
    return node
