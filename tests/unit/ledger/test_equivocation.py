"""Equivocation files: what they prove, and every false accusation that must be refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.equivocation import (
    EQUIVOCATION_FORMAT,
    Equivocation,
    EquivocationFile,
    PrefixEvidence,
    parse_equivocation,
    prove_equivocation,
    verify_equivocation,
)
from ledger.errors import (
    MalformedError,
    ProofError,
    SignatureInvalidError,
    StateError,
    TallystickError,
    TrustPolicyError,
)
from ledger.merkle import RootHash
from ledger.notes import encode_base64, parse_vkey
from ledger.proofs import verify_consistency
from ledger.trust import TrustPolicy, Witness
from tests.fakes import ORIGIN, LogSimulator
from tests.support.witness import reference_witness


def simulate(entries: Sequence[bytes], *, origin: str = ORIGIN, seed: int = 1) -> LogSimulator:
    log = LogSimulator(origin, seed=seed)
    log.grow(entries)
    return log


def history(size: int, *, forked_at: int | None = None) -> LogSimulator:
    """Return a log; with ``forked_at``, one whose entries differ from there on."""
    split = size if forked_at is None else forked_at
    return simulate([b"entry %d" % index if index < split else b"other %d" % index for index in range(size)])


def evidence_of(log: LogSimulator):
    def evidence(size: int, tree_size: int) -> PrefixEvidence:
        return PrefixEvidence(root=log.head(size).root, path=log.consistency(size, tree_size))

    return evidence


def accuse(one: LogSimulator, size: int, other: LogSimulator, other_size: int) -> EquivocationFile:
    """Return the proof that two logs contradict each other; the larger tree is at hand."""
    larger = other if other_size >= size else one
    return prove_equivocation(one.checkpoint(size), other.checkpoint(other_size), one.policy, evidence_of(larger))


PAIRS = [(1, 2), (1, 1), (2, 3), (3, 7), (4, 7), (4, 8), (7, 7), (255, 256), (256, 257), (256, 600), (300, 513)]


@pytest.mark.parametrize(("small", "large"), PAIRS)
@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "the larger first"])
def test_two_histories_are_proved_from_one_file_whichever_is_the_longer(small, large, swapped):
    honest, fork = history(large), history(large, forked_at=small - 1)
    file = accuse(honest, small, fork, large) if not swapped else accuse(fork, large, honest, small)
    judged = verify_equivocation(parse_equivocation(file.encode()), honest.policy)
    assert judged.origin == ORIGIN
    assert {judged.smaller.head, judged.larger.head} == {honest.head(small), fork.head(large)}
    assert judged.prefix != judged.smaller.head.root
    assert judged.prefix in {honest.head(small).root, fork.head(small).root}


@given(st.data())
def test_exactly_the_histories_that_part_before_the_smaller_size_are_proved(data):
    large = data.draw(st.integers(1, 40))
    small = data.draw(st.integers(1, large))
    forked_at = data.draw(st.integers(0, large - 1))
    honest, fork = history(large), history(large, forked_at=forked_at)
    if forked_at < small:
        assert isinstance(verify_equivocation(accuse(honest, small, fork, large), honest.policy), Equivocation)
    else:
        with pytest.raises(ProofError, match="agree"):
            accuse(honest, small, fork, large)


def test_a_file_reads_back_as_it_was_written():
    for forked_at, small in ((2, 5), (2, 7)):
        file = accuse(history(7), small, history(7, forked_at=forked_at), 7)
        assert parse_equivocation(file.encode()) == file


def test_a_quorum_is_not_asked_for():
    honest, fork = history(5), history(5, forked_at=2)
    key = parse_vkey(reference_witness().vkey)
    policy = TrustPolicy(logs=honest.policy.logs, witnesses={"w1": Witness("w1", key)}, quorum="w1")
    with pytest.raises(TrustPolicyError):
        policy.verify(honest.checkpoint(5))
    assert verify_equivocation(accuse(honest, 5, fork, 5), policy)


# --- false accusations -----------------------------------------------------------------------------------------------


def judge(honest: LogSimulator, smaller: bytes, larger: bytes, evidence: PrefixEvidence | None) -> Equivocation:
    file = EquivocationFile(smaller=smaller, larger=larger, evidence=evidence)
    return verify_equivocation(parse_equivocation(file.encode()), honest.policy)


@pytest.mark.parametrize(("small", "large"), [pair for pair in PAIRS if pair[0] < pair[1]])
def test_an_honest_log_is_not_convicted_by_a_wrong_prefix_or_path(small, large):
    log, fork = history(large), history(large, forked_at=0)
    for root, path in (
        (fork.head(small).root, log.consistency(small, large)),
        (log.head(small).root, fork.consistency(small, large)),
        (fork.head(small).root, fork.consistency(small, large)),
        (RootHash(b"\0" * 32), log.consistency(small, large)),
        (fork.head(small).root, ()),
        (log.head(small).root, log.consistency(small, large)),
        (fork.head(small).root, (*log.consistency(small, large), b"\0" * 32)),
    ):
        with pytest.raises(TallystickError):
            judge(log, log.checkpoint(small), log.checkpoint(large), PrefixEvidence(root=root, path=path))


@given(st.data())
def test_no_evidence_made_of_an_honest_log_s_own_hashes_convicts_it(data):
    large = data.draw(st.integers(2, 24))
    small = data.draw(st.integers(1, large - 1))
    log = history(large)
    hashes = [log.head(size).root for size in range(1, large + 1)]
    hashes += [bytes(item) for old, new in pairwise(range(1, large + 1)) for item in log.consistency(old, new)]
    root = RootHash(bytes(data.draw(st.sampled_from(hashes))))
    path = tuple(bytes(item) for item in data.draw(st.lists(st.sampled_from(hashes), max_size=7)))
    with pytest.raises(TallystickError):
        judge(log, log.checkpoint(small), log.checkpoint(large), PrefixEvidence(root=root, path=path))


def test_the_same_checkpoint_twice_proves_nothing():
    log = history(5)
    with pytest.raises(ProofError, match="agree"):
        judge(log, log.checkpoint(5), log.checkpoint(5), None)


def test_two_signatures_over_one_tree_prove_nothing():
    log = history(5)
    assert log.checkpoint(5, timestamp=1) != log.checkpoint(5, timestamp=2)
    with pytest.raises(ProofError, match="agree"):
        judge(log, log.checkpoint(5, timestamp=1), log.checkpoint(5, timestamp=2), None)


def test_checkpoints_that_a_stranger_signed_accuse_nobody():
    log, stranger = history(5), simulate([b"x"] * 5, seed=9)
    with pytest.raises(TrustPolicyError):
        judge(log, log.checkpoint(5), stranger.checkpoint(5), None)
    with pytest.raises(TrustPolicyError):
        judge(log, stranger.checkpoint(5), log.checkpoint(5), None)


def test_a_checkpoint_with_a_wrong_signature_accuses_nobody():
    log, fork = history(5), history(5, forked_at=2)
    root = encode_base64(fork.head(5).root).encode()
    forged = log.checkpoint(5).replace(encode_base64(log.head(5).root).encode(), root)
    with pytest.raises(SignatureInvalidError):
        judge(log, log.checkpoint(5), forged, None)


@pytest.mark.parametrize("kept", [0, 1], ids=["Ed25519 alone", "ML-DSA-44 alone"])
def test_a_checkpoint_that_one_of_two_algorithms_signed_accuses_nobody(kept):
    log, fork = history(5), history(5, forked_at=2)
    text, _, lines = fork.checkpoint(5).partition(b"\n\n")
    half = text + b"\n\n" + lines.splitlines(keepends=True)[kept]
    with pytest.raises(TrustPolicyError, match="not signed with"):
        judge(log, log.checkpoint(5), half, None)


def test_checkpoints_of_two_logs_contradict_nobody():
    log, other = history(5), simulate([b"x"] * 5, origin="log.example/other")
    policy = TrustPolicy(logs=(*log.policy.logs, *other.policy.logs[1:]))
    file = EquivocationFile(smaller=log.checkpoint(5), larger=other.checkpoint(5))
    with pytest.raises(TrustPolicyError):
        verify_equivocation(file, policy)


def test_an_empty_tree_contradicts_nothing():
    log = history(5)
    evidence = PrefixEvidence(root=RootHash(b"\0" * 32), path=())
    with pytest.raises(ProofError, match="no evidence"):
        judge(log, log.checkpoint(0), log.checkpoint(5), evidence)
    with pytest.raises(StateError):
        prove_equivocation(log.checkpoint(0), log.checkpoint(5), log.policy, evidence_of(log))


# --- what cannot be proved -------------------------------------------------------------------------------------------


def test_two_sizes_without_the_larger_tree_prove_nothing():
    honest, fork = history(7), history(7, forked_at=2)
    with pytest.raises(StateError, match="without the tree of 7"):
        prove_equivocation(honest.checkpoint(5), fork.checkpoint(7), honest.policy, None)


def test_the_tree_of_the_smaller_checkpoint_proves_nothing_about_the_larger():
    honest, fork = history(7), history(7, forked_at=2)
    with pytest.raises(StateError, match="not that of the checkpoint of 7"):
        prove_equivocation(honest.checkpoint(5), fork.checkpoint(7), honest.policy, evidence_of(honest))


def test_that_a_log_gives_a_failing_proof_proves_nothing():
    log = history(7)
    path = tuple(bytes(item) for item in log.consistency(5, 7))
    flipped = (bytes([path[0][0] ^ 1]) + path[0][1:], *path[1:])
    with pytest.raises(TallystickError):
        verify_consistency(log.head(5), log.head(7), flipped)
    with pytest.raises(TallystickError):
        judge(log, log.checkpoint(5), log.checkpoint(7), PrefixEvidence(root=log.head(5).root, path=flipped))


# --- the file's form -------------------------------------------------------------------------------------------------


def mutations() -> dict[str, bytes]:
    honest, fork = history(7), history(7, forked_at=2)
    unequal, equal = accuse(honest, 5, fork, 7), accuse(honest, 7, fork, 7)
    data, same = unequal.encode(), equal.encode()
    swapped = EquivocationFile(smaller=unequal.larger, larger=unequal.smaller, evidence=unequal.evidence)
    prefix = data.split(b"\n")[1]
    return {
        "nothing": b"",
        "another format": data.replace(b"@v1", b"@v2", 1),
        "no format": data.partition(b"\n")[2],
        "a checkpoint alone": honest.checkpoint(5),
        "one checkpoint": same.removesuffix(b"\n" + equal.larger),
        "a third checkpoint": data + b"\n" + unequal.larger,
        "no prefix": data.replace(prefix + b"\n", b""),
        "two prefixes": data.replace(prefix, prefix + b"\n" + prefix),
        "a short prefix": data.replace(prefix, b"prefix AAAA"),
        "a prefix for one size": same.replace(b"@v1\n", b"@v1\n" + prefix + b"\n"),
        "a hash that is none": data.replace(prefix, prefix + b"\nx"),
        "no ASCII": data.replace(prefix, prefix + b"\n\xc3\xa9"),
        "too many hashes": data.replace(prefix, prefix + (b"\n" + prefix.split()[1]) * 64),
        "the larger first": swapped.encode(),
        "other line ends": data.replace(b"\n", b"\r\n"),
        "cut short": data[:-1],
        "behind it": data + b"x",
    }


@pytest.mark.parametrize("name", list(mutations()))
def test_a_file_of_another_form_is_malformed(name):
    with pytest.raises(MalformedError):
        parse_equivocation(mutations()[name])


def test_no_changed_byte_of_a_file_makes_another_proof():
    honest, fork = history(7), history(7, forked_at=2)
    data = accuse(honest, 5, fork, 7).encode()
    # Every byte of the header and of both texts; in the long signatures, every hundredth.
    texts = [index for index in range(len(data)) if index % 100 == 0 or index < 400]
    for index in texts:
        changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        with pytest.raises(TallystickError):
            verify_equivocation(parse_equivocation(changed), honest.policy)


def test_the_format_is_named_in_the_first_line():
    assert accuse(history(3), 3, history(3, forked_at=1), 3).encode().startswith(EQUIVOCATION_FORMAT.encode() + b"\n")
