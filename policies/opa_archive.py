"""A bundle as the ``tar.gz`` that a stock OPA loads, and back.

Pure::

    .manifest               {"metadata": {…}, "revision": "…", "rego_version": 1, "roots": ["policy"]}
    data.json               the document ``data``, of a Rego bundle
    manifest.json           our manifest
    policy.rego, …          the bundle's files, for people and for OPA
    tallystick.bundle.json  the bundle's own archive (`bundles`), which alone says what the bundle is

OPA takes what is named as it names things and leaves the rest; a file of the bundle that it would take for something
else (a test case named ``data.json``) stands in ``tallystick.bundle.json`` alone. It owns nothing but its packages
and data (``roots``), so that an OPA may load others beside it; one of a Cedar bundle owns nothing. One bundle has one
tar: order, times, owners and modes are fixed. The gzip around it depends on zlib's version.

Read is what is written here, and a plain tar of a bundle's directory. Hostile archives end in `PolicySyntaxError`: what
is large, packed into little, linked, sparse, named twice or outside the bundle, or shows other files than it has.

Source: https://www.openpolicyagent.org/docs/management-bundles, bundle file format.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ledger.canonical import JSONValue, canonical_bytes, parse_json
from ledger.errors import PolicySyntaxError
from policies.bundles import MANIFEST_PATH, MAX_BUNDLE_BYTES, MAX_FILES, Bundle, bundle_from_files, parse_archive

__all__ = ["MAX_OPA_ARCHIVE_BYTES", "MEDIA_TYPE", "opa_archive", "parse_opa_archive"]

MEDIA_TYPE: Final = "application/vnd.openpolicyagent.bundles"
"""What a server says that holds a request until there is news; OPA then asks so again at once."""

MAX_OPA_ARCHIVE_BYTES: Final = 2 * MAX_BUNDLE_BYTES
"""Compressed."""

_MAX_TAR_BYTES: Final = 5 * MAX_BUNDLE_BYTES
"""The bundle's files, these in base64, and what a tar adds to each."""
_MAX_MEMBERS: Final = 4 * MAX_FILES
_GZIP: Final = 31
_OPA_MANIFEST: Final = ".manifest"
_OPA_DATA: Final = "data.json"
_WHOLE: Final = "tallystick.bundle.json"
_OURS: Final = frozenset({_OPA_MANIFEST, _OPA_DATA, MANIFEST_PATH, _WHOLE, ".signatures.json"})
_READ_BY_OPA: Final = re.compile(r"(.*/)?(data\.(json|ya?ml)|policy\.wasm|plan\.json|patch\.json)|.*\.rego")
_REGO: Final = "rego"
_PACKAGE: Final = re.compile(r"(?:\s|#[^\n]*\n)*package[ \t]+(\w+(?:\.\w+)*)")
"""The first thing that a file says, behind comments."""


def _modules(bundle: Bundle) -> dict[str, str]:
    """Return path and text of each Rego file; old Rego that names no package has the manifest's before it."""
    manifest = bundle.manifest
    if manifest.engine != _REGO:
        return {}
    texts = {path: bundle.text(path) for path in manifest.policies}
    if manifest.rego_version == 0 and manifest.package is not None:
        # On the first line, so that every line keeps its number.
        prefix = f"package {manifest.package} "
        return {path: text if _PACKAGE.match(text) else prefix + text for path, text in texts.items()}
    return texts


def _package(text: str) -> str:
    named = _PACKAGE.match(text)
    return "" if named is None else named[1]


def _data(bundle: Bundle) -> bytes:
    path = bundle.manifest.data
    return b"{}" if path is None or bundle.manifest.engine != _REGO else bundle.files[path]


def _roots(bundle: Bundle, modules: Mapping[str, str]) -> list[str]:
    """Return what the bundle owns of OPA's ``data``, none below another."""
    if not modules:
        return []
    document = parse_json(_data(bundle))
    names = document if isinstance(document, dict) else {}
    found = {"" if "/" in name else name for name in names}
    found |= {_package(text).replace(".", "/") for text in modules.values()}
    return sorted(
        root for root in found if not any(root != other and f"{root}/".startswith(_below(other)) for other in found)
    )


def _below(root: str) -> str:
    return f"{root}/" if root else ""


