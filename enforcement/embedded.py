"""Who calls, where no request proves it: from what a configuration or a server's author says to an identity.

Pure. Nothing of it comes from the client.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import msgspec

from enforcement.identity import Identity
from ledger import body_fields
from ledger.errors import ConfigError

__all__ = ["caller"]


def caller(
    agent: str,
    *,
    user: str | None = None,
    roles: Sequence[str] = (),
    mfa: bool = False,
    authn: str = "application",
    credential: str = "",
) -> Identity:
    """Return the identity of a caller whom somebody else has verified.

    Args:
        agent: The agent, a name as records have them.
        user: On whose behalf it acts, or None.
        roles: Its roles, names likewise.
        mfa: A second factor was part of how it was verified.
        authn: How it was verified, a name; policies read it as ``principal.authn``.
        credential: What it was verified by, such as a token's id; callers with another one have another session. Only
            its digest is kept.

    Raises:
        ConfigError: Agent, role or way is no name.
    """
    for name in (agent, authn, *roles):
        try:
            msgspec.convert(name, body_fields.Name)
        except msgspec.ValidationError as error:
            raise ConfigError("an agent, a role or a way to verify it is not a name that a record can hold") from error
    digest = hashlib.sha256(json.dumps([authn, credential, agent, user]).encode()).hexdigest()
    return Identity(credential=digest, agent=agent, user=user, roles=tuple(sorted(set(roles))), mfa=mfa, authn=authn)
