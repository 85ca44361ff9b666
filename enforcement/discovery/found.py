"""A server that a scan found. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from enforcement.discovery.handshake import Era

__all__ = ["Certainty", "FoundServer", "Transport"]

Certainty = Literal["confirmed", "likely"]
Transport = Literal["streamable_http", "sse", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundServer:
    """A server that answered.

    Attributes:
        url: Where.
        transport: How it is spoken to.
        eras: Which handshakes it answered, sorted.
        revisions: Protocol revisions that it named.
        name: What it calls itself; a stranger's text.
        version: The same.
        needs_token: It asked for a token before it answered anything.
        certainty: ``confirmed`` by a handshake, or ``likely`` by what it says it protects.
    """

    url: str
    transport: Transport
    eras: tuple[Era, ...] = ()
    revisions: tuple[str, ...] = ()
    name: str = ""
    version: str = ""
    needs_token: bool = False
    certainty: Certainty = "confirmed"
