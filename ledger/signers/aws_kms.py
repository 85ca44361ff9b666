"""Signers whose private key AWS KMS keeps: Ed25519 (``ECC_NIST_EDWARDS25519``) and ML-DSA-44 (``ML_DSA_44``).

The message goes to KMS as it is (``MessageType`` RAW, at most 4,096 bytes; ours has less than 700), so that KMS makes
the same signatures as a key in this process: pure Ed25519, pure ML-DSA with an empty context.

INVARIANT: a signature leaves here only if the public key in the key file verifies it. An alias that was pointed at
another key, or a KMS that answers with something else, is a failure of KMS, never a line on a checkpoint.

Calls have short timeouts and one repetition: while they fail nothing is published, records are taken all the same, and
the publishing loop tries again.

Source: AWS Key Management Service API reference, Sign and GetPublicKey; RFC 5280 (SubjectPublicKeyInfo).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ledger.checkpoints import Checkpoint, mldsa44_message, pack_timestamped
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError, DependencyError, SignatureInvalidError
from ledger.notes import NoteSignature, VerifierKey
from ledger.remote_keys import RemoteKey, parse_kms_uri
from ledger.signatures import verify_ed25519, verify_mldsa44

__all__ = ["KMSSigner", "fetch_public_key", "open_signer"]

_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 5
_ATTEMPTS: Final = 2
_ALGORITHMS: Final = {ED25519: "ED25519_SHA_512", MLDSA44: "ML_DSA_SHAKE_256"}


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise DependencyError(f"AWS KMS failed to {action} ({code})") from error


def _client(uri: str) -> tuple[Any, str]:
    """Return a client for the place of a key, and the key's name there."""
    address = parse_kms_uri(uri)
    config = Config(  # type: ignore[no-untyped-call]  # botocore has no types
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    try:
        client = boto3.client("kms", region_name=address.region, endpoint_url=address.endpoint, config=config)  # type: ignore[no-untyped-call]  # as above
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the KMS client cannot be made ({type(error).__name__})") from error
    return client, address.key


def fetch_public_key(uri: str) -> tuple[str, bytes]:
    """Ask KMS for the public half of a key.

    Args:
        uri: ``awskms:KEY[?region=…&endpoint=…]``.

    Returns:
        Algorithm and raw public key.

    Raises:
        ConfigError: The URI cannot be used, or the key is not one that signs checkpoints.
        DependencyError: KMS failed or refused.
    """
    client, key = _client(uri)
    with _translated("give a public key"):
        answer = client.get_public_key(KeyId=key)
    try:
        public_key = load_der_public_key(answer["PublicKey"])
    except (ValueError, UnsupportedAlgorithm, KeyError, TypeError) as error:
        raise DependencyError("AWS KMS gave a public key that cannot be read") from error
    if answer.get("KeyUsage") == "SIGN_VERIFY":
        if isinstance(public_key, Ed25519PublicKey):
            return ED25519, public_key.public_bytes_raw()
        if isinstance(public_key, MLDSA44PublicKey):
            return MLDSA44, public_key.public_bytes_raw()
    raise ConfigError("a log key of AWS KMS has the key spec ML_DSA_44 or ECC_NIST_EDWARDS25519, for SIGN_VERIFY")


class KMSSigner:
    """`ledger.ports.Signer` for one log key that AWS KMS keeps. May be called from one thread at a time."""

    def __init__(self, key: RemoteKey, client: Any, kms_key: str) -> None:  # noqa: ANN401  # boto3 makes its clients at run time
        """Sign with a key.

        Args:
            key: What the key file says of it.
            client: A boto3 KMS client.
            kms_key: The key's name there.
        """
        self._key = key
        self._client = client
        self._kms_key = kms_key
        self._verifier_key = key.verifier_key

    @property
    def verifier_key(self) -> VerifierKey:
        """See `Signer.verifier_key`."""
        return self._verifier_key

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        """See `Signer.sign`."""
        name, key_id = self._verifier_key.name, self._verifier_key.key_id
        if self._key.algorithm == ED25519:
            return NoteSignature(name, key_id, self._sign(checkpoint.body().encode()))
        message = mldsa44_message(name, timestamp_seconds, checkpoint)
        return NoteSignature(name, key_id, pack_timestamped(timestamp_seconds, self._sign(message)))

    def _sign(self, message: bytes) -> bytes:
        with _translated("sign"):
            answer = self._client.sign(
                KeyId=self._kms_key,
                Message=message,
                MessageType="RAW",
                SigningAlgorithm=_ALGORITHMS[self._key.algorithm],
            )
        signature = answer.get("Signature")
        if not isinstance(signature, bytes):
            raise DependencyError("AWS KMS answered without a signature")
        verify = verify_ed25519 if self._key.algorithm == ED25519 else verify_mldsa44
        try:
            verify(self._key.public_key, message, signature, signer=self._verifier_key.name)
        except SignatureInvalidError as error:
            raise DependencyError("AWS KMS gave a signature that the key file's public key does not verify") from error
        return signature


def open_signer(key: RemoteKey) -> KMSSigner:
    """Return a signer with credentials from the environment, as boto3 finds them; KMS is not asked yet.

    Raises:
        ConfigError: The client cannot be made.
    """
    client, kms_key = _client(key.uri)
    return KMSSigner(key, client, kms_key)
