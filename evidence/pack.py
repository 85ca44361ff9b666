"""The pack format, version 1: which files a pack has, what each is, and the two manifests.

Pure. The container is `container`'s part, contents that follow from entries are `derivation`'s.

===================================  ==================================================================================
``README.txt``                       how to verify, what to expect, what is not proved
``access-log.jsonl``                 reads and exports in the range, one JSON object a line
``checkpoints/end.txt``              the signed checkpoint at the end of the range
``checkpoints/start.txt``            the one at its start, if the range does not begin at leaf 0
``consistency.json``                 consistency proof from start to end
``content-manifest.json``            every file but ``pack.pdf`` and the manifests; the PDF embeds it
``controls/<framework>/<id>.json``   a control's sheet: tests, verdict, deviations
``custody.json``                     who asked, what was done, with which keys
``exceptions.json``                  every deviation, with its leaf
``frameworks/<id>.json``             the catalogue as used, tests included
``gaps.json``                        what the evidence does not cover
``pack.pdf``                         the report for people
``policies/<revision>/…``            exact files of every bundle that decided
``population/counts.json``           counts, completeness, calls that did not pass
``population/entries-<a>-<b>.jsonl.gz``  exact bytes of the entries of leaves a to b - 1
``population/start-range.json``      what stands before leaf a, if a > 0
``proofs/<leaf>.tlog-proof``         inclusion proofs of calls that did not pass, and of one allowed call of each tool
``reperformance.json``               every decision made again
``scope.json``                       what the pack is about
``trust.policy``                     the maker's trust policy, for information; never trusted
``manifest.json``                    ``content-manifest.json``'s files, itself and ``pack.pdf``
``manifest.dsse.json``               DSSE envelope over ``manifest.json``: Ed25519 and ML-DSA-44
===================================  ==================================================================================

Files stand in the order of their paths, the manifests last. JSON files are canonical (RFC 8785) without a final line
feed. A manifest (line breaks are ours)::

    {"files":[{"bytes":1893,"media_type":"text/plain; charset=utf-8","path":"README.txt","role":"instructions",
               "sha256":"…"},…],
     "format":"tallystick.pack/1","pack_id":"…","period":{"from_ms":…,"to_ms":…},"record_schema_version":1,
     "software":"tallystick 0.1.0","tree_size":60}

Everything in a manifest follows from the files and the scope: a verifier writes it again and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec

from evidence.container import Digest
from evidence.scope import Scope
from evidence.summary import HeldBundle
from ledger.canonical import canonical_bytes, parse_canonical
from ledger.errors import MalformedError
from ledger.merkle import HASH_BYTES
from ledger.records import SCHEMA_VERSION
from policies.bundles import MANIFEST_PATH, Bundle

__all__ = [
    "CONTENT_MANIFEST",
    "MANIFEST",
    "MANIFEST_ENVELOPE",
    "MANIFEST_MEDIA_TYPE",
    "PACK_PDF",
    "Consistency",
    "FileEntry",
    "bundle_folder",
    "bundle_members",
    "encode_manifest",
    "entries_path",
    "held_bundle",
    "member_order",
    "parse_consistency",
    "parse_manifest_files",
]

CONTENT_MANIFEST: Final = "content-manifest.json"
MANIFEST: Final = "manifest.json"
MANIFEST_ENVELOPE: Final = "manifest.dsse.json"
PACK_PDF: Final = "pack.pdf"
README: Final = "README.txt"
END_CHECKPOINT: Final = "checkpoints/end.txt"
START_CHECKPOINT: Final = "checkpoints/start.txt"
CONSISTENCY: Final = "consistency.json"
CUSTODY: Final = "custody.json"
REPLAYS: Final = "reperformance.json"
SCOPE: Final = "scope.json"
START_RANGE: Final = "population/start-range.json"
TRUST_POLICY: Final = "trust.policy"

MANIFEST_MEDIA_TYPE: Final = "application/vnd.tallystick.pack-manifest+json"
"""Payload type of the signed envelope."""

_CONTENT_FORMAT: Final = "tallystick.pack-content/1"
_PACK_FORMAT: Final = "tallystick.pack/1"
_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    README: (_TEXT, "instructions"),
    "access-log.jsonl": ("application/jsonl", "access"),
    CONSISTENCY: (_JSON, "proof"),
    CONTENT_MANIFEST: (_JSON, "manifest"),
    CUSTODY: (_JSON, "custody"),
    "exceptions.json": (_JSON, "exceptions"),
    "gaps.json": (_JSON, "gaps"),
    PACK_PDF: ("application/pdf", "report"),
    REPLAYS: (_JSON, "reperformance"),
    SCOPE: (_JSON, "scope"),
    START_RANGE: (_JSON, "proof"),
    "population/counts.json": (_JSON, "counts"),
    TRUST_POLICY: (_TEXT, "information"),
}
_FOLDERS: Final[Mapping[str, tuple[str, str]]] = {
    "checkpoints": (_TEXT, "checkpoint"),
    "controls": (_JSON, "control"),
    "frameworks": (_JSON, "framework"),
    "policies": ("application/octet-stream", "policy"),
    "population": ("application/gzip", "population"),
    "proofs": (_TEXT, "proof"),
}
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Hash = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * HASH_BYTES}}}\Z")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common rules: immutable, every member written out, unknown members refused."""


