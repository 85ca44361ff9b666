"""The checks of a pack that are about its files: signatures, digests, proofs, policies, and what follows from entries.

They come after the checks of the log (`log_checks`), whose entries they build on. Pure but for a look at the control
catalogues that ship with this program, with which those of the pack are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from evidence import pack
from evidence.catalogue import framework_names, load_framework
from evidence.container import digest_content
from evidence.controls import Framework, parse_framework
from evidence.custody import parse_custody, signer_lines
from evidence.derivation import derive, derived_files
from evidence.entry_files import read_entries
from evidence.established import Established
from evidence.lines import proof_path
from evidence.population import Survey
from evidence.replays import parse_replays
from evidence.scope import Scope, framework_bytes
from evidence.verification import Status
from ledger.canonical import parse_canonical, sha256
from ledger.envelopes import ED25519, MLDSA44, parse_envelope
from ledger.errors import MalformedError, ProofError, TrustPolicyError, VerificationError
from ledger.proof_files import parse_proof_file
from ledger.proofs import verify_consistency, verify_inclusion
from policies.bundles import bundle_from_files

__all__ = [
    "check_consistency",
    "check_custody",
    "check_derivation",
    "check_digests",
    "check_policies",
    "check_proofs",
    "check_signatures",
]


def check_signatures(found: Established) -> None:
    """Check who signed the manifest, by the keys that the log introduced."""
    survey = found.survey
    if survey is None:
        found.skip("signatures of the pack", "the entries that introduce its keys did not hold")
        return
    with found.step("signatures", pack.MANIFEST_ENVELOPE):
        envelope = parse_envelope(found.read(pack.MANIFEST_ENVELOPE))
        if envelope.payload_type != pack.MANIFEST_MEDIA_TYPE:
            raise MalformedError("the envelope is not that of a pack's manifest")
        # While keys are being replaced the log knows more pack keys than one pack is signed with; each algorithm
        # must have signed, and nobody whom the log does not know.
        keys = [key for key in survey.keyring.pack_keys() if key.key_id in envelope.signatures]
        if {key.algorithm for key in keys} != {ED25519, MLDSA44}:
            raise TrustPolicyError(f"not signed with {ED25519} and {MLDSA44} by keys that the log introduced for packs")
        envelope.verify(keys)
        if envelope.payload != found.read(pack.MANIFEST):
            raise VerificationError(f"its payload is not {pack.MANIFEST}")
        found.pack_keys = keys
        found.report.hold("signatures", f"the manifest is signed by {len(keys)} keys that the log introduced")


def _check_manifest(found: Established, path: str, without: tuple[str, ...]) -> None:
    """Compare a manifest with the files that are there, then with the manifest that they make."""
    digests = {name: digest_content(view) for name, view in found.files.items() if name not in without}
    with found.step("digests", path):
        data = found.read(path)
        listed = {entry.path: entry for entry in pack.parse_manifest_files(data)}
        wrong = 0
        for name in sorted(listed.keys() | digests.keys()):
            entry, digest = listed.get(name), digests.get(name)
            if entry is None or digest is None:
                told = f"{path} does not list it" if entry is None else f"{path} lists it, and it is not there"
                found.report.fail("digests", name, told)
                wrong += 1
            elif (entry.bytes, entry.sha256) != (digest.size, digest.sha256):
                found.report.fail("digests", name, f"its SHA-256 or length is not the one in {path}")
                wrong += 1
        if found.scope is None:
            found.skip(path, "the scope could not be read")
        elif not wrong:
            if pack.encode_manifest(found.scope, digests) != data:
                raise VerificationError("it is not the manifest that scope and files make")
            found.report.hold("digests", f"{len(digests)} files are those of {path}")


def check_digests(found: Established) -> None:
    """Check that the manifests are those of the files that are there, and that the files stand in order."""
    _check_manifest(found, pack.MANIFEST, (pack.MANIFEST, pack.MANIFEST_ENVELOPE))
    unlisted = (pack.MANIFEST, pack.MANIFEST_ENVELOPE, pack.CONTENT_MANIFEST, pack.PACK_PDF)
    _check_manifest(found, pack.CONTENT_MANIFEST, unlisted)
    with found.step("container", "the pack"):
        if list(found.files) != pack.member_order(found.files):
            raise MalformedError("its files do not stand in the order of a pack")


def check_proofs(found: Established) -> None:
    """Check every proof file, and that every leaf that should have one has it."""
    survey, end = found.survey, found.end
    if survey is None or end is None:
        found.skip("proof files", "the entries did not hold")
        return
    checkpoint = found.read(pack.END_CHECKPOINT)
    failures = len(found.report.failures)
    for leaf, hashed in survey.proved_leaves.items():
        path = proof_path(leaf)
        with found.step("proof files", path):
            proof = parse_proof_file(found.read(path))
            if proof.index != leaf or proof.checkpoint != checkpoint or proof.extra is not None:
                raise ProofError("it is not the proof of its leaf under the end checkpoint")
            verify_inclusion(hashed, leaf, end.head, proof.path)
    if len(found.report.failures) == failures:
        found.report.hold("proof files", f"{len(survey.proved_leaves)} prove their leaves under the end checkpoint")


def check_consistency(found: Established) -> None:
    """Check the proof that the end of the range extends its start."""
    with found.step("consistency", pack.CONSISTENCY):
        proof = pack.parse_consistency(found.read(pack.CONSISTENCY))
        scope, end = found.scope, found.end
        if scope is None or end is None:
            return
        if (proof.old_size, proof.new_size) != (scope.first_leaf, scope.tree_size):
            raise ProofError("it is between other sizes than the pack's")
        if scope.first_leaf == 0:
            if proof.path:
                raise ProofError("a range that begins at leaf 0 needs no consistency proof")
        elif found.earlier is not None:  # else it is the start that does not hold, and said
            verify_consistency(found.earlier.head, end.head, tuple(map(bytes.fromhex, proof.path)))
            found.report.hold("consistency", f"the tree of {proof.new_size} leaves extends that of {proof.old_size}")


def check_policies(found: Established) -> None:
    """Check that each bundle is filed under its own digest, and that decisions name it."""
    survey = found.survey
    if survey is None:
        found.skip("policies", "the entries that name them did not hold")
        return
    named = {line.revision for line in survey.bundles()}
    folders: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    for path in found.files:
        if path.startswith("policies/"):
            revision, _, name = path.removeprefix("policies/").partition("/")
            with found.step("policies", path):
                folders[revision][name] = found.read(path)
    for revision, files in folders.items():
        folder = pack.bundle_folder(revision)
        with found.step("policies", folder):
            bundle = bundle_from_files(files)
            if bundle.revision != revision:
                raise VerificationError("its files do not make the revision under which they are filed")
            if revision not in named:
                raise VerificationError("no decision of the period names this bundle")
            members = pack.bundle_members(bundle)
            if members != {folder + name: data for name, data in files.items()}:
                raise VerificationError("its manifest is not in canonical form")
            found.bundles[revision] = pack.held_bundle(bundle)
    found.report.hold("policies", f"{len(found.bundles)} of {len(named)} bundles are here, by their digests")


def _frameworks(found: Established, scope: Scope, accepted: Collection[str]) -> list[Framework] | None:
    frameworks: list[Framework] = []
    for reference in scope.frameworks:
        path = f"frameworks/{reference.framework}.json"
        with found.step("derivation", path):
            framework = parse_framework(parse_canonical(found.read(path)))
            if framework.id != reference.framework:
                raise VerificationError(f"it is the framework {framework.id}")
            frameworks.append(framework)
            _judge_mapping(found, framework, path, accepted)
    return frameworks if len(frameworks) == len(scope.frameworks) else None


def _judge_mapping(found: Established, framework: Framework, path: str, accepted: Collection[str]) -> None:
    """Say whether a mapping is one that the verifier knows: by a weaker one, any control would be satisfied."""
    name = f"{framework.id}, version {framework.mapping_version}"
    data = framework_bytes(framework)
    digest = sha256(data).hex()
    if framework.id not in framework_names():
        found.report.notes.append(f"the mapping {name}, does not ship with this program: read its tests")
    elif framework_bytes(load_framework(framework.id)) == data:
        found.report.hold("mappings", f"{name}, is the mapping that ships with this program")
    elif digest in accepted:
        found.report.hold("mappings", f"{name}, with SHA-256 {digest}, is one that you accept")
    else:
        told = f"it bears the name of a mapping that ships with this program and is another, {name}"
        more = f"read its tests, and accept it with --accept-mapping {digest}"
        found.report.fail("mappings", path, f"{told}; {more}", Status.TRUST_NOT_MET)


def _rederive(found: Established, scope: Scope, survey: Survey, frameworks: list[Framework]) -> dict[str, bytes]:
    """Derive again what follows from the entries."""
    view = found.files[pack.entries_path(scope.first_leaf, scope.tree_size)]
    derivation = derive(
        survey=survey,
        root=bytes.fromhex(scope.root),
        entries=lambda: read_entries(view, scope.tree_size - scope.first_leaf),
        frameworks=frameworks,
        claims=scope.claims,
        replays=parse_replays(found.read(pack.REPLAYS)),
        held=found.bundles,
    )
    return derived_files(derivation)


def _expected_files(found: Established, scope: Scope, derived: Mapping[str, bytes], survey: Survey) -> set[str]:
    expected = {
        pack.CONSISTENCY,
        pack.CONTENT_MANIFEST,
        pack.CUSTODY,
        pack.END_CHECKPOINT,
        pack.MANIFEST,
        pack.MANIFEST_ENVELOPE,
        pack.PACK_PDF,
        pack.TRUST_POLICY,
        pack.entries_path(scope.first_leaf, scope.tree_size),
        *derived,
        *(proof_path(leaf) for leaf in survey.proved_leaves),
        *(path for bundle in found.bundles.values() for path in bundle.files),
    }
    if scope.first_leaf:
        expected |= {pack.START_CHECKPOINT, pack.START_RANGE}
    return expected


def _compare_derived(found: Established, expected: Mapping[str, bytes]) -> None:
    for path, data in expected.items():
        with found.step("derivation", path):
            if found.read(path) != data:
                raise VerificationError("it is not what follows from the entries of the pack")


def check_derivation(found: Established, scope: Scope, accepted: Collection[str]) -> None:
    """Derive again what follows from the entries, and compare byte for byte.

    Args:
        found: What has been established so far.
        scope: What the pack says it is about.
        accepted: Digests of mappings that the verifier accepts though they are not those of this program.
    """
    survey = found.survey
    frameworks = _frameworks(found, scope, accepted)
    if survey is None or frameworks is None:
        found.skip("counts, verdicts, exceptions, gaps", "what they follow from did not hold")
        return
    failures = len(found.report.failures)
    with found.step("derivation", pack.REPLAYS):
        derived = _rederive(found, scope, survey, frameworks)
        _compare_derived(found, derived)
        for path in sorted(found.files.keys() - _expected_files(found, scope, derived, survey)):
            found.report.fail("derivation", path, "nothing in the pack calls for this file")
        if len(found.report.failures) == failures:
            found.report.hold("derivation", f"{len(derived)} files follow from the entries, byte for byte")


def check_custody(found: Established) -> None:
    """Check that the chain of custody names the keys that signed; the rest of it is the maker's word."""
    with found.step("custody", pack.CUSTODY):
        custody = parse_custody(found.read(pack.CUSTODY))
        if found.survey is None or found.end is None or found.pack_keys is None:
            found.skip(pack.CUSTODY, "the keys that signed are not known")
            return
        lines = signer_lines(found.end, found.survey.keyring, found.pack_keys)
        named = set(custody.signers)
        # A witness that the auditor trusts may be none that the maker knew: its cosignature stands for itself.
        owed = [line for line in lines if line.role != "witness" or line in named]
        if not named.issuperset(owed) or any(line.role == "pack" for line in named.difference(owed)):
            raise VerificationError("it names other keys than those that signed")
        found.report.hold("custody", f"{len(owed)} keys named are those that signed")
        # The maker's trust policy may know more keys of log and witnesses than the auditor's.
        for line in sorted(named.difference(lines), key=lambda line: line.key_id):
            found.skip(f"{line.role} key {line.key_id}", "custody names it, and the trust policy does not")
