"""The API's documentation as a page, from the application's own OpenAPI document.

The document is ours, made by FastAPI from the routes; this module only puts it in order for reading. Schemas are
described as deep as our bodies go.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.web.guard import LobbyDep, PageRoute, seat_of

__all__ = ["Answer", "Body", "Group", "Operation", "Parameter", "groups_of", "router"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ORDER: Final = (
    *("decisions", "sessions", "replays", "bundles", "decision point", "evidence packs"),
    *("log", "access", "keys", "health"),
)
"""Tags in the order in which people need them; others follow."""

_MAX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter, or a member of a body.

    Attributes:
        name: For a member of a member with its path, such as ``openings[].field``.
        place: path, query, header or body.
        required: It must be given.
        kind: Type and bounds.
        description: What it is.
    """

    name: str
    place: str
    required: bool
    kind: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request's body.

    Attributes:
        media_types: What it may be sent as.
        required: It must be sent.
        description: What it is.
        members: Its members.
    """

    media_types: tuple[str, ...]
    required: bool
    description: str
    members: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a status means.

    Attributes:
        status: HTTP status.
        description: One sentence.
        problem: It is a problem document.
    """

    status: str
    description: str
    problem: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        anchor: For links within the page.
        method: In capitals.
        path: With its parameters in braces.
        summary: A few words.
        description: Sentences.
        roles: Who may call it; empty if it asks for no token.
        permission: What is asked for, in words.
        parameters: In path, query and header.
        body: Or None.
        answers: By status.
        curl: A command line that calls it.
    """

    anchor: str
    method: str
    path: str
    summary: str
    description: str
    roles: tuple[str, ...]
    permission: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    answers: tuple[Answer, ...]
    curl: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Operations of one tag."""

    title: str
    operations: tuple[Operation, ...]


_Schema = Mapping[str, Any]


class _Reader:
    """Reads one OpenAPI document."""

    def __init__(self, document: _Schema, base_url: str) -> None:
        self._document = document
        self._base_url = base_url.rstrip("/")

    def _resolve(self, schema: _Schema) -> _Schema:
        while "$ref" in schema:
            found: Any = self._document
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _kind(self, schema: _Schema) -> str:
        schema = self._resolve(schema)
        if "anyOf" in schema:
            kinds = [self._kind(option) for option in schema["anyOf"] if option.get("type") != "null"]
            return " or ".join(kinds)
        if "enum" in schema:
            return "one of " + ", ".join(map(str, schema["enum"]))
        if "const" in schema:
            return str(schema["const"])
        if schema.get("type") == "array":
            return f"array of {self._kind(schema.get('items', {}))}{_bounds(schema)}"
        return f"{schema.get('type', 'any')}{_bounds(schema)}"

    def _members(self, schema: _Schema, prefix: str = "", depth: int = 0) -> Iterator[Parameter]:
        schema = self._resolve(schema)
        if depth < _MAX_DEPTH:
            for name, raw in schema.get("properties", {}).items():
                member = self._resolve(raw)
                yield Parameter(
                    name=f"{prefix}{name}",
                    place="body",
                    required=name in schema.get("required", ()),
                    kind=self._kind(member),
                    description=raw.get("description") or member.get("description", ""),
                )
                if member.get("type") == "array":
                    yield from self._members(member.get("items", {}), f"{prefix}{name}[].", depth + 1)
                else:
                    yield from self._members(member, f"{prefix}{name}.", depth + 1)

    def _parameters(self, operation: _Schema) -> Iterator[Parameter]:
        for parameter in operation.get("parameters", ()):
            schema = parameter.get("schema", {})
            yield Parameter(
                name=parameter["name"],
                place=parameter["in"],
                required=parameter.get("required", False),
                kind=self._kind(schema),
                description=parameter.get("description") or schema.get("description", ""),
            )

    def _body(self, operation: _Schema) -> Body | None:
        raw = operation.get("requestBody")
        if raw is None:
            return None
        content = raw.get("content", {})
        media: _Schema = next(iter(content.values()), {})
        schema = self._resolve(media.get("schema", {}))
        for option in schema.get("anyOf", ()):
            if option.get("type") != "null":
                schema = self._resolve(option)
        return Body(
            media_types=tuple(content),
            required=raw.get("required", False),
            description=raw.get("description") or schema.get("description", ""),
            members=tuple(self._members(schema)),
        )

    def _curl(self, path: str, method: str, parameters: Sequence[Parameter], body: Body | None, *, token: bool) -> str:
        # In braces, what the caller fills in stays visible; --globoff keeps curl from reading braces as a pattern.
        query = "&".join(f"{p.name}={{{p.name}}}" for p in parameters if p.place == "query" and p.required)
        url = f"{self._base_url}{path}" + (f"?{query}" if query else "")
        words = ["curl", "--fail-with-body"]
        if "{" in url:
            words.append("--globoff")
        if method != "GET":
            words += ["--request", method]
        line = shlex.join(words)
        if token:
            line += ' --header "Authorization: Bearer $TALLYSTICK_TOKEN"'
        if body is not None:
            media_type = body.media_types[0] if body.media_types else "application/octet-stream"
            line += f" --header {shlex.quote(f'Content-Type: {media_type}')} --data-binary @request"
        return f"{line} {shlex.quote(url)}"

    def operation(self, path: str, method: str, raw: _Schema) -> Operation:
        """Return one operation."""
        parameters = tuple(self._parameters(raw))
        body = self._body(raw)
        roles = tuple(role for requirement in raw.get("security", ()) for role in next(iter(requirement.values()), []))
        return Operation(
            anchor=raw["operationId"],
            method=method.upper(),
            path=path,
            summary=raw.get("summary", ""),
            description=" ".join(raw.get("description", "").split()),
            roles=roles,
            permission=raw.get("x-tallystick-permission", ""),
            parameters=parameters,
            body=body,
            answers=tuple(_answers(raw.get("responses", {}))),
            curl=self._curl(path, method.upper(), parameters, body, token=bool(roles)),
        )


