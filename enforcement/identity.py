"""Who is calling: from a bearer token to a principal.

Pure. Only the token speaks: what a client says of itself in the message (``clientInfo``) or in forwarded headers grants
nothing.

Source: RFC 6750 section 2.1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from enforcement.config import PrincipalSettings

__all__ = ["Identity", "Principals"]

# RFC 6750: the scheme's name is matched without regard to case (RFC 9110 section 11.1), the token is b64token.
_BEARER: Final = re.compile(r"(?i:bearer) +(?P<token>[A-Za-z0-9._~+/-]+=*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller who proved who it is.

    Attributes:
        credential: SHA-256 of the token, hexadecimal.
        agent: The agent.
        user: On whose behalf, or None.
        roles: Its roles.
        mfa: A second factor was part of it.
        authn: How it proved who it is.
    """

    credential: str
    agent: str
    user: str | None
    roles: tuple[str, ...]
    mfa: bool
    authn: str = "api_token"


class Principals:
    """The callers that the configuration knows."""

    def __init__(self, principals: Sequence[PrincipalSettings]) -> None:
        """Take the principals by the digest of their token."""
        self._by_digest = {
            settings.token_sha256: Identity(
                credential=settings.token_sha256,
                agent=settings.agent,
                user=settings.user,
                roles=tuple(sorted(set(settings.roles))),
                mfa=settings.mfa,
            )
            for settings in principals
        }

    def identify(self, authorization: str | None) -> Identity | None:
        """Return who presents this ``Authorization`` value, or None.

        The look-up is by digest, so that its timing says nothing about a token that is nearly right.
        """
        match = _BEARER.fullmatch(authorization or "")
        if match is None:
            return None
        return self._by_digest.get(hashlib.sha256(match["token"].encode()).hexdigest())
