"""How far an audit has come: what is joined of the chunks, in order, and what of it is remembered.

Pure. Its size grows with the keys, enforcers and gaps of a log, not with its records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ledger.audit_chunks import CheckedChunk, Segment, WatchedKey
from ledger.audit_report import Depth
from ledger.audit_state import AuditState, KeptSegment
from ledger.audit_tree import BundleTree
from ledger.enrolments import Enrolments
from ledger.proofs import TreeHead
from ledger.records import decode_entry
from ledger.streams import Streams
from ledger.tiles import TILE_WIDTH

__all__ = ["AuditProgress"]


@dataclass(slots=True)
class AuditProgress:
    """What the chunks so far came to. One task owns it.

    Attributes:
        begun_ms: When leaf 0 was read, POSIX milliseconds; None before.
        tree: The tree above the full bundles.
        streams: The enforcers' streams.
        segments: Who wrote between which key records.
        signed: By leaf of the declaration of a compromise: records that the key signed afterwards, and the first leaf.
        records: Records.
        simulated: Simulated ones among them.
        watched: The compromises that the chunks tell of by position.
    """

    begun_ms: int | None = None
    tree: BundleTree = field(default_factory=BundleTree)
    streams: Streams = field(default_factory=Streams)
    segments: list[Segment] = field(default_factory=lambda: [Segment()])
    signed: dict[int, tuple[int, int]] = field(default_factory=dict)
    records: int = 0
    simulated: int = 0
    watched: Sequence[WatchedKey] = ()

    @classmethod
    def resumed(cls, state: AuditState) -> AuditProgress:
        """Take up what was remembered.

        Raises:
            MalformedError: The edge of its tree does not fit.
        """
        streams = Streams()
        streams.join(state.summaries, state.named_epochs)
        return cls(
            begun_ms=state.begun_ms,
            tree=BundleTree(state.bundles, state.rows),
            streams=streams,
            segments=[kept.segment() for kept in state.segments],
            signed=dict(state.signed),
            records=state.records,
            simulated=state.simulated,
        )

    def join(self, chunk: CheckedChunk) -> None:
        """Take in what a chunk came to; its tree is taken in apart, bundle by bundle."""
        self.records += chunk.records
        self.simulated += chunk.simulated
        self.streams.join(chunk.summaries, chunk.named_epochs)
        for segment in chunk.segments:
            if segment.leaf is None:
                self.segments[-1].wrote |= segment.wrote
            else:
                self.segments.append(segment)
        for position, (count, first) in chunk.signed.items():
            leaf = self.watched[position].leaf
            before = self.signed.get(leaf)
            self.signed[leaf] = (count, first) if before is None else (before[0] + count, before[1])

    def enrolments(self, key_entries: Mapping[int, bytes]) -> Enrolments:
        """Return who could write when.

        Args:
            key_entries: The entries of the key records by leaf.
        """
        enrolments = Enrolments()
        for segment in self.segments:
            if segment.leaf is not None:
                enrolments.add(segment.leaf, decode_entry(key_entries[segment.leaf]))
            for enforcer_id, epoch in segment.wrote:
                enrolments.wrote(enforcer_id, epoch)
        return enrolments

    def state(
        self,
        *,
        log_id: str,
        depth: Depth,
        now_ms: int,
        head: TreeHead,
        key_leaves: Iterable[int],
        buried: Mapping[str, int],
    ) -> AuditState:
        """Return what is to be remembered, as it is now: later chunks do not change it."""
        bundles = self.tree.bundles
        return AuditState(
            log_id=log_id,
            depth=depth,
            begun_ms=now_ms if self.begun_ms is None else self.begun_ms,
            audited_ms=now_ms,
            size=head.size,
            root=head.root,
            finished=False,
            bundles=bundles,
            rows=self.tree.rows,
            key_leaves=[leaf for leaf in key_leaves if leaf < bundles * TILE_WIDTH],
            buried=dict(buried),
            segments=[KeptSegment.of(segment) for segment in self.segments],
            summaries=self.streams.copied(),
            named_epochs=self.streams.named_epochs,
            signed=dict(self.signed),
            records=self.records,
            simulated=self.simulated,
        )
