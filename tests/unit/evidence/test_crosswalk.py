"""The map between frameworks: closed, each edge once, and no surer of itself than what is computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evidence.catalogue import framework_names, load_crosswalk, load_framework, read_crosswalk
from evidence.crosswalk import End
from ledger.errors import EvidenceError, MalformedError

EDGE = """\
  - first: [soc2, CC6.1]
    second: [nist-800-53, AC-3]
    relation: subset
    confidence: high
    rationale: The same calls are looked at.
"""
MAP = f'version: "1"\n\nedges:\n{EDGE}'


def written(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in MAP
    path = folder / "crosswalk.yaml"
    path.write_text(MAP.replace(old, new, 1) if old else MAP, encoding="utf-8")
    return path


def test_the_map_that_ships_joins_frameworks_of_every_kind_and_every_edge_says_why() -> None:
    edges = load_crosswalk().edges
    joined = {end.framework for edge in edges for end in (edge.first, edge.second)}
    assert joined == set(framework_names())
    for edge in edges:
        assert edge.rationale.endswith(".")
        assert not re.search(r"complian|certif", edge.rationale, re.IGNORECASE)


def test_a_sure_edge_of_the_map_that_ships_rests_on_a_test_that_both_compute() -> None:
    crosswalk = load_crosswalk()
    for edge in crosswalk.edges:
        related = [one for one in crosswalk.related(edge.first.framework, edge.first.control) if one.end == edge.second]
        (one,) = related
        assert bool(one.tests) or edge.confidence != "high"
        for end in (edge.first, edge.second):
            (control,) = [c for c in load_framework(end.framework).controls if c.id == end.control]
            assert set(one.tests) <= set(control.all_tests)


def test_an_edge_is_seen_from_both_ends_and_turned(tmp_path: Path) -> None:
    crosswalk = read_crosswalk(written(tmp_path))
    (there,) = crosswalk.related("soc2", "CC6.1")
    (back,) = crosswalk.related("nist-800-53", "AC-3")
    assert (there.end, there.relation) == (End("nist-800-53", "AC-3"), "subset")
    assert (back.end, back.relation) == (End("soc2", "CC6.1"), "superset")
    assert there.tests == back.tests
    assert "allowed-only-on-permit" in there.tests
    assert not list(crosswalk.related("soc2", "CC6.2"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[soc2, CC6.1]", "[soc2, CC6.10]", "crosswalk.yaml, line 4, edges[0]: soc2 has no control CC6.10"),
        ("[nist-800-53, AC-3]", "[soc2, CC6.2]", "edges[0]: both ends are of soc2"),
        ("[nist-800-53, AC-3]", "[nist-800-53, AU-8]", "have no computed test in common, so confidence is not high"),
        ("relation: subset", "relation: equal", "are not computed by the same tests, so they are not equal"),
        ("relation: subset", "relation: like", "not a map between frameworks"),
        ("confidence: high", "confidence: certain", "not a map between frameworks"),
        ("    rationale: The same calls are looked at.\n", "", "not a map between frameworks"),
        ("rationale:", "because:", "not a map between frameworks"),
        (EDGE, EDGE + EDGE, "line 9, edges[1]: CC6.1 and AC-3 are joined twice"),
        (EDGE, EDGE + EDGE.replace("first", "x").replace("second", "first").replace("x:", "second:"), "joined twice"),
        ("[soc2, CC6.1]", "[soc2, CC6.1, more]", "not a map between frameworks"),
        ('version: "1"\n', "", "not a map between frameworks"),
    ],
)
def test_a_map_that_claims_more_than_there_is_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_crosswalk(written(tmp_path, old, new))
    assert told in str(caught.value)
    assert str(caught.value).startswith("crosswalk.yaml")


def test_an_edge_without_anything_in_common_is_refused_however_unsure(tmp_path: Path) -> None:
    path = written(tmp_path, "[nist-800-53, AC-3]", "[nist-800-53, AU-8]")
    path.write_text(path.read_text(encoding="utf-8").replace("high", "low"), encoding="utf-8")
    with pytest.raises(MalformedError, match="neither a test nor an evidence class in common"):
        read_crosswalk(path)


def test_a_framework_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="nothing"):
        read_crosswalk(written(tmp_path, "[soc2, CC6.1]", "[nothing, CC6.1]"))
    with pytest.raises(EvidenceError):
        read_crosswalk(tmp_path / "elsewhere.yaml")
