"""The checks that are about the log: checkpoints, entries, and a checkpoint from elsewhere.

Standard library only.

Source: docs/evidence.md, sections 1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from evidence.standalone.containers import read_entries
from evidence.standalone.established import END, SCOPE, START, START_RANGE, TRUST_POLICY, Found, has_members
from evidence.standalone.faults import FailedError, UncheckedError, UntrustedError, demand
from evidence.standalone.notes import Policy, Signed, parse_policy
from evidence.standalone.streams import Period
from evidence.standalone.texts import decode_base64, is_hash
from evidence.standalone.trees import Tree, check_inclusion, leaf_hash
from evidence.standalone.walk import Walk

__all__ = [
    "check_end",
    "check_known",
    "check_log_keys",
    "check_start",
    "check_succession",
    "choose_trust",
    "compare_known",
    "entries_of",
    "entries_path",
    "read_scope",
    "walk_entries",
]

_KNOWN = "the known checkpoint"
_MAX_PRIOR = 1_000_000
_CLAIMS = {
    "title": str,
    "origin": str,
    "from_ms": int,
    "to_ms": int,
    "zone": str,
    "checkpoint_ms": int,
    "software": str,
    "simulated": bool,
    "not_applicable": list,
    "anchors": list,
    "witnesses": list,
}
_SCOPE_MEMBERS = {
    "format": str,
    "pack_id": str,
    "claims": dict,
    "tenant": str,
    "log_id": str,
    "environment": str,
    "simulated": bool,
    "first_leaf": int,
    "tree_size": int,
    "root": str,
    "frameworks": list,
    "proved": list,
    "not_proved": list,
}
_ANCHOR = {"kind": str, "size": int, "location": str, "anchored_ms": int, "retain_until_ms": int}
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")


def _claims_are_sound(claims: Mapping[str, Any]) -> bool:
    """Whether a maker's claims are shaped as they must be, beyond the kinds of their members."""
    anchors = all(
        isinstance(one, dict)
        and (one.get("retain_until_ms") is None or type(one["retain_until_ms"]) is int)
        and has_members({**one, "retain_until_ms": 0}, _ANCHOR)
        for one in claims["anchors"]
    )
    declared = all(
        has_members(one, dict.fromkeys(("framework", "control", "reason"), str)) for one in claims["not_applicable"]
    )
    texts = all(isinstance(one, str) and one for one in (*claims["witnesses"], claims["title"], claims["software"]))
    return anchors and declared and texts and _ZONE.fullmatch(claims["zone"]) is not None


def read_scope(found: Found) -> None:
    """Read what the pack says it is about."""
    with found.report.step("scope", SCOPE):
        scope = found.json(SCOPE)
        shaped = has_members(scope, _SCOPE_MEMBERS) and has_members(scope["claims"], _CLAIMS) and is_hash(scope["root"])
        shaped = shaped and _claims_are_sound(scope["claims"])
        demand(shaped and scope["format"] == "tallystick.scope/1", "not a scope")
        claims = scope["claims"]
        demand(0 <= claims["from_ms"] < claims["to_ms"], "a period ends after it begins")
        demand(0 <= scope["first_leaf"] < scope["tree_size"], "a pack has at least one record")
        found.scope = scope


def choose_trust(found: Found, trust: bytes | None) -> None:
    """Read the trust policy; without one from outside, the pack's own, and the result is self-asserted."""
    if trust is None:
        found.report.self_asserted = True
    with found.report.step("trust", TRUST_POLICY if trust is None else "the trust policy"):
        found.policy = parse_policy(found.read(TRUST_POLICY) if trust is None else trust)
        if trust is not None:
            found.report.hold("trust", f"a policy from outside, with {len(found.policy.logs)} log keys")


