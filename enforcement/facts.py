"""The facts of a decision: identity, time, environment, state; and how they may be named in the open.

What is gathered here is all that a policy gets to see; it stands in the recorded request as values, so that replay
needs nothing else. The network address is the socket's: a header that claims another one is not read. Who the caller is
comes from `enforcement.identity`, the session's state from `enforcement.sessions`.
"""

from __future__ import annotations

import ipaddress
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from enforcement.config import NetworkSettings, ServerSettings
from enforcement.identity import Identity
from enforcement.mcp import Message
from ledger.canonical import sha256
from ledger.commitments import fingerprint, pseudonym, pseudonym_key_id
from policies.model import REQUEST_VERSION, DecisionRequest, Environment, Principal, Resource, SessionState, Time

__all__ = [
    "UNKNOWN",
    "Networks",
    "Pseudonyms",
    "build_request",
    "local_time",
    "tags_of",
]

UNKNOWN: Final = "unknown"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def local_time(now_ms: int, zone: str) -> Time:
    """Return a moment with what policies ask of it.

    Args:
        now_ms: POSIX milliseconds.
        zone: IANA time zone.
    """
    local = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(zoneinfo.ZoneInfo(zone))
    return Time(
        now_ms=now_ms,
        zone=zone,
        local_date=local.date().isoformat(),
        hour=local.hour,
        minute=local.minute,
        weekday=local.isoweekday(),
    )


class Networks:
    """Labels for address ranges."""

    def __init__(self, networks: Sequence[NetworkSettings]) -> None:
        """Take the ranges, narrowest first."""
        ranges: list[tuple[_Network, str]] = [
            (ipaddress.ip_network(cidr), network.label) for network in networks for cidr in network.cidrs
        ]
        self._ranges = sorted(ranges, key=lambda item: item[0].prefixlen, reverse=True)

    def locate(self, peer: str | None) -> Environment:
        """Return where a socket's peer is.

        Args:
            peer: Its address; None for a socket that has none.
        """
        address = _address(peer)
        if address is None:
            return Environment(address=UNKNOWN, network=UNKNOWN)
        for network, label in self._ranges:
            if address.version == network.version and address in network:
                return Environment(address=str(address), network=label)
        return Environment(address=str(address), network=UNKNOWN)


def _address(peer: str | None) -> _Address | None:
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 callers as ::ffff:a.b.c.d; ranges are written for what they are.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def tags_of(server: ServerSettings, name: str | None) -> tuple[str, ...]:
    """Return the tags of a server and, if it has any of its own, of the tool that is called; sorted."""
    own = (tag for tool in server.tools if tool.name == name for tag in tool.tags)
    return tuple(sorted({*server.tags, *own}))


def _together(tags: tuple[str, ...], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({*tags, *more})) if more else tags


def build_request(
    *,
    identity: Identity,
    message: Message,
    server: ServerSettings,
    time: Time,
    place: Environment,
    state: SessionState,
    argument_tags: Sequence[str] = (),
) -> DecisionRequest:
    """Return everything that the decision may depend on, as values."""
    tags = tags_of(server, message.name)
    return DecisionRequest(
        version=REQUEST_VERSION,
        principal=Principal(
            agent=identity.agent, user=identity.user, roles=identity.roles, authn=identity.authn, mfa=identity.mfa
        ),
        action=message.method,
        resource=Resource(server=server.name, name=message.name, tags=_together(tags, argument_tags)),
        time=time,
        environment=place,
        state=state,
        arguments=message.arguments if message.arguments is not None else "{}",
    )


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Names users, sessions, addresses and contents by the tenant's key (`ledger.commitments`).

    Attributes:
        key: 32 bytes.
    """

    key: bytes

    def __repr__(self) -> str:
        """Name the key without its bytes."""
        return f"Pseudonyms({self.key_id})"

    @property
    def key_id(self) -> str:
        """Public id of the key."""
        return pseudonym_key_id(self.key)

    def user(self, user: str | None) -> str | None:
        """Return a user's pseudonym."""
        return None if user is None else pseudonym(self.key, "user", user)

    def session(self, session: str) -> str:
        """Return a session's pseudonym."""
        return pseudonym(self.key, "session", session)

    def address(self, address: str) -> str | None:
        """Return an address's pseudonym; None if it is not known."""
        return None if address == UNKNOWN else pseudonym(self.key, "address", address)

    def content(self, content: bytes | None) -> str | None:
        """Return the fingerprint of bytes."""
        return None if content is None else fingerprint(self.key, sha256(content))
