"""The walk over the entries of a pack, and the files that follow from them.

Pure, standard library only. Entries are walked twice: once to build the tree, check who signed, and link records with
one another; once more to run the control tests. One record at a time is held.

Source: docs/evidence.md, sections 2 to 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from evidence.standalone.faults import FailedError, UntrustedError, demand
from evidence.standalone.linked import Links
from evidence.standalone.records import Enrolments, Keyring, Record, read_record
from evidence.standalone.streams import Brief, Closing, Period, Stream, assess, brief, close, worst
from evidence.standalone.trees import Tree, leaf_hash

__all__ = ["Walk", "in_order"]

_MAX_PROOFS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # Python 3.9


def in_order(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts in the order of their names."""
    return {name: counts[name] for name in sorted(counts)}


class Walk:
    """One walk over the entries of a range."""

    def __init__(
        self, period: Period, tree: Tree, prior: Sequence[tuple[int, bytes]], roots_at: frozenset[int]
    ) -> None:
        """Begin.

        Args:
            period: The period.
            tree: The tree before the range.
            prior: Leaves and entries from before the range that came along.
            roots_at: Tree sizes at which the root is to be kept.

        Raises:
            Fault: One of them is no record, or nobody's.
        """
        self.period = period
        self.tree = tree
        self.first_leaf = tree.size
        self.keyring = Keyring()
        self.links = Links(whole=not tree.size)
        self.roots: dict[int, bytes] = {}
        self.simulated = 0
        self.types: Counter[str] = Counter()
        self.decisions: list[int] = []
        self.denied: list[dict[str, Any]] = []
        self.proved: dict[int, bytes] = {}
        self.environments: set[str] = set()
        self.log: tuple[str, str] | None = None
        self._roots_at = roots_at
        self._enrolments = Enrolments()
        self._prior: list[Brief] = []
        self._briefs: list[Brief] = []
        self._prior_keys: list[Record] = []
        self._outside = 0
        self._observed = 0
        self._effects: Counter[str] = Counter()
        self._enforcements: Counter[str] = Counter()
        self._rules: Counter[str] = Counter()
        self._days: dict[str, Counter[str]] = {}
        self._tools: dict[str, Counter[str]] = {}
        self._bundles: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._examples: set[tuple[str, str]] = set()
        self._changes: list[dict[str, Any]] = []
        self._access: list[dict[str, Any]] = []
        self._closing: Closing | None = None
        self._keep_root()
        for leaf, entry in prior:
            record = read_record(leaf, entry)
            self._check(record, entry)
            self._prior.append(brief(record))
            if record.kind == "bundle":
                self.links.add_bundle_step(record)
            elif record.kind == "key":
                self._prior_keys.append(record)

    def _keep_root(self) -> None:
        if self.tree.size in self._roots_at:
            self.roots[self.tree.size] = self.tree.root()

    def _check(self, record: Record, entry: bytes) -> None:
        try:
            self.keyring.check(record, entry)
        except UntrustedError as error:  # here that is no question of trust: the log itself does not hold
            raise FailedError(str(error)) from None
        self._enrolments.add(record)
        told = (record.value["log_id"], record.value["tenant"])
        self.log = self.log or told
        demand(told == self.log, f"leaf {record.leaf}: the record is of another log or tenant", FailedError)

    def add(self, entry: bytes) -> None:
        """Take in the entry of the next leaf.

        Raises:
            Fault: It is no record, or nobody's, or of another log.
        """
        record = read_record(self.tree.size, entry)
        self._check(record, entry)
        hashed = leaf_hash(entry)
        self.tree.append(hashed)
        self._keep_root()
        self.simulated += record.simulated
        self.environments.add(record.value["environment"])
        self.types[record.kind] += 1
        self.links.add(record)
        self._briefs.append(brief(record))
        if record.kind == "decision":
            if self.period.contains(record.time_ms):
                self._add_decision(record, hashed)
            else:
                self._outside += 1
        elif record.kind == "bundle":
            self._changes.append(_change(record))
        elif record.kind == "access":
            self._access.append(_access(record))

    def _add_decision(self, record: Record, hashed: bytes) -> None:
        body, leaf = record.body, record.leaf
        enforcement = body["enforcement"]
        self.decisions.append(leaf)
        self._effects[body["decision"]] += 1
        self._enforcements[enforcement] += 1
        day = (_EPOCH + timedelta(milliseconds=record.time_ms)).date().isoformat()
        self._days.setdefault(day, Counter())[enforcement] += 1
        target = f"{body['server']}/{body.get('tool') or body.get('method') or '(unreadable)'}"
        self._tools.setdefault(target, Counter())[enforcement] += 1
        self._observed += body.get("mode") == "observe"
        if enforcement != "allow":
            rules = body.get("rules", ())
            self._rules[body.get("failed_condition") or (rules[0] if rules else body["reason"])] += 1
        bundle = body.get("bundle")
        if bundle is not None:
            key = (bundle["name"], bundle["revision"], bundle["engine"], bundle["engine_version"])
            line = self._bundles.setdefault(key, {**bundle, "decisions": 0, "first_leaf": leaf})
            line["decisions"] += 1
            line["last_leaf"] = leaf
        tool = body.get("tool")
        if enforcement != "allow":
            self.denied.append(_denied(record, self._prove(leaf, hashed)))
        elif tool is not None and (body["server"], tool) not in self._examples:
            self._examples.add((body["server"], tool))
            self._prove(leaf, hashed)

    def _prove(self, leaf: int, hashed: bytes) -> str:
        if len(self.proved) >= _MAX_PROOFS:
            return ""
        self.proved[leaf] = hashed
        return f"proofs/{leaf}.tlog-proof"

    # --- once every entry was taken in

    def streams(self) -> list[Stream]:
        """Return the completeness of every enforcer and epoch."""
        before: dict[tuple[str, str], Brief] = {}
        for one in self._prior:
            known = before.get((one.enforcer_id, one.epoch))
            if known is None or known.seq < one.seq:
                before[one.enforcer_id, one.epoch] = one
        return assess(self._briefs, before.values(), self._enrolments.all(), self.period)

    def closing(self) -> Closing:
        """Return where the period is closed; nowhere while it was not over."""
        if self._closing is None:
            found = close([*self._prior, *self._briefs], self._enrolments.all(), self.period.to_ms)
            self._closing = found if self.period.over else found._replace(leaf=None)
        return self._closing

    def bundles(self) -> list[dict[str, Any]]:
        """Return the bundles that decided in the period, by first leaf."""
        return sorted(self._bundles.values(), key=lambda line: int(line["first_leaf"]))

    def changes(self) -> list[dict[str, Any]]:
        """Return the steps of bundles in the range."""
        return self._changes

    def access(self) -> list[dict[str, Any]]:
        """Return the reads and exports in the range."""
        return self._access

    def key_records(self) -> list[Record]:
        """Return the key records from before the range."""
        return self._prior_keys

    def late(self) -> list[int]:
        """Return the decisions of the period that arrived after it was closed."""
        closed = self.closing().leaf
        return [] if closed is None else [leaf for leaf in self.decisions if leaf >= closed]

    def population(self, streams: Sequence[Stream]) -> dict[str, Any]:
        """Return the population as the pack has it."""
        return {
            "first_leaf": self.first_leaf,
            "end_leaf": self.tree.size,
            "records": sum(self.types.values()),
            "records_by_type": in_order(self.types),
            "decisions": len(self.decisions),
            "by_effect": in_order(self._effects),
            "by_enforcement": in_order(self._enforcements),
            "observed": self._observed,
            "late": self.late(),
            "outside": self._outside,
            "by_day": {day: in_order(self._days[day]) for day in sorted(self._days)},
            "by_tool": {tool: in_order(self._tools[tool]) for tool in sorted(self._tools)},
            "by_rule": in_order(self._rules),
            "completeness": worst(streams),
            "root_recomputed": True,
        }


