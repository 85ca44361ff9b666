"""Making a pack: from a published log to a signed file.

The steps, and what each leaves behind if it fails (nothing but a temporary folder, which goes away):

1. *check*: the checkpoints against the maker's own trust policy;
2. *walk*: read every entry of the range once, from the published log; recalculate the root; check every signature;
3. *re-perform*: make every decision of the period again under its own bundle;
4. *derive*: counts, completeness, control verdicts, exceptions, gaps (`derivation`, as any verifier will);
5. *prove*: inclusion proofs, each checked before it is written;
6. *render*: the report, by a function that is given, from the summary alone;
7. *seal*: the manifest's envelope, by keys that the log itself introduced for packs; then write the container beside
   its place, sync it, and give it its name.

The same log, checkpoint, request and times give the same bytes for everything but signatures, whatever the hash seed,
time zone or locale; with other times, everything but custody, report and manifests.

`assemble` is asynchronous because evaluation is; reading, hashing, rendering and writing happen in other threads.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from evidence import pack
from evidence.container import Content, Digest, digest_content, write_container
from evidence.controls import Framework
from evidence.custody import build_custody, signer_lines, summarise
from evidence.derivation import Derivation, derive, derived_files
from evidence.entry_files import EntryFileWriter
from evidence.lines import proof_path
from evidence.population import Period, Survey
from evidence.reperform import OpenRequest, reperform
from evidence.replays import ReplayLine
from evidence.scope import AnchorClaim, Claims, NotApplicable
from evidence.start_range import StartRange, collect_start_range, encode_start_range
from evidence.summary import PackSummary
from ledger.canonical import canonical_bytes
from ledger.clock import Clock
from ledger.envelopes import ED25519, MLDSA44, EnvelopeSigner, parse_envelope, seal_envelope
from ledger.errors import (
    EvidenceError,
    IncompletePopulationError,
    TrustPolicyError,
    UnknownBundleError,
)
from ledger.files import sync_directory
from ledger.ports import AnchorReceipt
from ledger.prover import Prover
from ledger.records import Record, decode_entry
from ledger.trust import TrustPolicy, VerifiedCheckpoint
from policies.bundles import Bundle
from policies.evaluate import Evaluator

__all__ = ["AnchoredCopy", "AssembledPack", "PackRequest", "PackSources", "assemble"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and of how much."""

Renderer = Callable[[PackSummary, Mapping[str, bytes]], bytes]
"""Makes the report from the summary and the files to attach to it, by their paths in the pack."""

_PROGRESS_STEP: Final = 256
_MILLISECONDS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRequest:
    """What somebody asks for.

    Attributes:
        title: For the cover.
        from_ms: Start of the period, POSIX milliseconds.
        to_ms: End of the period, exclusive.
        frameworks: What the controls are judged by, in the order of the report.
        requested_by: Pseudonym of whoever asks.
        requested_ms: When.
        software: Name and version of the program, such as ``tallystick 0.1.0``.
        zone: IANA zone in which the report prints times beside UTC.
        not_applicable: Controls that do not apply, and why.
        start_checkpoint: An earlier published checkpoint at which the range begins; None begins at leaf 0.
        require_complete: Refuse to make a pack of an incomplete population.
        simulated: Keys or clock of the maker are simulated.
    """

    title: str
    from_ms: int
    to_ms: int
    frameworks: tuple[Framework, ...]
    requested_by: str
    requested_ms: int
    software: str
    zone: str = "UTC"
    not_applicable: tuple[NotApplicable, ...] = ()
    start_checkpoint: bytes | None = None
    require_complete: bool = False
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class AnchoredCopy:
    """A receipt, and the kind of anchor that gave it, such as ``directory``."""

    kind: str
    receipt: AnchorReceipt


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSources:
    """Where the evidence comes from.

    Attributes:
        prover: Reads the published log.
        checkpoint: The published checkpoint at which the range ends.
        trust: The maker's trust policy for this log.
        anchors: Independent copies of checkpoints, as far as the operator knows.
        bundle: Returns a bundle by revision; raises `UnknownBundleError` where there is no copy.
        open_request: Opens a decision's request; see `reperform.OpenRequest`.
        evaluator: Evaluates bundles.
        clock: Says when steps of the making happened.
    """

    prover: Prover
    checkpoint: bytes
    trust: TrustPolicy
    anchors: tuple[AnchoredCopy, ...]
    bundle: Callable[[str], Bundle]
    open_request: OpenRequest
    evaluator: Evaluator
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledPack:
    """A finished pack.

    Attributes:
        path: Where it is.
        size_bytes: Its length.
        sha256: Its digest, hexadecimal.
        pack_id: Its id.
        summary: What it says.
        pdf: The report alone.
        digests: SHA-256 of every file in it, hexadecimal, by path.
    """

    path: Path
    size_bytes: int
    sha256: str
    pack_id: str
    summary: PackSummary
    pdf: bytes
    digests: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class _Work:
    """A pack in the making."""

    request: PackRequest
    sources: PackSources
    signers: Sequence[EnvelopeSigner]
    progress: Progress
    folder: Path
    started_ms: int
    end: VerifiedCheckpoint
    start: StartRange | None
    survey: Survey
    files: dict[str, Content] = field(default_factory=dict)

    @property
    def first_leaf(self) -> int:
        return self.survey.first_leaf

    @property
    def size(self) -> int:
        return self.end.head.size

    def entries(self) -> Iterator[bytes]:
        return self.sources.prover.entries(self.first_leaf, self.size, self.size)


