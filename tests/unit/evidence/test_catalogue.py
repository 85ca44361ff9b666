"""The catalogues that ship: sound, in our own words, and read from a YAML that has one meaning."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

import evidence
from evidence.catalogue import Catalogue, control_table, framework_names, load_framework, load_frameworks, parse_yaml
from evidence.controls import framework_value
from evidence.summary import ControlStatus, Strength
from evidence.verification import Status
from ledger.canonical import canonical_bytes
from ledger.errors import EvidenceError, MalformedError
from tests.support.packs import PackLog
from tests.support.standard_titles import TITLES
from tests.support.verifiers import verify_pack

ROOT = Path(evidence.__file__).parent
NAMES = [
    "eu-ai-act",
    "fedramp-20x",
    "gdpr",
    "hipaa",
    "iso-27001",
    "iso-42001",
    "nist-800-207",
    "nist-800-53",
    "nist-ai-rmf",
    "owasp-agentic",
    "owasp-aisvs",
    "owasp-mcp",
    "pci-dss",
    "sec-17a-4",
    "soc2",
]


def test_the_frameworks_that_ship_are_named() -> None:
    assert framework_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_framework_has_at_least_four_controls_with_computed_tests(name: str) -> None:
    framework = load_framework(name)
    assert sum(bool(control.tests) for control in framework.controls) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_every_direct_control_has_a_computed_test_and_the_others_say_why_not(name: str) -> None:
    for control in load_framework(name).controls:
        assert control.tests or control.strength is Strength.SUPPORTS
        assert bool(control.tests) is (control.not_tested is None)


def test_every_shared_test_is_used_by_a_framework() -> None:
    used = {test for framework in load_frameworks(NAMES) for test in framework.tests}
    value = parse_yaml((ROOT / "frameworks" / "tests.yaml").read_text(encoding="utf-8"), "tests.yaml")
    assert isinstance(value, dict)
    assert {test["id"] for test in value["tests"]} == used  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_no_catalogue_holds_a_word_of_attestation(name: str) -> None:
    text = canonical_bytes(framework_value(load_framework(name))).decode().casefold()
    assert not re.search(r"complian|certif", text)


@pytest.mark.parametrize("name", ["nothing", "tests", "../soc2", "", "SOC2", "soc2.yaml"])
def test_what_does_not_ship_is_refused(name: str) -> None:
    with pytest.raises(EvidenceError):
        load_framework(name)


def test_the_control_table_has_one_line_for_each_control() -> None:
    framework = load_framework("soc2")
    table = control_table(framework)
    assert table.count("\n| ") == len(framework.controls) + 1
    for control in framework.controls:
        assert f"| {control.id} | " in table


def test_the_documentation_holds_the_control_tables_as_they_are() -> None:
    """Run ``python scripts/control_tables.py`` after changing a catalogue."""
    documented = (ROOT.parent / "docs" / "controls.md").read_text(encoding="utf-8")
    for framework in load_frameworks(NAMES):
        assert control_table(framework) in documented


# --- one file, one framework ---------------------------------------------------------------------------------------

HOUSE_RULES = """\
framework: house-rules
title: Rules of the house
version: "3"
mapping_version: "1"
source: Written for this test.

controls:
  - id: HR-1
    title: Nobody unknown gets through
    evidence: [E1]
    strength: direct
    rationale: Each decision says who asked.
    customer_adds: Nothing.
    procedure: Check who got through.
    tests: [allowed-only-if-authenticated, calls-are-few]
  - id: HR-2
    title: The door is painted
    evidence: [E7]
    strength: supports
    rationale: None.
    customer_adds: The paint.
    procedure: None is computed.
    not_tested: no record speaks of paint

tests:
  - id: calls-are-few
    sentence: No session had more than ninety calls.
    subject: decision
    where:
      equals: [decision.enforcement, allow]
    must:
      at_most: [decision.facts.session_calls, 89]
