"""The checks that are about the files: signatures, digests, proofs, policies, and what follows from the entries.

Standard library only. They come after those of the log.

Source: docs/evidence.md, sections 1 and 2.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from evidence.standalone.derive import derived_files, totals_of
from evidence.standalone.ed25519 import ed25519_holds
from evidence.standalone.established import (
    CONSISTENCY,
    CONTENT_MANIFEST,
    CUSTODY,
    END,
    ENVELOPE,
    MANIFEST,
    README,
    REPLAYS,
    REPORT_PDF,
    SCOPE,
    START,
    START_RANGE,
    TRUST_POLICY,
    Found,
    has_members,
)
from evidence.standalone.faults import FailedError, MalformedError, UntrustedError, demand
from evidence.standalone.language import Framework, read_framework
from evidence.standalone.log_part import entries_of, entries_path
from evidence.standalone.mldsa44 import mldsa44_holds
from evidence.standalone.notes import parse_checkpoint
from evidence.standalone.record_table import MAPPINGS
from evidence.standalone.records import Held
from evidence.standalone.texts import canonical, decode_base64, is_hash, parse_canonical
from evidence.standalone.trees import check_extension, check_inclusion

__all__ = [
    "check_consistency",
    "check_custody",
    "check_derivation",
    "check_digests",
    "check_policies",
    "check_proofs",
    "check_signatures",
]

_PAYLOAD_TYPE = "application/vnd.tallystick.pack-manifest+json"
_NAMESPACE = uuid.UUID("6d1c9a52-6c9b-5f3e-9a37-0a2f6c2f4b10")
_CLASSES = ("exact", "masked", "erased", "missing_fact", "engine_changed", "limited", "downstream")
_CUSTODY_MEMBERS = {
    "format": str,
    "requested_by": str,
    "requested_ms": int,
    "started_ms": int,
    "finished_ms": int,
    "software": str,
    "steps": list,
    "signers": list,
}


def check_signatures(found: Found) -> None:
    """Check who signed the manifest, by the keys that the log introduced."""
    if found.walk is None:
        found.skip("signatures of the pack", "the entries that introduce its keys did not hold")
        return
    with found.report.step("signatures", ENVELOPE):
        value = found.json(ENVELOPE)
        demand(has_members(value, {"payload": str, "payloadType": str, "signatures": list}), "not an envelope")
        signatures: dict[str, bytes] = {}
        for one in value["signatures"]:
            demand(has_members(one, {"keyid": str, "sig": str}) and one["keyid"] not in signatures, "not an envelope")
            signatures[one["keyid"]] = decode_base64(one["sig"])
        demand(list(signatures) == sorted(signatures), "an envelope's signatures are not in order")
        demand(value["payloadType"] == _PAYLOAD_TYPE, "the envelope is not that of a pack's manifest")
        named = {_pack_key_id(key): key for key in found.walk.keyring.pack_keys()}
        told = "not signed with ed25519 and ml-dsa-44 by keys that the log introduced for packs, and by nobody else"
        keys = [named[key_id] for key_id in signatures if key_id in named]
        both = {key.algorithm for key in keys} == {"ed25519", "ml-dsa-44"}
        demand(both and len(keys) == len(signatures), told, UntrustedError)
        payload = decode_base64(value["payload"])
        kind = value["payloadType"].encode()
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        for key in keys:
            holds = ed25519_holds if key.algorithm == "ed25519" else mldsa44_holds
            signed = holds(key.public_key, message, signatures[_pack_key_id(key)])
            demand(signed, f"the {key.algorithm} signature of the envelope is wrong", FailedError)
        demand(payload == found.read(MANIFEST), f"its payload is not {MANIFEST}", FailedError)
        found.pack_keys = keys
        found.report.hold("signatures", f"the manifest is signed by {len(keys)} keys that the log introduced")


def check_digests(found: Found) -> None:
    """Check that the manifests are those of the files that are there, and that these stand in order."""
    _check_manifest(found, MANIFEST, "tallystick.pack/1", (MANIFEST, ENVELOPE))
    _check_manifest(
        found, CONTENT_MANIFEST, "tallystick.pack-content/1", (MANIFEST, ENVELOPE, CONTENT_MANIFEST, REPORT_PDF)
    )
    with found.report.step("container", "the pack"):
        last = (MANIFEST, ENVELOPE)
        order = [*sorted(path for path in found.files if path not in last), *filter(found.files.__contains__, last)]
        demand(list(found.files) == order, "its files do not stand in the order of a pack")


def _check_manifest(found: Found, path: str, kind: str, without: Collection[str]) -> None:
    with found.report.step("digests", path):
        value, wrong = found.json(path), 0
        listed = {one["path"]: (one["bytes"], one["sha256"]) for one in value["files"]}
        demand(value["format"] == kind and len(listed) == len(value["files"]), "not the manifest of a pack")
        for name in sorted(listed.keys() | (found.files.keys() - set(without))):
            here = name in found.files and name not in without
            if not here or name not in listed:
                told = f"{path} lists it, and it is not there" if not here else f"{path} does not list it"
                found.report.fail("digests", name, FailedError(told))
                wrong += 1
            elif (len(found.files[name]), hashlib.sha256(found.files[name]).hexdigest()) != listed[name]:
                told = f"its SHA-256 or length is not the one in {path}"
                found.report.fail("digests", name, FailedError(told))
                wrong += 1
        if found.scope is not None and not wrong:
            scope, claims = found.scope, found.scope["claims"]
            same = (
                value["pack_id"] == scope["pack_id"]
                and value["period"] == {"from_ms": claims["from_ms"], "to_ms": claims["to_ms"]}
                and (value["software"], value["tree_size"]) == (claims["software"], scope["tree_size"])
            )
            demand(same, "it is not the manifest of this scope", FailedError)
            found.report.hold("digests", f"{len(listed)} files are those of {path}")


def check_proofs(found: Found) -> None:
    """Check every proof file, and that every leaf that should have one has it."""
    if found.walk is None or found.end is None:
        found.skip("proof files", "the entries did not hold")
        return
    failures, end = len(found.report.failures), found.end.checkpoint
    for leaf, hashed in found.walk.proved.items():
        path = f"proofs/{leaf}.tlog-proof"
        with found.report.step("proof files", path):
            head, _, checkpoint = found.read(path).partition(b"\n\n")
            lines = head.decode("ascii").split("\n")
            told = "it is not the proof of its leaf under the end checkpoint"
            demand(lines[:2] == ["c2sp.org/tlog-proof@v1", f"index {leaf}"], told, FailedError)
            demand(checkpoint == found.read(END), told, FailedError)
            parse_checkpoint(checkpoint)
            check_inclusion(hashed, leaf, end.size, [decode_base64(line) for line in lines[2:]], end.root)
    if len(found.report.failures) == failures:
        told = f"{len(found.walk.proved)} prove their leaves under the end checkpoint"
        found.report.hold("proof files", told)


def check_consistency(found: Found, scope: Mapping[str, Any]) -> None:
    """Check the proof that the end of the range extends its start."""
    with found.report.step("consistency", CONSISTENCY):
        value = found.json(CONSISTENCY)
        demand(has_members(value, {"format": str, "old_size": int, "new_size": int, "path": list}), "not a proof")
        demand(value["format"] == "tallystick.consistency/1" and all(map(is_hash, value["path"])), "not a proof")
        sizes = (value["old_size"], value["new_size"]) == (scope["first_leaf"], scope["tree_size"])
        demand(sizes, "it is between other sizes than the pack's", FailedError)
        if not scope["first_leaf"]:
            demand(not value["path"], "a range that begins at leaf 0 needs no consistency proof", FailedError)
        elif found.earlier is not None and found.end is not None:
            old, new = found.earlier.checkpoint, found.end.checkpoint
            path = [bytes.fromhex(one) for one in value["path"]]
            check_extension((old.size, old.root), (new.size, new.root), path)
            told = f"the tree of {new.size} leaves extends that of {old.size}"
            found.report.hold("consistency", told)


def check_policies(found: Found) -> None:
    """Check that each bundle is filed under its own digest, and that decisions name it."""
    if found.walk is None:
        found.skip("policies", "the entries that name them did not hold")
        return
    named = {line["revision"] for line in found.walk.bundles()}
    folders: dict[str, list[str]] = {}
    for path in found.files:
        if path.startswith("policies/"):
            folders.setdefault(path.split("/")[1], []).append(path)
    for revision, paths in folders.items():
        folder = f"policies/{revision}/"
        with found.report.step("policies", folder):
            digests = {path[len(folder) :]: hashlib.sha256(found.files[path]).hexdigest() for path in paths}
            demand(digests.pop("manifest.json", None) is not None, "a bundle without a manifest")
            data = found.read(f"{folder}manifest.json")
            manifest = json.loads(data)
            made = hashlib.sha256(canonical({"manifest": manifest, "files": digests})).hexdigest()
            told = "its files do not make the revision under which they are filed"
            demand(made == revision, told, FailedError)
            demand(revision in named, "no decision of the period names this bundle", FailedError)
            demand(canonical(manifest) == data, "its manifest is not in canonical form", FailedError)
            found.held[revision] = (manifest["name"], manifest["engine"])
            found.bundle_files[revision] = sorted(paths)
    found.report.hold("policies", f"{len(found.held)} of {len(named)} bundles are here, by their digests")


def _frameworks(found: Found, scope: Mapping[str, Any], accepted: Collection[str]) -> list[Framework] | None:
    published = json.loads(MAPPINGS)
    frameworks = []
    for reference in scope["frameworks"]:
        path = f"frameworks/{reference['framework']}.json"
        with found.report.step("derivation", path):
            data = found.read(path)
            framework, digest = read_framework(parse_canonical(data)), hashlib.sha256(data).hexdigest()
            told = f"it is the framework {framework.id}"
            demand(framework.id == reference["framework"], told, FailedError)
            frameworks.append(framework)
            _judge_mapping(found, framework, path, digest, published.get(framework.id), accepted)
    return frameworks if len(frameworks) == len(scope["frameworks"]) else None


def _judge_mapping(
    found: Found, framework: Framework, path: str, digest: str, published: str | None, accepted: Collection[str]
) -> None:
    name = f"{framework.id}, version {framework.value['mapping_version']}"
    if published is None:
        note = f"the mapping {name}, was not published with this verifier: read its tests"
        found.report.notes.append(note)
    elif digest == published:
        found.report.hold("mappings", f"{name}, is the mapping that was published with this verifier")
    elif digest in accepted:
        found.report.hold("mappings", f"{name}, with SHA-256 {digest}, is one that you accept")
    else:
        told = f"it bears the name of a mapping that was published with this verifier and is another, {name}"
        more = f"read its tests, and accept it with --accept-mapping {digest}"
        found.report.fail("mappings", path, UntrustedError(f"{told}; {more}"))


def check_derivation(found: Found, scope: Mapping[str, Any], accepted: Collection[str]) -> None:
    """Derive again what follows from the entries, and compare byte for byte."""
    frameworks = _frameworks(found, scope, accepted)
    if found.walk is None or frameworks is None:
        found.skip("counts, verdicts, exceptions, gaps", "what they follow from did not hold")
        return
    failures = len(found.report.failures)
    with found.report.step("derivation", REPLAYS):
        replays = _read_replays(found)
        files, members = derived_files(
            found.walk,
            entries_of(found, scope),
            frameworks,
            scope["claims"],
            replays,
            found.held,
            found.bundle_files,
        )
        told = "it is not what follows from the entries of the pack"
        for path, data in files.items():
            with found.report.step("derivation", path):
                demand(found.read(path) == data, told, FailedError)
        with found.report.step("derivation", SCOPE):
            demand({**scope, **members} == scope, told, FailedError)
            demand(_pack_id(found, scope, frameworks) == scope["pack_id"], told, FailedError)
        _check_files(found, scope, files)
        if len(found.report.failures) == failures:
            told = f"{len(files) + 1} files follow from the entries, byte for byte"
            found.report.hold("derivation", told)


def _read_replays(found: Found) -> list[dict[str, Any]]:
    value = found.json(REPLAYS)
    shape = {"format": str, "by_class": dict, "same": int, "different": list, "results": list}
    demand(has_members(value, shape) and value["format"] == "tallystick.reperformance/1", "not a re-performance")
    lines: list[dict[str, Any]] = value["results"]
    for line in lines:
        known = {"leaf", "class", "same", "differences", "explanation"}
        shaped = type(line["leaf"]) is int and line["class"] in _CLASSES and line.keys() <= known
        demand(shaped and line.get("same") in (None, True, False), "not a re-performance")
    told = "the totals of the re-performance are not those of its list"
    demand({**value, **totals_of(lines)} == value, told)
    return lines


def _pack_id(found: Found, scope: Mapping[str, Any], frameworks: Sequence[Framework]) -> str:
    """Return the pack's id, which says what is in it; also that the scope names the frameworks that are here."""
    claims = scope["claims"]
    references = [
        {
            "framework": one.id,
            "mapping_version": one.value["mapping_version"],
            "sha256": hashlib.sha256(found.read(f"frameworks/{one.id}.json")).hexdigest(),
        }
        for one in frameworks
    ]
    name = {
        **{name: claims[name] for name in ("origin", "from_ms", "to_ms", "not_applicable")},
        **{name: scope[name] for name in ("log_id", "first_leaf", "tree_size", "root")},
        "frameworks": references,
    }
    demand(references == scope["frameworks"], "it names other frameworks than those that are here", FailedError)
    return str(uuid.uuid5(_NAMESPACE, hashlib.sha256(canonical(name)).hexdigest()))


