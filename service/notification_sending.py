"""One message to one address: only where the operator said, and no further.

INVARIANT: no redirect is followed, and what a name resolves to is checked as it is connected to, not before: a name
that leads inside the second time leads nowhere. Addresses that are not of the internet are refused, unless the
operator said of this webhook that it is inside.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from ledger.errors import ConfigError, UpstreamError

__all__ = ["MAX_URL", "TIMEOUT_SECONDS", "check_url", "send"]

MAX_URL: Final = 2048
TIMEOUT_SECONDS: Final = 10.0
_SPELT: Final = re.compile(r"https?://[!-~]+")
_EMBEDDING: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""IPv6 addresses that end in an IPv4 address and lead there: NAT64 (RFC 6052), and compatible ones (RFC 4291)."""


def check_url(url: str, *, internal: bool) -> None:
    """Refuse an address that nothing is sent to.

    Args:
        url: The address.
        internal: It is inside: plain HTTP and addresses that are not of the internet will do.

    Raises:
        ConfigError: It is none, or none that may be.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("a webhook is an https URL") from error
    if len(url) > MAX_URL or _SPELT.fullmatch(url) is None or not host or parts.username is not None or parts.fragment:
        raise ConfigError("a webhook is an https URL, without user, password and fragment")
    if parts.scheme != "https" and not internal:
        raise ConfigError("a webhook is an https URL; plain http is for one that is inside")
    if not internal and _is_inside(host):
        raise ConfigError("that address is not of the internet: say that the webhook is inside")


def _is_inside(host: str) -> bool:
    """Whether an address is none of the internet; a name is none before it is resolved."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    if isinstance(address, ipaddress.IPv6Address) and (meant := _ipv4_of(address)) is not None:
        address = meant
    return not address.is_global or address.is_multicast


def _ipv4_of(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for; None if it stands for none."""
    if any(address in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


class _Guarded(AbstractResolver):
    """Resolves names to addresses of the internet only."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if any(_is_inside(one["host"]) for one in found):
            raise OSError("the name leads inside")
        return found

    async def close(self) -> None:
        await self._inner.close()


async def send(
    url: str, headers: Mapping[str, str], body: bytes, *, internal: bool, timeout_seconds: float = TIMEOUT_SECONDS
) -> int:
    """Post a message; returns the status of the answer, of which nothing else is read.

    Args:
        url: Where to.
        headers: Of the message.
        body: Of the message.
        internal: See `check_url`.
        timeout_seconds: Longest wait for the answer.

    Raises:
        ConfigError: The address may not be sent to.
        UpstreamError: There was no answer.
    """
    check_url(url, internal=internal)
    connector = aiohttp.TCPConnector(resolver=ThreadedResolver() if internal else _Guarded(), force_close=True)
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as session,
            session.post(
                url, data=body, headers={"Content-Type": "application/json", **headers}, allow_redirects=False
            ) as response,
        ):
            return response.status
    except TimeoutError as error:
        raise UpstreamError("no answer in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise UpstreamError(f"no answer ({type(error).__name__})") from error
