"""What a control test can be about, and which paths each of these subjects has.

Pure. Most subjects are the record types; three more are values that the evidence itself makes:

* ``decision``, ``outcome``, ``bundle``, ``key``, ``heartbeat``, ``dropped``, ``session_end``, ``approval``,
  ``tombstone``, ``succession``, ``access``, ``erasure``, ``hold``, ``retention``, ``opa_decision``, ``opa_loss``,
  ``shadow``, ``shadow_count``, ``mode``, ``containment``, ``inventory``, ``tool``, ``baseline``, ``drift``,
  ``discovery``: the records of that type whose time lies in the period; of ``key`` all that are in the pack, since what
  is said of a key later, or was said earlier, bears on the period. Their fields stand under the type's name
  (``decision.bundle.revision``), the record's envelope under ``envelope`` (``envelope.enforcer_id``).
  Decisions in observe mode are no items: they were not enforced, so they satisfy nothing; they are counted apart. So
  are those that another's enforcement point asked for: they are recorded as observed, for nobody here saw them obeyed.
* ``stream``: one item for each enforcer and epoch, with its completeness.
* ``population``: one item for the whole range of the pack.
* ``replay``: one item for each decision of the period, with what its re-performance gave. This is the pack maker's
  word: a verifier sees that it is complete and adds up, and does not evaluate policies again.

Some records have *derived* attributes, which follow from other records of the same pack (`links`), so that a verifier
calculates them again. A decision has

* ``derived.outcome``: status of the first outcome that its own enforcer recorded, or ``missing``; ``derived.outcomes``:
  how many of these there are;
* ``derived.forwarded``: an outcome of any enforcer says something else than ``not_forwarded``;
* ``derived.approval``: the last step of its approval that whoever may take it recorded, or ``none``;
  ``derived.approved``: enough people agreed, by another than its own enforcer, which then used it before it expired,
  both before the call was forwarded, if it was;
* ``derived.bundle_published``, ``derived.bundle_activated``: a record of that step of the deciding bundle revision
  stands at an earlier leaf;
* ``derived.session_agents``, ``derived.session_users``: how many different ones its session has in the range;
* ``derived.session_continued``: after this call or an earlier one of its session was killed, a call of the session
  stands at a later leaf that was allowed and not withheld.

An outcome has ``derived.decision``: ``permitted``, ``held``, ``refused`` or ``observed``; ``missing`` where the range
starts at leaf 0 and holds no such decision, or where another enforcer made it; ``unknown`` where the range starts later
and does not hold it; and ``derived.repeated``: an earlier
outcome of the same decision exists. A bundle event has ``derived.published_before``, ``derived.tested_before``,
``derived.reviewed_before``, ``derived.tests_passed`` (the last run of its test cases had cases, and none failed) and
``derived.reviewed_by_another`` (somebody else than who published it approved it, and nobody rejected it since), each
about the same revision at an earlier leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from evidence.predicates import PathKind, Vocabulary
from ledger.records import field_classes

__all__ = ["POPULATION", "RECORD_SUBJECTS", "REPLAY", "STREAM", "SUBJECTS", "Item"]

RECORD_SUBJECTS: Final = (
    "decision",
    "outcome",
    "bundle",
    "key",
    "heartbeat",
    "dropped",
    "session_end",
    "approval",
    "tombstone",
    "succession",
    "access",
    "erasure",
    "hold",
    "retention",
    "opa_decision",
    "opa_loss",
    "shadow",
    "shadow_count",
    "mode",
    "containment",
    "inventory",
    "tool",
    "baseline",
    "drift",
    "discovery",
)
STREAM: Final = "stream"
POPULATION: Final = "population"
REPLAY: Final = "replay"

_DERIVED: Final[Mapping[str, tuple[str, ...]]] = {
    "decision": (
        "outcome",
        "outcomes",
        "forwarded",
        "approval",
        "approved",
        "bundle_published",
        "bundle_activated",
        "session_agents",
        "session_users",
        "session_continued",
    ),
    "outcome": ("decision", "repeated"),
    "bundle": ("published_before", "tested_before", "tests_passed", "reviewed_before", "reviewed_by_another"),
}
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    STREAM: (
        "enforcer_id",
        "epoch",
        "verdict",
        "records",
        "decisions",
        "last_seq",
        "missing",
        "lost",
        "lost_decisions",
    ),
    POPULATION: (
        "first_leaf",
        "end_leaf",
        "records",
        "signatures",
        "signed_after_compromise",
        "root_recomputed",
        "decisions",
        "enforced",
        "observed",
        "late",
        "outside",
        "repeated_ids",
        "enforcers",
        "streams",
        "streams_with_gaps",
        "streams_with_unknown_tail",
        "completeness",
        "closed",
        "bundles",
        "bundles_missing",
        "simulated_records",
        "anchors",
        "witnesses",
    ),
    REPLAY: ("class", "same"),
}


def _kind(path: str, declared: str) -> PathKind:
    if declared == "pseudonymous":
        return PathKind.PSEUDONYM
    if declared == "vaulted":
        return PathKind.SEALED
    return PathKind.LIST if path.endswith("[]") else PathKind.SCALAR


_FIELD_CLASSES: Final = field_classes()


def _record_vocabulary(subject: str) -> Vocabulary:
    words: dict[str, PathKind] = {}
    for path, declared in _FIELD_CLASSES.items():
        own = path.removeprefix("body.")
        if own == path:
            words[f"envelope.{path}"] = _kind(path, declared)
        elif own.startswith(f"{subject}."):
            words[own.removesuffix("[]")] = _kind(path, declared)
            parts = own.split(".")
            for depth in range(2, len(parts)):
                words.setdefault(".".join(parts[:depth]), PathKind.GROUP)
    words.update(dict.fromkeys((f"derived.{name}" for name in _DERIVED.get(subject, ())), PathKind.SCALAR))
    return MappingProxyType(words)


def _value_vocabulary(subject: str) -> Vocabulary:
    return MappingProxyType(dict.fromkeys((f"{subject}.{name}" for name in _VALUES[subject]), PathKind.SCALAR))


SUBJECTS: Final[Mapping[str, Vocabulary]] = MappingProxyType(
    {
        **{subject: _record_vocabulary(subject) for subject in RECORD_SUBJECTS},
        **{subject: _value_vocabulary(subject) for subject in (STREAM, POPULATION, REPLAY)},
    }
)
"""Every subject with its paths."""


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a test looks at.

    Attributes:
        leaf: The leaf that it is about, or None.
        roots: What stands under the first word of each path: a record, its body, or plain values by name.
    """

    leaf: int | None
    roots: dict[str, object]

    def get(self, path: str) -> object:
        """Return what stands at a path of the subject's vocabulary, or None."""
        node: object = self.roots
        for step in _steps(path):
            if node is None:
                return None
            node = node.get(step) if isinstance(node, dict) else getattr(node, step)
        return node
