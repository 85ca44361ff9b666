"""Signatures over bundles: about these bytes, by every trusted key and by nobody else."""

from __future__ import annotations

import json

import pytest

from ledger.envelopes import ED25519, MLDSA44, EnvelopeKey, parse_envelope, seal_envelope
from ledger.errors import ConfigError, MalformedError, SignatureInvalidError, TrustPolicyError, VerificationError
from ledger.keys import generate_key
from ledger.signers.local import LocalEnvelopeSigner
from policies.signatures import (
    MAX_SIGNATURE_BYTES,
    format_trusted_keys,
    parse_trusted_keys,
    sign_bundle,
    verify_signature,
)
from tests.support.packs import ready_bundle

BUNDLE, OTHER = ready_bundle(), ready_bundle('@id("all") permit (principal, action, resource);')
SIGNERS = [
    LocalEnvelopeSigner(generate_key("bundle", algorithm, "ann", created_ms=1), purpose="bundle")
    for algorithm in (ED25519, MLDSA44)
]
STRANGER = LocalEnvelopeSigner(generate_key("bundle", ED25519, "eve", created_ms=1), purpose="bundle")
KEYS = [signer.envelope_key for signer in SIGNERS]
SIGNED = sign_bundle(BUNDLE, SIGNERS)


def test_a_bundle_signed_by_every_trusted_key_verifies():
    verify_signature(SIGNED, BUNDLE, KEYS)


def test_the_statement_names_the_revision_as_in_toto_does():
    statement = json.loads(parse_envelope(SIGNED).payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "shop", "digest": {"sha256": BUNDLE.revision}}]


def test_a_signature_is_about_one_revision():
    with pytest.raises(VerificationError, match="not about the bundle"):
        verify_signature(SIGNED, OTHER, KEYS)


def test_a_statement_of_another_type_is_no_signature_of_a_bundle():
    sealed = seal_envelope("application/json", parse_envelope(SIGNED).payload, SIGNERS)
    with pytest.raises(VerificationError, match="not about the bundle"):
        verify_signature(sealed, BUNDLE, KEYS)


@pytest.mark.parametrize("signers", [SIGNERS[:1], SIGNERS[1:], [*SIGNERS, STRANGER], [STRANGER]])
def test_one_signature_too_few_or_too_many_is_not_trusted(signers):
    with pytest.raises(TrustPolicyError):
        verify_signature(sign_bundle(BUNDLE, signers), BUNDLE, KEYS)


def test_without_a_trusted_key_nothing_verifies():
    with pytest.raises(TrustPolicyError):
        verify_signature(SIGNED, BUNDLE, [])


@pytest.mark.parametrize("number", [0, 1])
def test_a_flipped_bit_of_either_signature_is_seen(number):
    value = json.loads(SIGNED)
    text = value["signatures"][number]["sig"]
    value["signatures"][number]["sig"] = ("B" if text[0] != "B" else "C") + text[1:]
    broken = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(SignatureInvalidError):
        verify_signature(broken, BUNDLE, KEYS)


@pytest.mark.parametrize("data", [b"", b"{}", SIGNED[:-1], SIGNED + b"\n", b" " * (MAX_SIGNATURE_BYTES + 1)])
def test_what_is_no_envelope_is_malformed(data):
    with pytest.raises(MalformedError):
        verify_signature(data, BUNDLE, KEYS)


def test_trusted_keys_come_back_from_their_lines():
    assert parse_trusted_keys(f"# of ann\n\n{format_trusted_keys(KEYS)}") == tuple(KEYS)


@pytest.mark.parametrize(
    "text",
    [
        *("", "# none\n", "ed25519", "ed25519 AAAA", "rsa AAAA", "ed25519 *", format_trusted_keys(KEYS * 2)),
        format_trusted_keys([EnvelopeKey(ED25519, bytes([n]) * 32) for n in range(17)]),
    ],
)
def test_what_are_no_trusted_keys_is_malformed(text):
    with pytest.raises(MalformedError):
        parse_trusted_keys(text)


def test_a_pack_key_signs_no_bundle_and_a_bundle_key_no_pack():
    with pytest.raises(ConfigError):
        LocalEnvelopeSigner(generate_key("pack", ED25519, "p", created_ms=1), purpose="bundle")
    with pytest.raises(ConfigError):
        LocalEnvelopeSigner(generate_key("bundle", ED25519, "p", created_ms=1))