class FileEntry(_Struct, frozen=True):
    """A file as a manifest lists it.

    Attributes:
        path: Where it is in the pack.
        bytes: Its length.
        sha256: Its digest.
        media_type: What it is.
        role: What it is for.
    """

    path: str
    bytes: _Count
    sha256: _Hash
    media_type: str
    role: str


class Consistency(_Struct, frozen=True):
    """A consistency proof: hexadecimal hashes in the order of RFC 9162; empty if the old tree is."""

    format: Literal["tallystick.consistency/1"]
    old_size: _Count
    new_size: _Count
    path: Annotated[tuple[_Hash, ...], msgspec.Meta(max_length=126)]


class _Manifest(_Struct, frozen=True):
    format: Literal["tallystick.pack/1", "tallystick.pack-content/1"]
    pack_id: str
    period: dict[str, _Count]
    record_schema_version: Literal[1]
    software: _Text
    tree_size: _Count
    files: tuple[FileEntry, ...]


def bundle_folder(revision: str) -> str:
    """Return the folder of a policy bundle in a pack, with its slash."""
    return f"policies/{revision}/"


def bundle_members(bundle: Bundle) -> dict[str, bytes]:
    """Return a bundle's files by their paths in a pack."""
    manifest = canonical_bytes(msgspec.to_builtins(bundle.manifest))
    folder = bundle_folder(bundle.revision)
    return {folder + path: data for path, data in {MANIFEST_PATH: manifest, **bundle.files}.items()}


def held_bundle(bundle: Bundle) -> HeldBundle:
    """Return what a pack that holds a bundle says of it."""
    manifest = bundle.manifest
    return HeldBundle(name=manifest.name, engine=manifest.engine, files=tuple(sorted(bundle_members(bundle))))


def entries_path(first_leaf: int, end_leaf: int) -> str:
    """Return the path of the entries of leaves ``first_leaf`` to ``end_leaf - 1``."""
    return f"population/entries-{first_leaf}-{end_leaf}.jsonl.gz"


def member_order(paths: Iterable[str]) -> list[str]:
    """Return the order in which files stand in a pack: by path, the signed manifest and its envelope last."""
    last = (MANIFEST, MANIFEST_ENVELOPE)
    return sorted(paths, key=lambda path: (path in last, last.index(path) if path in last else 0, path))


def _kind(path: str) -> tuple[str, str]:
    folder = path.partition("/")[0]
    try:
        return _KINDS.get(path) or _FOLDERS[folder]
    except KeyError:
        raise MalformedError(f"a pack has no file {path[:300]!a}") from None


def encode_manifest(scope: Scope, digests: Mapping[str, Digest]) -> bytes:
    """Return a manifest's bytes.

    Args:
        scope: The pack's scope.
        digests: Files by path: with ``pack.pdf`` among them it is the signed manifest, else the content manifest.

    Raises:
        MalformedError: A path that no pack has.
    """
    files = []
    for path in sorted(digests):
        media_type, role = _kind(path)
        digest = digests[path]
        files.append(
            FileEntry(path=path, bytes=digest.size, sha256=digest.sha256, media_type=media_type, role=role),
        )
    manifest = _Manifest(
        format=_PACK_FORMAT if PACK_PDF in digests else _CONTENT_FORMAT,
        pack_id=scope.pack_id,
        period={"from_ms": scope.claims.from_ms, "to_ms": scope.claims.to_ms},
        record_schema_version=SCHEMA_VERSION,
        software=scope.claims.software,
        tree_size=scope.tree_size,
        files=tuple(files),
    )
    return canonical_bytes(msgspec.to_builtins(manifest))


def parse_manifest_files(data: bytes) -> tuple[FileEntry, ...]:
    """Read the files that a manifest lists; nothing has been checked.

    Raises:
        MalformedError: Not a manifest of version 1 in canonical form.
    """
    try:
        return msgspec.convert(parse_canonical(data), _Manifest).files
    except msgspec.ValidationError as error:
        raise MalformedError(f"not a manifest: {error}") from error


def parse_consistency(data: bytes) -> Consistency:
    """Read ``consistency.json``.

    Raises:
        MalformedError: Not such a file in canonical form.
    """
    try:
        return msgspec.convert(parse_canonical(data), Consistency)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not a consistency proof: {error}") from error