def _denied(record: Record, proof: str) -> dict[str, Any]:
    body, facts = record.body, record.get("facts")
    bundle = record.get("bundle") or {}
    return {
        "leaf": record.leaf,
        "record_id": record.value["record_id"],
        "time_ms": record.time_ms,
        "local_time": "" if facts is None else f"{facts['local_hour']:02}:{facts['local_minute']:02}",
        "agent": body["agent"],
        "user": body.get("user"),
        "session": body["session"],
        "server": body["server"],
        "method": body.get("method") or "",
        "tool": body.get("tool"),
        "effect": body["decision"],
        "enforcement": body["enforcement"],
        "reason": body["reason"],
        "rules": list(body.get("rules", ())),
        "failed_condition": body.get("failed_condition"),
        "bundle_revision": bundle.get("revision"),
        "outcome": None,
        "proof": proof,
        "simulated": record.simulated,
    }


def _change(record: Record) -> dict[str, Any]:
    names = ("action", "name", "revision", "previous_revision", "actor", "actor_role")
    return {"leaf": record.leaf, "time_ms": record.time_ms, **{name: record.get(name) for name in names}}


def _access(record: Record) -> dict[str, Any]:
    kind, target = record.body["target_kind"], record.get("target_id")
    return {
        "leaf": record.leaf,
        "time_ms": record.time_ms,
        **{name: record.body[name] for name in ("action", "actor", "actor_role", "result")},
        "target": kind if target is None else f"{kind} {target}",
        "items": record.get("items", 0),
    }
