"""The frozen packs of version 1 in ``tests/vectors/packs``: how they were made, and how to make them again.

``python -m tests.support.frozen_packs`` writes those that are not there; it changes none that is. They stand outside
the generator of the other vectors because they are made by the program itself: what freezes them is that every later
version must read them as this one did.

Each folder holds ``pack.zip``, the auditor's ``trust.policy``, a checkpoint ``known.txt`` that he kept, and
``expected.txt``: the verdicts of the controls. The report in them (``pack.pdf``) is not a PDF but what
`tests.support.packs.render_stand_in` gives. Signatures with ML-DSA are randomised: making a pack again gives its bytes
but for ``manifest.dsse.json``, with the end checkpoint taken from the stored one.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from evidence import pack
from evidence.assemble import AssembledPack, PackRequest
from evidence.controls import Framework, parse_framework
from evidence.scope import NotApplicable, parse_scope
from evidence.summary import PackSummary
from ledger.canonical import parse_canonical
from tests.support.packs import FROM_MS, SMALL_FRAMEWORK, TO_MS, PackLog, read_files

ROOT = Path(__file__).parent.parent / "vectors" / "packs"


@dataclass(frozen=True)
class FrozenPack:
    """One frozen pack.

    Attributes:
        name: Its folder.
        write: Writes its log and returns the start checkpoint, if the range begins at one, and the one that is kept.
        shipped: It judges by the frameworks that shipped when it was made; the others by a small one.
        request: Changes the request.
    """

    name: str
    write: Callable[[PackLog], tuple[bytes | None, bytes]]
    shipped: bool = False
    request: Callable[[PackRequest], PackRequest] = lambda request: request

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    def file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def mappings(self) -> list[str]:
        """Return the digests of the mappings that it was judged by: those that ship may have changed since."""
        scope = parse_scope(read_files(self.file("pack.zip"))[pack.SCOPE])
        return [framework.sha256 for framework in scope.frameworks]


def _whole(log: PackLog) -> tuple[None, bytes]:
    log.ordinary_day()
    kept = log.publish(at_ms=TO_MS + 2000)
    for number in range(7):
        log.call(at_ms=TO_MS + 3000 + 1000 * number, arguments='{"amount": 5}', session="after")
    log.publish()
    return None, kept


def _part(log: PackLog) -> tuple[bytes, bytes]:
    log.begin()
    for number in range(9):
        log.call(at_ms=FROM_MS - 40_000 + 1000 * number, arguments='{"amount": 5}', session="before")
    start = log.publish(at_ms=FROM_MS - 10_000)
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.call(arguments='{"amount": 501}')
    log.access()
    log.end()
    log.publish()
    return start, start


def _deviating(log: PackLog) -> tuple[None, bytes]:
    log.begin()
    kept = log.publish(at_ms=FROM_MS - 10_000)
    log.gateway.seq += 2
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 900}', changes={"enforcement": "allow"})
    log.call(arguments='{"amount": 1}', outcome=None)
    log.call(arguments='{"amount": 2}', changes={"rules": ("another-rule",)})
    log.call(name="dump", session="k")
    log.call(arguments='{"amount": 3}', session="k")
    log.call(arguments='{"amount": 4}', changes={"mode": "observe"})
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS + 1000)
    log.publish()
    log.erased.add(min(log.requests))
    return None, kept


FROZEN = (
    FrozenPack("whole", _whole, shipped=True),
    FrozenPack("part", _part),
    FrozenPack(
        "deviating",
        _deviating,
        request=lambda request: replace(
            request, not_applicable=(NotApplicable(framework="small", control="C.2", reason="we have none"),)
        ),
    ),
)


def stored_frameworks(files: dict[str, bytes]) -> tuple[Framework, ...]:
    """Return the frameworks that a pack was judged by."""
    paths = sorted((path for path in files if path.startswith("frameworks/")), reverse=True)
    return tuple(parse_framework(parse_canonical(files[path])) for path in paths)


def make(
    frozen: FrozenPack, path: Path, stored: dict[str, bytes] | None = None
) -> tuple[AssembledPack, PackLog, bytes]:
    """Make a frozen pack, again from what is stored or anew; return it with its log and the kept checkpoint."""
    log = PackLog()
    start, kept = frozen.write(log)
    request = log.request(start_checkpoint=start)
    if stored is not None:
        request = log.request(start_checkpoint=stored.get(pack.START_CHECKPOINT), frameworks=stored_frameworks(stored))
    elif not frozen.shipped:
        small = parse_framework(copy.deepcopy(SMALL_FRAMEWORK))
        request = log.request(start_checkpoint=start, frameworks=(small,))
    checkpoint = log.checkpoints[-1] if stored is None else stored[pack.END_CHECKPOINT]
    assembled = log.pack(path, request=frozen.request(request), sources=log.sources(checkpoint))
    log.close()
    return assembled, log, kept


def verdicts(summary: PackSummary) -> str:
    """Return the verdicts of a pack as text."""
    lines = [f"pack {summary.pack_id}", f"completeness: {summary.population.completeness}"]
    lines += [
        f"{sheet.framework} {control.control_id}: {control.status.value}: {control.reason}"
        for sheet in summary.frameworks
        for control in sheet.controls
    ]
    lines += [f"gap: {gap.kind}: {gap.sentence}" for gap in summary.gaps]
    return "".join(line + "\n" for line in lines)


def main() -> None:
    """Write the packs that are not there."""
    for frozen in FROZEN:
        if frozen.folder.exists():
            continue
        frozen.folder.mkdir(parents=True)
        assembled, log, kept = make(frozen, frozen.folder / "pack.zip")
        assembled.path.chmod(0o644)
        (frozen.folder / "trust.policy").write_text(log.trust.encode(), encoding="ascii")
        (frozen.folder / "known.txt").write_bytes(kept)
        (frozen.folder / "expected.txt").write_text(verdicts(assembled.summary), encoding="utf-8")


def make_again(frozen: FrozenPack) -> tuple[dict[str, bytes], str]:
    """Return the files of a frozen pack, made again, and its verdicts."""
    stored = read_files(frozen.file("pack.zip"))
    with tempfile.TemporaryDirectory() as folder:
        assembled, _, _ = make(frozen, Path(folder) / "pack.zip", stored)
        return read_files(assembled.path.read_bytes()), verdicts(assembled.summary)


if __name__ == "__main__":
    main()
