"""The chain of custody of a pack, and the summary that is rendered: the two things that its maker adds.

Pure. Custody says who asked, what was done, and with which keys; it is the maker's word, signed with the rest. It ends
when the pack is sealed: whom it was given to are access records of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from evidence.derivation import Derivation
from evidence.lines import stream_line
from evidence.summary import AnchorLine, CustodyLine, PackSummary, SignerLine
from ledger.canonical import canonical_bytes, parse_canonical
from ledger.envelopes import ED25519, MLDSA44, EnvelopeKey
from ledger.errors import MalformedError
from ledger.keyring import Keyring
from ledger.notes import SignatureType, VerifierKey
from ledger.trust import VerifiedCheckpoint

__all__ = ["Custody", "CustodySigner", "CustodyStep", "build_custody", "parse_custody", "signer_lines", "summarise"]

_SHORT_HEX: Final = 12
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common rules: immutable, every member written out, unknown members refused."""


class CustodyStep(_Struct, frozen=True):
    """One step of a pack's making."""

    step: _Text
    detail: _Text


class CustodySigner(_Struct, frozen=True):
    """A key of the end checkpoint or of the pack."""

    role: Literal["log", "pack", "witness"]
    algorithm: _Text
    name: _Text
    key_id: _Text
    fingerprint: _Text


class Custody(_Struct, frozen=True):
    """How a pack was made.

    Attributes:
        format: ``tallystick.custody/1``.
        requested_by: Pseudonym of whoever asked for it.
        requested_ms: When, POSIX milliseconds.
        started_ms: When its making began.
        finished_ms: When everything but the report was there.
        software: Name and version of what made it.
        steps: What was done.
        signers: Keys of the end checkpoint and of the pack.
    """

    format: Literal["tallystick.custody/1"]
    requested_by: _Text
    requested_ms: _Count
    started_ms: _Count
    finished_ms: _Count
    software: _Text
    steps: tuple[CustodyStep, ...]
    signers: tuple[CustodySigner, ...]

    def encode(self) -> bytes:
        """Return the file's bytes; the inverse of `parse_custody`."""
        return canonical_bytes(msgspec.to_builtins(self))


def parse_custody(data: bytes) -> Custody:
    """Read ``custody.json``.

    Raises:
        MalformedError: Not such a file in canonical form.
    """
    try:
        return msgspec.convert(parse_canonical(data), Custody)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not a chain of custody: {error}") from error


def _checkpoint_signer(key: VerifierKey, origin: str) -> CustodySigner:
    mldsa = key.signature_type == SignatureType.MLDSA44_COSIGNATURE
    return CustodySigner(
        role="log" if key.name == origin else "witness",
        algorithm=MLDSA44 if mldsa else ED25519,
        name=key.name,
        key_id=key.key_id.hex(),
        fingerprint=key.fingerprint,
    )


def signer_lines(end: VerifiedCheckpoint, keyring: Keyring, pack_keys: Sequence[EnvelopeKey]) -> list[CustodySigner]:
    """Return the keys that signed the end checkpoint, and those that will sign the pack.

    Args:
        end: The end checkpoint.
        keyring: Knows in whose name the log introduced a pack key.
        pack_keys: The pack's keys.
    """
    names = {key.public_key: key.subject for key in keyring.keys if key.purpose == "pack"}
    lines = [_checkpoint_signer(key, end.checkpoint.origin) for key in end.signers]
    lines += [
        CustodySigner(
            role="pack",
            algorithm=key.algorithm,
            name=names.get(key.public_key, "not introduced"),
            key_id=key.key_id,
            fingerprint=key.key_id,
        )
        for key in pack_keys
    ]
    return sorted(lines, key=lambda line: (line.role, line.name, line.algorithm, line.key_id))


def _steps(derivation: Derivation, requested_by: str) -> list[CustodyStep]:
    population, scope = derivation.population, derivation.scope
    span = f"leaves {population.first_leaf} to {population.end_leaf - 1}"
    exact = derivation.reperformance.by_class.get("exact", 0)
    controls = sum(len(sheet.controls) for sheet in derivation.sheets)
    tests = len(derivation.examinations)
    told = {
        "requested": f"by {requested_by}",
        "read": f"{population.records} records, {span} of {scope.claims.origin}, from the published log",
        "checked": f"root {scope.root[:_SHORT_HEX]} recalculated; {population.records} record signatures",
        "selected": f"{population.decisions} decisions lie in the period, {population.outside} outside; none left out",
        "re-performed": f"{exact} of {population.decisions} decisions exactly",
        "examined": f"{tests} tests for {controls} controls",
        "redacted": "no payload was put into the pack: records hold commitments",
        "sealed": "manifest signed with the keys listed below",
    }
    return [CustodyStep(step=step, detail=detail) for step, detail in told.items()]


def build_custody(
    derivation: Derivation,
    *,
    requested_by: str,
    requested_ms: int,
    started_ms: int,
    finished_ms: int,
    signers: Sequence[CustodySigner],
) -> Custody:
    """Return the chain of custody.

    Args:
        derivation: What the pack says.
        requested_by: Pseudonym of whoever asked.
        requested_ms: When, POSIX milliseconds.
        started_ms: When the making began.
        finished_ms: When everything but the report was there.
        signers: What `signer_lines` returned.
    """
    return Custody(
        format="tallystick.custody/1",
        requested_by=requested_by,
        requested_ms=requested_ms,
        started_ms=started_ms,
        finished_ms=finished_ms,
        software=derivation.scope.claims.software,
        steps=tuple(_steps(derivation, requested_by)),
        signers=tuple(signers),
    )


def summarise(derivation: Derivation, custody: Custody) -> PackSummary:
    """Return what the report shows: the same values as the files of the pack, and nothing else."""
    scope = derivation.scope
    claims = scope.claims
    return PackSummary(
        pack_id=scope.pack_id,
        title=claims.title,
        tenant=scope.tenant,
        log_id=scope.log_id,
        origin=claims.origin,
        environment=scope.environment,
        simulated=scope.simulated,
        from_ms=claims.from_ms,
        to_ms=claims.to_ms,
        zone=claims.zone,
        tree_size=scope.tree_size,
        root=scope.root,
        checkpoint_ms=claims.checkpoint_ms,
        software=claims.software,
        signers=tuple(SignerLine(**msgspec.structs.asdict(line)) for line in custody.signers),
        witnesses=claims.witnesses,
        anchors=tuple(AnchorLine(**msgspec.structs.asdict(line)) for line in claims.anchors),
        population=derivation.population,
        streams=tuple(stream_line(stream) for stream in derivation.streams),
        frameworks=derivation.sheets,
        denied=derivation.denied,
        bundles=derivation.bundles,
        policy_changes=derivation.policy_changes,
        reperformance=derivation.reperformance,
        access=derivation.access,
        custody=tuple(CustodyLine(**msgspec.structs.asdict(line)) for line in custody.steps),
        gaps=derivation.gaps,
        proved=scope.proved,
        not_proved=scope.not_proved,
    )
