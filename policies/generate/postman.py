"""Operations out of a Postman collection, format 2.0 or 2.1.

Pure. A collection holds requests that somebody made, not a description: types are inferred from what was sent, and so
there are neither ranges nor lists of values. Only what stands in the path is required. Each request becomes a tool; its
arguments are the variables of its path, its query, and the members of its body (JSON, form, or GraphQL variables).
``{{name}}`` is replaced by the collection's variable of that name, where there is one.

Source: Postman Collection Format, schemas v2.0.0 and v2.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError, PolicySyntaxError
from policies.generate.arguments import Arguments
from policies.generate.model import (
    MAX_OPERATIONS,
    Description,
    JSONObject,
    Notes,
    Operation,
    is_number,
    members,
    objects,
    text_of,
)
from policies.generate.naming import ToolNames, access_of, tags_of
from policies.generate.schemas import Converter

__all__ = ["read_postman"]

_MAX_FOLDERS: Final = 16
_MAX_ITEMS: Final = 20
_MAX_SAVED: Final = 20
_VARIABLE: Final = re.compile(r"\{\{\s*([^{}]{1,200}?)\s*\}\}")
_PATH_VARIABLE: Final = re.compile(r"^:([A-Za-z_][A-Za-z0-9_-]*)$")
_TEXT: Final = "string"
_MUTATION: Final = re.compile(r"(?:^|\})\s*(?:mutation|subscription)\b")
_COMMENT: Final = re.compile(r"#[^\n]*")


def _kind(value: JSONValue) -> str:
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    if isinstance(value, bool):
        return "boolean"
    return "number" if is_number(value) else _TEXT


def _inferred(values: Sequence[JSONValue]) -> JSONObject:
    """Return the schema of values like these; an open one where they are of several kinds or nothing but null."""
    given = [value for value in values if value is not None]
    kinds = {_kind(value) for value in given}
    if len(kinds) != 1:
        return {}
    (kind,) = kinds
    found: JSONObject = {"type": kind if len(given) == len(values) else [kind, "null"]}
    if kind == "object":
        names = dict.fromkeys(name for value in given for name in members(value))
        found["properties"] = {
            name: _inferred([members(value)[name] for value in given if name in members(value)]) for name in names
        }
    if kind == "array":
        items = [item for value in given if isinstance(value, list) for item in value[:_MAX_ITEMS]]
        found |= {"items": _inferred(items)} if items else {}
    return found


class _Reader:
    def __init__(self, variables: Mapping[str, str], notes: Notes) -> None:
        self.notes = notes
        self._variables = variables
        self._names = ToolNames()
        self._converter = Converter({}, notes)

    def operations(self, items: JSONValue, folder: tuple[str, ...] = ()) -> Iterator[Operation]:
        here = "/".join(folder) or "item"
        if not isinstance(items, list):
            self.notes.skipped(here, "no list of requests")
            return
        for index, value in enumerate(items):
            item = members(value)
            name = text_of(item.get("name")) or f"request {index + 1}"
            if "request" in item:
                yield from self._operation(name, folder, item)
            elif "item" not in item:
                self.notes.skipped(f"{here}/{name}", "neither a request nor a folder")
            elif len(folder) >= _MAX_FOLDERS:
                self.notes.skipped(f"{here}/{name}", f"folders nested more than {_MAX_FOLDERS} deep")
            else:
                yield from self.operations(item["item"], (*folder, name))

    def _operation(self, name: str, folder: tuple[str, ...], item: JSONObject) -> Iterator[Operation]:
        place = "/".join((*folder, name))
        request = item["request"]
        if isinstance(request, str):  # version 2.0 lets a request be its address alone
            request = {"url": request, "method": "GET"}
        if not isinstance(request, dict):
            self.notes.skipped(place, "no request")
            return
        method = (text_of(request.get("method")) or "GET").upper()[:20]
        arguments = Arguments(self._converter)
        example: JSONObject = {}
        path = self._url(arguments, example, request.get("url"), place)
        query = self._body(arguments, example, members(request.get("body")), _saved_bodies(item), place)
        tool = self._names.give(name)
        # What GraphQL reads, it reads by POST.
        access = access_of(tool, method=method)
        if query:
            access = "write" if _MUTATION.search(query) else "read"
        yield Operation(
            tool=tool,
            label=f"{method} {path}"[:1000],
            access=access,
            tags=tags_of(
                f"{tool} {path}",
                access,
                arguments=arguments.names(),
                formats=arguments.formats(),
                method=method,
            ),
            schema=arguments.schema(),
            examples=(example,) if example else (),
        )

    def _filled(self, text: str) -> str:
        return _VARIABLE.sub(lambda match: self._variables.get(match[1], match[0]), text)

    def _add(self, arguments: Arguments, example: JSONObject, name: str, value: str, kind: str, place: str) -> None:
        arguments.add(name, kind, {"type": _TEXT}, required=kind == "path", place=place)
        filled = self._filled(value)
        if filled and not _VARIABLE.search(filled):
            example[name] = filled

    def _url(self, arguments: Arguments, example: JSONObject, url: JSONValue, place: str) -> str:
        """Take the arguments of an address, and return its path."""
        parts = members(url)
        raw = url if isinstance(url, str) else text_of(parts.get("raw"))
        try:
            split = urlsplit(raw.partition("}}")[2] if raw.startswith("{{") else raw)
        except ValueError:
            self.notes.unchecked(place, "an address that cannot be read")
            split = urlsplit("")
        given = parts.get("path")
        steps = [text_of(step) for step in given] if isinstance(given, list) else split.path.strip("/").split("/")
        values = {text_of(item.get("key")): text_of(item.get("value")) for item in objects(parts.get("variable"))}
        for step in steps:
            match = _PATH_VARIABLE.match(step) or _VARIABLE.fullmatch(step)
            if match is not None:
                name = match[1]
                self._add(arguments, example, name, values.get(name, self._variables.get(name, "")), "path", place)
        listed = parts.get("query")
        pairs = (
            [(text_of(item.get("key")), text_of(item.get("value"))) for item in objects(listed)]
            if isinstance(listed, list)
            else parse_qsl(split.query, keep_blank_values=True)
        )
        for name, value in dict(pairs).items():
            if name:
                self._add(arguments, example, name, unquote(value), "query", place)
        return "/" + "/".join(steps)

    def _body(
        self, arguments: Arguments, example: JSONObject, body: JSONObject, saved: Sequence[str], place: str
    ) -> str:
        """Take the arguments of a body, and return the text of a GraphQL query if it is one."""
        match body.get("mode"):
            case "raw":
                self._raw(arguments, example, [text_of(body.get("raw")), *saved], place)
            case "urlencoded" | "formdata" as mode:
                for item in objects(body.get(str(mode))):
                    name = text_of(item.get("key"))
                    if name and item.get("disabled") is not True:
                        self._add(arguments, example, name, text_of(item.get("value")), "form", place)
            case "graphql":
                graphql = members(body.get("graphql"))
                self._raw(arguments, example, [text_of(graphql.get("variables")) or "{}"], place)
                return _COMMENT.sub("", text_of(graphql.get("query"))) or "query"
            case "file":
                arguments.add("body", "body", {"type": _TEXT}, required=False, place=place)
            case None:
                pass
            case other:
                self.notes.unchecked(place, f"a body of the unknown mode {str(other)[:40]!r}")
        return ""

    def _raw(self, arguments: Arguments, example: JSONObject, texts: Sequence[str], place: str) -> None:
        """Take the arguments of a body that is JSON; the first text is the request's, the others were saved with it."""
        if not texts[0].strip():
            return
        read = [self._json(text) for text in texts]
        values = [value for ok, value in read if ok]
        if not read[0][0]:
            self.notes.unchecked(place, "a body that is no JSON")
            arguments.add("body", "body", {"type": _TEXT}, required=False, place=place)
            return
        arguments.add_body(_inferred(values), required=False, place=place)
        example.update(members(values[0]))

    def _json(self, text: str) -> tuple[bool, JSONValue]:
        """Return whether a text is JSON, and its value."""
        try:
            # A variable without a value may stand for anything: nothing is inferred from null.
            return True, parse_json(_VARIABLE.sub("null", self._filled(text)).encode())
        except (MalformedError, UnicodeEncodeError):
            return False, None


