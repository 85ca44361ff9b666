"""What makes a further round of a call known as one: the state that the client brings back, under the gateway's seal.

Pure, but for the key that it is given. A server's ``requestState`` goes to the client as a token: the state itself,
and a message authentication code over it and over all that must be the same when it comes back::

    ts1.<expires, ms, hex>.<first decision of the call>.<what was asked, base64url>.<s or n>.<code, hex>.<state>

The code binds principal, server, method, name, the text of the arguments, when it expires, what was asked, and whether
the server gave a state at all (``n``: it did not). So a state that no gateway passed on, or one of another caller, tool
or arguments, is known without looking anything up: by any gateway with the same pseudonym key, and after a restart. The
state is not hidden: it was the client's to see anyway.

Source: RFC 2104 (HMAC), with SHA-256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_ROUND_MS", "Token", "TokenScope", "make_token", "open_token", "round_key"]

MAX_ROUND_MS: Final = 3_600_000
"""For how long a client may take to answer, milliseconds."""

_PURPOSE: Final = b"tallystick/request-state/v1"
_TOKEN: Final = re.compile(
    r"ts1\.(?P<expires>[0-9a-f]{1,13})\.(?P<root>[0-9a-f-]{36})\.(?P<asked>[A-Za-z0-9_-]{0,16384})\."
    r"(?P<given>[sn])\.(?P<code>[0-9a-f]{64})\.(?P<state>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScope:
    """What must be the same in every round of a call.

    Attributes:
        agent: Who calls.
        user: For whom.
        server: Where.
        method: The method.
        name: What is called.
        arguments: The text of the arguments; None if there are none.
    """

    agent: str
    user: str | None
    server: str
    method: str
    name: str | None
    arguments: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says.

    Attributes:
        root: Record id of the first decision of the call.
        asked: What the server asked.
        state: What the server gave; None if nothing.
        expires_ms: Until when it may come back, POSIX milliseconds.
        code: Its code, which no other token has.
    """

    root: str
    asked: tuple[str, ...]
    state: str | None
    expires_ms: int
    code: str


def round_key(pseudonym_key: bytes) -> bytes:
    """Return the key of the tokens of a tenant's gateways."""
    return hmac.digest(pseudonym_key, _PURPOSE, "sha256")


def make_token(
    key: bytes, scope: TokenScope, *, root: str, asked: tuple[str, ...], state: str | None, expires_ms: int
) -> str:
    """Return the text that a client brings back.

    Args:
        key: From `round_key`.
        scope: What it is bound to.
        root: Record id of the first decision of the call.
        asked: What the server asked.
        state: What the server gave.
        expires_ms: Until when it may come back, POSIX milliseconds.
    """
    listed = base64.urlsafe_b64encode(json.dumps(asked, separators=(",", ":")).encode()).decode().rstrip("=")
    head = f"{expires_ms:x}.{root}.{listed}.{'n' if state is None else 's'}"
    return f"ts1.{head}.{_code(key, scope, head, state or '')}.{state or ''}"


def open_token(key: bytes, scope: TokenScope, text: str, *, now_ms: int) -> Token | None:
    """Return what a token says; None if it is none, not of this call, or too old."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    head = f"{match['expires']}.{match['root']}.{match['asked']}.{match['given']}"
    expires_ms = int(match["expires"], 16)
    if not hmac.compare_digest(_code(key, scope, head, match["state"]), match["code"]) or now_ms >= expires_ms:
        return None
    try:
        listed = match["asked"]
        asked = json.loads(base64.urlsafe_b64decode(listed + "=" * (-len(listed) % 4)))
    except (binascii.Error, ValueError):  # not reached: the code covers it
        return None
    return Token(
        root=match["root"],
        asked=tuple(asked),
        state=match["state"] if match["given"] == "s" else None,
        expires_ms=expires_ms,
        code=match["code"],
    )


def _code(key: bytes, scope: TokenScope, head: str, state: str) -> str:
    bound = (scope.agent, scope.user, scope.server, scope.method, scope.name, scope.arguments, head, state)
    digest = hashlib.sha256()
    for part in bound:  # each with its length, so that no two lists of parts are one text
        data = b"" if part is None else part.encode(errors="surrogatepass")
        digest.update(b"-" if part is None else b"%d:" % len(data))
        digest.update(data)
    return hmac.digest(key, digest.digest(), "sha256").hex()