def check_end(found: Found, policy: Policy, scope: Mapping[str, Any]) -> None:
    """Check the end checkpoint, and that the scope speaks of it."""
    with found.report.step("checkpoints", END):
        end, claims = policy.verify(found.read(END)), scope["claims"]
        told = end.checkpoint
        same = (told.origin, told.size, told.root.hex()) == (claims["origin"], scope["tree_size"], scope["root"])
        demand(same, "the scope speaks of another log, size or root than the checkpoint", FailedError)
        time = end.times.get(told.origin)
        if time is None:
            found.skip("time of the checkpoint", "no signature that the policy demands carries one")
        else:
            told_ms = claims["checkpoint_ms"]
            demand(time * 1000 == told_ms, "the scope gives another time than the checkpoint", FailedError)
        names = ", ".join(f"{key.name} {key.key_id.hex()}" for key in end.keys)
        found.report.hold("checkpoints", f"tree of {told.size} leaves signed by {names}")
        if end.witnesses:
            found.report.hold("witnesses", f"cosigned by {', '.join(end.witnesses)}")
        else:
            note = "nothing outside the operator's control dates this log: no witness is trusted"
            found.report.notes.append(note)
        if policy.algorithms(told.origin) == 1:
            found.report.notes.append("the trust policy demands signatures of one algorithm only")
        found.end = end


def check_start(found: Found, policy: Policy, scope: Mapping[str, Any]) -> None:
    """Check where the range begins."""
    if not scope["first_leaf"]:
        found.start = (Tree(), [])
        return
    with found.report.step("checkpoints", START):
        earlier, claims = policy.verify(found.read(START)), scope["claims"]
        same = (earlier.checkpoint.origin, earlier.checkpoint.size) == (claims["origin"], scope["first_leaf"])
        demand(same, "the start checkpoint is of another log or size", FailedError)
        time = earlier.times.get(claims["origin"])
        if time is None:
            found.skip("beginning of the range", "no signature that the policy demands says when it was signed")
        else:
            begun = time * 1000 > claims["from_ms"]
            demand(not begun, "the start checkpoint was signed after the period had begun", FailedError)
        found.report.hold("checkpoints", f"range begins at a signed tree of {earlier.checkpoint.size} leaves")
        found.earlier = earlier
    if found.earlier is not None:
        with found.report.step("entries", START_RANGE):
            _read_range(found, found.earlier, scope)


def _read_range(found: Found, earlier: Signed, scope: Mapping[str, Any]) -> None:
    value = found.json(START_RANGE)
    demand(has_members(value, {"format": str, "hashes": list, "prior": list, "size": int}), "not a start range")
    size, root = value["size"], earlier.checkpoint.root
    demand(value["format"] == "tallystick.start-range/1" and size == scope["first_leaf"], "not the start range")
    demand(all(map(is_hash, value["hashes"])) and len(value["prior"]) <= _MAX_PRIOR, "not a start range")
    tree = Tree(size, [bytes.fromhex(one) for one in value["hashes"]])
    demand(tree.root() == root, "the start range is not the tree", FailedError)
    prior, last = [], -1
    for one in value["prior"]:
        demand(has_members(one, {"leaf": int, "entry": str, "path": list}), "not a prior record")
        demand(last < one["leaf"] < size and all(map(is_hash, one["path"])), "prior records are not in leaf order")
        last, entry = one["leaf"], decode_base64(one["entry"])
        hashed = leaf_hash(entry)
        check_inclusion(hashed, last, size, [bytes.fromhex(item) for item in one["path"]], root)
        prior.append((last, entry))
    found.start = (tree, prior)
    found.report.hold("entries", f"{len(prior)} records before the range, each proved to stand there")
    found.skip("records before the range", "that all key, bundle and stream records among them are in the pack")


def check_known(found: Found, policy: Policy, scope: Mapping[str, Any], known: bytes | None) -> None:
    """Check who signed the checkpoint from elsewhere."""
    if known is None:
        found.skip("another history", "no checkpoint from elsewhere was given to compare with (--known)")
        return
    with found.report.step("known checkpoint", _KNOWN):
        signed = policy.verify(known)
        if signed.checkpoint.origin == scope["claims"]["origin"]:
            found.known = signed
        else:
            found.predecessor = signed