def _opa_manifest(bundle: Bundle, modules: Mapping[str, str]) -> bytes:
    manifest = bundle.manifest
    about: dict[str, JSONValue] = {"name": manifest.name, "engine": manifest.engine}
    value: dict[str, JSONValue] = {"revision": bundle.revision, "roots": [*_roots(bundle, modules)]}
    if modules:
        value["rego_version"] = manifest.rego_version
        about["package"] = manifest.package or _package(modules[manifest.policies[0]])
    return canonical_bytes({**value, "metadata": {"tallystick": about}})


def _members(bundle: Bundle) -> dict[str, bytes]:
    modules = _modules(bundle)
    members = {path: data for path, data in bundle.files.items() if not _READ_BY_OPA.fullmatch(path)}
    members |= {path: text.encode() for path, text in modules.items()}
    if modules:
        members[_OPA_DATA] = _data(bundle)
    members[MANIFEST_PATH] = canonical_bytes(msgspec.to_builtins(bundle.manifest))
    members[_OPA_MANIFEST] = _opa_manifest(bundle, modules)
    members[_WHOLE] = bundle.archive()
    return dict(sorted(members.items()))


def opa_archive(bundle: Bundle) -> bytes:
    """Return a bundle, which its engine has accepted, as a ``tar.gz`` for OPA.

    Raises:
        PolicySyntaxError: Its Rego is no text.
        MalformedError: Its data is no JSON.
    """
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, data in _members(bundle).items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(file.getvalue(), mtime=0)


def _unpacked(data: bytes) -> bytes:
    if len(data) > MAX_OPA_ARCHIVE_BYTES:
        raise PolicySyntaxError(f"a bundle's tar.gz has at most {MAX_OPA_ARCHIVE_BYTES} bytes, not {len(data)}")
    reading = zlib.decompressobj(wbits=_GZIP)
    try:
        # One byte more than is allowed: a bomb is never unpacked further than that.
        tar = reading.decompress(data, _MAX_TAR_BYTES + 1)
    except zlib.error as error:
        raise PolicySyntaxError("not a gzip file") from error
    if len(tar) > _MAX_TAR_BYTES:
        raise PolicySyntaxError(f"a bundle's tar.gz unpacks to at most {_MAX_TAR_BYTES} bytes")
    if not reading.eof or reading.unused_data:
        raise PolicySyntaxError("the gzip file is cut off, or there is something behind it")
    return tar


def _name(member: tarfile.TarInfo) -> str:
    name = member.name.removeprefix("./")
    if not member.isreg() or member.issparse():
        raise PolicySyntaxError(f"{name[:200]!a}: a bundle holds plain files only")
    if member.size > _MAX_TAR_BYTES:
        raise PolicySyntaxError(f"{name[:200]!a}: a file of a bundle is never so large")
    return name


def _files(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for count, member in enumerate(tar):
        if count >= _MAX_MEMBERS:
            raise PolicySyntaxError(f"a bundle's tar.gz has at most {_MAX_MEMBERS} members")
        if member.isdir():
            continue
        file = tar.extractfile(member) if (name := _name(member)) else None
        if file is None:
            raise PolicySyntaxError("a member of the tar has no name")
        data = file.read()
        if len(data) != member.size:
            raise PolicySyntaxError(f"{name[:200]!a}: cut off")
        yield name, data


def _read(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpacked(data)), mode="r:") as tar:
            for name, content in _files(tar):
                if name in files:
                    raise PolicySyntaxError(f"{name[:200]!a}: there twice")
                files[name] = content
    # tarfile lets whatever a crooked header leads to out of its parser.
    except (tarfile.TarError, EOFError, OverflowError, ValueError, OSError, RecursionError) as error:
        raise PolicySyntaxError("not a tar file") from error
    return files


def _shown(bundle: Bundle, path: str) -> tuple[bytes, ...]:
    """Return what a file may show for one of the bundle: itself, and old Rego with its package before it."""
    data = bundle.files.get(path)
    if data is None:
        return ()
    return (data, f"package {bundle.manifest.package} ".encode() + data)


def parse_opa_archive(data: bytes) -> Bundle:
    """Read a ``tar.gz`` of a bundle: one that `opa_archive` made, or the bundle's directory as it is.

    Raises:
        PolicySyntaxError: Not such a file, beyond a limit, or not a sound bundle.
    """
    files = _read(data)
    if _WHOLE not in files:
        return bundle_from_files(files)
    bundle = parse_archive(files[_WHOLE])
    # What people were shown is what is published.
    for path, content in files.items():
        if path not in _OURS and content not in _shown(bundle, path):
            raise PolicySyntaxError(f"{path[:200]!a}: not what {_WHOLE} has under that name")
    return bundle
