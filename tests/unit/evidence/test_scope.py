"""Scope, manifests, custody, README and consistency files: one spelling, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from evidence import pack
from evidence.container import digest_content
from evidence.custody import parse_custody
from evidence.readme import readme_text
from evidence.scope import parse_scope
from ledger.canonical import canonical_bytes
from ledger.errors import MalformedError
from tests.unit.evidence.conftest import MadePack

PARSERS: dict[str, Callable[[bytes], Any]] = {
    pack.SCOPE: parse_scope,
    pack.CUSTODY: parse_custody,
    pack.CONSISTENCY: pack.parse_consistency,
    pack.MANIFEST: pack.parse_manifest_files,
    pack.CONTENT_MANIFEST: pack.parse_manifest_files,
}


@pytest.mark.parametrize("path", [pack.SCOPE, pack.CUSTODY])
def test_a_file_survives_its_bytes(made: MadePack, path: str) -> None:
    assert PARSERS[path](made.files[path]).encode() == made.files[path]


@pytest.mark.parametrize("path", sorted(PARSERS))
@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(extra=1),
        lambda value: value.pop(next(iter(value))),
        lambda value: value.update(format="tallystick.other/1"),
        lambda value: value.update({member: [] for member in value}),
    ],
    ids=["a member too many", "a member too few", "another format", "other types"],
)
def test_a_file_with_other_members_is_refused(made: MadePack, path: str, change: Callable[[Any], object]) -> None:
    value = json.loads(made.files[path])
    change(value)
    with pytest.raises(MalformedError):
        PARSERS[path](canonical_bytes(value))


@pytest.mark.parametrize("path", sorted(PARSERS))
def test_another_spelling_is_refused(made: MadePack, path: str) -> None:
    for data in (made.files[path] + b"\n", b" " + made.files[path], b"", b"[]", b"null", b"\xff"):
        with pytest.raises(MalformedError):
            PARSERS[path](data)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("zone", "Europe/Berlin; rm"),
        ("from_ms", -1),
        ("to_ms", 2**53),
        ("title", ""),
        ("title", 7),
        ("simulated", 1),
        ("anchors", [{"kind": "x"}]),
        ("not_applicable", [{"framework": "soc2", "control": "x"}]),
    ],
)
def test_claims_out_of_bounds_are_refused(made: MadePack, member: str, value: Any) -> None:
    scope = json.loads(made.files[pack.SCOPE])
    scope["claims"][member] = value
    with pytest.raises(MalformedError):
        parse_scope(canonical_bytes(scope))


def test_a_manifest_lists_every_file_with_media_type_and_role(made: MadePack) -> None:
    entries = {entry.path: entry for entry in pack.parse_manifest_files(made.files[pack.MANIFEST])}
    assert set(entries) == set(made.files) - {pack.MANIFEST, pack.MANIFEST_ENVELOPE}
    assert entries[pack.PACK_PDF].media_type == "application/pdf"
    assert entries["proofs/10.tlog-proof"].role == "proof"
    for path, entry in entries.items():
        digest = digest_content(made.files[path])
        assert (entry.bytes, entry.sha256) == (digest.size, digest.sha256)


def test_the_content_manifest_lists_neither_report_nor_manifests(made: MadePack) -> None:
    paths = {entry.path for entry in pack.parse_manifest_files(made.files[pack.CONTENT_MANIFEST])}
    assert paths == set(made.files) - {pack.PACK_PDF, pack.CONTENT_MANIFEST, pack.MANIFEST, pack.MANIFEST_ENVELOPE}


def test_no_manifest_lists_a_path_that_no_pack_has(made: MadePack) -> None:
    scope = parse_scope(made.files[pack.SCOPE])
    with pytest.raises(MalformedError):
        pack.encode_manifest(scope, {"evil.sh": digest_content(b"")})


def test_the_manifests_stand_last() -> None:
    paths = ["manifest.json", "a", "manifest.dsse.json", "z", "content-manifest.json"]
    assert pack.member_order(paths) == ["a", "content-manifest.json", "z", "manifest.json", "manifest.dsse.json"]


def test_the_readme_says_how_to_verify_and_what_is_not_proved(made: MadePack) -> None:
    scope = parse_scope(made.files[pack.SCOPE])
    text = readme_text(scope).decode()
    assert made.files[pack.README].decode() == text
    assert text.count("tallystick verify PACK.zip --trust TRUST_POLICY") == 2
    assert "--known CHECKPOINT" in text
    assert scope.root in text
    assert "WHAT IS NOT PROVED" in text
    assert "went round the gateway" in text
    assert max(map(len, text.splitlines())) <= 110


def test_custody_names_every_key_and_step(made: MadePack) -> None:
    custody = parse_custody(made.files[pack.CUSTODY])
    assert [(line.role, line.algorithm) for line in custody.signers] == [
        ("log", "ed25519"),
        ("log", "ml-dsa-44"),
        ("pack", "ed25519"),
        ("pack", "ml-dsa-44"),
    ]
    assert [step.step for step in custody.steps] == [
        "requested",
        "read",
        "checked",
        "selected",
        "re-performed",
        "examined",
        "redacted",
        "sealed",
    ]
