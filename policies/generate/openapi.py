"""Operations out of an OpenAPI document: 2.0 (Swagger), 3.0 or 3.1.

Pure. Each operation becomes a tool, as gateways from HTTP to MCP make them: its name is the ``operationId``, or method
and path; its arguments are the parameters of path, query, header and cookie, and the members of the body. A body that
is no plain object is the one argument ``body``. Where a parameter and a member of the body have one name, the parameter
takes its place along (``id__path``). Headers that HTTP itself or a login owns are no arguments.

Anything may be missing or of another type than it should be: what cannot be read is skipped, with a note.

Source: OpenAPI 2.0; OpenAPI 3.0.4; OpenAPI 3.1.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger.canonical import JSONValue
from ledger.errors import PolicySyntaxError
from policies.generate.arguments import Arguments
from policies.generate.model import MAX_OPERATIONS, Description, JSONObject, Notes, Operation, members, text_of
from policies.generate.naming import ToolNames, access_of, tags_of
from policies.generate.schemas import Converter

__all__ = ["read_openapi"]

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_PLACES: Final = frozenset({"path", "query", "header", "cookie"})
_NO_ARGUMENTS: Final = frozenset({"accept", "authorization", "content-length", "content-type", "cookie", "host"})
_JSON: Final = "application/json"
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
_BODY: Final = "body"


@dataclass(slots=True)
class _Reader:
    """What is needed throughout one document.

    Attributes:
        version: ``2.0``, ``3.0`` or ``3.1``.
        notes: Where to say what is not taken.
        converter: Converts schemas.
        names: Names of tools.
    """

    version: str
    notes: Notes
    converter: Converter
    names: ToolNames = field(default_factory=ToolNames)

    def operations(self, paths: JSONValue) -> Iterator[Operation]:
        if not isinstance(paths, dict):
            self.notes.skipped("paths", "no object of paths")
        for path, value in members(paths).items():
            if path.startswith("x-"):
                continue
            if not path.startswith("/"):
                self.notes.skipped(f"paths/{path}", "a path that does not begin with a slash")
                continue
            item = self.converter.resolved(value, f"paths{path}")
            for method in _METHODS:
                if method in item:
                    yield from self._operation(path, method, item)

    def _operation(self, path: str, method: str, item: JSONObject) -> Iterator[Operation]:
        label = f"{method.upper()} {path}"
        value = item[method]
        if not isinstance(value, dict):
            self.notes.skipped(label, "no object of an operation")
            return
        wanted = text_of(value.get("operationId")) or f"{method}_{path.strip('/')}"
        tool = self.names.give(wanted)
        if value.get("operationId") and tool != wanted:
            self.notes.assumed(label, f"the operationId {wanted[:80]!r} is no name of its own for a tool: {tool}")
        arguments = Arguments(self.converter)
        self._parameters(arguments, label, item.get("parameters"), value.get("parameters"))
        if self.version != "2.0" and "requestBody" in value:
            self._body(arguments, label, value["requestBody"])
        access = access_of(tool, method=method.upper())
        tags = tags_of(
            f"{tool} {path}",
            access,
            arguments=arguments.names(),
            formats=arguments.formats(),
            method=method.upper(),
        )
        yield Operation(
            tool=tool,
            label=label[:1000],
            access=access,
            tags=tags,
            schema=arguments.schema(),
            examples=arguments.examples(),
        )

    def _parameters(self, arguments: Arguments, label: str, *lists: JSONValue) -> None:
        """Take parameters; those of an operation replace those of its path, by name and place."""
        chosen: dict[tuple[str, str], JSONObject] = {}
        for group in lists:
            if group is not None and not isinstance(group, list):
                self.notes.unchecked(label, "parameters that are no list")
            for index, value in enumerate(group if isinstance(group, list) else []):
                here = f"{label} parameters/{index}"
                parameter = self.converter.resolved(value, here)
                name, place = parameter.get("name"), parameter.get("in")
                if isinstance(name, str) and isinstance(place, str) and name:
                    chosen[name, place] = parameter
                else:
                    self.notes.unchecked(here, "a parameter without name or place")
        for (name, place), parameter in sorted(chosen.items(), key=lambda entry: entry[0]):
            self._parameter(arguments, f"{label} {name}", name, place, parameter)

    def _parameter(self, arguments: Arguments, here: str, name: str, place: str, parameter: JSONObject) -> None:
        required = parameter.get("required") is True or place == "path"
        if place == "header" and name.lower() in _NO_ARGUMENTS:
            return
        if place in _PLACES:
            arguments.add(name, place, self._schema_of(parameter, here), required=required, place=here)
        elif place == _BODY and self.version == "2.0":
            arguments.add_body(parameter.get("schema", {}), required=required, place=here)
        elif place == "formData" and self.version == "2.0":
            arguments.add(name, place, parameter, required=required, place=here)
        else:
            self.notes.unchecked(here, f"a parameter in an unknown place {place[:40]!r}")

    def _schema_of(self, parameter: JSONObject, here: str) -> JSONValue:
        """Return a parameter's schema, with the examples that stand beside it."""
        if self.version == "2.0":
            return parameter
        if "schema" in parameter:
            schema = parameter["schema"]
        elif members(parameter.get("content")):
            schema = next(iter(members(parameter["content"]).values()))
            schema = members(schema).get("schema", {})
        else:
            self.notes.unchecked(here, "a parameter without a schema")
            schema = {}
        beside: JSONObject = {word: parameter[word] for word in ("example", "examples") if word in parameter}
        return {"allOf": [schema], **beside} if beside and isinstance(schema, dict) else schema

    def _body(self, arguments: Arguments, label: str, value: JSONValue) -> None:
        here = f"{label} requestBody"
        body = self.converter.resolved(value, here)
        content = members(body.get("content"))
        chosen = _media_type(content)
        if chosen is None:
            self.notes.unchecked(here, "a body without content")
            return
        media = self.converter.resolved(content[chosen], here)
        required = body.get("required") is True
        others = sorted(set(content) - {chosen})
        if others:
            self.notes.assumed(here, f"taken as {chosen}, and not as {', '.join(others)[:200]}")
        if _is_json(chosen) or chosen in _FORMS:
            arguments.add_body(media.get("schema", {}), required=required, place=here, examples=_examples(media, self))
        else:
            arguments.add(_BODY, _BODY, {"type": "string"}, required=required, place=here)


