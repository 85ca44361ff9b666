"""A witness over HTTP: C2SP tlog-witness, add-checkpoint.

What a witness answers is somebody else's word: time and size of every answer are bounded, and a signature line counts
only after it has been verified with the key that the witness policy gives.

Source: C2SP tlog-witness v1.0.0.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.cosignatures import AddCheckpoint, parse_cosignatures, parse_size, verify_cosignature
from ledger.errors import ConfigError, MalformedError, SignatureError, WitnessError, WitnessSizeError
from ledger.notes import NoteSignature, VerifierKey
from ledger.trust import Witness

__all__ = ["HTTPWitness"]

_MAX_ANSWER_BYTES: Final = 65_536
"""A witness may sign with several keys; an ML-DSA-44 line has 3.3 KB."""

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


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    media_type: str
    body: bytes


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
        try:
            url = httpx.URL(witness.url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"the URL of the witness {witness.name} cannot be used") from error
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigError(f"the URL of the witness {witness.name} must be http(s)://HOST/PREFIX")
        self._witness = witness
        self._url = f"{witness.url.rstrip('/')}/add-checkpoint"
        self._timeout = timeout_seconds
        self._transport = transport
        # Made once: reading the system's certificates takes longer than a request.
        self._tls = ssl.create_default_context() if url.scheme == "https" else True

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
        # An event loop for each request: only so does one time-out bound all of it, whatever is sent how slowly.
        answer = asyncio.run(self._post(request.encode()))
        if answer.status == _OK:
            return self._cosignature(checkpoint, answer.body)
        if answer.status == _CONFLICT:
            raise self._other_size(checkpoint, old_size, answer)
        told = _REFUSALS.get(answer.status, f"it answers with status {answer.status}")
        raise WitnessError(f"the witness {self.name} refuses: {told}")

    async def _post(self, body: bytes) -> _Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(body)
        except TimeoutError:
            raise WitnessError(f"the witness {self.name} did not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            # The cause's own words may quote what a stranger sent; its kind says enough.
            raise WitnessError(f"the witness {self.name} cannot be asked ({type(error).__name__})") from error

    async def _exchange(self, body: bytes) -> _Answer:
        # Neither proxies nor credentials of the environment, nor a redirection: whom we ask is in the policy.
        async with (
            httpx.AsyncClient(
                verify=self._tls, trust_env=False, timeout=self._timeout, transport=self._transport
            ) as client,
            client.stream("POST", self._url, content=body, headers={"Accept-Encoding": "identity"}) as response,
        ):
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > _MAX_ANSWER_BYTES:
                    raise WitnessError(f"the witness {self.name} answers with more than {_MAX_ANSWER_BYTES} bytes")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return _Answer(response.status_code, media_type, bytes(received))

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

    def _other_size(self, checkpoint: bytes, old_size: int, answer: _Answer) -> WitnessError:
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
