"""A pack attests nothing: two words appear nowhere in what it says, whatever the verdicts are."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from tests.support.packs import FROM_MS, PackLog, read_files
from tests.support.verifiers import verify_pack
from tests.unit.evidence.conftest import MadePack

FORBIDDEN = re.compile(rb"complian|certif", re.IGNORECASE)


def check(log: PackLog, path: Path) -> None:
    for name, data in read_files(path.read_bytes()).items():
        text = gzip.decompress(data) if name.endswith(".gz") else data
        assert not FORBIDDEN.search(text), name
    for trust in (log.trust, None):
        report = verify_pack(path, trust=trust)
        assert not FORBIDDEN.search("\n".join(report.lines()).encode())


def test_the_words_appear_nowhere_in_a_pack_with_good_verdicts(made: MadePack) -> None:
    check(made.log, made.assembled.path)


def test_the_words_appear_nowhere_in_a_pack_with_bad_verdicts_and_gaps(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.gateway.seq += 5
    log.call(at_ms=FROM_MS + 1, arguments='{"amount": 900}', changes={"enforcement": "allow"}, outcome=None)
    log.bundles.clear()
    log.publish()
    check(log, log.pack(tmp_path / "pack.zip", sources=log.sources(anchors=())).path)
