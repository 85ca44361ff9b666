"""Policy bundles: manifest, files, revision digest, archive.

Pure: bytes and values in, values out or an exception. What is elsewhere: reading a directory (`directories`), what the
files mean to an engine (`engines`), which bundle is active (`registry`).

A bundle is a set of files under one ``manifest.json``::

    {"format": "tallystick.bundle/1", "name": "demo", "engine": "cedar",
     "policies": ["common.cedar", "finance.cedar"], "schema": "schema.cedarschema",
     "entities": "entities.json", "parameters": "parameters.json", "description": "…"}

``policies`` lists paths in evaluation order; there are no globs, so that adding a file can never change a decision
unseen. A file that the manifest does not name is refused, except ``README.md`` and what lies under ``tests/``. Members
that hold their default are left out of the manifest's canonical form, so that a later optional member changes no
revision of today.

The *revision* is SHA-256 in hexadecimal over the canonical JSON (RFC 8785) of::

    {"files": {"<path>": "<SHA-256 of the bytes, hexadecimal>", …}, "manifest": {…}}

with every file but ``manifest.json`` itself. The *archive* is the canonical JSON of
``{"files": {"<path>": "<base64>", …}, "format": "tallystick.bundle/1"}`` with the manifest in its canonical form among
the files: one revision has exactly one archive, byte for byte, and `parse_archive` refuses every other spelling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec

from ledger.body_fields import Name
from ledger.canonical import JSONValue, canonical_bytes, parse_json, sha256
from ledger.errors import MalformedError, PolicySyntaxError
from ledger.notes import decode_base64, encode_base64

__all__ = [
    "BUNDLE_FORMAT",
    "MANIFEST_PATH",
    "MAX_BUNDLE_BYTES",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_PATH_CHARS",
    "Bundle",
    "BundleManifest",
    "bundle_from_files",
    "parse_archive",
]

BUNDLE_FORMAT: Final = "tallystick.bundle/1"
MANIFEST_PATH: Final = "manifest.json"
MAX_FILES: Final = 256
MAX_FILE_BYTES: Final = 1 << 20
MAX_BUNDLE_BYTES: Final = 4 << 20
MAX_PATH_CHARS: Final = 200

_MAX_ARCHIVE_BYTES: Final = 2 * MAX_BUNDLE_BYTES
_README: Final = "README.md"
_TESTS: Final = "tests/"
# ASCII only: no two spellings of one name (Unicode normalisation), nothing that a file system or terminal interprets.
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a bundle says about itself.

    Attributes:
        format: ``tallystick.bundle/1``.
        name: The bundle's name; it stands in every decision record.
        engine: Name of the engine that it is written for, such as ``cedar``.
        policies: Paths of policy files, in evaluation order.
        schema: Path of the engine's schema, if the engine has one.
        entities: Path of static data for the engine, if any.
        parameters: Path of the declarations that `policies.parameters` reads, if any.
        boundaries: Path of the descriptions of tools that `policies.boundaries` reads, if any.
        windows: Path of the declarations that `policies.windows` reads, if any.
        description: One sentence for people.
        rego_version: The Rego that policy files are written in: 1, or 0 for the language before OPA 1.0.
        package: The Rego package whose rules decide; that of the first policy file if left out.
        data: Path of the JSON document that Rego policies read as ``data``, if any.
    """

    format: Literal["tallystick.bundle/1"]
    name: Name
    engine: Name
    policies: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]
    schema: str | None = None
    entities: str | None = None
    parameters: str | None = None
    boundaries: str | None = None
    windows: str | None = None
    description: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    rego_version: Literal[0, 1] = 1
    package: str | None = None
    data: str | None = None

    def named_files(self) -> tuple[str, ...]:
        """Return every path that the manifest names, policies first."""
        others = (self.schema, self.entities, self.parameters, self.boundaries, self.windows, self.data)
        return self.policies + tuple(path for path in others if path is not None)


def _check_path(path: str) -> None:
    if len(path) > MAX_PATH_CHARS or not _PATH.fullmatch(path):
        raise PolicySyntaxError(f"a bundle cannot hold a file named {path[:MAX_PATH_CHARS]!a}")


def _check_distinct(paths: list[str]) -> None:
    """Refuse two paths that one directory could not hold apart."""
    folded = {path.casefold() for path in paths}
    if len(folded) != len(paths):
        raise PolicySyntaxError("two files of the bundle differ only in upper and lower case")
    for path in folded:
        parts = path.split("/")
        parents = ("/".join(parts[:count]) for count in range(1, len(parts)))
        if any(parent in folded for parent in parents):
            raise PolicySyntaxError(f"the bundle has {path!r} below a file of that name")


