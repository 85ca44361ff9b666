"""A person: who somebody is that logged in, who vouches for that, and the seal that makes his token count.

A machine has a token that an administrator made; a person has one that a login made, for some hours. Which of the two a
token is stands in the service's database. Whoever can write there must not become a person by that, so that each
person's token is sealed with a secret of the log's keys, which are kept elsewhere::

    HMAC-SHA256(HMAC-SHA256(pseudonym key, "tallystick/person-token/v1"), JSON of what the token says)

Pure.

INVARIANT: a token without its seal speaks for no person.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

__all__ = ["CONSOLE", "MAX_PERSON_SECONDS", "PERSON_SECONDS", "Owner", "Person", "actor_name", "is_sealed", "seal_of"]

CONSOLE: Final = "console"
"""The issuer of persons whom nobody vouches for but who works on the operator's own machine."""

PERSON_SECONDS: Final = 8 * 3600
"""How long a person's token lives unless somebody says otherwise."""

MAX_PERSON_SECONDS: Final = 24 * 3600
"""Longest life of a person's token."""

_LABEL: Final = b"tallystick/person-token/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a machine's token is: the person who had it issued.

    Attributes:
        issuer: Who vouches for the person.
        subject: What the person is called there, for ever.
    """

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who logged in.

    Attributes:
        issuer: Who vouches for him: an OpenID provider's URL, or `CONSOLE`.
        subject: What he is called there, for ever.
        name: What people call him.
        method: How he logged in: ``oidc``, ``console`` or ``break_glass``.
        acr: What the provider calls the strength of the login; empty if it says nothing.
        amr: By which methods, as RFC 8176 names them.
        provider_session: ``sid`` of the provider's session; empty if it has none.
    """

    issuer: str
    subject: str
    name: str
    method: str
    acr: str = ""
    amr: tuple[str, ...] = ()
    provider_session: str = ""

    @property
    def owner(self) -> Owner:
        """Who he is, however he logged in."""
        return Owner(issuer=self.issuer, subject=self.subject)


def actor_name(issuer: str, subject: str) -> str:
    """Return the name over which a person's pseudonym is made.

    A provider's subject is set apart by what no token's name can hold, so that no machine is called like a person.
    """
    return subject if issuer == CONSOLE else f"{issuer}\n{subject}"


def seal_of(seed: bytes, log_id: str, token_sha256: str, role: str, expires_ms: int, person: Person) -> str:
    """Return the seal of a person's token, hexadecimal.

    Args:
        seed: The log's pseudonym key.
        log_id: Which log.
        token_sha256: Digest of the token.
        role: What he may do with it.
        expires_ms: When it ends.
        person: Who he is.
    """
    told = msgspec.json.encode([log_id, token_sha256, role, expires_ms, person])
    return hmac.digest(hmac.digest(seed, _LABEL, hashlib.sha256), told, hashlib.sha256).hex()


def is_sealed(
    seal: str, seeds: Iterable[bytes], log_id: str, token_sha256: str, role: str, expires_ms: int, person: Person
) -> bool:
    """Return whether one of the keys made a seal; see `seal_of`."""
    return any(
        hmac.compare_digest(seal, seal_of(seed, log_id, token_sha256, role, expires_ms, person)) for seed in seeds
    )
