"""What gateways have counted together, as the service keeps it: the port, and the way to it over HTTP.

The service's part is `service.fleet_windows`. ``POST /v1/windows/reservations`` gives out strict caps,
``POST /v1/windows/exchange`` takes what this gateway has counted and tells what the others have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec

from enforcement.ledger_client import ServiceClient
from enforcement.ports import Unavailable
from policies.window_tallies import Share

__all__ = [
    "CLAIMED",
    "Contribution",
    "FleetStore",
    "Heard",
    "Part",
    "ServiceFleetStore",
    "decode_parts",
    "encode_parts",
]

CLAIMED: Final = "/"
"""In place of a subject: what is taken is a claim (`enforcement.round_claims`), and no window of anybody."""

_RESERVATIONS: Final = "/v1/windows/reservations"
_EXCHANGE: Final = "/v1/windows/exchange"
_UNREADABLE: Final = Unavailable("unreadable_answer")

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Number = Annotated[str, msgspec.Meta(pattern=r"^-?(0|[1-9][0-9]{0,63})\Z")]


class Part(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a decision takes of one strict window; an amount of 0 only asks.

    Attributes:
        digest: What the window measures.
        subject: Whose calls, a pseudonym.
        slot: When the call counts.
        first: The first slot that counts for the call.
        amount: How much.
        forget_ms: From when on no window asks for it, POSIX milliseconds.
    """

    digest: str
    subject: str
    slot: int
    first: int
    amount: _Number
    forget_ms: int


class _Total(msgspec.Struct, frozen=True, gc=False):
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    subject: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f*/]{1,128}\Z")]
    slot: _Count
    total: _Number
    forget_ms: _Count


class _Page(msgspec.Struct, frozen=True):
    version: _Count
    more: bool
    totals: tuple[_Total, ...]
    told: _Count = 0
    lost: bool = False


class _Sums(msgspec.Struct, frozen=True):
    sums: tuple[_Number, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a gateway says.

    Attributes:
        origin: Under which it counts, 32 hexadecimal digits.
        since: The version up to which it knows what others have.
        told: The version at which it was heard last, by the last answer; 0 for never in this run.
        totals: What it has counted: totals, instead of those that it said before.
        keep: Decisions that were let through, with what they take of strict windows.
        release: Decisions that take nothing after all.
    """

    origin: str
    since: int
    told: int = 0
    totals: Sequence[Share] = ()
    keep: Sequence[tuple[str, Sequence[Part]]] = ()
    release: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a gateway hears.

    Attributes:
        version: Up to which version.
        more: There is more to hear.
        totals: What all others have counted, as far as it has changed.
        told: The version at which something of this gateway was taken in last.
        lost: That is less than was said before: the service's database is an earlier one.
    """

    version: int
    more: bool
    totals: tuple[Share, ...]
    told: int = 0
    lost: bool = False


class FleetStore(Protocol):
    """Keeps what gateways have counted together. Nothing is raised but cancellation."""

    async def reserve(self, decision_id: str, parts: Sequence[Part]) -> Sequence[int] | Unavailable:
        """Take something of strict windows, and return the sum of each, what is taken included.

        Durability: what was taken is kept when this returns sums, and may be kept if it does not. Idempotence: a
        decision takes once.
        """
        ...

    async def exchange(self, said: Contribution) -> Heard | Unavailable:
        """Say what was counted here, and hear what was elsewhere; all of it can be said again."""
        ...


def encode_parts(parts: Sequence[Part]) -> bytes:
    """Return parts as they wait in the state file."""
    return msgspec.json.encode(parts)


def decode_parts(data: bytes) -> tuple[Part, ...]:
    """Return parts that have waited in the state file.

    Raises:
        msgspec.MsgspecError: They are none.
    """
    return msgspec.json.decode(data, type=tuple[Part, ...])


class ServiceFleetStore:
    """The service's windows over HTTP."""

    def __init__(self, client: ServiceClient) -> None:
        """Use an open client."""
        self._client = client

    async def reserve(self, decision_id: str, parts: Sequence[Part]) -> Sequence[int] | Unavailable:
        """See `FleetStore`."""
        body = msgspec.json.encode({"decision_id": decision_id, "parts": parts})
        answer = await self._client.ask(_RESERVATIONS, body)
        if isinstance(answer, Unavailable):
            return answer
        try:
            sums = msgspec.json.decode(answer, type=_Sums).sums
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _UNREADABLE
        return [int(one) for one in sums] if len(sums) == len(parts) else _UNREADABLE

    async def exchange(self, said: Contribution) -> Heard | Unavailable:
        """See `FleetStore`."""
        document = {
            "origin": said.origin,
            "since": said.since,
            "told": said.told,
            "totals": [
                _Total(one.digest, one.subject, one.slot, str(one.amount), one.forget_ms or 0) for one in said.totals
            ],
            "keep": [{"decision_id": decision_id, "parts": parts} for decision_id, parts in said.keep],
            "release": said.release,
        }
        answer = await self._client.ask(_EXCHANGE, msgspec.json.encode(document))
        if isinstance(answer, Unavailable):
            return answer
        try:
            page = msgspec.json.decode(answer, type=_Page)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _UNREADABLE
        totals = tuple(Share(one.digest, one.subject, one.slot, int(one.total), one.forget_ms) for one in page.totals)
        return Heard(version=page.version, more=page.more, totals=totals, told=page.told, lost=page.lost)
