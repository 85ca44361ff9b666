"""Enrolment: how a machine with a single-use token becomes an enforcer that the log knows.

The order is the design. A claim is checked whole, then the token is bound to it, then the log learns of the key, then
the API token counts, then the answer goes out. Each step can be done again by the same claim and by no other, so that
whoever lost the answer, or met a service that was stopped in between, asks again and gets the same.

Every attempt with a token that exists is a record: the one that succeeds, and (so many of them as
`service.enrolment_tokens` says) those that are refused, by reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, NoReturn

from ledger.bodies import KeyEvent
from ledger.envelopes import ED25519, EnvelopeKey
from ledger.errors import ConflictError, MalformedError, SignatureInvalidError
from ledger.keyring import Keyring
from ledger.keys import encode_key
from ledger.notes import decode_base64, encode_base64
from ledger.ports import Draft
from ledger.signatures import verify_ed25519
from policies.signatures import format_trusted_keys
from policies.trusted_keys import read_trusted_keys
from service.enrolling import EnrolmentClaim, claim_bytes, seal_to, trust_digest
from service.enrolment_tokens import EnrolmentToken, EnrolmentTokens
from service.key_life import published_policy
from service.key_records import append_on_newest_keys
from service.problems import ForbiddenError, UnauthenticatedError
from service.version import VERSION
from service.versions import Standing, standing
from service.wiring.services import Services

__all__ = ["Enrolled", "TrustGiven", "enrol", "introduced_at", "introduction_of", "is_introduced", "trust_given"]

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustGiven:
    """Whom a gateway is told to trust.

    Attributes:
        trust_policy: The log's keys, as auditors are given them.
        bundle_keys: Whose signatures bundles must carry, as a file of trusted keys; None if the service demands none.
        digest: See `service.enrolling.trust_digest`.
    """

    trust_policy: str
    bundle_keys: str | None
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What an enrolled gateway is told.

    Attributes:
        leaf_index: Leaf of its introduction.
        trust: Whom it trusts.
        pseudonym_key_id: The pseudonym key in force.
        pseudonym_key: Its key file, sealed to the gateway, base64.
    """

    leaf_index: int
    trust: TrustGiven
    pseudonym_key_id: str
    pseudonym_key: str


def trust_given(services: Services) -> TrustGiven:
    """Return whom gateways of this log are told to trust now.

    Raises:
        ConfigError: The service's file of bundle keys cannot be read.
    """
    policy = published_policy(services).encode()
    path = services.settings.bundle_trust
    keys = None if path is None else format_trusted_keys(read_trusted_keys(path))
    return TrustGiven(
        trust_policy=policy, bundle_keys=keys, digest=trust_digest(services.identity.log_id, policy, keys)
    )


def introduction_of(enforcer_id: str, public_key: bytes) -> KeyEvent:
    """Return the key record that introduces an enforcer."""
    return KeyEvent(
        action="created",
        purpose="enforcer",
        algorithm=ED25519,
        subject=enforcer_id,
        key_id=EnvelopeKey(ED25519, public_key).key_id,
        public_key=encode_base64(public_key),
    )


def introduced_at(keyring: Keyring, enforcer_id: str, public_key: bytes) -> int:
    """Return the leaf at which an enforcer's key that counts was introduced."""
    return next(
        key.first_leaf
        for key in keyring.keys
        if (key.purpose, key.subject, key.public_key) == ("enforcer", enforcer_id, public_key) and key.last_leaf is None
    )


def is_introduced(keyring: Keyring, enforcer_id: str, public_key: bytes) -> bool:
    """Whether an enforcer is introduced with this very key.

    Raises:
        ConflictError: It is with another one, or the key was in the log before.
    """
    known = keyring.enforcer_keys(enforcer_id)
    if known and public_key not in known:
        raise ConflictError(f"the enforcer {enforcer_id} is introduced with another key")
    if not known and any(key.public_key == public_key for key in keyring.keys):
        raise ConflictError("that key was in this log before: make a new one")
    return bool(known)


