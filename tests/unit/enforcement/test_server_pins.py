"""Pins of servers: all that is pinned must be met, and what cannot be read meets nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from enforcement.config import ServerSettings
from enforcement.config_upstream import PinSettings
from enforcement.server_pins import ServerIdentityError, check_certificate
from enforcement.tls_development import Wish
from tests.support.pki import PKI

URI = "spiffe://acme/server/finance"
OTHER = "00" * 32


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> x509.Certificate:
    files = PKI(tmp_path_factory.mktemp("pki")).files(Wish(name="s", hosts=("localhost",), uris=(URI,), server=True))
    return x509.load_pem_x509_certificate(Path(files.certificate).read_bytes())


def key_of(certificate: x509.Certificate) -> str:
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def check(certificate: x509.Certificate, **pin: Any) -> None:
    check_certificate(certificate.public_bytes(Encoding.DER), PinSettings.model_validate(pin))


def test_a_server_with_a_pinned_key_and_name_is_the_one_that_was_meant(certificate: x509.Certificate) -> None:
    check(certificate, spki_sha256=[OTHER, key_of(certificate)])
    check(certificate, sans=[URI])
    check(certificate, sans=["DNS:localhost", "DNS:elsewhere.example"], spki_sha256=[key_of(certificate)])


@pytest.mark.parametrize(
    "sans",
    [["DNS:local"], ["DNS:a.localhost"], [f"{URI}/x"], [URI.removesuffix("e")], ["spiffe://acme/server"], ["DNS:acme"]],
)
def test_another_name_is_another_server(certificate: x509.Certificate, sans: list[str]) -> None:
    with pytest.raises(ServerIdentityError):
        check(certificate, sans=sans)


def test_one_of_two_pins_does_not_suffice(certificate: x509.Certificate) -> None:
    for pin in (
        {"spki_sha256": [OTHER], "sans": [URI]},
        {"spki_sha256": [key_of(certificate)], "sans": ["DNS:elsewhere.example"]},
        {"spki_sha256": [hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()]},  # of the certificate
    ):
        with pytest.raises(ServerIdentityError):
            check(certificate, **pin)


@pytest.mark.parametrize("der", [None, b"", b"\x30\x03\x02\x01\x01", b"not DER"])
def test_a_certificate_that_cannot_be_read_meets_no_pin(der: bytes | None) -> None:
    with pytest.raises(ServerIdentityError):
        check_certificate(der, PinSettings(spki_sha256=(OTHER,)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"url": "http://127.0.0.1/mcp", "pin": {"spki_sha256": [OTHER]}}, "the url is not https"),
        ({"pin": {"sans": ["DNS:x"], "server_name": "x"}}, "the url is not https"),
        ({"url": "https://x/mcp", "pin": {}}, "pins nothing"),
        ({"url": "https://x/mcp", "pin": {"spki_sha256": ["AB" * 32]}}, "should match pattern"),
        ({"url": "https://x/mcp", "pin": {"sans": ["finance.example"]}}, "is no spiffe://"),
        ({"url": "https://x/mcp", "pin": {"sans": ["DNS:*.example"]}}, "is no spiffe://"),
        ({"oauth": {"token_url": "https://x/t", "client_id": "g", "client_secret": "env:X"}}, "oauth takes a url"),
        (
            {
                "url": "https://x/mcp",
                "authorization": "env:X",
                "oauth": {"token_url": "https://x/t", "client_id": "g", "client_secret": "env:X"},
            },
            "no authorization beside it",
        ),
        ({"url": "https://x/mcp", "oauth": {"token_url": "http://x/t", "client_id": "g"}}, "is not an https URL"),
        ({"url": "https://x/mcp", "oauth": {"token_url": "https://x/t", "client_id": "g"}}, "one of them"),
    ],
)
def test_what_a_server_cannot_be_pinned_by_or_shown_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServerSettings.model_validate({"name": "finance", **members})


def test_a_certificate_that_says_its_names_twice_is_nobodys(certificate: x509.Certificate) -> None:
    der = certificate.public_bytes(Encoding.DER)
    key_identifier, names = b"\x06\x03\x55\x1d\x0e", b"\x06\x03\x55\x1d\x11"  # the numbers of two extensions
    assert der.count(key_identifier) == 1
    pin = PinSettings.model_validate({"sans": [URI]})
    with pytest.raises(ServerIdentityError, match="cannot be read"):
        check_certificate(der.replace(key_identifier, names), pin)
