"""One HTTP request to somebody whom we do not control: bounded in time and size, whatever is answered how slowly.

For witnesses, time-stamping authorities and an operator's OPA. What an answer means is their clients' part.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

import httpx

from ledger.errors import ConfigError, UpstreamError

__all__ = ["Answer", "BoundedExchange"]

_MAX_ANSWER_BYTES: Final = 65_536
"""Ample for certificates in a token, and for a witness that signs with several keys (3.3 KB for ML-DSA-44)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        media_type: Lower case, without parameters; empty if none was said.
        body: At most 64 KiB.
    """

    status: int
    media_type: str
    body: bytes


class BoundedExchange:
    """Posts to one URL; safe for any thread that runs no event loop."""

    def __init__(
        self,
        url: str,
        *,
        whom: str,
        media_type: str,
        timeout_seconds: float,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare to post.

        Args:
            url: Where to.
            whom: Who is asked, for errors.
            media_type: Of what is sent.
            timeout_seconds: For the whole of one request and its answer.
            token: Bearer token that is sent along.
            transport: Another way than the network.

        Raises:
            ConfigError: The URL or the token cannot be used.
        """
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"the URL of {whom} cannot be used") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.fragment or parsed.userinfo:
            raise ConfigError(f"the URL of {whom} must be http(s)://HOST/PATH")
        self._url = parsed
        self._whom = whom
        self._headers = {"Content-Type": media_type, "Accept-Encoding": "identity"}
        if token is not None:
            if not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigError(f"the token for {whom} is no token")
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout_seconds
        self._transport = transport
        # Made once: reading the system's certificates takes longer than a request. Without TLS there are none to read.
        self._tls = ssl.create_default_context() if parsed.scheme == "https" else False

    def post(self, body: bytes) -> Answer:
        """Post, and return what was answered, whatever its status.

        Raises:
            UpstreamError: No answer, not in time, or one without end. Nothing of it is quoted.
        """
        # An event loop for each request: only so does one time-out bound all of it. Not `asyncio.run`, which at its end
        # waits for the thread that looks the name up: with a name server that is silent, for half a minute and more.
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._post(body))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _post(self, body: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(body)
        except TimeoutError:
            raise UpstreamError(f"{self._whom} did not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            # The cause's own words may quote what a stranger sent; its kind says enough.
            raise UpstreamError(f"{self._whom} cannot be asked ({type(error).__name__})") from error

    async def _exchange(self, body: bytes) -> Answer:
        # Neither proxies nor credentials of the environment, nor a redirection: whom we ask was decided by a person.
        async with (
            httpx.AsyncClient(
                verify=self._tls, trust_env=False, timeout=self._timeout, transport=self._transport
            ) as client,
            client.stream("POST", self._url, content=body, headers=self._headers) as response,
        ):
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > _MAX_ANSWER_BYTES:
                    raise UpstreamError(f"{self._whom} answers with more than {_MAX_ANSWER_BYTES} bytes")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return Answer(status=response.status_code, media_type=media_type, body=bytes(received))
