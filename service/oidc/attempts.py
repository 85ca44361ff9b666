"""A login that is under way: what is sent along with it, kept in the browser alone, and counts once.

Between the way to the provider and the way back nothing is kept here: a stranger who begins a thousand logins fills no
table. What has to be known again travels in a cookie, sealed with a secret of the log's keys::

    base64url(JSON of the attempt) "." hexadecimal HMAC-SHA256

INVARIANT: an answer counts only in the browser that began the login, for the log that it was begun for, within its
time, and once: the state that was answered is noted in the database.

Source: RFC 9700 sections 2.1 and 4.7 (CSRF, code injection); RFC 6749 section 10.12.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

import msgspec

from service.problems import UnauthenticatedError

__all__ = ["ATTEMPT_SECONDS", "Attempt", "begin", "open_attempt", "seal_attempt"]

ATTEMPT_SECONDS: Final = 600
"""How long somebody may take at the provider."""

_LABEL: Final = b"tallystick/login-attempt/v1"
_MAX_CHARS: Final = 4096


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A login under way.

    Attributes:
        log_id: The log that it is for.
        state: What the answer must bring; it begins with the log's id.
        nonce: What the ID token must bring.
        verifier: What the code is redeemed with.
        wanted: Where to go afterwards.
        role: The role that is asked for; empty for any.
        expires_ms: When it ends, POSIX milliseconds.
    """

    log_id: str
    state: str
    nonce: str
    verifier: str
    wanted: str
    role: str
    expires_ms: int


def begin(log_id: str, *, wanted: str, role: str, now_ms: int) -> Attempt:
    """Return a new attempt."""
    return Attempt(
        log_id=log_id,
        state=f"{log_id}.{secrets.token_urlsafe(32)}",
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        wanted=wanted,
        role=role,
        expires_ms=now_ms + ATTEMPT_SECONDS * 1000,
    )


def _mac(seed: bytes, data: bytes) -> str:
    return hmac.digest(hmac.digest(seed, _LABEL, hashlib.sha256), data, hashlib.sha256).hex()


def seal_attempt(attempt: Attempt, seed: bytes) -> str:
    """Return an attempt as the cookie holds it."""
    data = base64.urlsafe_b64encode(msgspec.json.encode(attempt)).rstrip(b"=")
    return f"{data.decode()}.{_mac(seed, data)}"


def open_attempt(cookie: str | None, seeds: Iterable[bytes], *, log_id: str, state: str, now_ms: int) -> Attempt:
    """Return the attempt that an answer belongs to.

    Args:
        cookie: What the browser holds.
        seeds: The log's keys of such cookies.
        log_id: The log that the answer's state names.
        state: The answer's state.
        now_ms: POSIX milliseconds.

    Raises:
        UnauthenticatedError: The browser holds none, another one, or one that is past its time.
    """
    refused = UnauthenticatedError("this login was not begun in this browser, or took too long: begin again")
    data, _, mac = (cookie or "").partition(".")
    if cookie is None or len(cookie) > _MAX_CHARS or not cookie.isascii():
        raise refused
    if not any(hmac.compare_digest(mac.encode(), _mac(seed, data.encode()).encode()) for seed in seeds):
        raise refused
    padded = data + "=" * (-len(data) % 4)
    attempt = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=Attempt)  # ours: the seal says so
    if attempt.log_id != log_id or not hmac.compare_digest(attempt.state.encode(), state.encode()):
        raise refused
    if now_ms >= attempt.expires_ms:
        raise refused
    return attempt
