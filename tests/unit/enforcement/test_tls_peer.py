"""What a scope says of its TLS connection, and what it must not be believed."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from enforcement.tls_peer import HYBRID_GROUPS, UNKNOWN, TLSPeer, describe_peer, extension_of, names_of, peer_of

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = (
    x509.UniformResourceIdentifier("spiffe://acme/agent/finance"),
    x509.DNSName("agent.example.com"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
    x509.RFC822Name("a@example.com"),
)


def certificate_of(*names: x509.GeneralName) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finance")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def scope_of(**said: Any) -> dict[str, Any]:
    return {"type": "http", "extensions": {"tls": said}}


def test_every_name_has_its_kind_before_it() -> None:
    assert names_of(certificate_of(*NAMES)) == (
        "URI:spiffe://acme/agent/finance",
        "DNS:agent.example.com",
        "IP:10.0.0.1",
        "email:a@example.com",
    )


def test_a_host_that_is_named_like_a_uri_does_not_pass_for_one() -> None:
    (name,) = names_of(certificate_of(x509.DNSName("spiffe://acme/agent/finance")))
    assert name == "DNS:spiffe://acme/agent/finance"


def test_a_certificate_without_alternative_names_has_none_whatever_its_subject_says() -> None:
    assert names_of(certificate_of()) == ()


def test_a_scope_without_tls_has_no_peer() -> None:
    assert peer_of({"type": "http"}) is None
    assert peer_of({"type": "http", "extensions": None}) is None
    assert peer_of({"type": "http", "extensions": {"tls": None}}) is None
    assert peer_of({"type": "http", "headers": [(b"x-client-cert", b"finance")]}) is None


def test_what_our_own_server_read_comes_back_as_it_is() -> None:
    certificate = certificate_of(*NAMES)
    peer = describe_peer(
        version="TLSv1.3", group="X25519MLKEM768", cipher="TLS_AES_128_GCM_SHA256", certificate=certificate
    )
    extension = extension_of(peer, certificate)
    assert peer_of({"extensions": {"tls": extension}}) is peer
    assert peer.hybrid
    assert (extension["tls_version"], extension["cipher_suite"]) == (0x0304, 0x1301)
    assert extension["client_cert_chain"] == [pem(certificate)]
    assert extension["client_cert_name"] == "CN=finance"
    assert peer.certificate_sha256 == certificate.fingerprint(hashes.SHA256()).hex()


def test_the_extension_of_another_server_is_read_by_its_members() -> None:
    certificate = certificate_of(*NAMES)
    peer = peer_of(scope_of(tls_version=0x0304, cipher_suite=0x1302, client_cert_chain=[pem(certificate)]))
    assert peer == TLSPeer(
        version="TLSv1.3",
        group=UNKNOWN,
        cipher="TLS_AES_256_GCM_SHA384",
        sans=names_of(certificate),
        certificate_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def test_a_certificate_that_was_not_verified_gives_no_name() -> None:
    chain = [pem(certificate_of(*NAMES))]
    peer = peer_of(scope_of(tls_version=0x0304, client_cert_chain=chain, client_cert_error="unable to verify"))
    assert peer is not None
    assert (peer.sans, peer.certificate_sha256) == ((), None)


@pytest.mark.parametrize("chain", [["no certificate"], ["-----BEGIN CERTIFICATE-----\n"], ["ß"], [None], [b"\x30"]])
def test_a_certificate_that_cannot_be_read_gives_no_name(chain: list[object]) -> None:
    peer = peer_of(scope_of(tls_version=0x0304, client_cert_chain=chain))
    assert peer == TLSPeer(version="TLSv1.3", group=UNKNOWN, cipher=UNKNOWN)


@pytest.mark.parametrize("said", [{}, {"tls_version": "1.3"}, {"tls_version": 0x0301, "cipher_suite": [1]}])
def test_what_is_not_said_is_unknown(said: dict[str, Any]) -> None:
    assert peer_of(scope_of(**said)) == TLSPeer(version=UNKNOWN, group=UNKNOWN, cipher=UNKNOWN)


@pytest.mark.parametrize("group", ["x25519", "secp256r1", UNKNOWN, "", "X25519"])
def test_a_classical_key_agreement_is_not_a_hybrid(group: str) -> None:
    assert not TLSPeer(version="TLSv1.3", group=group, cipher=UNKNOWN).hybrid
    assert group not in HYBRID_GROUPS
