"""The add-checkpoint client: what it sends, what it takes for a cosignature, and what bounds a witness's answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import httpx
import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.cosignatures import (
    AddCheckpoint,
    parse_add_checkpoint,
    parse_cosignatures,
    parse_size,
    verify_cosignature,
    with_cosignatures,
)
from ledger.errors import ConfigError, MalformedError, SignatureInvalidError, WitnessError, WitnessSizeError
from ledger.notes import parse_vkey
from ledger.trust import Witness
from ledger.witnesses.client import HTTPWitness
from tests.conformance.requirements import requirement
from tests.support.checkpoints import make_checkpoint
from tests.support.witness import SIZE_TYPE, ReferenceWitness, reference_witness

CHECKPOINT = make_checkpoint(8)
HASHES = tuple(bytes([number]) * 32 for number in range(3))


def client(witness: ReferenceWitness, *, url: str = "https://w.example/prefix/", **options) -> HTTPWitness:
    options = {"timeout_seconds": 5.0, "transport": witness.transport(), **options}
    return HTTPWitness(Witness("w1", parse_vkey(witness.vkey), url), **options)


def answering(status: int, body: bytes, media_type: str = "text/plain") -> HTTPWitness:
    witness = reference_witness()
    witness.instead = lambda _: (status, media_type, body)
    return client(witness)


def ask(one: HTTPWitness, *, old_size: int = 0, proof: tuple[bytes, ...] = ()):
    return one.add_checkpoint(CHECKPOINT, old_size=old_size, proof=proof)


# --- the request -----------------------------------------------------------------------------------------------------


@requirement("witness-01")
def test_a_request_is_an_old_size_a_proof_an_empty_line_and_the_checkpoint():
    body = AddCheckpoint(old_size=3, proof=HASHES[:2], checkpoint=CHECKPOINT).encode()
    lines = [base64.standard_b64encode(item).decode() for item in HASHES[:2]]
    assert body == f"old 3\n{lines[0]}\n{lines[1]}\n\n".encode() + CHECKPOINT
    assert parse_add_checkpoint(body) == AddCheckpoint(old_size=3, proof=HASHES[:2], checkpoint=CHECKPOINT)


@requirement("witness-01")
@pytest.mark.parametrize(
    "header",
    [
        "",
        "old",
        "old ",
        "old 03",
        "old -1",
        "old +1",
        "old 1 ",
        "Old 1",
        "old 1\r",
        "old 9999999999999999999",
        "size 1",
    ],
)
def test_a_request_without_a_plain_old_size_is_malformed(header):
    with pytest.raises(MalformedError):
        parse_add_checkpoint(f"{header}\n\n".encode() + CHECKPOINT)


@requirement("witness-02")
@pytest.mark.parametrize("line", ["AAAA", "!", "A" * 44, " " + "A" * 43 + "=", "\u00e9", "A" * 42 + "B="])
def test_a_proof_line_that_is_no_hash_is_malformed(line):
    with pytest.raises(MalformedError):
        parse_add_checkpoint(f"old 1\n{line}\n\n".encode() + CHECKPOINT)


@requirement("witness-02")
def test_a_request_holds_at_most_63_hashes():
    most = AddCheckpoint(old_size=1, proof=HASHES[:1] * 63, checkpoint=CHECKPOINT)
    assert parse_add_checkpoint(most.encode()) == most
    with pytest.raises(MalformedError):
        AddCheckpoint(old_size=1, proof=HASHES[:1] * 64, checkpoint=CHECKPOINT).encode()
    line = base64.standard_b64encode(HASHES[0]) + b"\n"
    with pytest.raises(MalformedError):
        parse_add_checkpoint(b"old 1\n" + line * 64 + b"\n" + CHECKPOINT)


def test_a_request_without_an_empty_line_is_malformed():
    with pytest.raises(MalformedError):
        parse_add_checkpoint(b"old 1\n")


def test_what_is_sent_is_the_request_to_add_checkpoint_below_the_prefix():
    seen: list[httpx.Request] = []
    witness = reference_witness()

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        status, _, body = witness.answer(request.content)
        return httpx.Response(status, stream=httpx.ByteStream(body))

    ask(client(witness, transport=httpx.MockTransport(handle)))
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://w.example/prefix/add-checkpoint")
    assert request.content == b"old 0\n\n" + CHECKPOINT


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "w.example",
        "ftp://w.example",
        "https://",
        "https://w.example/?a=1",
        "https://w.example/#a",
        "https://w.example:port",
    ],
)
def test_a_witness_without_a_usable_url_is_refused(url):
    with pytest.raises(ConfigError, match="w1"):
        client(reference_witness(), url=url)


# --- the answer ------------------------------------------------------------------------------------------------------


@requirement("witness-03")
@pytest.mark.parametrize("mldsa", [False, True], ids=["Ed25519", "ML-DSA-44"])
def test_a_verified_cosignature_of_the_witness_is_returned(mldsa):
    witness = reference_witness(mldsa=mldsa)
    line = ask(client(witness))
    parsed = parse_unverified_checkpoint(CHECKPOINT)
    assert verify_cosignature(parse_vkey(witness.vkey), parsed, line) == witness.time
    cosigned = with_cosignatures(parsed, [line])
    assert cosigned.startswith(CHECKPOINT)
    assert parse_unverified_checkpoint(cosigned).note.signatures == (*parsed.note.signatures, line)


@requirement("witness-04")
def test_lines_of_unknown_keys_are_ignored_wherever_they_stand():
    witness = reference_witness()
    strangers = reference_witness("one"), reference_witness("other", mldsa=True)

    def both(body: bytes):
        lines = [one.honest(body)[2] for one in (strangers[0], witness, strangers[1])]
        return 200, "", b"".join(lines)

    witness.instead = both
    assert ask(client(witness)).name == "witness.example/w1"


@requirement("witness-04")
def test_an_answer_of_unknown_keys_alone_is_no_cosignature():
    witness, stranger = reference_witness(), reference_witness("stranger")
    witness.instead = stranger.honest
    with pytest.raises(WitnessError, match="without a cosignature of the key"):
        ask(client(witness))


@pytest.mark.parametrize("mldsa", [False, True], ids=["Ed25519", "ML-DSA-44"])
def test_a_cosignature_of_another_checkpoint_is_refused(mldsa):
    witness = reference_witness(mldsa=mldsa)
    other = witness.honest(b"old 0\n\n" + make_checkpoint(8, tree="b"))
    witness.instead = lambda _: other
    with pytest.raises(WitnessError, match=r"signature of witness\.example/w1 is wrong"):
        ask(client(witness))


def test_a_wrong_cosignature_is_refused_though_a_right_one_follows():
    witness = reference_witness()
    wrong = witness.honest(b"old 0\n\n" + make_checkpoint(9))[2]
    witness.size = 0
    right = witness.honest(b"old 0\n\n" + CHECKPOINT)[2]
    witness.instead = lambda _: (200, "", wrong + right)
    with pytest.raises(WitnessError):
        ask(client(witness))


@pytest.mark.parametrize("mldsa", [False, True], ids=["Ed25519", "ML-DSA-44"])
def test_a_cosignature_without_a_time_is_refused(mldsa):
    witness = reference_witness(mldsa=mldsa)
    witness.time = 0
    with pytest.raises(WitnessError, match="carries no time"):
        ask(client(witness))


def test_the_log_s_own_signature_is_no_cosignature():
    own = parse_unverified_checkpoint(CHECKPOINT).note.signatures[0].encode().encode()
    with pytest.raises(WitnessError, match="without a cosignature"):
        ask(answering(200, own))


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"cosigned\n", b"\xff\n", "\u2014 w AAAA".encode(), "\u2014 w AAAA\n".encode(), b"{}\n"],
    ids=["nothing", "an empty line", "words", "not UTF-8", "no line feed", "no signature", "JSON"],
)
def test_an_answer_that_is_no_signature_lines_is_refused(body):
    with pytest.raises(WitnessError, match="no cosignature of its own"):
        ask(answering(200, body))


def test_an_answer_that_would_move_the_end_of_the_text_is_refused():
    witness = reference_witness()
    line = witness.honest(b"old 0\n\n" + CHECKPOINT)[2]
    parsed = parse_unverified_checkpoint(CHECKPOINT)
    with pytest.raises(MalformedError, match="more than signature lines"):
        parse_cosignatures(line + b"\n" + line, parsed)
    with pytest.raises(WitnessError):
        ask(answering(200, line + b"\n" + line))


# --- refusals --------------------------------------------------------------------------------------------------------


@requirement("witness-05")
def test_a_conflict_says_which_size_the_witness_has_cosigned():
    with pytest.raises(WitnessSizeError) as caught:
        ask(answering(409, b"5\n", SIZE_TYPE))
    assert caught.value.size == 5


@requirement("witness-05")
@pytest.mark.parametrize("body", [b"", b"5", b"05\n", b"5\n\n", b"-5\n", b"five\n", b" 5\n", b"99999999999999999999\n"])
def test_a_conflict_that_says_no_size_is_a_failure_and_no_size(body):
    with pytest.raises(WitnessError) as caught:
        ask(answering(409, body, SIZE_TYPE))
    assert not isinstance(caught.value, WitnessSizeError)
    with pytest.raises(MalformedError):
        parse_size(body)


def test_a_conflict_over_the_size_that_we_said_contradicts_itself():
    with pytest.raises(WitnessError, match="contradicts itself") as caught:
        ask(answering(409, b"3\n", SIZE_TYPE), old_size=3, proof=HASHES)
    assert not isinstance(caught.value, WitnessSizeError)


@pytest.mark.parametrize(("body", "kind"), [(b"8\n", SIZE_TYPE), (b"another root", "text/plain")])
def test_a_conflict_over_the_size_that_we_offer_is_told_as_another_tree(body, kind):
    with pytest.raises(WitnessError, match="another tree of the same size"):
        ask(answering(409, body, kind), old_size=8)


@requirement("witness-06")
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "malformed"),
        (403, "trusts none"),
        (404, "does not know this log"),
        (422, "another tree"),
        (429, "too often"),
        (500, "status 500"),
        (202, "status 202"),
        (301, "status 301"),
    ],
)
def test_a_refusal_is_told_in_words(status, told):
    with pytest.raises(WitnessError, match=told) as caught:
        ask(answering(status, b"secret words of a stranger"))
    assert "secret" not in str(caught.value)


def test_an_answer_without_end_is_broken_off():
    read = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1000
                yield b"\xe2\x80\x94 w " * 100

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    with pytest.raises(WitnessError, match="more than"):
        ask(client(reference_witness(), transport=transport))
    assert read < 200_000


def test_an_answer_that_trickles_ends_with_the_time():
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.01)
                yield b"a"

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Trickle()))
    with pytest.raises(WitnessError, match=r"within 0\.1 s"):
        ask(client(reference_witness(), transport=transport, timeout_seconds=0.1))


def test_a_witness_that_cannot_be_reached_is_a_witness_error_without_its_words():
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("words")

    with pytest.raises(WitnessError, match="cannot be asked") as caught:
        ask(client(reference_witness(), transport=httpx.MockTransport(fail)))
    assert "words" not in str(caught.value)


def test_a_redirection_is_not_followed():
    seen = []

    def move(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(307, headers={"Location": "https://elsewhere.example/"}, stream=httpx.ByteStream(b""))

    with pytest.raises(WitnessError, match="status 307"):
        ask(client(reference_witness(), transport=httpx.MockTransport(move)))
    assert len(seen) == 1


def test_a_cosignature_offered_for_another_key_is_refused():
    witness, other = reference_witness(), reference_witness("w2")
    line = ask(client(witness))
    with pytest.raises(SignatureInvalidError):
        verify_cosignature(parse_vkey(other.vkey), parse_unverified_checkpoint(CHECKPOINT), line)
