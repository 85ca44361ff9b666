"""What signs checkpoints with a key, wherever its private half is."""

from __future__ import annotations

from ledger.envelopes import EnvelopeSigner
from ledger.keys import LocalKey
from ledger.ports import Signer
from ledger.remote_keys import RemoteKey, SigningKey
from ledger.signers.local import LocalEnvelopeSigner, LocalSigner

__all__ = ["bundle_signer", "fetch_public_key", "open_signer", "tools_signer"]


def bundle_signer(key: LocalKey) -> EnvelopeSigner:
    """Return what signs bundles with a key.

    Raises:
        ConfigError: The key does not sign bundles.
    """
    return LocalEnvelopeSigner(key, purpose="bundle")


def tools_signer(key: LocalKey) -> EnvelopeSigner:
    """Return what signs manifests of tools with a key.

    Raises:
        ConfigError: The key does not sign manifests of tools.
    """
    return LocalEnvelopeSigner(key, purpose="tools")


def open_signer(key: SigningKey) -> Signer:
    """Return what signs checkpoints with a key, wherever its private half is.

    Raises:
        ConfigError: The key does not sign checkpoints, or no client for its keeper can be made.
    """
    if not isinstance(key, RemoteKey):
        return LocalSigner(key)
    from ledger.signers import aws_kms

    return aws_kms.open_signer(key)


def fetch_public_key(uri: str) -> tuple[str, bytes]:
    """Return algorithm and public key of a log key that is kept elsewhere.

    Raises:
        ConfigError: The URI cannot be used, or the key is not one that signs checkpoints.
        DependencyError: Its keeper failed or refused.
    """
    from ledger.signers import aws_kms

    return aws_kms.fetch_public_key(uri)
