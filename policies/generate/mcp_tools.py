"""Operations out of MCP's answer to ``tools/list``.

Pure. The document is the answer as it is (``{"jsonrpc": …, "result": {"tools": […]}}``), its result, or the list of
tools alone. A tool keeps its name, for that is what clients call. The hints in ``annotations`` are the server's word
about itself: they can make an operation look more dangerous, and less only where its name does not say otherwise.

Source: Model Context Protocol, revision 2026-07-28, "Tools".
"""

from __future__ import annotations

from typing import Final

from ledger.canonical import JSONValue
from ledger.errors import PolicySyntaxError
from policies.generate.arguments import Arguments
from policies.generate.model import MAX_OPERATIONS, Description, JSONObject, Notes, Operation, members, text_of
from policies.generate.naming import access_of, tags_of
from policies.generate.schemas import Converter

__all__ = ["read_mcp_tools"]

_MAX_NAME_CHARS: Final = 1_000


def _listed(document: JSONValue) -> list[JSONValue]:
    if isinstance(document, dict):
        document = members(document.get("result", document)).get("tools")
    if not isinstance(document, list):
        raise PolicySyntaxError("no answer to tools/list: there is no list of tools")
    return document


def _hint(annotations: JSONObject, name: str) -> bool | None:
    value = annotations.get(name)
    return value if isinstance(value, bool) else None


def _operation(tool: str, value: JSONObject, converter: Converter) -> Operation:
    arguments = Arguments(converter)
    arguments.take_whole(value.get("inputSchema", {}), f"{tool}/inputSchema")
    annotations = members(value.get("annotations"))
    access = access_of(tool, read_only=_hint(annotations, "readOnlyHint"))
    tags = tags_of(
        tool,
        access,
        arguments=arguments.names(),
        formats=arguments.formats(),
        destructive=_hint(annotations, "destructiveHint"),
        open_world=_hint(annotations, "openWorldHint"),
    )
    return Operation(
        tool=tool,
        label=f"tool {tool}"[:1000],
        access=access,
        tags=tags,
        schema=arguments.schema(),
        examples=arguments.examples(),
    )


def read_mcp_tools(document: JSONValue) -> Description:
    """Return what an MCP server says of its tools.

    Args:
        document: The answer's value.

    Raises:
        PolicySyntaxError: There is no list of tools in it.
    """
    notes = Notes()
    operations: dict[str, Operation] = {}
    definitions: dict[str, JSONValue] = {}
    for index, value in enumerate(_listed(document)):
        tool = text_of(members(value).get("name"))
        if not isinstance(value, dict) or not tool or len(tool) > _MAX_NAME_CHARS:
            notes.skipped(f"tools/{index}", "a tool without a name")
        elif tool in operations:
            notes.skipped(f"tools/{index}", f"a second tool named {tool[:80]!r}")
        elif len(operations) >= MAX_OPERATIONS:
            notes.skipped("tools", f"more than {MAX_OPERATIONS} tools")
            break
        else:
            # References in a tool's schema are its own; those of two tools must not meet.
            converter = Converter(value.get("inputSchema"), notes, prefix=f"{index}.")
            operations[tool] = _operation(tool, value, converter)
            definitions.update(converter.definitions)
    return Description(
        kind="mcp", title="", operations=tuple(operations.values()), definitions=definitions, notes=notes
    )
