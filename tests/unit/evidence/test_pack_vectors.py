"""Version 1 of the pack is frozen: the packs of ``tests/vectors/packs`` are read as they were when they were made."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import pytest

from evidence import pack
from evidence.scope import parse_scope
from evidence.verification import Status
from ledger.envelopes import MLDSA44
from ledger.notes import SignatureType
from ledger.trust import TrustPolicy, parse_trust_policy
from tests.support.frozen_packs import FROZEN, ROOT, FrozenPack, make_again
from tests.support.packs import pack_entries, read_files, write_files
from tests.support.verifiers import verify_pack

frozen_packs = pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: frozen.name)
Files = dict[str, bytes]


def trust(frozen: FrozenPack) -> TrustPolicy:
    return parse_trust_policy(frozen.file("trust.policy"))


def entries_of(files: Files) -> tuple[str, list[bytes]]:
    path = next(path for path in files if path.startswith("population/entries-"))
    return path, gzip.decompress(files[path]).split(b"\n")[:-1]


def test_every_frozen_pack_is_known_here() -> None:
    assert {path.name for path in ROOT.iterdir()} == {frozen.name for frozen in FROZEN}


@frozen_packs
def test_a_frozen_pack_is_proven_with_its_trust_policy_and_kept_checkpoint(frozen: FrozenPack) -> None:
    report = verify_pack(
        frozen.file("pack.zip"),
        trust=trust(frozen),
        known=frozen.file("known.txt"),
        accepted_mappings=frozen.mappings(),
    )
    assert report.status is Status.PROVEN, report.lines()
    assert any(check.name == "known checkpoint" for check in report.checked)


@frozen_packs
def test_making_a_frozen_pack_again_gives_its_bytes_but_for_the_envelope(frozen: FrozenPack) -> None:
    stored = read_files(frozen.file("pack.zip"))
    again, verdicts = make_again(frozen)
    path, entries = entries_of(stored)
    assert entries_of(again) == (path, entries)
    assert verdicts == frozen.file("expected.txt").decode()
    differing = {name for name in stored.keys() | again.keys() if stored.get(name) != again.get(name)}
    allowed = {pack.MANIFEST_ENVELOPE}
    if stored[path] != again[path]:  # another compression library than that of the machine where it was frozen
        allowed |= {path, pack.CONTENT_MANIFEST, pack.MANIFEST, pack.PACK_PDF}
    assert differing <= allowed


@frozen_packs
def test_a_frozen_pack_is_signed_with_both_algorithms(frozen: FrozenPack) -> None:
    kinds = {key.signature_type for key in trust(frozen).logs}
    assert kinds == {SignatureType.ED25519, SignatureType.MLDSA44_COSIGNATURE}
    for dropped in kinds:
        kept = tuple(key for key in trust(frozen).logs if key.signature_type != dropped)
        report = verify_pack(frozen.file("pack.zip"), trust=TrustPolicy(logs=kept), accepted_mappings=frozen.mappings())
        assert report.status is Status.PROVEN
        assert any("the trust policy does not" in sentence for sentence in report.not_checked)
        assert any("one algorithm only" in note for note in report.notes)
        timed = dropped == SignatureType.ED25519
        assert any("time of the checkpoint" in sentence for sentence in report.not_checked) is not timed
    assert MLDSA44.encode() in read_files(frozen.file("pack.zip"))[pack.CUSTODY]


def _flip(path: str) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        found = next(name for name in files if name.startswith(path))
        data = bytearray(files[found])
        data[len(data) // 2] ^= 1
        return {**files, found: bytes(data)}

    return change


def _edit_row(files: Files) -> Files:
    path, entries = entries_of(files)
    entries[-1] = re.sub(rb'"time_ms":1', rb'"time_ms":2', entries[-1])
    return {**files, path: pack_entries(entries)}


def _drop_row(files: Files) -> Files:
    path, entries = entries_of(files)
    return {**files, path: pack_entries(entries[:5] + entries[6:])}


def _drop_tail(files: Files) -> Files:
    path, entries = entries_of(files)
    return {**files, path: pack_entries(entries[:-3])}


def _swap_rows(files: Files) -> Files:
    path, entries = entries_of(files)
    entries[-1], entries[-2] = entries[-2], entries[-1]
    return {**files, path: pack_entries(entries)}


def _wrong_period(files: Files) -> Files:
    scope = files[pack.SCOPE]
    to_ms = str(parse_scope(scope).claims.to_ms).encode()
    return {**files, pack.SCOPE: scope.replace(b'"to_ms":' + to_ms, b'"to_ms":' + str(int(to_ms) + 1).encode())}


def _swap_proofs(files: Files) -> Files:
    one, other = [path for path in files if path.startswith("proofs/")][:2]
    return {**files, one: files[other], other: files[one]}


TAMPERED: dict[str, tuple[str, Callable[[Files], Files]]] = {
    "edited row": ("population/entries", _edit_row),
    "dropped row": ("population/entries", _drop_row),
    "dropped tail": ("population/entries", _drop_tail),
    "reordered leaves": ("population/entries", _swap_rows),
    "wrong period": ("scope.json", _wrong_period),
    "stale checkpoint": ("checkpoints/end.txt", lambda files: {**files, pack.END_CHECKPOINT: b""}),
    "edited report": ("pack.pdf", _flip("pack.pdf")),
    "changed policy": ("policies/", _flip("policies/")),
    "swapped attachment": ("proofs/", _swap_proofs),
    "changed verdict": ("controls/", _flip("controls/")),
    "changed counts": ("population/counts.json", _flip("population/counts.json")),
    "changed mapping": ("frameworks/", _flip("frameworks/")),
    "changed custody": ("custody.json", _flip("custody.json")),
    "changed instructions": ("README.txt", _flip("README.txt")),
    "changed access log": ("access-log.jsonl", lambda files: {**files, "access-log.jsonl": b"{}\n"}),
}


@frozen_packs
@pytest.mark.parametrize("drill", sorted(TAMPERED))
def test_a_tampered_copy_is_detected_by_name(frozen: FrozenPack, drill: str) -> None:
    place, change = TAMPERED[drill]
    files = read_files(frozen.file("pack.zip"))
    changed = change(files)
    assert changed != files
    report = verify_pack(write_files(changed), trust=trust(frozen))
    assert report.status in (Status.FAILED, Status.MALFORMED)
    assert any(failure.file.startswith(place) and failure.reason for failure in report.failures), report.lines()
