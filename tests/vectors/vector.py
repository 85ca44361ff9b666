"""A test vector: what goes in, and either what must come out or the error that must be raised.

A vector is a file ``<family>/<case>/<mutation>.json`` below this folder; ``valid`` is the mutation of one that is
accepted as it is. Bytes are written as ``{"utf8": ...}`` where they are text and as ``{"base64": ...}`` where not.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
ACCEPT = "accept"

JSONObject = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Vector:
    """One vector.

    Attributes:
        name: ``<family>/<case>/<mutation>``.
        about: One sentence: what is special about it.
        expect: `ACCEPT`, or the name of the error class that must be raised.
        input: What is given to the code under test.
        output: What it must make of it; None for a rejection.
    """

    name: str
    about: str
    expect: str
    input: JSONObject
    output: JSONObject | None = None

    def __post_init__(self) -> None:
        assert self.name.count("/") == 2, self.name
        assert (self.output is None) == (self.expect != ACCEPT), self.name
        assert self.about.endswith("."), self.name

    @property
    def family(self) -> str:
        return self.name.split("/", maxsplit=1)[0]

    @property
    def path(self) -> Path:
        return ROOT / f"{self.name}.json"

    def encode(self) -> str:
        members = {"about": self.about, "expect": self.expect, "input": self.input}
        if self.output is not None:
            members["output"] = self.output
        return json.dumps(members, indent=2, ensure_ascii=True) + "\n"


def load(path: Path) -> Vector:
    return Vector(name=str(path.relative_to(ROOT).with_suffix("")), **json.loads(path.read_text(encoding="ascii")))


def vector_paths() -> list[Path]:
    return sorted(ROOT.glob("*/*/*.json"))


def accepted(name: str, about: str, given: JSONObject, output: JSONObject) -> Vector:
    return Vector(name=name, about=about, expect=ACCEPT, input=given, output=output)


def rejected(name: str, about: str, expect: str, given: JSONObject) -> Vector:
    return Vector(name=name, about=about, expect=expect, input=given)


def blob(data: bytes) -> JSONObject:
    """Write bytes down, as text where they are printable text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    if all(char.isprintable() or char == "\n" for char in text):
        return {"utf8": text}
    return {"base64": base64.b64encode(data).decode()}


def unblob(value: JSONObject) -> bytes:
    """Return the bytes; the inverse of `blob`."""
    if "utf8" in value:
        return str(value["utf8"]).encode()
    return base64.b64decode(value["base64"], validate=True)
