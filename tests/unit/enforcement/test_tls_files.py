"""Certificates and keys from files: what is refused before it comes to a handshake, and what a change changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from enforcement.config_tls import ClientTLSSettings, ListenerTLSSettings
from enforcement.tls_client import ClientRules, client_context
from enforcement.tls_development import Wish
from enforcement.tls_files import Material, Rotating, read_material
from enforcement.tls_listener import TLSRules, server_context
from ledger.clock import SimulatedClock, SystemClock
from ledger.errors import ConfigError
from tests.support.pki import PKI, Files

CLOCK = SystemClock()
DAY_MS = 86_400_000


def empty(kind: str) -> bytes:
    return f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n".encode()


@pytest.fixture
def pki(tmp_path: Path) -> PKI:
    return PKI(tmp_path)


def read(files: Files, ca: Path | None = None) -> Material:
    return read_material(files.certificate, f"file:{files.key}", ca, CLOCK)


def refusal(files: Files) -> str:
    with pytest.raises(ConfigError) as caught:
        read(files)
    return str(caught.value)


def test_a_pair_is_read_whole_and_its_key_stays_out_of_representations(pki: PKI) -> None:
    material = read(pki.server(), pki.ca)
    assert material.credential is not None
    assert material.authorities == pki.authority.chain
    assert "PRIVATE" not in repr(material)
    assert "key" not in repr(material.credential)


def test_the_key_of_another_certificate_is_refused(pki: PKI) -> None:
    files, other = pki.server(), pki.server("other")
    assert refusal(Files(files.certificate, other.key)) == "the key does not belong to the certificate server.crt"


def test_a_key_that_others_can_read_is_refused(pki: PKI) -> None:
    files = pki.server()
    files.key.chmod(0o640)
    assert "chmod 600" in refusal(files)


def test_a_key_with_a_passphrase_is_refused_in_words(pki: PKI) -> None:
    files = pki.server()
    key = ec.generate_private_key(ec.SECP256R1())
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"swordfish")))
    assert "passphrase" in refusal(files)


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_without_being_shown(pki: PKI, content: bytes) -> None:
    files = pki.server()
    files.key.write_bytes(content)
    assert refusal(files) == "the key of server.crt is no private key in PEM"


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_refused(pki: PKI, content: bytes) -> None:
    files = pki.server()
    files.certificate.write_bytes(content)
    assert refusal(files).startswith("server.crt holds no certificate")


def test_half_a_certificate_file_is_refused(pki: PKI) -> None:
    files = pki.server()
    whole = files.certificate.read_bytes()
    files.certificate.write_bytes(whole[: len(whole) // 2])
    assert "server.crt" in refusal(files)


@pytest.mark.parametrize(("later_ms", "told"), [(-40 * DAY_MS, "is over"), (2 * DAY_MS, "is not valid yet")])
def test_a_certificate_outside_of_its_time_is_refused(pki: PKI, later_ms: int, told: str) -> None:
    files = pki.server()
    files.write(pki.credential(Wish(name="server", hosts=("localhost",), server=True), later_ms=later_ms))
    assert told in refusal(files)


def test_the_clock_that_is_given_tells_the_time(pki: PKI) -> None:
    files = pki.server()
    with pytest.raises(ConfigError, match="is over"):
        read_material(files.certificate, f"file:{files.key}", None, SimulatedClock(CLOCK.now_ms() + 60 * DAY_MS))


def test_files_that_are_missing_or_endless_are_refused_by_name(pki: PKI, tmp_path: Path) -> None:
    files = pki.server()
    assert refusal(Files(tmp_path / "none.crt", files.key)).startswith("none.crt cannot be read")
    assert refusal(Files(files.certificate, tmp_path / "none.key")).startswith("the key file none.key cannot be read")
    files.certificate.write_bytes(b" " * ((1 << 20) + 1))
    assert "has more than" in refusal(files)


def test_a_key_of_the_environment_is_read_and_its_absence_told(pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pki.server()
    with pytest.raises(ConfigError, match="env:GATEWAY_KEY"):
        read_material(files.certificate, "env:GATEWAY_KEY", None, CLOCK)
    monkeypatch.setenv("GATEWAY_KEY", files.key.read_text())
    assert read_material(files.certificate, "env:GATEWAY_KEY", None, CLOCK).credential is not None


def test_a_certificate_that_is_no_authoritys_is_not_believed(pki: PKI) -> None:
    files = pki.server()
    with pytest.raises(ConfigError, match=r"not an authority's"):
        read(files, files.certificate)


def test_a_change_of_content_is_taken_up_and_the_same_content_is_none(pki: PKI) -> None:
    files = pki.server()
    made: list[Material] = []
    rotating = Rotating("test", lambda: read(files), lambda material: made.append(material) or len(made))
    assert not rotating.refresh()
    files.certificate.touch()
    assert not rotating.refresh()
    before = rotating.expires_ms
    files.write(pki.credential(Wish(name="server", hosts=("localhost",), server=True, days=60)))
    assert rotating.refresh()
    assert rotating.current == 2
    assert before is not None
    assert rotating.expires_ms is not None
    assert rotating.expires_ms > before


def test_what_cannot_be_used_changes_nothing(pki: PKI) -> None:
    files = pki.server()
    rotating = Rotating("test", lambda: read(files), lambda _: object())
    current, material = rotating.current, rotating.material
    files.key.write_bytes(pki.server("other").key.read_bytes())
    for _ in range(2):
        with pytest.raises(ConfigError):
            rotating.refresh()
    assert rotating.current is current
    assert rotating.material is material


def test_a_server_without_a_certificate_or_without_those_it_believes_is_refused(pki: PKI) -> None:
    with pytest.raises(ConfigError):
        server_context(Material(credential=None, authorities=None, digest=b""), TLSRules())
    with pytest.raises(ConfigError, match="client_ca"):
        server_context(read(pki.server()), TLSRules(client_certificates="require"))


def test_ml_dsa_certificates_are_taken_by_both_libraries(tmp_path: Path) -> None:
    quantum = PKI(tmp_path, algorithm="ml-dsa-65")
    material = read(quantum.server(), quantum.ca)
    server_context(material, TLSRules(client_certificates="require"))
    client_context(material, ClientRules())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"client_ca": "ca.crt", "client_certificates": "none"},
        {"client_names": ["URI:spiffe://a"], "client_certificates": "none"},
        {"client_ca": "ca.crt", "client_names": ["spiffe://a"]},
        {"client_ca": "ca.crt", "client_names": ["URI:"]},
        {"client_ca": "ca.crt", "groups": "hybrid"},
        {"client_ca": "ca.crt", "minimum": "1.1"},
        {"client_ca": "ca.crt", "handshake_seconds": 0},
        {"client_ca": "ca.crt", "key": "gateway.key"},
    ],
)
def test_settings_of_a_listener_that_contradict_each_other_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"validation error"):
        ListenerTLSSettings.model_validate({"certificate": "a.crt", "key": "file:a.key", **settings})


@pytest.mark.parametrize("settings", [{"certificate": "a.crt"}, {"key": "file:a.key"}, {"minimum": "1.0"}])
def test_settings_of_a_way_to_others_that_are_half_there_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"validation error"):
        ClientTLSSettings.model_validate(settings)