def _examples(media: JSONObject, reader: _Reader) -> list[JSONValue]:
    found = [media["example"]] if "example" in media else []
    named = (reader.converter.resolved(value, "examples") for value in members(media.get("examples")).values())
    return [*found, *(example["value"] for example in named if "value" in example)]


def _is_json(media: str) -> bool:
    plain = media.partition(";")[0].strip().lower()
    return plain in {_JSON, "*/*", "application/*"} or plain.endswith("+json")


def _media_type(content: Mapping[str, JSONValue]) -> str | None:
    """Return the form of a body that tools take: JSON before forms, forms before anything else."""
    ranked = sorted(content, key=lambda name: (name != _JSON, not _is_json(name), name not in _FORMS, name))
    return ranked[0] if ranked else None


def _version(document: JSONObject) -> str:
    given = text_of(document.get("openapi")) or text_of(document.get("swagger"))
    for version, prefix in (("2.0", "2."), ("3.0", "3.0"), ("3.1", "3.1")):
        if given.startswith(prefix):
            return version
    raise PolicySyntaxError(f"neither OpenAPI 2.0, 3.0 nor 3.1, but {given[:40]!r}" if given else "no OpenAPI document")


def read_openapi(document: JSONValue) -> Description:
    """Return what an OpenAPI document says of its operations.

    Args:
        document: The document's value.

    Raises:
        PolicySyntaxError: Not a document of OpenAPI 2.0, 3.0 or 3.1.
    """
    root = members(document)
    version = _version(root)
    notes = Notes()
    reader = _Reader(version=version, notes=notes, converter=Converter(root, notes))
    if members(root.get("webhooks")):
        notes.skipped("webhooks", "calls that the server makes; nobody calls them through a gateway")
    operations: list[Operation] = []
    for operation in reader.operations(root.get("paths")):
        if len(operations) >= MAX_OPERATIONS:
            notes.skipped("paths", f"more than {MAX_OPERATIONS} operations")
            break
        operations.append(operation)
    return Description(
        kind=f"openapi-{version}",
        title=text_of(members(root.get("info")).get("title"))[:200],
        operations=tuple(operations),
        definitions=reader.converter.definitions,
        notes=notes,
    )
