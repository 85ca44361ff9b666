"""Bundles from directories: what is read, and what is refused rather than skipped."""

from __future__ import annotations

import pytest

from ledger.errors import PolicySyntaxError, UnknownBundleError
from policies import directories
from policies.bundles import bundle_from_files
from policies.directories import library_names, read_bundle_directory, read_library_bundle
from tests.support.policies import cedar_files

POLICY = '@id("a") permit(principal, action, resource);'


@pytest.fixture
def directory(tmp_path):
    folder = tmp_path / "bundle"
    for path, data in (cedar_files(POLICY) | {"tests/more/a.yaml": b"cases: []"}).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder


def test_directory_is_read_as_the_bundle_of_its_files(directory):
    expected = bundle_from_files(cedar_files(POLICY) | {"tests/more/a.yaml": b"cases: []"})
    assert read_bundle_directory(directory) == expected


def test_file_that_the_manifest_does_not_name_is_refused_and_not_skipped(directory):
    (directory / "extra.cedar").write_text(POLICY)
    with pytest.raises(PolicySyntaxError, match=r"extra\.cedar: manifest.json does not name"):
        read_bundle_directory(directory)


def test_symbolic_link_to_a_file_is_refused(directory, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (directory / "tests" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PolicySyntaxError, match="tests/link: a bundle holds plain files only"):
        read_bundle_directory(directory)


def test_symbolic_link_to_a_directory_is_refused(directory, tmp_path):
    (directory / "tests" / "link").symlink_to(tmp_path)
    with pytest.raises(PolicySyntaxError, match="tests/link: a bundle holds plain files only"):
        read_bundle_directory(directory)


def test_large_file_is_refused_without_being_read_whole(directory, monkeypatch):
    monkeypatch.setattr(directories, "MAX_FILE_BYTES", 3)
    with pytest.raises(PolicySyntaxError, match="at most 3 bytes"):
        read_bundle_directory(directory)


def test_directory_with_too_many_files_is_refused_early(directory, monkeypatch):
    monkeypatch.setattr(directories, "MAX_FILES", 2)
    with pytest.raises(PolicySyntaxError, match="at most 2 files"):
        read_bundle_directory(directory)


def test_what_is_no_directory_is_refused(directory):
    with pytest.raises(PolicySyntaxError, match="not a directory"):
        read_bundle_directory(directory / "manifest.json")


def test_library_bundles_are_found_by_name():
    assert "demo" in library_names()
    assert read_library_bundle("demo").manifest.name == "demo"


@pytest.mark.parametrize("name", ["nothing", "../library/demo", "", "demo/"])
def test_library_has_no_other_bundles(name):
    with pytest.raises(UnknownBundleError):
        read_library_bundle(name)
