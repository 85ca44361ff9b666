"""A witness over HTTP: C2SP tlog-witness, add-checkpoint.

What a witness answers is somebody else's word: time and size of every answer are bounded, and a signature line counts
only after it has been verified with the key that the witness policy gives.

Source: C2SP tlog-witness v1.0.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.cosignatures import AddCheckpoint, parse_cosignatures, parse_size, verify_cosignature
from ledger.errors import ConfigError, MalformedError, SignatureError, UpstreamError, WitnessError, WitnessSizeError
from ledger.exchange import Answer, BoundedExchange
from ledger.notes import NoteSignature, VerifierKey
from ledger.trust import Witness

__all__ = ["HTTPWitness"]

_SIZE_TYPE: Final = "text/x.tlog.size"
_OK: Final = 200
_CONFLICT: Final = 409
_REFUSALS: Final[Mapping[int, str]] = {
    400: "it calls the request malformed",
    403: "it trusts none of the log's signatures",
    404: "it does not know this log",
    422: "it has seen another tree than this one, or the consistency proof does not hold",
    429: "it is asked too often",
}
_OTHER_ROOT: Final = "it has cosigned another tree of the same size"


class HTTPWitness:
    """`ledger.ports.Witness` over HTTP."""

    def __init__(
        self, witness: Witness, *, timeout_seconds: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Ask a witness of the policy.

        Args:
            witness: With the submission prefix as its URL.
            timeout_seconds: For the whole of one request and its answer.
            transport: Another way than the network.

        Raises:
            ConfigError: The policy says no URL for it, or one that is none.
        """
        if witness.url is None:
            raise ConfigError(f"the witness policy gives no URL for {witness.name}")
        if "?" in witness.url:
            raise ConfigError(f"the URL of the witness {witness.name} is a prefix, and has no query")
        self._witness = witness
        self._exchange = BoundedExchange(
            f"{witness.url.rstrip('/')}/add-checkpoint",
            whom=f"the witness {witness.name}",
            media_type="text/plain; charset=utf-8",
            timeout_seconds=timeout_seconds,
            transport=transport,
        )

    @property
    def name(self) -> str:
        """See `Witness.name`."""
        return self._witness.name

    @property
    def verifier_key(self) -> VerifierKey:
        """See `Witness.verifier_key`."""
        return self._witness.key

    def add_checkpoint(self, checkpoint: bytes, *, old_size: int, proof: Sequence[bytes]) -> NoteSignature:
        """See `Witness.add_checkpoint`."""
        request = AddCheckpoint(old_size=old_size, proof=tuple(proof), checkpoint=checkpoint)
        try:
            answer = self._exchange.post(request.encode())
        except UpstreamError as error:
            raise WitnessError(str(error)) from error
        if answer.status == _OK:
            return self._cosignature(checkpoint, answer.body)
        if answer.status == _CONFLICT:
            raise self._other_size(checkpoint, old_size, answer)
        told = _REFUSALS.get(answer.status, f"it answers with status {answer.status}")
        raise WitnessError(f"the witness {self.name} refuses: {told}")

    def _cosignature(self, checkpoint: bytes, body: bytes) -> NoteSignature:
        parsed = parse_unverified_checkpoint(checkpoint)
        key = self.verifier_key
        try:
            for line in parse_cosignatures(body, parsed):
                # Lines of keys that the policy does not list are ignored, as the specification says.
                if (line.name, line.key_id) == (key.name, key.key_id):
                    verify_cosignature(key, parsed, line)
                    return line
        except (MalformedError, SignatureError) as error:
            raise WitnessError(f"the witness {self.name} answers with no cosignature of its own: {error}") from error
        raise WitnessError(f"the witness {self.name} answers without a cosignature of the key {key.key_id.hex()}")

    def _other_size(self, checkpoint: bytes, old_size: int, answer: Answer) -> WitnessError:
        try:
            # One that says no size means the root: versions of the specification differ between 409 and 422 there.
            size = parse_size(answer.body) if answer.media_type == _SIZE_TYPE else old_size
        except MalformedError as error:
            told = WitnessError(f"the witness {self.name} answers with a conflict and no tree size")
            told.__cause__ = error
            return told
        if size == old_size:
            same = size == parse_unverified_checkpoint(checkpoint).claim.size
            return WitnessError(f"the witness {self.name} refuses: {_OTHER_ROOT if same else 'it contradicts itself'}")
        return WitnessSizeError(f"the witness {self.name} has cosigned {size} leaves, not {old_size}", size=size)
