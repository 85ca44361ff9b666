"""``reperformance.json``: what came of making every decision of the period again.

Pure. Making them again is `reperform`'s part. A verifier checks that every decision of the period is listed once, in
order, that each line can be true of its decision (`check_replay`), and that the totals are those of the list; it
evaluates no policy.

The file (RFC 8785; line breaks are ours; what is empty is left out)::

    {"by_class":{"erased":1,"exact":2},"different":[],"format":"tallystick.reperformance/1",
     "results":[{"class":"exact","leaf":7,"same":true},
                {"class":"erased","explanation":"the request's payload is gone; …","leaf":9}, …],"same":2}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from evidence.summary import HeldBundle, Reperformance
from ledger.bodies import Decision
from ledger.canonical import canonical_bytes, parse_canonical
from ledger.errors import MalformedError

__all__ = ["ReplayLine", "check_replay", "encode_replays", "parse_replays", "reperformance"]

_EXACT: Final = "exact"
_Class = Literal["exact", "masked", "erased", "missing_fact", "engine_changed", "limited", "downstream"]
"""As `policies.replay.ReplayClass`, which this module cannot import and stay pure."""
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,64}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class ReplayLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One decision made again.

    Attributes:
        leaf: Leaf of the decision.
        classification: How far the result can be relied on; see `policies.replay.ReplayClass`.
        same: Whether it came out as recorded; absent if it could not be made again.
        differences: Names of the fields that differ.
        explanation: Why it is not exact.
    """

    leaf: _Count
    classification: _Class = msgspec.field(name="class")
    same: bool | None = None
    differences: tuple[_Name, ...] = ()
    explanation: Annotated[str, msgspec.Meta(max_length=300)] = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["tallystick.reperformance/1"]
    by_class: dict[str, _Count]
    same: _Count
    different: tuple[_Count, ...]
    results: tuple[ReplayLine, ...]


def reperformance(lines: Sequence[ReplayLine]) -> Reperformance:
    """Return the totals of a list."""
    by_class = Counter(line.classification for line in lines)
    exact = [line for line in lines if line.classification == _EXACT]
    return Reperformance(
        by_class={name: by_class[name] for name in sorted(by_class)},
        same=sum(line.same is True for line in exact),
        different=tuple(line.leaf for line in exact if line.same is not True),
    )


def check_replay(line: ReplayLine, body: Decision, held: Mapping[str, HeldBundle]) -> None:
    """Check that a line can be true of its decision.

    Args:
        line: What is said to have come of making the decision again.
        body: The decision.
        held: Bundles that the pack holds, by revision.

    Raises:
        MalformedError: It cannot: the same with differences, or exact where there was nothing to make it from.
    """
    if line.same is not None and line.same is bool(line.differences):
        raise MalformedError(f"leaf {line.leaf}: a replay is the same exactly if nothing differs")
    if line.same is None and (line.differences or line.classification == _EXACT):
        raise MalformedError(f"leaf {line.leaf}: a replay that was not made neither differs nor is exact")
    if line.classification != _EXACT:
        return
    bundle = None if body.bundle is None else held.get(body.bundle.revision)
    if body.bundle is None or body.request is None or bundle is None or bundle.engine != body.bundle.engine:
        raise MalformedError(f"leaf {line.leaf}: an exact replay needs the request, and the bundle and engine of then")


def encode_replays(lines: Sequence[ReplayLine]) -> bytes:
    """Return the file's bytes."""
    totals = reperformance(lines)
    members = _File(
        format="tallystick.reperformance/1",
        by_class=dict(totals.by_class),
        same=totals.same,
        different=totals.different,
        results=tuple(lines),
    )
    return canonical_bytes(msgspec.to_builtins(members))


def parse_replays(data: bytes) -> tuple[ReplayLine, ...]:
    """Read the file; the inverse of `encode_replays`.

    Raises:
        MalformedError: Not such a file in canonical form, a class that there is not, or its totals are not those of its
            list.
    """
    try:
        members = msgspec.convert(parse_canonical(data), _File)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not a re-performance: {error}") from error
    if encode_replays(members.results) != data:
        raise MalformedError("the totals of the re-performance are not those of its list")
    return members.results
