"""A time-stamping authority over HTTP (RFC 3161 section 3.4).

A token counts after it has been verified as any auditor would verify it, against roots that a person named, and with
the nonce of this very request; its time must be near ours: else one of the two clocks is wrong, and a token that says
so late would be kept for nothing.

An authority is asked for its default policy: the request names none. Where another is wanted, name the URL under which
the authority gives it.

Source: RFC 3161.
"""

from __future__ import annotations

from typing import Final

import httpx
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from ledger.clock import Clock
from ledger.errors import MalformedError, TimestampError, UpstreamError, VerificationError
from ledger.exchange import BoundedExchange
from ledger.ports import KeptTimestamp
from ledger.timestamps import TimestampTrust, verify_timestamp

__all__ = ["HTTPTimestampAuthority"]

_QUERY: Final = "application/timestamp-query"
_OK: Final = 200
_TOLERANCE_MS: Final = 300_000
"""What two clocks may be apart."""


class HTTPTimestampAuthority:
    """`ledger.ports.TimestampAuthority` over HTTP."""

    def __init__(
        self,
        url: str,
        trust: TimestampTrust,
        *,
        clock: Clock,
        timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Ask one authority.

        Args:
            url: Where it answers.
            trust: Whose tokens count.
            clock: Ours.
            timeout_seconds: For the whole of one request and its answer.
            transport: Another way than the network.

        Raises:
            ConfigError: The URL cannot be used.
        """
        self._trust = trust
        self._clock = clock
        self._exchange = BoundedExchange(
            url,
            whom="the time-stamping authority",
            media_type=_QUERY,
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    def stamp(self, size: int, checkpoint: bytes) -> KeptTimestamp:
        """See `TimestampAuthority.stamp`."""
        # The library's own randomness makes the nonce; 64 bits, from the operating system.
        request = TimestampRequestBuilder().data(checkpoint).hash_algorithm(HashAlgorithm.SHA256).build()
        sent_ms = self._clock.now_ms()
        try:
            answer = self._exchange.post(request.as_bytes())
        except UpstreamError as error:
            raise TimestampError(str(error)) from error
        received_ms = self._clock.now_ms()
        if answer.status != _OK:
            raise TimestampError(f"the time-stamping authority answers with status {answer.status}")
        try:
            trusted = verify_timestamp(answer.body, checkpoint, self._trust, nonce=request.nonce)
        except (MalformedError, VerificationError) as error:
            raise TimestampError(f"the time-stamping authority's answer is refused: {error}") from error
        if not sent_ms - _TOLERANCE_MS <= trusted.time_ms <= received_ms + _TOLERANCE_MS:
            apart = (trusted.time_ms - received_ms) // 1000
            raise TimestampError(f"the time-stamping authority's clock is {apart:+d} s from ours: one of them is wrong")
        return KeptTimestamp(
            size=size, checkpoint=checkpoint, token=answer.body, time_ms=trusted.time_ms, kept_ms=received_ms
        )
