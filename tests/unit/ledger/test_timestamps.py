"""RFC 3161 tokens over checkpoints: what a real authority's token proves, and every token that proves nothing.

Tokens are made by ``openssl ts`` and ``openssl cms``, certificates by `cryptography`; they are judged by
`rfc3161_client` and by what `ledger.timestamps` adds.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from ledger.anchors.rfc3161 import HTTPTimestampAuthority
from ledger.clock import SimulatedClock, SystemClock
from ledger.errors import (
    ConfigError,
    MalformedError,
    TallystickError,
    TimestampError,
    TrustPolicyError,
    VerificationError,
)
from ledger.timestamps import TimestampTrust, parse_roots, verify_timestamp
from tests.conformance.requirements import requirement
from tests.support.checkpoints import make_checkpoint
from tests.support.tsa import GRANTED, OTHER_POLICY, POLICY, Authority, make_authority

CHECKPOINT = make_checkpoint(600)
DAY = timedelta(days=1)


def ask(checkpoint: bytes = CHECKPOINT, *, nonce: bool = True, digest: HashAlgorithm = HashAlgorithm.SHA256):
    return TimestampRequestBuilder().data(checkpoint).hash_algorithm(digest).nonce(nonce=nonce).build()


def trust(authority: Authority, policy: str | None = POLICY) -> TimestampTrust:
    return TimestampTrust(roots=parse_roots(authority.roots), policy=policy)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tsa") / "good")


@pytest.fixture(scope="module")
def token(authority: Authority) -> bytes:
    return authority.reply(ask().as_bytes())


def now_ms() -> int:
    return SystemClock().now_ms()


# --- what holds ------------------------------------------------------------------------------------------------------


@requirement("timestamp-01")
def test_a_token_of_a_trusted_authority_says_when_the_checkpoint_existed(authority, token):
    trusted = verify_timestamp(token, CHECKPOINT, trust(authority))
    assert abs(trusted.time_ms - now_ms()) < 60_000
    assert (trusted.accuracy_ms, trusted.policy, trusted.authority) == (1000, POLICY, "CN=authority tsa")


def test_the_authority_s_certificates_may_stand_in_any_order(authority, token):
    # OpenSSL puts the signer's first; half of all chains are then not in the order that DER demands of a set.
    other = make_authority(authority.folder.parent / "another order")
    verify_timestamp(other.reply(ask().as_bytes()), CHECKPOINT, trust(other))
    for folder in range(4):
        one = make_authority(authority.folder.parent / str(folder))
        verify_timestamp(one.reply(ask().as_bytes()), CHECKPOINT, trust(one))


def test_any_policy_will_do_where_none_is_demanded(authority, token):
    assert verify_timestamp(token, CHECKPOINT, trust(authority, None)).policy == POLICY


def test_a_token_signed_while_its_certificate_was_valid_holds_after_that_expired(tmp_path):
    short = make_authority(tmp_path / "short", valid=(-DAY, timedelta(seconds=2)))
    made_ms = now_ms()
    reply = short.reply(ask().as_bytes())
    # OpenSSL's command tells no other time than that of the machine, and a certificate knows whole seconds.
    time.sleep(max(0.0, 3.0 - (now_ms() - made_ms) / 1000))
    assert verify_timestamp(reply, CHECKPOINT, trust(short)).time_ms <= made_ms + 2000


# --- what does not ---------------------------------------------------------------------------------------------------


@requirement("timestamp-02")
def test_a_token_over_other_bytes_proves_nothing(authority, token):
    for other in (make_checkpoint(601), CHECKPOINT + b"\n", CHECKPOINT[:-1], b""):
        with pytest.raises(VerificationError, match="Mismatch between messages"):
            verify_timestamp(token, other, trust(authority))


@requirement("timestamp-03")
def test_another_nonce_is_refused(authority):
    request = ask()
    reply = authority.reply(request.as_bytes())
    verify_timestamp(reply, CHECKPOINT, trust(authority), nonce=request.nonce)
    with pytest.raises(VerificationError, match="Nonce"):
        verify_timestamp(reply, CHECKPOINT, trust(authority), nonce=request.nonce ^ 1)


@requirement("timestamp-03")
def test_an_answer_without_the_nonce_that_was_sent_is_refused(authority):
    reply = authority.reply(ask(nonce=False).as_bytes())
    verify_timestamp(reply, CHECKPOINT, trust(authority))
    with pytest.raises(VerificationError, match="Nonce"):
        verify_timestamp(reply, CHECKPOINT, trust(authority), nonce=5)


@requirement("timestamp-04")
def test_another_policy_is_refused(authority, token):
    with pytest.raises(VerificationError, match="Policy"):
        verify_timestamp(token, CHECKPOINT, trust(authority, OTHER_POLICY))


@requirement("timestamp-05")
def test_a_chain_to_a_root_that_was_not_given_does_not_meet_the_trust(authority, token, tmp_path):
    # Of the same names, so that only keys tell them apart; and one with other names.
    for name in ("authority", "foreign"):
        foreign = make_authority(tmp_path / name, name=name)
        with pytest.raises(TrustPolicyError):
            verify_timestamp(token, CHECKPOINT, trust(foreign))


@requirement("timestamp-05")
@pytest.mark.parametrize("file", ["tsa.pem", "chain.pem"])
def test_a_certificate_that_is_no_root_is_no_root_because_it_is_given_as_one(authority, token, file):
    given = TimestampTrust(roots=parse_roots((authority.folder / file).read_bytes()), policy=POLICY)
    with pytest.raises(TrustPolicyError):
        verify_timestamp(token, CHECKPOINT, given)


def test_without_a_root_nothing_is_trusted(token):
    with pytest.raises(TrustPolicyError, match="no root"):
        verify_timestamp(token, CHECKPOINT, TimestampTrust(roots=()))


@requirement("timestamp-05")
@pytest.mark.parametrize(("start", "end"), [(-3 * DAY, -DAY), (DAY, 3 * DAY)], ids=["expired", "not yet valid"])
def test_a_certificate_that_was_not_valid_then_does_not_meet_the_trust(tmp_path, start, end):
    late = make_authority(tmp_path / "late", valid=(start, end))
    with pytest.raises(TrustPolicyError, match="not valid"):
        verify_timestamp(late.reply(ask().as_bytes()), CHECKPOINT, trust(late))


STAMPING, SERVER = ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.SERVER_AUTH


@requirement("timestamp-06")
@pytest.mark.parametrize(
    ("usage", "critical"),
    [(None, False), ([STAMPING], False), ([SERVER], True), ([STAMPING, SERVER], True)],
    ids=["no purpose", "not critical", "another purpose", "another purpose as well"],
)
def test_a_certificate_that_is_not_for_time_stamping_alone_dates_nothing(authority, tmp_path, usage, critical):
    extension = None if usage is None else x509.ExtendedKeyUsage(usage)
    unfit = make_authority(tmp_path / "unfit", usage=extension, critical=critical)
    reply = authority.reply_with(ask().as_bytes(), unfit)
    with pytest.raises(VerificationError):
        verify_timestamp(reply, CHECKPOINT, trust(unfit))


def test_the_same_forgery_with_a_fit_certificate_would_hold(authority, tmp_path):
    # Else the test above would show nothing.
    fit = make_authority(tmp_path / "fit")
    verify_timestamp(authority.reply_with(ask().as_bytes(), fit), CHECKPOINT, trust(fit))


@requirement("timestamp-07")
@pytest.mark.parametrize(
    ("status", "told"),
    [(1, "granted with mods"), (2, "rejection"), (3, "waiting"), (5, "revocation notification"), (9, "status 9")],
)
def test_an_answer_that_is_not_granted_proves_nothing_though_its_token_would(authority, token, status, told):
    changed = token.replace(GRANTED, GRANTED[:-1] + bytes([status]), 1)
    with pytest.raises(VerificationError, match=told):
        verify_timestamp(changed, CHECKPOINT, trust(authority))


def test_a_rejection_without_a_token_is_told_as_one(authority):
    rejected = authority.reply(bytes.fromhex("3003020100"))
    with pytest.raises(VerificationError, match="rejection"):
        verify_timestamp(rejected, CHECKPOINT, trust(authority))


def test_an_answer_that_says_granted_and_holds_no_token_is_malformed(authority):
    with pytest.raises(MalformedError):
        verify_timestamp(b"\x30\x05" + GRANTED, CHECKPOINT, trust(authority))


def test_a_digest_of_another_kind_is_refused(authority):
    reply = authority.reply(ask(digest=HashAlgorithm.SHA512).as_bytes())
    with pytest.raises(VerificationError, match="another digest"):
        verify_timestamp(reply, CHECKPOINT, trust(authority))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda token: token[:-1],
        lambda token: token[: len(token) // 2],
        lambda token: token + b"\0",
        lambda token: token[1:],
        lambda token: b"\x30\x80" + token,
        lambda _: b"\x30\x84\xff\xff\xff\xff",
        lambda _: b"\0" * 70_000,
        lambda _: b"<html>",
    ],
)
def test_bytes_that_are_no_token_are_malformed(authority, token, change):
    with pytest.raises(MalformedError):
        verify_timestamp(change(token), CHECKPOINT, trust(authority))


def test_no_changed_byte_of_a_token_makes_another_time(authority, token):
    true = verify_timestamp(token, CHECKPOINT, trust(authority))
    held = 0
    for index in range(0, len(token), 3):
        changed = token[:index] + bytes([token[index] ^ 1]) + token[index + 1 :]
        try:
            # What no signature covers may change, such as a spare certificate's copy; what the token says may not.
            assert verify_timestamp(changed, CHECKPOINT, trust(authority)) == true
            held += 1
        except TallystickError:
            pass
    assert held < len(token) / 30


@pytest.mark.parametrize("pem", [b"", b"text", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_without_certificates_is_malformed(pem):
    with pytest.raises(MalformedError):
        parse_roots(pem)


# --- the client ------------------------------------------------------------------------------------------------------


def client(authority: Authority, *, clock=None, url: str = "https://tsa.example/tsr", policy: str | None = POLICY):
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/timestamp-query"
        status, media_type, body = authority.answer(request.content)
        return httpx.Response(status, headers={"Content-Type": media_type}, stream=httpx.ByteStream(body))

    return HTTPTimestampAuthority(
        url,
        trust(authority, policy),
        clock=clock or SystemClock(),
        timeout_seconds=5.0,
        transport=httpx.MockTransport(handle),
    )


@pytest.fixture
def asked(authority: Authority):
    authority.requests.clear()
    yield authority
    authority.instead = None


def test_a_checkpoint_is_dated_and_its_token_holds_offline(asked):
    kept = client(asked).stamp(600, CHECKPOINT)
    assert (kept.size, kept.checkpoint) == (600, CHECKPOINT)
    assert verify_timestamp(kept.token, CHECKPOINT, trust(asked)).time_ms == kept.time_ms
    assert abs(kept.kept_ms - kept.time_ms) < 60_000


def test_only_a_digest_leaves_the_house(asked):
    client(asked).stamp(600, CHECKPOINT)
    (request,) = asked.requests
    assert hashlib.sha256(CHECKPOINT).digest() in request
    assert CHECKPOINT not in request
    assert len(request) < 100


def test_every_request_has_its_own_nonce(asked):
    for _ in range(3):
        client(asked).stamp(600, CHECKPOINT)
    assert len(set(asked.requests)) == 3


def test_an_answer_to_an_earlier_request_is_refused(asked):
    client(asked).stamp(600, CHECKPOINT)
    earlier = asked.reply(asked.requests[0])
    asked.instead = lambda _: (200, "application/timestamp-reply", earlier)
    with pytest.raises(TimestampError, match="Nonce"):
        client(asked).stamp(600, CHECKPOINT)


@pytest.mark.parametrize("apart_s", [-400, 400])
def test_an_authority_whose_clock_is_far_from_ours_is_refused(asked, apart_s):
    with pytest.raises(TimestampError, match="one of them is wrong"):
        client(asked, clock=SimulatedClock(now_ms() - apart_s * 1000)).stamp(600, CHECKPOINT)


def test_the_skew_of_the_clocks_is_kept(asked):
    kept = client(asked, clock=SimulatedClock(now_ms() - 100_000)).stamp(600, CHECKPOINT)
    assert 95_000 < kept.time_ms - kept.kept_ms < 105_000


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, "", b""), "status 500"),
        ((404, "", b""), "status 404"),
        ((302, "", b""), "status 302"),
        ((200, "text/html", b"<html>"), "refused"),
        ((200, "", b""), "refused"),
        ((200, "", b"\x30\x03\x02\x01\x00"), "refused"),
        ((200, "", b"\0" * 100_000), "more than"),
    ],
)
def test_an_answer_that_is_no_token_is_a_timestamp_error(asked, answer, told):
    asked.instead = lambda _: answer
    with pytest.raises(TimestampError, match=told):
        client(asked).stamp(600, CHECKPOINT)


def test_a_token_under_another_policy_is_a_timestamp_error(asked):
    with pytest.raises(TimestampError, match="Policy"):
        client(asked, policy=OTHER_POLICY).stamp(600, CHECKPOINT)


@pytest.mark.parametrize("url", ["", "tsa.example", "ftp://tsa.example/", "https://user:word@tsa.example/"])
def test_an_authority_without_a_usable_url_is_refused(authority, url):
    with pytest.raises(ConfigError):
        client(authority, url=url)


def test_openssl_itself_verifies_what_is_kept(authority, token, tmp_path: Path):
    for name, data in (("checkpoint", CHECKPOINT), ("token.tsr", token), ("roots.pem", authority.roots)):
        (tmp_path / name).write_bytes(data)
    command = ["openssl", "ts", "-verify", "-data", "checkpoint", "-in", "token.tsr", "-CAfile", "roots.pem"]
    command += ["-untrusted", str(authority.folder / "chain.pem")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verification: OK" in done.stdout + done.stderr
