"""Hostile packs: whatever somebody with pack keys writes into one, the verifier answers with a report, not an error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evidence import pack
from evidence.controls import parse_framework
from evidence.verification import Status
from ledger.canonical import canonical_bytes
from ledger.errors import MalformedError
from tests.support.packs import SMALL_FRAMEWORK, PackLog, read_files, seal, write_files
from tests.support.verifiers import verify_pack

# What its maker may say as he likes: it is his word, and nothing follows from it.
CLAIMS = {"title", "zone", "software", "anchors", "witnesses"}
VALUES = [None, True, 0, -1, 1, 2**53 - 1, 1.5, "", "x", "0" * 64, [], {}, [[]], {"a": 1}, "exact", "soc2", "decision"]
relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Sealed:
    log: PackLog
    data: bytes
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    """A pack of a later range: it has every kind of file."""
    log = PackLog()
    log.begin()
    start = log.publish(at_ms=log.gateway.time_ms)
    log.call(at_ms=log.gateway.time_ms + 60_000, arguments='{"amount": 1}')
    log.call(arguments='{"amount": 501}')
    log.access()
    log.end()
    log.publish()
    request = log.request(start_checkpoint=start, frameworks=(parse_framework(copy.deepcopy(SMALL_FRAMEWORK)),))
    data = log.pack(tmp_path_factory.mktemp("sealed") / "pack.zip", request=request).path.read_bytes()
    yield Sealed(log, data, read_files(data))
    log.close()


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every member and item of a JSON value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in members:
        yield (*path, step)
        yield from places(item, (*path, step))


def changed(document: Any, place: tuple[str | int, ...], value: Any, *, remove: bool) -> Any:
    document = copy.deepcopy(document)
    holder = document
    for step in place[:-1]:
        holder = holder[step]
    if remove:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return document


def attacks(files: dict[str, bytes], path: str) -> Iterator[tuple[tuple[str | int, ...], bytes]]:
    """Yield a JSON file with each member taken out, and with each given another value that its place chooses."""
    document = json.loads(files[path])
    for number, place in enumerate(places(document)):
        for new in (
            changed(document, place, None, remove=True),
            changed(document, place, VALUES[number % len(VALUES)], remove=False),
        ):
            if canonical_bytes(new) != files[path]:
                yield place, canonical_bytes(new)


@pytest.mark.parametrize(
    "path",
    [
        "consistency.json",
        "controls/small/C.1-a.json",
        "controls/small/C.2.json",
        "custody.json",
        "exceptions.json",
        "frameworks/small.json",
        "gaps.json",
        "population/counts.json",
        "population/start-range.json",
        "reperformance.json",
        "scope.json",
    ],
)
def test_a_changed_member_is_never_proven_even_under_genuine_seals(sealed: Sealed, path: str) -> None:
    tried = 0
    for place, data in attacks(sealed.files, path):
        files = {**sealed.files, path: data}
        try:
            hostile = seal(files, sealed.log.pack_signers)
        except MalformedError:  # its scope can no longer be read, so that no manifest can be made of it
            hostile = write_files(files)
        report = verify_pack(hostile, trust=sealed.log.trust)
        assert report.lines()
        free = path == pack.CUSTODY or (path == pack.SCOPE and place[0] == "claims" and CLAIMS.intersection(place))
        if report.status is Status.PROVEN and path == pack.START_RANGE:
            # A bundle record that nothing here depends on was left out: the one thing that a report says it cannot see.
            assert place[0] == "prior"
            assert any("key, bundle and stream records" in sentence for sentence in report.not_checked)
            free = True
        assert free or report.status not in (Status.PROVEN, Status.NOT_CHECKED), place
        tried += 1
    assert tried > 5


def test_no_json_file_of_a_pack_is_left_out_above(sealed: Sealed) -> None:
    (mark,) = test_a_changed_member_is_never_proven_even_under_genuine_seals.pytestmark
    manifests = {pack.MANIFEST, pack.CONTENT_MANIFEST, pack.MANIFEST_ENVELOPE}
    policies = {path for path in sealed.files if path.startswith("policies/")}
    assert {path for path in sealed.files if path.endswith(".json")} - manifests - policies == set(mark.args[1])


@relaxed
@given(place=st.integers(0, 999), put=st.one_of(st.binary(max_size=64), st.integers(0, 999)))
def test_any_bytes_in_the_place_of_any_file_are_answered_with_a_report(
    sealed: Sealed, place: int, put: bytes | int
) -> None:
    paths = sorted(sealed.files)
    path = paths[place % len(paths)]
    # A number stands for the bytes of a file of the pack, its own among them.
    data = put if isinstance(put, bytes) else sealed.files[paths[put % len(paths)]]
    report = verify_pack(write_files({**sealed.files, path: data}), trust=sealed.log.trust)
    assert (report.status is Status.PROVEN) is (data == sealed.files[path])


def test_a_start_that_is_not_the_start_is_called_that_and_nothing_else(sealed: Sealed) -> None:
    files = {**sealed.files, pack.START_CHECKPOINT: sealed.files[pack.END_CHECKPOINT]}
    report = verify_pack(write_files(files), trust=sealed.log.trust)
    assert report.status is Status.FAILED
    assert {failure.file for failure in report.failures} == {pack.START_CHECKPOINT}


@relaxed
@given(junk=st.binary(max_size=300), at=st.integers(0, 400))
def test_any_bytes_are_answered_with_a_report(sealed: Sealed, junk: bytes, at: int) -> None:
    for hostile in (junk, sealed.data[:at] + junk + sealed.data[at:], sealed.data[:at] + junk):
        status = verify_pack(hostile, trust=sealed.log.trust).status
        assert (status is Status.PROVEN) is (hostile == sealed.data)
