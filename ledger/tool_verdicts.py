"""What people said of tools' definitions, as a set that every gateway has: its document, and how it is read.

Pure. The set follows from the log's records (`service.tool_book`); its version is the leaf index of the record that
made it. Of each tool it has what stands now:

    {"format":"tallystick.tools/1","tools":[{"digest":"d1…","leaf":7,"server":"crm","state":"approved","tool":"refund"}],
     "version":7}

``quarantined``: some gateway has seen a definition that may not be used; it may be used at none. ``approved`` or
``rejected``: a person said so of the definition with this digest, later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Final, Literal

import msgspec

from ledger.body_fields import Name
from ledger.canonical import canonical_bytes, sha256
from ledger.errors import MalformedError

__all__ = ["MAX_TOOL_DOCUMENT_BYTES", "ToolVerdict", "ToolVerdicts", "parse_tool_verdicts"]

MAX_TOOL_DOCUMENT_BYTES: Final = 16 << 20

_FORMAT: Final = "tallystick.tools/1"


class ToolVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands of one tool.

    Attributes:
        server: Its server.
        tool: Its name, as records have it.
        state: What stands.
        digest: Of the definition that it is about; empty for one that has none.
        leaf: Leaf index of the record that says so.
    """

    server: Name
    tool: Name
    state: Literal["quarantined", "approved", "rejected"]
    digest: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    leaf: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


@dataclass(frozen=True)
class ToolVerdicts:
    """The set.

    Attributes:
        version: Leaf index of the record that made it; -1 for the empty one.
        tools: (server, tool) → what stands.
    """

    version: int = -1
    tools: Mapping[tuple[str, str], ToolVerdict] = field(default_factory=dict)

    @cached_property
    def document(self) -> bytes:
        """The set's canonical JSON."""
        tools = [msgspec.to_builtins(self.tools[key]) for key in sorted(self.tools)]
        return canonical_bytes({"format": _FORMAT, "tools": tools, "version": self.version})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the document, hexadecimal."""
        return sha256(self.document).hex()


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["tallystick.tools/1"]
    tools: tuple[ToolVerdict, ...]
    version: Annotated[int, msgspec.Meta(ge=-1, le=2**53 - 1)]


_DECODER: Final = msgspec.json.Decoder(_Document)


def parse_tool_verdicts(data: bytes) -> ToolVerdicts:
    """Read a document; the inverse of `ToolVerdicts.document`.

    Raises:
        MalformedError: It is none in its canonical form, or names a tool twice.
    """
    if len(data) > MAX_TOOL_DOCUMENT_BYTES:
        raise MalformedError("the verdicts on tools are too long")
    try:
        document = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError("not a set of verdicts on tools") from error
    found = ToolVerdicts(document.version, {(one.server, one.tool): one for one in document.tools})
    if found.document != data:
        raise MalformedError("the verdicts on tools are not in canonical form, or name a tool twice")
    return found