def _check_files(found: Found, scope: Mapping[str, Any], derived: Collection[str]) -> None:
    assert found.walk is not None  # else nothing was derived
    expected = {
        *(
            README,
            SCOPE,
            REPLAYS,
            CONSISTENCY,
            CONTENT_MANIFEST,
            CUSTODY,
            END,
            MANIFEST,
            ENVELOPE,
            REPORT_PDF,
            TRUST_POLICY,
        ),
        entries_path(scope),
        *derived,
        *(f"frameworks/{reference['framework']}.json" for reference in scope["frameworks"]),
        *(f"proofs/{leaf}.tlog-proof" for leaf in found.walk.proved),
        *(path for paths in found.bundle_files.values() for path in paths),
        *((START, START_RANGE) if scope["first_leaf"] else ()),
    }
    for path in sorted(found.files.keys() - expected):
        found.report.fail("derivation", path, FailedError("nothing in the pack calls for this file"))
    for path in sorted(expected - found.files.keys()):
        found.report.fail("derivation", path, MalformedError("the pack has no such file"))


def check_custody(found: Found) -> None:
    """Check that the chain of custody names the keys that signed; the rest of it is the maker's word."""
    if found.walk is None or found.end is None or found.pack_keys is None:
        found.skip(CUSTODY, "the keys that signed are not known")
        return
    with found.report.step("custody", CUSTODY):
        origin = found.end.checkpoint.origin
        custody = found.json(CUSTODY)
        shaped = has_members(custody, _CUSTODY_MEMBERS) and custody["format"] == "tallystick.custody/1"
        steps = all(has_members(one, {"step": str, "detail": str}) for one in custody["steps"])
        demand(shaped and steps, "not a chain of custody")
        named = {tuple(sorted(line.items())) for line in custody["signers"]}
        subjects = {key.public_key: key.subject for key in found.walk.keyring.keys if key.purpose == "pack"}
        owed = [
            _signer("pack", key.algorithm, subjects[key.public_key], *[_pack_key_id(key)] * 2)
            for key in found.pack_keys
        ]
        for key in found.end.keys:
            if key.name == origin:
                algorithm = "ml-dsa-44" if key.kind == 6 else "ed25519"  # noqa: PLR2004  # the type byte
                owed.append(_signer("log", algorithm, key.name, key.key_id.hex(), key.fingerprint))
        told = "it names other keys than those that signed"
        others = any(("role", "pack") in line for line in named.difference(owed))
        demand(named.issuperset(owed) and not others, told, FailedError)
        found.report.hold("custody", f"{len(owed)} keys named are those that signed")


def _signer(role: str, algorithm: str, name: str, key_id: str, fingerprint: str) -> tuple[tuple[str, str], ...]:
    line = {"role": role, "algorithm": algorithm, "name": name, "key_id": key_id, "fingerprint": fingerprint}
    return tuple(sorted(line.items()))


def _pack_key_id(key: Held) -> str:
    return hashlib.sha256(key.algorithm.encode() + b"\n" + key.public_key).hexdigest()
