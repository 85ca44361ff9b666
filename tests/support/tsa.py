"""A real time-stamping authority on this machine: ``openssl ts`` with certificates made here, behind a small server.

Certificates are made by `cryptography`, replies by OpenSSL's own command: neither is the library that verifies them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

POLICY = "1.3.6.1.4.1.32473.1"
OTHER_POLICY = "1.3.6.1.4.1.32473.2"

_CONFIG = """
[tsa]
default_tsa = tsa_config
[tsa_config]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
certs = {folder}/chain.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = {policy}
other_policies = 1.3.6.1.4.1.32473.9
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""

_TST_INFO = "1.2.840.113549.1.9.16.1.4"
GRANTED = bytes.fromhex("3003020100")
"""PKIStatusInfo with status 0."""

Answer = tuple[int, str, bytes]
TimeStamping = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])


def sequence(content: bytes) -> bytes:
    """Return a DER sequence of more than 127 bytes."""
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([0x30, 0x80 | len(length)]) + length + content


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Authority:
    """A root, an intermediate and a time-stamping certificate, in a folder of their own.

    Attributes:
        folder: Where the files are.
        roots: The root certificate, PEM.
        requests: What was asked, DER.
        instead: Answers in its place.
    """

    folder: Path
    roots: bytes
    policy: str = POLICY
    requests: list[bytes] = field(default_factory=list)
    instead: Callable[[bytes], Answer] | None = None

    def reply(self, request: bytes, *options: str) -> bytes:
        """Return what ``openssl ts`` answers to a request."""
        (self.folder / "request.tsq").write_bytes(request)
        command = ["openssl", "ts", "-reply", "-config", str(self.folder / "tsa.cnf"), "-section", "tsa_config"]
        command += ["-queryfile", str(self.folder / "request.tsq"), "-out", str(self.folder / "reply.tsr"), *options]
        subprocess.run(command, check=True, capture_output=True)
        return (self.folder / "reply.tsr").read_bytes()

    def reply_with(self, request: bytes, other: Authority) -> bytes:
        """Return an answer whose content is this authority's, signed with the certificate of another.

        ``openssl ts`` does not sign with a certificate that is not for time-stamping; ``openssl cms`` signs anything.
        """
        self.reply(request, "-token_out")
        token, info, signed = (self.folder / name for name in ("reply.tsr", "info.der", "signed.der"))
        opened = ["openssl", "cms", "-verify", "-noverify", "-inform", "DER", "-in", str(token), "-out", str(info)]
        subprocess.run(opened, check=True, capture_output=True)
        sign = ["openssl", "cms", "-sign", "-binary", "-nodetach", "-cades", "-econtent_type", _TST_INFO]
        sign += ["-signer", str(other.folder / "tsa.pem"), "-inkey", str(other.folder / "tsa.key")]
        sign += ["-certfile", str(other.folder / "chain.pem"), "-in", str(info), "-outform", "DER", "-out", str(signed)]
        subprocess.run(sign, check=True, capture_output=True)
        return sequence(GRANTED + signed.read_bytes())

    def answer(self, request: bytes) -> Answer:
        self.requests.append(request)
        if self.instead is not None:
            return self.instead(request)
        return 200, "application/timestamp-reply", self.reply(request)


def make_authority(
    folder: Path,
    *,
    policy: str = POLICY,
    usage: x509.ExtendedKeyUsage | None = TimeStamping,
    critical: bool = True,
    valid: tuple[timedelta, timedelta] = (-timedelta(days=1), timedelta(days=30)),
    name: str = "authority",
) -> Authority:
    """Make an authority.

    Args:
        folder: An empty folder.
        policy: The policy of its tokens.
        usage: The extended key usage of its certificate, or None for none.
        critical: Whether that is critical.
        valid: From when to when its certificate is valid, from now.
        name: Of root and intermediate.
    """
    folder.mkdir(parents=True)
    now = datetime.now(tz=UTC)  # noqa: TID251  # OpenSSL's own clock is in the tokens
    around = (now - timedelta(days=1), now + timedelta(days=30))
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = _certify(f"{name} root", keys[0], f"{name} root", keys[0], around, ca=True)
    intermediate = _certify(f"{name} issuing", keys[1], f"{name} root", keys[0], around, ca=True)
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = () if usage is None else ((usage, critical),)
    leaf = _certify(
        f"{name} tsa", keys[2], f"{name} issuing", keys[1], (now + valid[0], now + valid[1]), extensions=extensions
    )
    (folder / "tsa.pem").write_bytes(_pem(leaf))
    (folder / "chain.pem").write_bytes(_pem(intermediate))
    (folder / "serial").write_text("01\n", encoding="ascii")
    (folder / "tsa.cnf").write_text(_CONFIG.format(folder=folder, policy=policy), encoding="ascii")
    key = keys[2].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tsa.key").write_bytes(key)
    return Authority(folder=folder, roots=_pem(root), policy=policy)


def _certify(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    valid: tuple[datetime, datetime],
    *,
    ca: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(issuer_key, hashes.SHA256())


@contextmanager
def serving(authority: Authority) -> Iterator[str]:
    """Answer on a port of this machine; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is http.server's
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, media_type, answer = authority.answer(body)
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/tsr"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
