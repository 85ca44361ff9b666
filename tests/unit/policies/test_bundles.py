"""Bundles: what is refused, and that revision and archive have one spelling."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from ledger.canonical import canonical_bytes
from ledger.errors import PolicySyntaxError
from policies import bundles
from policies.bundles import MAX_FILE_BYTES, MAX_FILES, Bundle, bundle_from_files, parse_archive

MANIFEST = {
    "format": "tallystick.bundle/1",
    "name": "demo",
    "engine": "cedar",
    "policies": ["a.cedar", "b.cedar"],
    "schema": "schema.cedarschema",
}


def files(**changes: object) -> dict[str, bytes]:
    manifest = {**MANIFEST, **changes}
    return {
        "manifest.json": json.dumps(manifest, indent=2).encode(),
        "a.cedar": b"// a",
        "b.cedar": b"// b",
        "schema.cedarschema": b"// s",
    }


def refused(changed: dict[str, bytes], message: str) -> None:
    with pytest.raises(PolicySyntaxError, match=message):
        bundle_from_files(changed)


def test_revision_is_the_digest_that_the_format_describes():
    bundle = bundle_from_files(files() | {"README.md": b"read me", "tests/a.yaml": b"cases: []"})
    described = {
        "manifest": MANIFEST,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in bundle.files.items()},
    }
    assert bundle.revision == hashlib.sha256(canonical_bytes(described)).hexdigest()
    assert set(bundle.files) == {"a.cedar", "b.cedar", "schema.cedarschema", "README.md", "tests/a.yaml"}


def test_revision_does_not_depend_on_how_the_manifest_is_spelt():
    spelt = files() | {"manifest.json": json.dumps(MANIFEST | {"description": "", "entities": None}).encode()}
    assert bundle_from_files(spelt).revision == bundle_from_files(files()).revision
    assert bundle_from_files(spelt) == bundle_from_files(files())
    assert len({bundle_from_files(spelt), bundle_from_files(files())}) == 1


def test_revision_does_not_depend_on_the_order_of_files():
    backwards = dict(reversed(files().items()))
    assert bundle_from_files(backwards).archive() == bundle_from_files(files()).archive()


@pytest.mark.parametrize(
    "changed",
    [
        files(name="other"),
        files(policies=["b.cedar", "a.cedar"]),
        files(description="x"),
        files() | {"a.cedar": b"// A"},
        files() | {"tests/a.yaml": b""},
        files() | {"README.md": b""},
    ],
    ids=["name", "order of policies", "description", "a byte", "a test", "a readme"],
)
def test_revision_changes_with_anything_in_the_bundle(changed):
    assert bundle_from_files(changed).revision != bundle_from_files(files()).revision


def test_archive_is_read_back_as_the_same_bundle():
    bundle = bundle_from_files(files() | {"tests/deep/a.yaml": bytes(range(256))})
    again = parse_archive(bundle.archive())
    assert again == bundle
    assert again.revision == bundle.revision
    assert again.archive() == bundle.archive()


def test_bundle_does_not_change_with_the_mapping_that_it_was_made_of():
    given = files()
    bundle = bundle_from_files(given)
    given["a.cedar"] = b"// other"
    assert bundle.files["a.cedar"] == b"// a"
    with pytest.raises(TypeError):
        bundle.files["a.cedar"] = b"// other"  # type: ignore[index]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../a.cedar",
        "tests/../../a.cedar",
        "tests/./a",
        "tests//a",
        "tests/",
        "",
        ".hidden",
        "tests\\a",
        "tests/a\x00b",
        "tests/a\nb",
        "tests/a b",
        "tests/ä",
        "C:/a",
        "tests/" + "a" * 200,
    ],
)
def test_path_that_could_leave_the_bundle_or_be_read_two_ways_is_refused(path):
    refused(files() | {path: b""}, "cannot hold a file named")


def test_manifest_that_names_a_path_outside_is_refused():
    refused(files(policies=["a.cedar", "b.cedar", "../../etc/passwd"]), "does not hold")


@pytest.mark.parametrize("path", ["A.cedar", "tests/A", "MANIFEST.json", "readme.MD"])
def test_two_paths_that_some_file_systems_hold_to_be_one_are_refused(path):
    refused(files() | {"tests/a": b"", "README.md": b"", path: b""}, "upper and lower case")


def test_a_file_cannot_be_a_directory_too():
    refused(files() | {"tests/a": b"", "tests/a/b": b""}, "below a file of that name")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "tallystick.bundle/2"}, "Invalid enum value"),
        ({"extra": 1}, "unknown field"),
        ({"name": "not a name"}, "matching regex"),
        ({"name": None}, "Expected `str`"),
        ({"engine": ""}, "matching regex"),
        ({"policies": []}, "length >= 1"),
        ({"policies": "a.cedar"}, "Expected `array`"),
        ({"policies": ["a.cedar", "a.cedar", "b.cedar"]}, "named twice"),
        ({"policies": ["a.cedar", "b.cedar", "schema.cedarschema"]}, "named twice"),
        ({"policies": ["a.cedar"]}, r"b\.cedar: manifest.json does not name"),
        ({"policies": ["a.cedar", "b.cedar", "*.cedar"]}, "does not hold"),
        ({"entities": "entities.json"}, "does not hold"),
        ({"schema": "manifest.json"}, "does not hold"),
        ({"description": "x" * 1001}, "length <= 1000"),
    ],
)
def test_manifest_that_is_not_as_the_format_says_is_refused(changes, message):
    refused(files(**changes), message)


def test_manifest_with_a_duplicate_key_is_refused():
    twice = json.dumps(MANIFEST)[:-1] + ', "name": "other"}'
    refused(files() | {"manifest.json": twice.encode()}, "twice")


def test_files_without_a_manifest_are_no_bundle():
    without = files()
    del without["manifest.json"]
    refused(without, "no manifest.json")


def test_a_file_that_nobody_names_is_refused():
    refused(files() | {"c.cedar": b"permit(principal, action, resource);"}, "does not name this file")


def test_bounds_hold_for_count_and_size():
    many = {f"tests/{number}": b"" for number in range(MAX_FILES)}
    refused(files() | many, f"at most {MAX_FILES} files")
    refused(files() | {"tests/a": bytes(MAX_FILE_BYTES + 1)}, "at most")
    refused(files() | {f"tests/{number}": bytes(MAX_FILE_BYTES) for number in range(4)}, "at most 4194304 bytes")
    refused(files() | {"manifest.json": bytes(MAX_FILE_BYTES + 1)}, "more than")


def test_largest_bundle_has_an_archive_that_can_be_read():
    largest = {f"tests/{number}": bytes(MAX_FILE_BYTES) for number in range(3)}
    bundle = bundle_from_files(files() | largest)
    assert parse_archive(bundle.archive()).revision == bundle.revision


def test_bundle_cannot_be_made_past_the_checks():
    sound = bundle_from_files(files())
    with pytest.raises(PolicySyntaxError):
        Bundle(manifest=sound.manifest, files={"../a.cedar": b""})
    with pytest.raises(PolicySyntaxError):
        Bundle(manifest=sound.manifest, files=sound.files | {"manifest.json": b"{}"})


def test_text_of_a_file_must_be_unicode():
    bundle = bundle_from_files(files() | {"a.cedar": b"ok \xff"})
    with pytest.raises(PolicySyntaxError, match=r"a\.cedar: not UTF-8 at byte 3"):
        bundle.text("a.cedar")
    with pytest.raises(PolicySyntaxError, match="holds no file"):
        bundle.text("c.cedar")


def archive_value() -> dict[str, object]:
    return json.loads(bundle_from_files(files()).archive())


def changed_archive(**changes: object) -> bytes:
    value = archive_value()
    value["files"] = {**value["files"], **changes}  # type: ignore[dict-item]
    return canonical_bytes(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a bundle archive"),
        (b"[]", "an object of format"),
        (b"\xff", "not a bundle archive"),
        (json.dumps(archive_value()).encode(), "canonical form"),
        (canonical_bytes(archive_value() | {"extra": 1}), "an object of format"),
        (canonical_bytes(archive_value() | {"format": "tallystick.bundle/2"}), "an object of format"),
        (canonical_bytes(archive_value() | {"files": []}), "an object of at most"),
        (changed_archive(**{"a.cedar": 1}), "base64 text"),
        (changed_archive(**{"a.cedar": "!"}), "not base64"),
        (changed_archive(**{"a.cedar": "Lx=="}), "canonical"),
        (changed_archive(**{"../a": ""}), "cannot hold a file named"),
        (changed_archive(**{"manifest.json": base64.b64encode(files()["manifest.json"]).decode()}), "canonical form"),
    ],
)
def test_archive_in_any_other_spelling_is_refused(data, message):
    with pytest.raises(PolicySyntaxError, match=message):
        parse_archive(data)


def test_archive_beyond_its_bound_is_refused_unread(monkeypatch):
    monkeypatch.setattr(bundles, "_MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(PolicySyntaxError, match="at most 10 bytes"):
        parse_archive(bytes(11))