def _check_files(manifest: BundleManifest, files: Mapping[str, bytes]) -> None:
    if len(files) > MAX_FILES:
        raise PolicySyntaxError(f"a bundle has at most {MAX_FILES} files, not {len(files)}")
    for path, data in files.items():
        _check_path(path)
        if len(data) > MAX_FILE_BYTES:
            raise PolicySyntaxError(f"{path}: a file of a bundle has at most {MAX_FILE_BYTES} bytes, not {len(data)}")
    if sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
        raise PolicySyntaxError(f"a bundle has at most {MAX_BUNDLE_BYTES} bytes")
    _check_distinct([*files, MANIFEST_PATH])
    named = manifest.named_files()
    if len(set(named)) != len(named):
        raise PolicySyntaxError(f"{MANIFEST_PATH}: a file is named twice")
    for path in named:
        if path not in files:
            raise PolicySyntaxError(f"{MANIFEST_PATH} names {path[:MAX_PATH_CHARS]!a}, which the bundle does not hold")
    for path in files:
        if path not in named and path != _README and not path.startswith(_TESTS):
            raise PolicySyntaxError(f"{path}: {MANIFEST_PATH} does not name this file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A policy bundle; one that exists has been checked.

    Attributes:
        manifest: What it says about itself.
        files: Path → bytes, without ``manifest.json``, sorted by path.
        revision: Its digest, 32 bytes in hexadecimal.

    Raises:
        PolicySyntaxError: A path, a size or the set of files is not as the module's text says.
    """

    manifest: BundleManifest
    files: Mapping[str, bytes]
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        _check_files(self.manifest, self.files)
        copy = MappingProxyType({path: bytes(self.files[path]) for path in sorted(self.files)})
        object.__setattr__(self, "files", copy)
        # INVARIANT 8: the revision is a function of manifest and files alone, and is never taken from outside.
        digest = sha256(
            canonical_bytes(
                {
                    "manifest": msgspec.to_builtins(self.manifest),
                    "files": {path: sha256(data).hex() for path, data in copy.items()},
                }
            )
        )
        object.__setattr__(self, "revision", digest.hex())

    def __hash__(self) -> int:
        return hash(self.revision)

    def text(self, path: str) -> str:
        """Return a file as text.

        Raises:
            PolicySyntaxError: No such file, or it is not UTF-8.
        """
        try:
            return self.files[path].decode("utf-8")
        except KeyError as error:
            raise PolicySyntaxError(f"the bundle holds no file {path!a}") from error
        except UnicodeDecodeError as error:
            raise PolicySyntaxError(f"{path}: not UTF-8 at byte {error.start}") from error

    def archive(self) -> bytes:
        """Return the bundle's archive; the inverse of `parse_archive`."""
        manifest = canonical_bytes(msgspec.to_builtins(self.manifest))
        files = {MANIFEST_PATH: manifest, **self.files}
        return canonical_bytes(
            {"format": BUNDLE_FORMAT, "files": {path: encode_base64(data) for path, data in files.items()}}
        )


def _parse_manifest(data: bytes) -> BundleManifest:
    try:
        value = parse_json(data)
        return msgspec.convert(value, BundleManifest)
    except MalformedError as error:
        raise PolicySyntaxError(f"{MANIFEST_PATH}: {error}") from error
    except msgspec.ValidationError as error:
        raise PolicySyntaxError(f"{MANIFEST_PATH}: {error}") from error


def bundle_from_files(files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle that a set of files makes.

    Args:
        files: Path relative to the bundle's root, with ``/`` between parts → bytes; ``manifest.json`` among them, in
            any JSON spelling.

    Raises:
        PolicySyntaxError: No manifest, a manifest that is not of format ``tallystick.bundle/1``, a path that leaves the
            bundle, a file too many, missing or too large.
    """
    if MANIFEST_PATH not in files:
        raise PolicySyntaxError(f"the bundle has no {MANIFEST_PATH}")
    if len(files[MANIFEST_PATH]) > MAX_FILE_BYTES:
        raise PolicySyntaxError(f"{MANIFEST_PATH} has more than {MAX_FILE_BYTES} bytes")
    manifest = _parse_manifest(files[MANIFEST_PATH])
    return Bundle(manifest=manifest, files={path: data for path, data in files.items() if path != MANIFEST_PATH})


def _archived_files(value: JSONValue) -> dict[str, bytes]:
    if not isinstance(value, dict) or value.keys() != {"format", "files"} or value["format"] != BUNDLE_FORMAT:
        raise PolicySyntaxError(f"a bundle archive is an object of format {BUNDLE_FORMAT} with files")
    members = value["files"]
    if not isinstance(members, dict) or len(members) > MAX_FILES + 1:
        raise PolicySyntaxError(f"a bundle archive holds an object of at most {MAX_FILES} files")
    files: dict[str, bytes] = {}
    for path, text in members.items():
        _check_path(path)
        if not isinstance(text, str):
            raise PolicySyntaxError(f"{path}: a bundle archive holds files as base64 text")
        try:
            files[path] = decode_base64(text)
        except MalformedError as error:
            raise PolicySyntaxError(f"{path}: {error}") from error
    return files


def parse_archive(data: bytes) -> Bundle:
    """Read an archive; the inverse of `Bundle.archive`.

    Raises:
        PolicySyntaxError: Not an archive, not in its one canonical spelling, or not a sound bundle.
    """
    if len(data) > _MAX_ARCHIVE_BYTES:
        raise PolicySyntaxError(f"a bundle archive has at most {_MAX_ARCHIVE_BYTES} bytes, not {len(data)}")
    try:
        value = parse_json(data)
    except MalformedError as error:
        raise PolicySyntaxError(f"not a bundle archive: {error}") from error
    bundle = bundle_from_files(_archived_files(value))
    if bundle.archive() != data:
        raise PolicySyntaxError("a bundle archive is not in its canonical form")
    return bundle
