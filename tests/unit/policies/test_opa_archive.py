"""Bundles as tar.gz: one bundle has one tar, what OPA is shown is what we have, hostile archives are refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ledger.errors import PolicySyntaxError
from policies.bundles import MAX_BUNDLE_BYTES, Bundle, bundle_from_files
from policies.directories import library_names, read_library_bundle
from policies.engines.rego_modules import opa_layout
from policies.opa_archive import MAX_OPA_ARCHIVE_BYTES, opa_archive, parse_opa_archive
from tests.support.policies import PASSING_CASE, cedar_bundle, cedar_files

CEDAR = bundle_from_files({**cedar_files('@id("a") permit(principal, action, resource);'), **PASSING_CASE})
REGO_TEXT = "package shop.policy\n\ndefault allow := false\n\nallow if input.principal.agent == data.shop.trusted[_]\n"


def rego_bundle(text: str = REGO_TEXT, *, files: Mapping[str, bytes] | None = None, **manifest: Any) -> Bundle:
    members = {"format": "tallystick.bundle/1", "name": "shop", "engine": "rego", "policies": ["shop.rego"], **manifest}
    return bundle_from_files(
        {"manifest.json": json.dumps(members).encode(), "shop.rego": text.encode(), **(files or {})}
    )


REGO = rego_bundle(files={"facts.json": b'{"shop": {"trusted": ["Bot"]}}'}, data="facts.json")

OLD = rego_bundle("# no package\ndefault allow = false\nallow { input.x }\n", rego_version=0, package="legacy")
LIBRARY_LIKE = rego_bundle(
    files={"a.rego": b"# a\n\npackage shop.policy.deep\nx := 1\n", "b.rego": b"package stock\ny := 1\n"},
    policies=["shop.rego", "a.rego", "b.rego"],
)


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def tar_of(files: Mapping[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            change(member)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def directory_of(bundle: Bundle) -> dict[str, bytes]:
    return {path: data for path, data in members(opa_archive(bundle)).items() if path in bundle.files} | {
        "manifest.json": members(opa_archive(bundle))["manifest.json"]
    }


@pytest.mark.parametrize("bundle", [CEDAR, REGO, *map(read_library_bundle, library_names())], ids=lambda b: b.revision)
def test_a_bundle_comes_back_as_it_was(bundle):
    data = opa_archive(bundle)
    assert opa_archive(bundle) == data
    again = parse_opa_archive(data)
    assert (again.revision, again) == (bundle.revision, bundle)


@pytest.mark.parametrize("bundle", [REGO, OLD, LIBRARY_LIKE], ids=["new", "old", "several"])
def test_opa_is_given_what_the_engine_says_that_it_must_load(bundle):
    layout, files = opa_layout(bundle), members(opa_archive(bundle))
    assert {path: files[path].decode() for path in layout.modules} == dict(layout.modules)
    assert json.loads(files["data.json"]) == layout.data
    told = json.loads(files[".manifest"])
    assert (told["rego_version"], told["metadata"]["tallystick"]["package"]) == (layout.rego_version, layout.package)


def test_a_rego_bundle_tells_opa_its_revision_version_roots_and_data():
    files = members(opa_archive(REGO))
    assert json.loads(files[".manifest"]) == {
        "revision": REGO.revision,
        "rego_version": 1,
        "roots": ["shop"],
        "metadata": {"tallystick": {"name": "shop", "engine": "rego", "package": "shop.policy"}},
    }
    assert json.loads(files["data.json"]) == {"shop": {"trusted": ["Bot"]}}
    assert files["shop.rego"] == REGO_TEXT.encode()


def test_old_rego_without_a_package_gets_the_manifests():
    files = members(opa_archive(OLD))
    assert files["shop.rego"].startswith(b"package legacy ")
    assert json.loads(files[".manifest"])["rego_version"] == 0
    assert parse_opa_archive(opa_archive(OLD)) == OLD


def test_a_cedar_bundle_has_policies_schema_and_entities_and_owns_nothing_of_opas_data():
    bundle = cedar_bundle('@id("a") permit(principal, action, resource);', entities=[])
    files = members(opa_archive(bundle))
    assert {"policy.cedar", "schema.cedarschema", "entities.json", "manifest.json"} <= files.keys()
    assert json.loads(files[".manifest"])["roots"] == []


@pytest.mark.parametrize("name", ["tests/data.json", "tests/data.yaml", "tests/a.rego", "tests/policy.wasm"])
def test_what_opa_would_take_for_something_else_is_not_shown_to_it(name):
    bundle = rego_bundle(files={name: b"{}"})
    data = opa_archive(bundle)
    assert name not in members(data)
    assert parse_opa_archive(data) == bundle


def test_roots_lie_beside_each_other_and_a_package_covers_those_below_it():
    assert json.loads(members(opa_archive(LIBRARY_LIKE))[".manifest"])["roots"] == ["shop/policy", "stock"]


def test_the_order_of_files_and_the_time_of_packing_leave_no_trace():
    data = opa_archive(CEDAR)
    assert data[4:8] == bytes(4)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        found = tar.getmembers()
    assert [member.name for member in found] == sorted(member.name for member in found)
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in found} == {
        (0, 0, 0, "", 0o644)
    }


def test_a_plain_tar_of_a_bundles_directory_is_read_too():
    plain = {f"./{path}": data for path, data in directory_of(CEDAR).items()}
    assert parse_opa_archive(tar_of(plain)) == CEDAR


def renamed(name: str) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        if member.name == "policy.cedar":
            member.name = name

    return change


def typed(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        if member.name == "policy.cedar":
            member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    return change


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no gzip": b"PK\x03\x04",
    "no tar": gzip.compress(b"x" * 2000),
    "an empty tar": tar_of({}),
    "cut off": opa_archive(CEDAR)[:-9],
    "something behind": opa_archive(CEDAR) + b"x",
    "two gzip files": opa_archive(CEDAR) * 2,
    "a bomb": gzip.compress(bytes(30 * MAX_BUNDLE_BYTES)),
    "too large": bytes(MAX_OPA_ARCHIVE_BYTES + 1),
    "a file that is too large": tar_of({**directory_of(CEDAR), "README.md": bytes((1 << 20) + 1)}),
    "too many files": tar_of({f"tests/{number}.yaml": b"" for number in range(1100)}),
    "a path to the root": tar_of(directory_of(CEDAR), renamed("/policy.cedar")),
    "a path out": tar_of(directory_of(CEDAR), renamed("../policy.cedar")),
    "a path out, later": tar_of(directory_of(CEDAR), renamed("tests/../../policy.cedar")),
    "a backslash": tar_of(directory_of(CEDAR), renamed("..\\policy.cedar")),
    "a name of nothing": tar_of(directory_of(CEDAR), renamed("./")),
    "a name twice": tar_of({**directory_of(CEDAR), "./policy.cedar": b""}),
    "a name in another case": tar_of({**directory_of(CEDAR), "tests/A": b"", "tests/a": b""}),
    "a symbolic link": tar_of(directory_of(CEDAR), typed(tarfile.SYMTYPE)),
    "a hard link": tar_of(directory_of(CEDAR), typed(tarfile.LNKTYPE)),
    "a device": tar_of(directory_of(CEDAR), typed(tarfile.CHRTYPE)),
    "a pipe": tar_of(directory_of(CEDAR), typed(tarfile.FIFOTYPE)),
    "no manifest": tar_of({"policy.cedar": b""}),
    "a file that the manifest does not name": tar_of({**directory_of(CEDAR), "extra.cedar": b""}),
    "an archive that is none": tar_of({"tallystick.bundle.json": b"{}"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name):
    with pytest.raises(PolicySyntaxError):
        parse_opa_archive(HOSTILE[name])


@pytest.mark.parametrize("path", ["policy.cedar", "extra.rego", "tests/extra.yaml"])
def test_an_archive_that_shows_other_files_than_it_has_is_refused(path):
    files = members(opa_archive(CEDAR))
    with pytest.raises(PolicySyntaxError, match="not what"):
        parse_opa_archive(tar_of({**files, path: b'@id("b") permit(principal, action, resource);'}))


def test_flipped_bits_are_refused_or_change_nothing():
    data = opa_archive(CEDAR)
    for place in range(0, len(data), max(1, len(data) // 200)):
        broken = bytearray(data)
        broken[place] ^= 0x10
        with contextlib.suppress(PolicySyntaxError):
            assert parse_opa_archive(bytes(broken)) == CEDAR


def test_flipped_bits_of_the_tar_are_refused_or_leave_a_sound_bundle():
    tar = gzip.decompress(opa_archive(CEDAR))
    for place in range(0, len(tar), max(1, len(tar) // 600)):
        broken = bytearray(tar)
        broken[place] ^= 0x02
        with contextlib.suppress(PolicySyntaxError):
            parse_opa_archive(gzip.compress(bytes(broken), mtime=0))
