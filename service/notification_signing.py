"""Signing what is sent, by Standard Webhooks: ``v1a`` with a key of its own purpose, and ``v1`` for who asks for it.

With ``v1a`` (Ed25519) a receiver holds a public key and can forge nothing. The secret of ``v1`` (HMAC-SHA256) follows
from the key and the webhook's id: each receiver has another one, and none is kept.

Signed is ``<id>.<timestamp>.<body>``, so that neither an old message nor a part of one passes for a new one.

Source: Standard Webhooks 1.0.0, sections on signatures and on asymmetric signatures.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from ledger.envelopes import ED25519
from ledger.errors import ConfigError
from ledger.keys import LocalKey

__all__ = ["WEBHOOK_PURPOSE", "WebhookSigner"]

WEBHOOK_PURPOSE: Final = "webhook"
_SECRET: Final = b"tallystick/webhook-secret/v1\n"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class WebhookSigner:
    """Signs messages; safe for any thread."""

    def __init__(self, key: LocalKey) -> None:
        """Sign with a key.

        Raises:
            ConfigError: The key is for something else.
        """
        if key.purpose != WEBHOOK_PURPOSE or key.algorithm != ED25519:
            raise ConfigError(f"webhooks are signed with a key for them, not with one for {key.purpose}")
        self._key = key
        self._signing = key.signing_key()

    @property
    def public_key(self) -> str:
        """As receivers are given it: ``whpk_`` and base64."""
        return f"whpk_{_text(bytes(self._signing.verify_key))}"

    def secret(self, webhook_id: str) -> str:
        """Return the secret of one webhook for ``v1``: ``whsec_`` and base64."""
        return f"whsec_{_text(self._secret(webhook_id))}"

    def _secret(self, webhook_id: str) -> bytes:
        return hmac.digest(self._key.seed, _SECRET + webhook_id.encode(), hashlib.sha256)

    def headers(
        self, message_id: str, timestamp: int, body: bytes, *, symmetric_for: str | None = None
    ) -> Mapping[str, str]:
        """Return the headers that a message is sent with.

        Args:
            message_id: Its id.
            timestamp: When it is sent, POSIX seconds.
            body: As it is sent.
            symmetric_for: The webhook that wants ``v1`` as well.
        """
        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = [f"v1a,{_text(self._signing.sign(signed).signature)}"]
        if symmetric_for is not None:
            signatures.append(f"v1,{_text(hmac.digest(self._secret(symmetric_for), signed, hashlib.sha256))}")
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