def entries_path(scope: Mapping[str, Any]) -> str:
    """Return the path of the entries."""
    return f"population/entries-{scope['first_leaf']}-{scope['tree_size']}.jsonl.gz"


def entries_of(found: Found, scope: Mapping[str, Any]) -> Iterator[bytes]:
    """Return the entries of the range, one after another."""
    path = entries_path(scope)
    demand(path in found.files, "the pack has no such file")
    return read_entries(found.files[path], scope["tree_size"] - scope["first_leaf"])


def walk_entries(found: Found, scope: Mapping[str, Any]) -> None:
    """Hash every entry, check every signature, compare the root."""
    if found.end is None or found.start is None:
        found.skip("entries", "the checkpoints or the start of the range did not hold")
        return
    claims = scope["claims"]
    with found.report.step("entries", entries_path(scope)):
        period = Period(claims["from_ms"], claims["to_ms"], claims["checkpoint_ms"])
        wanted = frozenset(() if found.known is None else (found.known.checkpoint.size,))
        walk = Walk(period, *found.start, wanted)
        for entry in entries_of(found, scope):
            walk.add(entry)
        demand(walk.tree.root() == found.end.checkpoint.root, "the entries are not the tree", FailedError)
        count, last = scope["tree_size"] - scope["first_leaf"], scope["tree_size"] - 1
        told = f"{count} entries, leaves {scope['first_leaf']} to {last}, lead to the signed root"
        found.report.hold("entries", told)
        found.report.hold("entries", f"{count} records signed by enforcers that the log introduced")
        found.walk = walk


def check_succession(found: Found) -> None:
    """Tell which log this one succeeds, and compare a checkpoint of that one."""
    told = None if found.walk is None else found.walk.keyring.succession
    if told is not None:
        sentence = f"this log succeeds {told['origin']} at {told['size']} leaves, root {told['root']}"
        found.report.hold("succession", sentence)
    if found.predecessor is None:
        return
    with found.report.step("known checkpoint", _KNOWN):
        known = found.predecessor.checkpoint
        demand(told is not None, "the known checkpoint is of another log", UntrustedError)
        assert told is not None  # the line above
        demand(known.origin == told["origin"], "the known checkpoint is of another log", UntrustedError)
        less = f"the successor commits to {told['size']} leaves, and {known.size} were signed"
        demand(known.size <= told["size"], less, FailedError)
        more = f"consistency of {known.size} with {told['size']} leaves needs a copy of the old log"
        demand(known.size == told["size"], more, UncheckedError)
        demand(known.root.hex() == told["root"], "the successor commits to another root", FailedError)
        found.report.hold("succession", "the known checkpoint is of the tree that this log commits to")


def check_log_keys(found: Found, policy: Policy, known: bytes | None) -> None:
    """Verify every checkpoint once more, with what the log itself says of its keys."""
    if found.walk is None:
        return
    narrowed = policy.narrowed(found.walk.keyring.sizes)
    with found.report.step("checkpoints", END):
        narrowed.verify(found.read(END))
    if found.earlier is not None:
        with found.report.step("checkpoints", START):
            narrowed.verify(found.read(START))
    if found.known is not None and known is not None:
        with found.report.step("known checkpoint", _KNOWN):
            narrowed.verify(known)


def compare_known(found: Found) -> None:
    """Check that the checkpoint from elsewhere and the pack are of one history."""
    if found.known is None or found.end is None:
        return
    with found.report.step("known checkpoint", _KNOWN):
        kept, end = found.known.checkpoint, found.end.checkpoint
        differs = kept.size == end.size and kept.root != end.root
        demand(not differs, f"two roots for {kept.size} leaves of one log", FailedError)
        roots = {end.size: end.root, **({} if found.walk is None else found.walk.roots)}
        told = f"consistency of {kept.size} with {end.size} leaves needs a copy of the log: `tallystick verify --log`"
        demand(kept.size in roots, told, UncheckedError)
        demand(roots[kept.size] == kept.root, "two histories of one log", FailedError)
        sentence = f"the tree of {kept.size} leaves that was kept is of one history with this"
        found.report.hold("known checkpoint", sentence)