def _bounds(schema: _Schema) -> str:
    words = {
        "format": "{}",
        "contentEncoding": "{}",
        "pattern": "matching {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {}",
        "maxItems": "at most {}",
        "minimum": "≥ {}",
        "maximum": "≤ {}",
    }
    found = [text.format(schema[name]) for name, text in words.items() if name in schema]
    if schema.get("default") is not None:
        found.append(f"default {json.dumps(schema['default'])}")
    return f", {', '.join(found)}" if found else ""


def _answers(responses: _Schema) -> Iterator[Answer]:
    for status, response in sorted(responses.items()):
        problem = "application/problem+json" in response.get("content", {})
        yield Answer(status=status, description=response.get("description", ""), problem=problem)


def groups_of(document: _Schema, base_url: str) -> tuple[Group, ...]:
    """Return the operations of an OpenAPI document by tag.

    Args:
        document: As FastAPI makes it.
        base_url: How callers reach the service, for the command lines.
    """
    reader = _Reader(document, base_url)
    by_tag: dict[str, list[Operation]] = {tag: [] for tag in _ORDER}
    for path, methods in document["paths"].items():
        for method, raw in methods.items():
            tag = next(iter(raw.get("tags", ())), "other")
            by_tag.setdefault(tag, []).append(reader.operation(path, method, raw))
    return tuple(Group(title=tag, operations=tuple(found)) for tag, found in by_tag.items() if found)


@router.get("/docs/api")
async def show_api(request: Request, lobby: LobbyDep) -> Response:
    """Describe the API; like the OpenAPI document itself, to everybody."""
    groups = groups_of(request.app.openapi(), lobby.hosting.settings.external_url)
    seat = await seat_of(request)
    pages = seat.dashboard.pages if seat else lobby.strangers
    session = seat.session if seat else None
    return pages.page("api.html", session=session, path=request.url.path, groups=groups)
