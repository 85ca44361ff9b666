"""The bundles that ship, as they are listed, shown and copied by commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from policies.directories import library_names, read_bundle_directory, read_library_bundle
from service.cli.main import cli


def library(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["policy", "library", *map(str, arguments)])


def test_every_bundle_is_listed_with_what_it_is_for():
    done = library("list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[1:]] == library_names()
    listed = json.loads(library("list", "--json").output)
    assert [item["name"] for item in listed] == library_names()
    assert all(item["description"] and item["engine"] for item in listed)


def test_a_bundle_is_shown_by_what_its_readme_says():
    done = library("show", "business-hours")
    assert done.exit_code == 0
    assert done.output == read_library_bundle("business-hours").text("README.md")
    shown = json.loads(library("show", "business-hours", "--json").output)
    assert shown["revision"] == read_library_bundle("business-hours").revision
    assert "policy.cedar" in shown["files"]


def test_a_copy_is_the_bundle_under_the_directorys_name(tmp_path):
    done = library("copy", "business-hours", tmp_path / "our-hours")
    assert done.exit_code == 0
    copied, shipped = read_bundle_directory(tmp_path / "our-hours"), read_library_bundle("business-hours")
    assert copied.manifest.name == "our-hours"
    assert copied.files == shipped.files
    assert (tmp_path / "our-hours").stat().st_mode & 0o777 == 0o755
    tested = CliRunner().invoke(cli, ["policy", "test", str(tmp_path / "our-hours"), "--coverage"])
    assert tested.exit_code == 0, tested.output


def test_a_copy_may_have_a_name_of_its_own(tmp_path):
    done = library("copy", "business-hours", tmp_path / "a copy", "--name", "hours", "--json")
    assert json.loads(done.output)["name"] == "hours"
    assert read_bundle_directory(tmp_path / "a copy").manifest.name == "hours"


@pytest.mark.parametrize("name", ["nothing", "../library/demo", "Business-hours", ""])
def test_what_does_not_ship_is_neither_shown_nor_copied(tmp_path, name):
    assert library("show", name).exit_code != 0
    assert library("copy", name, tmp_path / "copy").exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_record_could_hold_writes_nothing(tmp_path):
    done = library("copy", "business-hours", tmp_path / "a copy")
    assert done.exit_code == 2
    assert "manifest.json" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("mine")
    done = library("copy", "business-hours", tmp_path / "mine")
    assert done.exit_code != 0
    assert "cannot be written" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "manifest.json").read_text() == "mine"


def test_a_file_of_that_name_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert library("copy", "business-hours", tmp_path / "mine").exit_code != 0
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_directory_below_none_is_not_written(tmp_path):
    assert library("copy", "business-hours", tmp_path / "none" / "copy").exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert library("copy", "business-hours", tmp_path / "empty").exit_code == 0
    assert read_bundle_directory(tmp_path / "empty").manifest.name == "empty"
