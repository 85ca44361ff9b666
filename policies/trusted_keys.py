"""Whom bundles are trusted from: public keys in a file, read when a program starts."""

from __future__ import annotations

from pathlib import Path

from ledger.envelopes import EnvelopeKey
from ledger.errors import ConfigError, MalformedError
from policies.signatures import parse_trusted_keys

__all__ = ["read_trusted_keys"]


def read_trusted_keys(path: Path) -> tuple[EnvelopeKey, ...]:
    """Read a file of trusted keys.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    try:
        return parse_trusted_keys(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the trusted keys {path.name} cannot be read: {error.strerror}") from error
    except (MalformedError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} holds no trusted keys: {error}") from error
