"""docs/evidence.md: its paths, bytes, words and examples are those of the program and of the frozen packs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import evidence
from evidence.catalogue import load_framework
from evidence.controls import parse_framework
from evidence.subjects import _DERIVED, RECORD_SUBJECTS, SUBJECTS
from evidence.verification import _VERDICTS, Status
from ledger.canonical import canonical_bytes
from ledger.trust import parse_trust_policy
from tests.support.frozen_packs import FROZEN, ROOT
from tests.support.packs import SMALL_FRAMEWORK, read_files
from tests.support.verifiers import verify_pack

PAGE = (Path(evidence.__file__).parent.parent / "docs" / "evidence.md").read_text(encoding="utf-8")
PART = (ROOT / "part" / "pack.zip").read_bytes()


def first_cells(heading: str) -> list[str]:
    """Return the first column of the table behind a line of the page."""
    table = PAGE.split(heading, 1)[1].lstrip("\n").split("\n\n", 1)[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def generalised(path: str) -> str:
    for pattern, name in (
        (r"^controls/[^/]+/.+\.json$", "controls/<framework>/<id>.json"),
        (r"^frameworks/.+\.json$", "frameworks/<id>.json"),
        (r"^policies/[0-9a-f]{64}/.+$", "policies/<revision>/…"),
        (r"^population/entries-\d+-\d+\.jsonl\.gz$", "population/entries-<a>-<b>.jsonl.gz"),
        (r"^proofs/\d+\.tlog-proof$", "proofs/<leaf>.tlog-proof"),
    ):
        if re.fullmatch(pattern, path):
            return name
    return path


def test_the_page_lists_the_files_of_a_pack() -> None:
    listed = [cell.strip("`") for cell in first_cells("Numbers are little-endian.")]
    assert listed == sorted(listed)
    assert set(listed) == {generalised(path) for path in read_files(PART)}


def test_the_first_bytes_on_the_page_are_those_of_a_frozen_pack() -> None:
    shown = bytes.fromhex(PAGE.split("The first bytes of a pack", 1)[1].split("```")[1])
    assert len(shown) == 40
    assert shown == PART[:40]


def test_the_manifest_on_the_page_is_that_of_a_frozen_pack_with_one_file_of_many() -> None:
    shown = json.loads(PAGE.split("### Manifests", 1)[1].split("```json\n")[1].split("```")[0])
    manifest = json.loads(read_files(PART)["manifest.json"])
    assert {**manifest, "files": manifest["files"][:1]} == shown


def test_the_gzip_header_on_the_page_is_that_of_a_frozen_pack() -> None:
    files = read_files(PART)
    path = next(path for path in files if path.endswith(".gz"))
    assert f"`{files[path][:10].hex(' ')}" in PAGE


def test_the_test_on_the_page_is_one_that_ships() -> None:
    shown = json.loads(PAGE.split("## 5. The language of tests", 1)[1].split("```json\n")[1].split("```")[0])
    shipped = load_framework("soc2").tests[shown["id"]].members
    assert {"quantifier": "every", **shipped} == shown
    value = {**SMALL_FRAMEWORK, "tests": [shown]}
    value["controls"] = [{**SMALL_FRAMEWORK["controls"][0], "tests": [shown["id"]]}]
    assert canonical_bytes(parse_framework(value).tests[shown["id"]].members)


@pytest.mark.parametrize("subject", sorted(set(SUBJECTS) - set(RECORD_SUBJECTS)))
def test_every_path_of_a_value_subject_is_on_the_page(subject: str) -> None:
    assert set(re.findall(rf"`({subject}\.\w+)`", PAGE)) == set(SUBJECTS[subject])


def test_every_record_subject_and_derived_attribute_is_on_the_page() -> None:
    assert all(f"`{subject}`" in PAGE for subject in RECORD_SUBJECTS)
    derived = {f"derived.{name}" for names in _DERIVED.values() for name in names}
    assert set(re.findall(r"`(derived\.\w+)`", PAGE)) == derived


def test_the_page_has_every_exit_status_with_its_verdict() -> None:
    for status in Status:
        assert f"| {int(status)} | `{_VERDICTS[status].split(':')[0]}`" in PAGE


def test_every_check_that_a_report_names_is_on_the_page() -> None:
    documented = set(first_cells("and the others go on."))
    named = set()
    for frozen in FROZEN:
        trust = parse_trust_policy(frozen.file("trust.policy"))
        known, accepted = frozen.file("known.txt"), frozen.mappings()
        report = verify_pack(frozen.file("pack.zip"), trust=trust, known=known, accepted_mappings=accepted)
        named |= {check.name for check in report.checked}
    assert named <= documented
    assert documented - named == {"witnesses"}