"""


def house(folder: Path, old: str = "", new: str = "", name: str = "house-rules") -> Catalogue:
    assert old in HOUSE_RULES
    (folder / f"{name}.yaml").write_text(HOUSE_RULES.replace(old, new, 1) if old else HOUSE_RULES, encoding="utf-8")
    return Catalogue(folder)


def test_a_framework_is_added_by_writing_one_file(tmp_path: Path, log: PackLog) -> None:
    catalogue = house(tmp_path)
    assert catalogue.names() == ["house-rules"]
    framework = catalogue.load("house-rules")
    assert list(framework.tests) == ["calls-are-few", "allowed-only-if-authenticated"]
    log.ordinary_day()
    log.publish()
    made = log.pack(tmp_path / "pack.zip", request=log.request(frameworks=(framework,)))
    (sheet,) = made.summary.frameworks
    assert [control.status for control in sheet.controls] == [ControlStatus.SATISFIED, ControlStatus.NOT_TESTED]
    report = verify_pack(made.path, trust=log.trust)
    assert report.status is Status.PROVEN
    assert any("house-rules" in note for note in report.notes)


def test_a_pack_by_every_framework_that_ships_is_proven_by_both_verifiers(tmp_path: Path, log: PackLog) -> None:
    log.ordinary_day()
    log.publish()
    made = log.pack(tmp_path / "pack.zip", request=log.request(frameworks=load_frameworks(NAMES)))
    report = verify_pack(made.path, trust=log.trust)
    assert report.status is Status.PROVEN
    assert not report.notes or not any("does not ship" in note for note in report.notes)
    for sheet in made.summary.frameworks:
        assert any(control.status is ControlStatus.SATISFIED for control in sheet.controls)
        for control in sheet.controls:
            assert control.tests or control.reason.startswith("no computed test: ")
            assert not re.search(r"complian|certif", control.reason)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title: Rules of the house\n", "", "house-rules.yaml, line 1: not a framework: Object missing"),
        ('version: "3"', "version: 3", "house-rules.yaml, line 3, version: not a framework: Expected `str`, got `int`"),
        (
            "  - id: HR-2",
            "  - id: HR 2",
            "house-rules.yaml, line 16, controls[1].id: not a framework: Expected `str` match",
        ),
        (
            "  - id: HR-2",
            "  - id: HR-1",
            "house-rules.yaml, line 16, controls[1]: a framework has the control HR-1 twice",
        ),
        (
            "  - id: HR-2",
            "  - id: hr(1",
            "house-rules.yaml, line 16, controls[1]: a framework has the file name hr-1 twice",
        ),
        ("evidence: [E7]", "evidence: [E15]", "house-rules.yaml, line 18, controls[1].evidence[0]: not a framework"),
        ("strength: supports", "strength: sure", "house-rules.yaml, line 19, controls[1].strength: not a framework"),
        ("strength: supports", "strength: direct", "line 19, controls[1].strength: the control HR-2 claims direct"),
        ("    rationale: None.\n", "", "house-rules.yaml, line 16, controls[1]: not a framework: Object missing"),
        (
            "customer_adds: The paint.",
            "colour: The paint.",
            "line 21, controls[1].colour: not a framework: Object contains",
        ),
        (
            "calls-are-few]",
            "calls-are-many]",
            "line 15, controls[0].tests[1]: the control HR-1 names the test calls-are-many",
        ),
        ("calls-are-few]", "allowed-only-if-authenticated]", "line 15, controls[0].tests[1]: the control HR-1 names"),
        (
            "    tests: [a",
            "    conditional_tests: [a",
            "line 8, controls[0]: the control HR-1 needs tests, or the reason",
        ),
        (
            "not_tested: no",
            "tests: [calls-are-few]\n    not_tested: no",
            "line 16, controls[1]: the control HR-2 needs tests, or",
        ),
        ("subject: decision", "subject: door", "line 28, tests[0].subject: the test calls-are-few is about door"),
        ("enforcement, allow", "colour, allow", "line 29, tests[0].where: the test calls-are-few: a predicate asks"),
        ("session_calls, 89", "session_calls, many", "line 31, tests[0].must: the test calls-are-few: at_most takes"),
        ("at_most:", "looks_like:", "line 31, tests[0].must: the test calls-are-few: no predicate is called"),
        ("    sentence: No session", "    code: No session", "line 27, tests[0].code: not a framework"),
        (", calls-are-few]", "]", "line 26, tests[0]: no control of house-rules uses the test calls-are-few"),
        ("framework: house-rules", "framework: soc2", "house-rules.yaml, line 1, framework: the file"),
        ("framework: house-rules", "framework: house-rules\nframework: soc2", "house-rules.yaml: YAML line 2: the key"),
        ("evidence: [E7]", "evidence: &x [E7]", "house-rules.yaml: YAML line 18: anchors"),
        ("evidence: [E7]", "evidence: [E7", "house-rules.yaml: "),
        (HOUSE_RULES, "", "house-rules.yaml is not a mapping"),
        (HOUSE_RULES, "- a\n", "house-rules.yaml is not a mapping"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_file_line_and_member(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        house(tmp_path, old, new).load("house-rules")
    assert told in str(caught.value)


def test_a_fault_in_the_shared_tests_is_told_by_their_own_file(tmp_path: Path) -> None:
    shared = (ROOT / "frameworks" / "tests.yaml").read_text(encoding="utf-8")
    broken = shared.replace("present: decision.facts\n", "present: decision.fact\n")
    assert broken != shared
    tests = tmp_path / "tests.yaml"
    tests.write_text(broken, encoding="utf-8")
    house(tmp_path)
    with pytest.raises(MalformedError, match=r"^tests\.yaml, line \d+, tests\[\d+\]\.must: the test allowed-only-if-"):
        Catalogue(tmp_path, tests).load("house-rules")
    assert Catalogue(tmp_path, tests).names() == ["house-rules"]


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "house-rules.yaml").write_bytes(b"framework: \xff\n")
    with pytest.raises(MalformedError, match="not UTF-8"):
        Catalogue(tmp_path).load("house-rules")


# --- whose words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_catalogue_says_whose_ids_and_whose_words_it_has(name: str) -> None:
    assert "our own words" in load_framework(name).source


@pytest.mark.parametrize("name", NAMES)
def test_no_catalogue_holds_a_title_of_the_standards_or_speaks_in_their_voice(name: str) -> None:
    framework = load_framework(name)
    texts = [
        text
        for control in framework.controls
        for text in (control.title, control.rationale, control.customer_adds, control.procedure)
    ]
    for text in texts:
        assert not re.search(r"\bshall\b|\bthe entity\b|\bverify that\b|\bcovered entity\b", text, re.IGNORECASE), text
        digest = sha256(re.sub(r"[^a-z]+", " ", text.casefold()).strip().encode()).hexdigest()[:16]
        assert digest not in TITLES, text


# --- the small YAML ------------------------------------------------------------------------------------------------


def test_plain_values_are_read_as_a_person_reads_them() -> None:
    text = "a: no\nb: 1.0\nc: 2020-01-01\nd: 0x10\ne: 010\nf: true\ng: -7\nh: ~\ni: on\nj: [x, 1]\nk: 1_000\n"
    assert parse_yaml(text, "t") == {
        "a": "no",
        "b": "1.0",
        "c": "2020-01-01",
        "d": "0x10",
        "e": "010",
        "f": True,
        "g": -7,
        "h": "~",
        "i": "on",
        "j": ["x", 1],
        "k": "1_000",
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "a: {b: 1, b: 2}\n",
        "a: &x 1\n",
        "a: !!str 1\n",
        "a: &x 1\nb: *x\n",
        "a: &x {b: 1}\nc:\n  <<: *x\n",
        "1: a\n",
        "[a]: b\n",
        "a: !!python/object/apply:os.getcwd []\n",
        "a: !!binary aGk=\n",
        "a: !thing x\n",
        "a: [1\n",
        "a: 1\n---\nb: 2\n",
        "a:\tb: c\n",
    ],
)
def test_a_second_way_to_say_a_thing_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_yaml(text, "t")