def _saved_bodies(item: JSONObject) -> list[str]:
    """Return the texts of the bodies that were sent for the responses saved with a request."""
    requests = [members(response.get("originalRequest")) for response in objects(item.get("response"))[:_MAX_SAVED]]
    return [text_of(members(request.get("body")).get("raw")) for request in requests]


def _variables(collection: JSONObject) -> dict[str, str]:
    return {
        text_of(item.get("key")): str(item["value"])
        for item in objects(collection.get("variable"))
        if item.get("key") and isinstance(item.get("value"), str | int | bool)
    }


def _version(collection: JSONObject) -> str:
    schema = text_of(members(collection.get("info")).get("schema"))
    for version in ("2.1", "2.0"):
        if f"v{version}." in schema:
            return version
    raise PolicySyntaxError(f"a Postman collection of another format than 2.0 and 2.1: {schema[:100]!r}")


def read_postman(document: JSONValue) -> Description:
    """Return what a Postman collection says of its operations.

    Args:
        document: The collection's value; the form that Postman's API wraps it in (``collection``) is taken as well.

    Raises:
        PolicySyntaxError: Not a collection of format 2.0 or 2.1.
    """
    collection = members(members(document).get("collection", document))
    if "item" not in collection and "info" not in collection:
        raise PolicySyntaxError("no Postman collection")
    version = _version(collection)
    notes = Notes()
    notes.assumed("collection", "types are inferred from the requests; ranges and required members are not known")
    reader = _Reader(_variables(collection), notes)
    operations: list[Operation] = []
    for operation in reader.operations(collection.get("item")):
        if len(operations) >= MAX_OPERATIONS:
            notes.skipped("collection", f"more than {MAX_OPERATIONS} requests")
            break
        operations.append(operation)
    return Description(
        kind=f"postman-{version}",
        title=text_of(members(collection.get("info")).get("name"))[:200],
        operations=tuple(operations),
        definitions={},
        notes=notes,
    )
