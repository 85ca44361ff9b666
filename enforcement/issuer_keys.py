"""The keys of an issuer of access tokens: fetched, kept for a while, fetched anew when they have changed.

They are fetched in the background, so that a call waits for it in one case alone: its token names a key that is not
known. That is how an issuer changes keys, and it is what a stranger can write into a token, so that

* it makes the gateway ask at most once in `IssuerSettings.unknown_key_seconds`, whoever asks;
* everybody waits for the same answer, and no more than a few wait;
* no redirect is followed, no more than `MAX_KEY_SET_BYTES` are read, and the address is the configuration's, never one
  that stands in a token.

INVARIANT 7: keys that nobody could confirm for `IssuerSettings.max_age_seconds` verify nothing any more. A key that the
issuer has withdrawn verifies nothing as soon as the new set is here.

Source: RFC 7517 section 5; OpenID Connect Core 1.0 section 10.1.1 (rotation of signing keys).
"""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from enforcement.bounded import read_bounded
from enforcement.config_identity import IssuerSettings
from enforcement.jwks import MAX_KEY_SET_BYTES, KeySet, VerificationKey, parse_key_set
from ledger.clock import Clock
from ledger.errors import ConfigError, LedgerError, UpstreamError
from ledger.tasks import Repeating, end

__all__ = ["IssuerKeys", "trusting"]

_LOG: Final = structlog.get_logger(__name__)
_OK: Final = 200
_MS_PER_SECOND: Final = 1000
_MAX_WAITING: Final = 64
"""Callers with a key that is not known who wait for one fetch; further ones are strangers at once."""


def trusting(ca: Path | None) -> ssl.SSLContext:
    """Return how a host is known over https: by the certificates of a file, or by the system's.

    Raises:
        ConfigError: The file cannot be used.
    """
    if ca is None:
        return _system()
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates {ca} cannot be used") from error


@cache
def _system() -> ssl.SSLContext:
    """Return one context for all: to read the system's certificates takes 40 ms, for each server of a list."""
    return ssl.create_default_context()


class IssuerKeys:
    """The keys of one issuer; owned by the event loop.

    Attributes:
        settings: The issuer.
        generation: Counts how often the keys have changed; what was verified under another one must be verified again.
    """

    def __init__(self, settings: IssuerSettings, clock: Clock) -> None:
        """Take the issuer; nothing is fetched before `start`.

        Args:
            settings: The issuer.
            clock: Dates what was fetched.

        Raises:
            ConfigError: The file with the certificates that must vouch for its host cannot be used.
        """
        self.settings = settings
        self.generation = 0
        self._clock = clock
        self._ssl = trusting(settings.ca)
        self._session: aiohttp.ClientSession | None = None
        self._data: bytes | None = None
        self._keys: KeySet | None = None
        self._confirmed_ms = 0
        self._asked_ms: int | None = None
        self._asking: asyncio.Task[None] | None = None
        self._waiting = 0
        pause = min(settings.unknown_key_seconds, settings.refresh_seconds)
        self._refreshing = Repeating("keys of an issuer", self._turn, retry_seconds=pause, on_failure=self._say)

    def start(self, session: aiohttp.ClientSession) -> None:
        """Begin to fetch, over this session."""
        self._session = session
        self._refreshing.start()

    async def stop(self) -> None:
        """End what is under way."""
        await self._refreshing.stop()
        await end(self._asking)

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key that a token names; None if the issuer has none such, or if its keys are not at hand.

        Args:
            kid: ``kid`` of the token's header.
            algorithm: ``alg`` of the header, one that the issuer may use.
        """
        key = self._find(kid, algorithm)
        if key is not None or not self._may_ask() or self._waiting >= _MAX_WAITING:
            return key
        self._waiting += 1
        try:
            await self._fetched()
        except LedgerError as error:
            self._say(error)
        finally:
            self._waiting -= 1
        return self._find(kid, algorithm)

    @property
    def usable(self) -> bool:
        """Whether there are keys, and they have been confirmed lately."""
        age_ms = self._clock.now_ms() - self._confirmed_ms
        return self._keys is not None and 0 <= age_ms <= self.settings.max_age_seconds * _MS_PER_SECOND

    def _find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        return self._keys.find(kid, algorithm) if self._keys is not None and self.usable else None

    def _may_ask(self) -> bool:
        if self._asking is not None or self._asked_ms is None:
            return self._session is not None
        return not 0 <= self._clock.now_ms() - self._asked_ms < self.settings.unknown_key_seconds * _MS_PER_SECOND

    async def _turn(self) -> float:
        await self._fetched()
        return self.settings.refresh_seconds

    async def _fetched(self) -> None:
        """Fetch, or wait for the fetch that is under way; whoever stops waiting does not end it for the others."""
        if self._asking is None:
            self._asked_ms = self._clock.now_ms()
            self._asking = asyncio.create_task(self._ask())
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            data = await self._read()
            if data != self._data:
                self._keys = parse_key_set(data, self.settings.algorithms)
                self._data = data
                self.generation += 1
                say = _LOG.info if self._keys.keys else _LOG.warning
                say("issuer_keys_changed", issuer=self.settings.issuer, keys=len(self._keys.keys))
            self._confirmed_ms = self._clock.now_ms()
        finally:
            self._asking = None

    async def _read(self) -> bytes:
        place = self.settings.jwks
        if place.startswith("file:"):
            return await asyncio.to_thread(_read_file, Path(place.removeprefix("file:")))
        assert self._session is not None  # started
        limit = aiohttp.ClientTimeout(total=self.settings.timeout_seconds)
        try:
            async with self._session.get(place, timeout=limit, allow_redirects=False, ssl=self._ssl) as response:
                if response.status != _OK:
                    raise UpstreamError(f"an issuer answers its keys' address with status {response.status}")
                return await read_bounded(response.content, MAX_KEY_SET_BYTES)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise UpstreamError("the keys of an issuer cannot be fetched") from error

    def _say(self, error: Exception) -> None:
        _LOG.warning("issuer_keys_not_fetched", issuer=self.settings.issuer, error=type(error).__name__)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_SET_BYTES + 1)
    except OSError as error:
        raise UpstreamError("the file with an issuer's keys cannot be read") from error
