"""The handshakes of both eras: what is asked, and whether an answer is one that only an MCP server gives.

Pure. Two questions tell MCP from everything else that speaks JSON-RPC, without calling anything: ``server/discover``
of 2026-07-28, and ``initialize`` of 2025-11-25 and before. What counts is the shape that the specification demands of
the answer to *this* request, not a word in it: an echo, a language server and another JSON-RPC service have it not.

Where a server asks for a token first, its metadata (RFC 9728) shows what is protected there; it is *likely* an MCP
server, for the same is said of other services, and a report says so.

Sources: MCP 2025-11-25 lifecycle, transports, authorization; MCP 2026-07-28 discovery; RFC 9728 sections 3.3 and 5.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

__all__ = [
    "DISCOVER_HEADERS",
    "INITIALIZE_HEADERS",
    "STATEFUL",
    "STATELESS",
    "Era",
    "Handshake",
    "discover_request",
    "events_of",
    "initialize_request",
    "judge",
    "message_of",
    "metadata_place",
    "names_resource",
]

STATEFUL: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
Era = Literal["stateful", "stateless"]
_ACCEPT: Final = "application/json, text/event-stream"
_BOTH: Final = {"Accept": _ACCEPT, "Content-Type": "application/json", "Accept-Encoding": "identity"}
INITIALIZE_HEADERS: Final[Mapping[str, str]] = _BOTH
DISCOVER_HEADERS: Final[Mapping[str, str]] = {
    **_BOTH,
    "MCP-Protocol-Version": STATELESS,
    "Mcp-Method": "server/discover",
}
_CLIENT: Final = {"name": "tallystick-discover", "version": "1"}
_REVISION: Final = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]|DRAFT-[A-Za-z0-9.-]{1,32}")
_MAX_REVISIONS: Final = 32
_MAX_TEXT: Final = 128
_METADATA: Final = re.compile(r"""resource_metadata\s*=\s*(?:"([^"]{1,1024})"|([^\s,"]{1,1024}))""", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What an answer shows.

    Attributes:
        era: Which handshake it answered.
        revisions: Protocol revisions that the server named, sorted.
        name: What it calls itself, with nothing that moves a cursor; empty if it does not say.
        version: Of what version it says it is.
    """

    era: Era
    revisions: tuple[str, ...]
    name: str
    version: str


def discover_request(request_id: str) -> bytes:
    """Return ``server/discover`` of the stateless era."""
    prefix = "io.modelcontextprotocol/"
    meta = {f"{prefix}protocolVersion": STATELESS, f"{prefix}clientInfo": _CLIENT, f"{prefix}clientCapabilities": {}}
    return _request(request_id, "server/discover", {"_meta": meta})


def initialize_request(request_id: str) -> bytes:
    """Return ``initialize`` of the stateful era."""
    params = {"protocolVersion": STATEFUL, "capabilities": {}, "clientInfo": _CLIENT}
    return _request(request_id, "initialize", params)


def _request(request_id: str, method: str, params: Mapping[str, object]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


def message_of(text: str) -> Mapping[str, Any] | None:
    """Return a JSON object; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Mapping) else None


def events_of(stream: str) -> Iterator[tuple[str, str]]:
    """Yield the name and data of each event of a stream that has ended so far; see the SSE specification."""
    text = stream.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for block in text.split("\n\n")[:-1]:
        name, data = "message", []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
        if data:
            yield name, "\n".join(data)


def judge(message: Mapping[str, Any] | None, request_id: str, era: Era) -> Handshake | None:
    """Return the handshake that a message completes; None if it is none that an MCP server gives.

    Args:
        message: What was answered.
        request_id: What was asked under.
        era: Which question it was.
    """
    if message is None or message.get("jsonrpc") != "2.0" or message.get("id") != request_id or "method" in message:
        return None
    error, result = message.get("error"), message.get("result")
    if isinstance(error, Mapping) and "result" not in message:
        return _refusal(error, era)
    if not isinstance(result, Mapping) or "error" in message or not isinstance(result.get("capabilities"), Mapping):
        return None
    if era == "stateless":
        revisions = _revisions(result.get("supportedVersions"))
        meta = result.get("_meta")
        info = meta.get("io.modelcontextprotocol/serverInfo") if isinstance(meta, Mapping) else None
        return _shown(era, revisions, info if isinstance(info, Mapping) else result.get("serverInfo"))
    info = result.get("serverInfo")
    # A language server's answer to its own `initialize` has capabilities and serverInfo, but no revision.
    if not isinstance(info, Mapping) or not isinstance(info.get("name"), str):
        return None
    return _shown(era, _revisions([result.get("protocolVersion")]), info)


def _shown(era: Era, revisions: tuple[str, ...], info: object) -> Handshake | None:
    if not revisions:
        return None
    said = info if isinstance(info, Mapping) else {}
    return Handshake(era=era, revisions=revisions, name=_text(said.get("name")), version=_text(said.get("version")))


def _refusal(error: Mapping[str, Any], era: Era) -> Handshake | None:
    """Return what a server shows that refuses the revision: it names those that it has (both eras)."""
    data = error.get("data")
    code = error.get("code")
    if not isinstance(data, Mapping) or not isinstance(code, int) or isinstance(code, bool):
        return None
    return _shown(era, _revisions(data.get("supported")), None)


def _revisions(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not 0 < len(value) <= _MAX_REVISIONS:
        return ()
    if not all(isinstance(one, str) and _REVISION.fullmatch(one) for one in value):
        return ()
    return tuple(sorted(set(value)))


def _text(value: object) -> str:
    """Return a text of a stranger as one short line of printable characters."""
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else "\ufffd" for char in value[:_MAX_TEXT])


def metadata_place(challenges: Sequence[str]) -> str | None:
    """Return where the challenges of a 401 say that the resource's metadata is; None if none says so.

    Args:
        challenges: The values of WWW-Authenticate.
    """
    for challenge in challenges:
        if challenge.strip().lower().startswith("bearer") and (said := _METADATA.search(challenge)):
            return said[1] or said[2]
    return None


def names_resource(metadata: Mapping[str, Any] | None, path: str) -> bool:
    """Whether protected-resource metadata is of the resource under a path, and of no other (RFC 9728 section 3.3).

    The host may be another one than was asked: a server in front of which a proxy stands tells its public name.
    """
    if metadata is None:
        return False
    resource, servers = metadata.get("resource"), metadata.get("authorization_servers")
    if not isinstance(resource, str) or not isinstance(servers, Sequence) or isinstance(servers, str) or not servers:
        return False
    try:
        parts = urlsplit(resource)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and parts.path.rstrip("/") == path.rstrip("/")
