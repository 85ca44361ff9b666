"""Keys and a moment for tests of the gateway; light to import, so that child processes start fast."""

from __future__ import annotations

import nacl.signing

SIGNING_KEY = nacl.signing.SigningKey(bytes(range(32)))
PSEUDONYM_KEY = bytes(range(32, 64))
SPOOL_KEY = bytes(range(64, 96))
NOON_MS = 1_763_982_000_000  # Monday 2025-11-24, 12:00 in Berlin
