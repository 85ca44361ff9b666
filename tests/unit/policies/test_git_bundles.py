"""Bundles from a commit: its objects and nothing else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ledger.errors import ConfigError, PolicySyntaxError
from policies.git_bundles import read_bundle_commit
from tests.support.packs import ready_bundle

BUNDLE = ready_bundle()


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repository), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(repository: Path) -> str:
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "a bundle")
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    folder = tmp_path / "policies" / "shop"
    for path, data in {**BUNDLE.files, "manifest.json": json.dumps(json.loads(manifest())).encode()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return tmp_path


def manifest() -> str:
    members = {"format": "tallystick.bundle/1", "name": "shop", "engine": "cedar", "policies": ["policy.cedar"]}
    return json.dumps({**members, "schema": "schema.cedarschema", "parameters": "parameters.json"})


def test_the_commit_counts_and_not_the_work_tree(repository):
    found = commit(repository)
    (repository / "policies" / "shop" / "policy.cedar").write_text("broken")
    (repository / "policies" / "shop" / "more.cedar").write_text("broken")
    assert read_bundle_commit(repository, found, "policies/shop").revision == BUNDLE.revision
    assert read_bundle_commit(repository / ".git", found, "/policies/shop/") == BUNDLE


def test_filters_and_replacements_of_the_repository_play_no_part(repository):
    (repository / ".gitattributes").write_text("*.cedar filter=evil\n")
    found = commit(repository)
    git(repository, "config", "filter.evil.smudge", "touch ran; cat")
    blob = git(repository, "rev-parse", f"{found}:policies/shop/policy.cedar")
    (repository / "other").write_text("broken")
    git(repository, "replace", blob, git(repository, "hash-object", "-w", "other"))
    assert read_bundle_commit(repository, found, "policies/shop") == BUNDLE
    assert not (repository / "ran").exists()


@pytest.mark.parametrize("name", ["HEAD", "main", "abc1234", "", "--help", "A" * 40, "0" * 41])
def test_what_is_no_whole_id_is_refused(repository, name):
    commit(repository)
    with pytest.raises(ConfigError, match="whole id"):
        read_bundle_commit(repository, name, "policies/shop")


def test_another_object_or_none_is_no_commit(repository):
    found = commit(repository)
    for name in ("0" * 40, git(repository, "rev-parse", f"{found}^{{tree}}")):
        with pytest.raises(PolicySyntaxError):
            read_bundle_commit(repository, name, "policies/shop")


@pytest.mark.parametrize("folder", ["nowhere", "policies", "policies/shop/policy.cedar", "../shop", ":!policies"])
def test_a_folder_without_a_bundle_is_refused(repository, folder):
    found = commit(repository)
    with pytest.raises(PolicySyntaxError):
        read_bundle_commit(repository, found, folder)


def test_a_symbolic_link_and_a_submodule_are_refused(repository):
    found = commit(repository)
    link = repository / "policies" / "shop" / "tests" / "link.yaml"
    link.symlink_to("/etc/passwd")
    with pytest.raises(PolicySyntaxError, match="plain files only"):
        read_bundle_commit(repository, commit(repository), "policies/shop")
    link.unlink()
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{found},policies/shop/tests/sub")
    git(repository, "commit", "-q", "-m", "a submodule")
    with pytest.raises(PolicySyntaxError, match="plain files only"):
        read_bundle_commit(repository, git(repository, "rev-parse", "HEAD"), "policies/shop")


def test_a_file_that_is_too_large_is_refused_unread(repository):
    (repository / "policies" / "shop" / "README.md").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(PolicySyntaxError, match="at most"):
        read_bundle_commit(repository, commit(repository), "policies/shop")


def test_what_is_no_repository_is_refused(tmp_path):
    with pytest.raises(PolicySyntaxError, match="git"):
        read_bundle_commit(tmp_path, "0" * 40)