def _time_of(checkpoint: VerifiedCheckpoint) -> int:
    """Return when a checkpoint was signed, by the log's own clock; 0 if no signature says so."""
    return checkpoint.timestamps.get(checkpoint.checkpoint.origin, 0) * _MILLISECONDS


def _check_request(request: PackRequest) -> Period:
    try:
        ZoneInfo(request.zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise EvidenceError(f"not a time zone: {request.zone[:64]!a}") from error
    if not request.frameworks:
        raise EvidenceError("a pack needs a framework")
    excluded = [(one.framework, one.control) for one in request.not_applicable]
    known = {(framework.id, control.id) for framework in request.frameworks for control in framework.controls}
    if len(set(excluded)) != len(excluded) or not known.issuperset(excluded):
        raise EvidenceError("a control is declared not applicable twice, or is in none of the frameworks")
    return Period(request.from_ms, request.to_ms)


def _begin(
    request: PackRequest, sources: PackSources, signers: Sequence[EnvelopeSigner], progress: Progress, folder: Path
) -> _Work:
    """Check what was asked and the checkpoints that were given."""
    period = _check_request(request)
    end = sources.trust.verify(sources.checkpoint)
    start: StartRange | None = None
    if request.start_checkpoint is not None:
        earlier = sources.trust.verify(request.start_checkpoint)
        if earlier.checkpoint.origin != end.checkpoint.origin or not 0 < earlier.head.size < end.head.size:
            raise EvidenceError("the start checkpoint is not an earlier one of the same log")
        if _time_of(earlier) > request.from_ms:
            raise EvidenceError("the start checkpoint was signed after the period had begun: decisions could be missed")
        start = collect_start_range(sources.prover, earlier.head.size)
        start.verify(earlier.head)
    if end.head.size == 0:
        raise EvidenceError("the log has no records")
    return _Work(
        request=request,
        sources=sources,
        signers=signers,
        progress=progress,
        folder=folder,
        started_ms=sources.clock.now_ms(),
        end=end,
        start=start,
        survey=Survey(period=period, start=start, signed_ms=_time_of(end)),
    )


def _walk(work: _Work) -> None:
    """Read every entry once: into the survey, and into the file of entries."""
    path = work.folder / "entries"
    total = work.size - work.first_leaf
    with path.open("xb") as file:
        writer = EntryFileWriter(file)
        for done, entry in enumerate(work.entries(), 1):
            work.survey.add(entry)
            writer.write(entry)
            if done % _PROGRESS_STEP == 0 or done == total:
                work.progress("walk", done, total)
        writer.close()
    work.files[pack.entries_path(work.first_leaf, work.size)] = path


def _collect_bundles(work: _Work) -> dict[str, Bundle]:
    """Return the bundles that decided, as far as there are copies; a missing one becomes a gap."""
    bundles: dict[str, Bundle] = {}
    for revision in sorted({line.revision for line in work.survey.bundles()}):
        try:
            bundle = work.sources.bundle(revision)
        except UnknownBundleError:
            continue
        if bundle.revision != revision:
            raise EvidenceError(f"the store gave bundle {bundle.revision} for {revision}")
        bundles[revision] = bundle
    return bundles


def _decisions(work: _Work) -> Iterator[tuple[int, Record]]:
    for leaf, entry in enumerate(work.entries(), work.first_leaf):
        record = decode_entry(entry)
        if work.survey.is_decision_of_period(record):
            yield leaf, record


async def _reperform(work: _Work, bundles: Mapping[str, Bundle]) -> list[ReplayLine]:
    total = len(work.survey.decision_leaves)
    return await reperform(
        _decisions(work),
        bundles,
        work.sources.open_request,
        work.sources.evaluator,
        lambda done: work.progress("re-perform", done, total),
    )


def _claims(work: _Work) -> Claims:
    request, end = work.request, work.end
    anchors = tuple(
        AnchorClaim(
            kind=copy.kind,
            size=copy.receipt.size,
            location=copy.receipt.location,
            anchored_ms=copy.receipt.anchored_ms,
            retain_until_ms=copy.receipt.retain_until_ms,
        )
        # A copy of a later checkpoint says nothing about this range that its own receipt would not say later.
        for copy in sorted(work.sources.anchors, key=lambda copy: (copy.receipt.size, copy.kind, copy.receipt.location))
        if copy.receipt.size <= end.head.size
    )
    claims = Claims(
        title=request.title,
        origin=end.checkpoint.origin,
        from_ms=request.from_ms,
        to_ms=request.to_ms,
        zone=request.zone,
        checkpoint_ms=_time_of(end),
        software=request.software,
        simulated=request.simulated,
        not_applicable=tuple(sorted(request.not_applicable, key=lambda one: (one.framework, one.control))),
        anchors=anchors,
        witnesses=end.witnesses,
    )
    try:
        # What a reader will refuse is refused before it is written: constructors do not check, conversion does.
        return msgspec.convert(msgspec.to_builtins(claims), Claims)
    except msgspec.ValidationError as error:
        raise EvidenceError(f"the request cannot be put into a pack: {error}") from error


def _derive(work: _Work, bundles: Mapping[str, Bundle], replays: Sequence[ReplayLine]) -> Derivation:
    derivation = derive(
        survey=work.survey,
        root=work.end.head.root,
        entries=work.entries,
        frameworks=work.request.frameworks,
        claims=_claims(work),
        replays=replays,
        held={revision: pack.held_bundle(bundle) for revision, bundle in bundles.items()},
    )
    if work.request.require_complete and derivation.population.completeness != "complete":
        raise IncompletePopulationError(f"the population is not complete: {derivation.population.completeness}")
    return derivation


def _prove(work: _Work) -> None:
    """Add checkpoints, the consistency proof and the inclusion proofs."""
    prover, size = work.sources.prover, work.size
    files = work.files
    files[pack.END_CHECKPOINT] = work.sources.checkpoint
    if work.start is not None and work.request.start_checkpoint is not None:
        files[pack.START_CHECKPOINT] = work.request.start_checkpoint
        files[pack.START_RANGE] = encode_start_range(work.start)
    consistency = {
        "format": "tallystick.consistency/1",
        "old_size": work.first_leaf,
        "new_size": size,
        "path": [item.hex() for item in prover.consistency(work.first_leaf, size)],
    }
    files[pack.CONSISTENCY] = canonical_bytes(consistency)
    total = len(work.survey.proved_leaves)
    for done, leaf in enumerate(work.survey.proved_leaves, 1):
        files[proof_path(leaf)] = prover.proof_file(leaf, work.sources.checkpoint).encode()
        work.progress("prove", done, total)


def _digests(files: Mapping[str, Content]) -> dict[str, Digest]:
    return {path: digest_content(content) for path, content in files.items()}


def _seal(work: _Work, manifest: bytes) -> bytes:
    """Sign the manifest with keys that the log introduced for packs, and check the result as a verifier will."""
    introduced = {key.key_id: key for key in work.survey.keyring.pack_keys()}
    mine = [signer.envelope_key for signer in work.signers]
    strangers = [key.algorithm for key in mine if key.key_id not in introduced]
    if strangers:
        raise TrustPolicyError(f"the log has not introduced the pack key for {', '.join(strangers)}")
    if {key.algorithm for key in mine} != {ED25519, MLDSA44}:
        raise EvidenceError(f"a pack is signed with {ED25519} and {MLDSA44}")
    envelope = seal_envelope(pack.MANIFEST_MEDIA_TYPE, manifest, work.signers)
    parse_envelope(envelope).verify(mine)
    return envelope


def _complete(work: _Work, derivation: Derivation, bundles: Mapping[str, Bundle], render: Renderer) -> PackSummary:
    """Add every file that is left, the report and the manifests last."""
    files = work.files
    _prove(work)
    files.update(derived_files(derivation))
    for bundle in bundles.values():
        files.update(pack.bundle_members(bundle))
    files[pack.TRUST_POLICY] = work.sources.trust.encode().encode()
    custody = build_custody(
        derivation,
        requested_by=work.request.requested_by,
        requested_ms=work.request.requested_ms,
        started_ms=work.started_ms,
        finished_ms=work.sources.clock.now_ms(),
        signers=signer_lines(work.end, work.survey.keyring, [signer.envelope_key for signer in work.signers]),
    )
    files[pack.CUSTODY] = custody.encode()
    summary = summarise(derivation, custody)
    digests = _digests(files)
    files[pack.CONTENT_MANIFEST] = pack.encode_manifest(derivation.scope, digests)
    attached = {pack.CONTENT_MANIFEST: files[pack.CONTENT_MANIFEST], pack.END_CHECKPOINT: work.sources.checkpoint}
    work.progress("render", 0, 1)
    files[pack.PACK_PDF] = render(summary, {path: bytes(data) for path, data in attached.items()})
    work.progress("render", 1, 1)
    last = (pack.CONTENT_MANIFEST, pack.PACK_PDF)
    digests.update(_digests({path: files[path] for path in last}))
    manifest = pack.encode_manifest(derivation.scope, digests)
    files[pack.MANIFEST] = manifest
    files[pack.MANIFEST_ENVELOPE] = _seal(work, manifest)
    return summary


def _write(files: Mapping[str, Content], path: Path) -> tuple[dict[str, str], Digest]:
    """Write the container under a temporary name, sync it, and give it its name, which must be free.

    Returns:
        SHA-256 of every file by path, and the digest of the whole.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write_container(file, {member: files[member] for member in pack.member_order(files)})
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError as error:
        raise EvidenceError(f"there is already a file {path.name}") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return {member: digest_content(content).sha256 for member, content in files.items()}, digest_content(path)


async def assemble(
    request: PackRequest,
    sources: PackSources,
    path: Path,
    *,
    render: Renderer,
    signers: Sequence[EnvelopeSigner],
    progress: Progress,
) -> AssembledPack:
    """Make a pack.

    Args:
        request: What is asked for.
        sources: Where the evidence comes from.
        path: File to create; nothing may stand there, and its folder must exist.
        render: Makes the report; called in another thread.
        signers: Keys for packs, one of each algorithm, which the log has introduced.
        progress: Told how far each step is; called from other threads, one at a time.

    Returns:
        Where the pack is, and what it says.

    Raises:
        EvidenceError: What is asked for cannot be made: an empty log, a file that is already there, …
        IncompletePopulationError: The request demands a complete population, and this one is not.
        TrustPolicyError: A checkpoint does not meet the trust policy, or the log has not introduced a pack key.
        VerificationError: The log does not prove what its checkpoint says; no pack is made of it.
        MalformedError: An entry, tile or framework is damaged.
        DependencyError: A store failed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        work = await asyncio.to_thread(_begin, request, sources, signers, progress, Path(folder))
        await asyncio.to_thread(_walk, work)
        bundles = await asyncio.to_thread(_collect_bundles, work)
        replays = await _reperform(work, bundles)
        derivation = await asyncio.to_thread(_derive, work, bundles, replays)
        summary = await asyncio.to_thread(_complete, work, derivation, bundles, render)
        digests, whole = await asyncio.to_thread(_write, work.files, path)
        pdf = work.files[pack.PACK_PDF]
    assert isinstance(pdf, bytes)  # the renderer gave bytes
    return AssembledPack(
        path=path,
        size_bytes=whole.size,
        sha256=whole.sha256,
        pack_id=derivation.scope.pack_id,
        summary=summary,
        pdf=pdf,
        digests=digests,
    )
