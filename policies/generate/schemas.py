"""From the schemas of a description to the part of JSON Schema 2020-12 that boundaries are made of.

Pure. OpenAPI 2 and 3.0 have dialects of their own, MCP servers write whatever draft their library knows. `Converter`
takes any of them, keeps what it understands and notes what it does not: a schema here is the outside's word, and no
form of it may stop the reading. What a converted schema leaves open is at most more than the original allowed to say:
a keyword that cannot be used is left out, with a note that it is not checked.

``$ref`` is followed within the document alone. Each target becomes a definition, converted once, so that schemas which
hold themselves stay as they are.

Source: OpenAPI 2.0, "Schema Object"; OpenAPI 3.0.4, "Schema Object"; OpenAPI 3.1.1; JSON Schema drafts 4 to 2020-12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import jsonschema_rs

from ledger.canonical import MAX_JSON_DEPTH, MAX_SAFE_INTEGER, JSONValue
from policies.boundary_schemas import FORMATS, MAX_PATTERN_CHARS, REFERENCE
from policies.generate.model import JSONObject, Notes, is_number, members, objects

__all__ = ["MAX_HOPS", "Converter"]

MAX_HOPS: Final = 32
"""References that are followed one after the other."""

_MAX_EXAMPLES: Final = 3
_MAX_DEPTH: Final = MAX_JSON_DEPTH - 14  # the file that a schema ends up in has levels of its own
_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_INTEGER_FORMATS: Final = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
# Said in other words already, or of no use to a check; no note is made of them.
_SILENT: Final = frozenset(
    {
        *("$anchor", "$comment", "$defs", "$id", "$schema", "$vocabulary", "collectionFormat", "contentEncoding"),
        *("contentMediaType", "default", "definitions", "deprecated", "description", "discriminator", "example"),
        *("examples", "externalDocs", "id", "in", "name", "nullable", "readOnly", "title", "writeOnly", "xml"),
        *("additionalItems", "allowEmptyValue", "style", "explode", "exclusiveMaximum", "exclusiveMinimum"),
    }
)
_SILENT_FORMATS: Final = frozenset({"binary", "byte", "decimal", "double", "float", "int32", "int64", "password"})
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def _is_count(value: JSONValue) -> bool:
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        return False
    return 0 <= value <= MAX_SAFE_INTEGER and value == int(value)


def _settled(word: str, item: JSONValue) -> JSONValue:
    """Return the value of a plain keyword in the form that validators take."""
    if word == "required":
        return [*sorted({str(name) for name in _listed(item)})]
    if isinstance(item, Decimal) and _PLAIN[word] is _is_count:
        return int(item)
    return item


def _is_names(value: JSONValue) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_dependencies(value: JSONValue) -> bool:
    return isinstance(value, dict) and all(map(_is_names, value.values()))


def _is_size(value: JSONValue) -> bool:
    return is_number(value) and value > 0  # type: ignore[operator]  # a number


def _is_flag(value: JSONValue) -> bool:
    return isinstance(value, bool)


# Keywords that are taken as they are, if their value is of the right kind.
_PLAIN: Final[Mapping[str, Callable[[JSONValue], bool]]] = {
    **dict.fromkeys(("maximum", "minimum"), is_number),
    **dict.fromkeys(("maxContains", "maxItems", "maxLength", "maxProperties"), _is_count),
    **dict.fromkeys(("minContains", "minItems", "minLength", "minProperties"), _is_count),
    "multipleOf": _is_size,
    "uniqueItems": _is_flag,
    "required": _is_names,
    "dependentRequired": _is_dependencies,
    "const": lambda _: True,
}
_ONE: Final = frozenset(
    {
        *("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
_SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"dependentSchemas", "properties"})


@lru_cache(maxsize=4096)
def _can_match(pattern: str) -> bool:
    """Tell whether a pattern can be matched in linear time."""
    options = jsonschema_rs.RegexOptions(size_limit=1 << 18)
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True, pattern_options=options)
    except ValueError:
        return False
    return True


def _is_text(value: JSONValue) -> bool:
    """Tell whether a text is one that JSON can carry."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


