"""Bundles round-trip through their archives, and equal revisions are equal bundles."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import PolicySyntaxError
from policies.bundles import bundle_from_files, parse_archive

NAMES = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,5}(/[A-Za-z0-9_]{1,3})?\Z")
CONTENTS = st.binary(max_size=40)


@st.composite
def file_sets(draw: st.DrawFn) -> dict[str, bytes]:
    files = {f"tests/{name}": data for name, data in draw(st.dictionaries(NAMES, CONTENTS, max_size=4)).items()}
    files["policy.cedar"] = draw(CONTENTS)
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "demo",
        "engine": "cedar",
        "policies": ["policy.cedar"],
        "description": draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=10)),
    }
    files["manifest.json"] = json.dumps(manifest, indent=draw(st.integers(0, 3))).encode()
    return files


@given(file_sets())
def test_archive_round_trips(files):
    try:
        bundle = bundle_from_files(files)
    except PolicySyntaxError:
        return  # two names that one directory cannot hold apart
    again = parse_archive(bundle.archive())
    assert again == bundle
    assert again.revision == bundle.revision
    assert again.archive() == bundle.archive()


@given(file_sets(), st.data())
def test_any_changed_byte_of_an_archive_is_another_bundle_or_none(files, data):
    try:
        archive = bundle_from_files(files).archive()
    except PolicySyntaxError:
        return
    place = data.draw(st.integers(0, len(archive) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != archive[place]))
    try:
        changed = parse_archive(archive[:place] + bytes([byte]) + archive[place + 1 :])
    except PolicySyntaxError:
        return
    assert changed.revision != parse_archive(archive).revision