async def enrol(
    services: Services, tokens: EnrolmentTokens, token: EnrolmentToken, claim: EnrolmentClaim, signature: str
) -> Enrolled:
    """Introduce an enforcer and make its API token valid; the same claim again has the same result.

    Args:
        services: The log's parts.
        tokens: Where the enrolment token is.
        token: The enrolment token that was presented; it is not revoked.
        claim: What the gateway asks for.
        signature: Over `claim_bytes`, base64.

    Raises:
        UnauthenticatedError: The token has expired, or was used for another claim.
        ForbiddenError: It is for another enforcer.
        MalformedError: A key is none.
        SignatureInvalidError: The gateway does not hold the key that it hands in.
        ConflictError: Its version is not accepted, or the key or the id is taken.
    """
    attempt = _Attempt(services, tokens, token, claim)
    public_key, sealing_key = _key(claim.public_key), _key(claim.sealing_key)
    if token.expires_ms <= services.clock.now_ms():
        await attempt.refuse("expired", UnauthenticatedError("the enrolment token has expired"))
    if token.claim not in (None, claim.digest):
        await attempt.refuse("used", UnauthenticatedError("the enrolment token was used before"))
    if claim.enforcer_id != token.enforcer_id:
        await attempt.refuse("another_enforcer", ForbiddenError("the enrolment token is for another enforcer"))
    try:
        verify_ed25519(public_key, claim_bytes(claim), decode_base64(signature), signer=claim.enforcer_id)
    except (SignatureInvalidError, MalformedError) as error:
        await attempt.refuse("no_possession", error)
    if standing(claim.version, VERSION) is not Standing.ACCEPTED:
        raise ConflictError(f"a gateway of version {claim.version} is not enrolled by a service of version {VERSION}")
    sealed = seal_to(sealing_key, encode_key(services.keys.pseudonym))
    async with services.enrolment:
        await asyncio.to_thread(services.key_records.refresh)
        is_introduced(services.keyring, claim.enforcer_id, public_key)
        if not await asyncio.to_thread(tokens.claim, token, claim.digest):
            await attempt.refuse("used", UnauthenticatedError("the enrolment token was used before"))
        await attempt.introduce(public_key)
        await attempt.let_in(public_key)
    return Enrolled(
        leaf_index=introduced_at(services.keyring, claim.enforcer_id, public_key),
        trust=await asyncio.to_thread(trust_given, services),
        pseudonym_key_id=services.keys.pseudonym_key_id,
        pseudonym_key=encode_base64(sealed),
    )


def _key(text: str) -> bytes:
    key = decode_base64(text)
    if len(key) != _KEY_BYTES:
        raise MalformedError("an Ed25519 or X25519 key has 32 bytes")
    return key


@dataclass(frozen=True, slots=True)
class _Attempt:
    services: Services
    tokens: EnrolmentTokens
    token: EnrolmentToken
    claim: EnrolmentClaim

    def _draft(self, result: str) -> Draft:
        return self.services.access.newcomer_draft(
            self.token.enforcer_id, "enrol", digest=self.token.token_sha256, result=result
        )

    async def refuse(self, reason: str, error: Exception) -> NoReturn:
        if await asyncio.to_thread(self.tokens.refuse, self.token):
            await self.services.access.record([self._draft(reason)])
        raise error

    async def introduce(self, public_key: bytes) -> None:
        services, enforcer_id = self.services, self.claim.enforcer_id

        def records() -> list[Draft]:
            known = is_introduced(services.keyring, enforcer_id, public_key)
            access = self._draft("ok")
            return [access] if known else [Draft(body=introduction_of(enforcer_id, public_key)), access]

        await append_on_newest_keys(services.key_records, services.recorder, records)

    async def let_in(self, public_key: bytes) -> None:
        """Make the API token valid, unless the enforcer was retired meanwhile."""
        services, claim = self.services, self.claim
        log_id = services.identity.log_id
        await asyncio.to_thread(services.tokens.admit_enforcer, log_id, claim.enforcer_id, claim.token_sha256)
        # As where an administrator introduces one: a retirement elsewhere may have looked for tokens before.
        await asyncio.to_thread(services.key_records.refresh)
        if public_key not in services.keyring.enforcer_keys(claim.enforcer_id):
            await asyncio.to_thread(services.tokens.revoke, log_id, claim.token_sha256)
            raise ConflictError(f"the enforcer {claim.enforcer_id} was retired at this moment")