class Converter:
    """Converts the schemas of one document; what they refer to gathers in `definitions`."""

    def __init__(self, root: JSONValue, notes: Notes, prefix: str = "") -> None:
        """Take the document that references are followed in.

        Args:
            root: The whole document.
            notes: Where to say what is not taken.
            prefix: Begins the name of every definition, where several documents share a file.
        """
        self.definitions: dict[str, JSONValue] = {}
        self._root = root
        self._notes = notes
        self._prefix = prefix
        self._names: dict[str, str] = {}
        self._waiting: list[tuple[str, str]] = []

    def schema(self, value: JSONValue, place: str) -> JSONValue:
        """Return a schema, converted, with all that it leads to among the definitions.

        Args:
            value: The schema, of any dialect or none.
            place: Where it stands, for notes.
        """
        converted = self._convert(value, place, 0)
        while self._waiting:
            pointer, name = self._waiting.pop()
            self.definitions[name] = self._convert(self.target(pointer), pointer, 0)
        return converted

    def target(self, reference: JSONValue) -> JSONValue:
        """Return what a reference leads to within the document; None if nothing."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        node = self._root
        for part in reference[1:].split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict):
                node = node.get(name)
            elif isinstance(node, list) and name.isdecimal() and name.isascii() and int(name[:9]) < len(node):
                node = node[int(name[:9])]
            else:
                return None
        return node

    def resolved(self, value: JSONValue, place: str) -> JSONObject:
        """Return the object that a value is or, over references, leads to; an empty one if it is none.

        Args:
            value: A parameter, body, example or schema.
            place: Where it stands, for notes.
        """
        for _ in range(MAX_HOPS):
            if not isinstance(value, dict) or "$ref" not in value:
                return members(value)
            reference = value["$ref"]
            value = self.target(reference)
            if not isinstance(value, dict):
                self._notes.unchecked(place, f"the reference {_shown(reference)} leads to nothing in this document")
                return {}
        self._notes.unchecked(place, "references that go round in a circle")
        return {}

    def _definition(self, reference: str) -> str:
        name = self._names.get(reference)
        if name is None:
            plain = _ILLEGAL.sub("_", unquote(reference).rsplit("/", 1)[-1])[:80] or "schema"
            name, number = self._prefix + plain, 2
            while name in self._names.values():
                name, number = f"{self._prefix}{plain}_{number}", number + 1
            self._names[reference] = name
            self._waiting.append((reference, name))
        return name

    def _convert(self, value: JSONValue, place: str, depth: int) -> JSONValue:
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            self._notes.unchecked(place, "no schema where one should be")
            return {}
        if depth > _MAX_DEPTH:
            self._notes.unchecked(place, f"schemas nested more than {_MAX_DEPTH} deep")
            return {}
        found: JSONObject = {}
        if "$ref" in value:
            found = self._referred(value["$ref"], place)
        for word, item in value.items():
            if word != "$ref":
                self._take(found, word, item, place, depth, value)
        _take_limits(found, value)
        self._take_items(found, value, place, depth)
        _take_nullable(found, value)
        _take_examples(found, value)
        _drop_server_side(found, value)
        return found

    def _referred(self, reference: JSONValue, place: str) -> JSONObject:
        if isinstance(reference, str) and isinstance(self.target(reference), dict | bool):
            return {"$ref": REFERENCE + self._definition(reference)}
        where = "outside this document" if not str(reference).startswith("#") else "to nothing in this document"
        self._notes.unchecked(place, f"the reference {_shown(reference)} leads {where}")
        return {}

    def _take(self, found: JSONObject, word: str, item: JSONValue, place: str, depth: int, whole: JSONObject) -> None:
        here = f"{place}/{word}"
        if word in _PLAIN:
            if _PLAIN[word](item) and _depth_within(item, _MAX_DEPTH - depth):
                found[word] = _settled(word, item)
            else:
                self._notes.unchecked(here, "a value of the wrong kind")
        elif word in _ONE:
            if word != "items" or not isinstance(item, list):
                found[word] = self._convert(item, here, depth + 1)
        elif word in _SEVERAL:
            self._take_several(found, word, item, here, depth)
        elif word in _NAMED:
            found[word] = {
                name: self._convert(inner, f"{here}/{name}", depth + 2)
                for name, inner in members(item).items()
                if _is_text(name)
            }
        else:
            self._take_special(found, word, item, here, depth, whole)

    def _take_several(self, found: JSONObject, word: str, item: JSONValue, place: str, depth: int) -> None:
        if isinstance(item, list) and item:
            found[word] = [self._convert(inner, f"{place}/{index}", depth + 2) for index, inner in enumerate(item)]
        else:
            self._notes.unchecked(place, "a value of the wrong kind")

    def _take_special(
        self, found: JSONObject, word: str, item: JSONValue, place: str, depth: int, whole: JSONObject
    ) -> None:
        match word:
            case "type":
                self._take_type(found, item, place)
            case "format":
                self._take_format(found, item, place, whole)
            case "pattern":
                self._take_pattern(found, item, place)
            case "patternProperties":
                self._take_patterns(found, item, place, depth)
            case "enum":
                if isinstance(item, list) and item and _depth_within(item, _MAX_DEPTH - depth):
                    found["enum"] = item
                else:
                    self._notes.unchecked(place, "a value of the wrong kind")
            case "dependencies":
                self._take_dependencies(found, item, place, depth)
            case _ if word not in _SILENT and not word.startswith("x-"):
                self._notes.unchecked(place, "a keyword that is not enforced")

    def _take_type(self, found: JSONObject, item: JSONValue, place: str) -> None:
        kinds = [item] if isinstance(item, str) else item
        if kinds == ["file"]:
            found["type"] = "string"
        elif isinstance(kinds, list) and kinds and all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
            names = sorted({str(kind) for kind in kinds})
            found["type"] = names[0] if len(names) == 1 else [*names]
        elif kinds != ["any"]:
            self._notes.unchecked(place, f"the unknown type {_shown(item)}")

    def _take_format(self, found: JSONObject, item: JSONValue, place: str, whole: JSONObject) -> None:
        if isinstance(item, str) and item in FORMATS:
            found["format"] = item
        elif not isinstance(item, str) or item not in _SILENT_FORMATS:
            self._notes.unchecked(place, f"the format {_shown(item)}")
        elif item in _INTEGER_FORMATS and "integer" in (whole.get("type"), *_listed(whole.get("type"))):
            least, most = _INTEGER_FORMATS[item]
            found.setdefault("minimum", least)
            found.setdefault("maximum", most)

    def _take_pattern(self, found: JSONObject, item: JSONValue, place: str) -> None:
        if isinstance(item, str) and _is_text(item) and len(item) <= MAX_PATTERN_CHARS and _can_match(item):
            found["pattern"] = item
        else:
            self._notes.unchecked(place, "a pattern that cannot be matched in linear time")

    def _take_patterns(self, found: JSONObject, item: JSONValue, place: str, depth: int) -> None:
        taken: JSONObject = {}
        for pattern, inner in members(item).items():
            if _is_text(pattern) and len(pattern) <= MAX_PATTERN_CHARS and _can_match(pattern):
                taken[pattern] = self._convert(inner, f"{place}/{pattern}", depth + 2)
            else:
                # Without it, what it describes would seem unknown.
                taken[""] = {}
                self._notes.unchecked(place, "a pattern that cannot be matched in linear time")
        found["patternProperties"] = taken

    def _take_dependencies(self, found: JSONObject, item: JSONValue, place: str, depth: int) -> None:
        needed: JSONObject = {}
        schemas: JSONObject = {}
        for name, inner in members(item).items():
            if _is_names(inner):
                needed[name] = inner
            else:
                schemas[name] = self._convert(inner, f"{place}/{name}", depth + 2)
        found.update(
            {word: taken for word, taken in (("dependentRequired", needed), ("dependentSchemas", schemas)) if taken}
        )

    def _take_items(self, found: JSONObject, value: JSONObject, place: str, depth: int) -> None:
        """Take the older form of tuples: a list of schemas under ``items``."""
        items = value.get("items")
        if isinstance(items, list):
            if items:
                self._take_several(found, "prefixItems", items, f"{place}/items", depth)
            if "additionalItems" in value:
                found["items"] = self._convert(value["additionalItems"], f"{place}/additionalItems", depth + 1)


def _shown(value: JSONValue) -> str:
    return repr(value)[:80]


def _listed(value: JSONValue) -> list[JSONValue]:
    return value if isinstance(value, list) else []


def _depth_within(value: JSONValue, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            item
            for node in level
            for item in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        ]
        if not level:
            return True
    return False


def _take_limits(found: JSONObject, value: JSONObject) -> None:
    """Take exclusive limits, which drafts up to 4 and OpenAPI 3.0 say by a flag beside the limit."""
    for word, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        given = value.get(word)
        if is_number(given):
            found[word] = given
        elif given is True and limit in found and limit in value:
            found[word] = found.pop(limit)


def _take_nullable(found: JSONObject, value: JSONObject) -> None:
    """Let null in where OpenAPI 2 (as an extension) or 3.0 say ``nullable``."""
    if value.get("nullable") is not True and value.get("x-nullable") is not True:
        return
    kind = found.get("type")
    if isinstance(kind, str) and kind != "null":
        found["type"] = [kind, "null"]
    elif kind is None and found:
        inner = dict(found)
        found.clear()
        found["anyOf"] = [inner, {"type": "null"}]
        return
    options = found.get("enum")
    if isinstance(options, list) and None not in options:
        found["enum"] = [*options, None]


def _take_examples(found: JSONObject, value: JSONObject) -> None:
    examples: list[JSONValue] = []
    if "example" in value:
        examples.append(value["example"])
    listed = value.get("examples")
    examples += (
        listed if isinstance(listed, list) else [inner.get("value") for inner in objects([*members(listed).values()])]
    )
    if "default" in value:
        examples.append(value["default"])
    examples = [example for example in examples if _depth_within(example, _MAX_DEPTH)][:_MAX_EXAMPLES]
    if examples:
        found["examples"] = examples


def _drop_server_side(found: JSONObject, value: JSONObject) -> None:
    """Ask nobody for members that only the server gives (``readOnly``)."""
    required = found.get("required")
    if isinstance(required, list):
        given = members(value.get("properties"))
        left = [name for name in required if members(given.get(str(name))).get("readOnly") is not True]
        if left:
            found["required"] = [*left]
        else:
            del found["required"]
