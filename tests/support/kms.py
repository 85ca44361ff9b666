"""A FAKE of AWS KMS on 127.0.0.1: its JSON protocol as botocore speaks it, real keys and signatures of `cryptography`.

No server that could be installed here knows ML_DSA_44 (moto's KMS does not), so that the service is imitated; what it
signs is genuine. It checks what AWS documents: key usage, algorithm against key spec, message type, 4,096 bytes.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NAME = "a FAKE of AWS KMS (JSON protocol, real keys)"
_MAX_MESSAGE_BYTES = 4096
_ALGORITHMS = {"ECC_NIST_EDWARDS25519": "ED25519_SHA_512", "ML_DSA_44": "ML_DSA_SHAKE_256"}

_MAKERS = {
    "ECC_NIST_EDWARDS25519": Ed25519PrivateKey.generate,
    "ML_DSA_44": MLDSA44PrivateKey.generate,
    "RSA_2048": lambda: generate_private_key(65537, 2048),
}
PrivateKey = Ed25519PrivateKey | MLDSA44PrivateKey | RSAPrivateKey


@dataclass
class FakeKMS:
    """The keys by name, and what goes wrong.

    Attributes:
        url: Where it listens.
        keys: Key spec and private key, by key id or alias.
        faults: What the next calls of Sign get instead of a signature, first in first out: an AWS error code, ``wrong``
            (a signature by another key), ``nothing`` (an answer without one), ``slow`` (none within the timeout).
        calls: Operation and parameters of every call.
    """

    url: str = ""
    keys: dict[str, tuple[str, PrivateKey]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def make(self, spec: str, name: str) -> str:
        """Make a key and return its URI."""
        self.keys[name] = (spec, _MAKERS[spec]())
        return f"awskms:{name}?region=eu-central-1&endpoint={self.url}"

    def answer(self, operation: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls.append((operation, given))
        if given["KeyId"] not in self.keys:
            return 400, {"__type": "NotFoundException", "message": "no such key"}
        spec, key = self.keys[given["KeyId"]]
        if operation == "GetPublicKey":
            der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            public = {"KeyId": given["KeyId"], "PublicKey": base64.b64encode(der).decode(), "KeySpec": spec}
            return 200, {**public, "KeyUsage": "SIGN_VERIFY", "SigningAlgorithms": [_ALGORITHMS.get(spec, "RSA")]}
        return self._sign(given, spec, key)

    def _sign(self, given: dict[str, Any], spec: str, key: PrivateKey) -> tuple[int, dict[str, Any]]:
        message = base64.b64decode(given["Message"], validate=True)
        if given["SigningAlgorithm"] != _ALGORITHMS.get(spec) or given["MessageType"] != "RAW":
            return 400, {"__type": "InvalidKeyUsageException", "message": "not with this key"}
        if len(message) > _MAX_MESSAGE_BYTES:
            return 400, {"__type": "ValidationException", "message": "too long"}
        fault = self.faults.pop(0) if self.faults else None
        if fault == "slow":
            time.sleep(1.5)
        if fault not in (None, "slow", "wrong", "nothing"):
            return 400, {"__type": fault, "message": "as the test wants it"}
        if fault == "nothing":
            return 200, {"KeyId": given["KeyId"], "SigningAlgorithm": given["SigningAlgorithm"]}
        if fault == "wrong":
            key = _MAKERS[spec]()
        signature = base64.b64encode(key.sign(message)).decode()  # type: ignore[call-arg]
        return 200, {**{name: given[name] for name in ("KeyId", "SigningAlgorithm")}, "Signature": signature}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    kms: FakeKMS


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self.server.kms.answer(self.headers["X-Amz-Target"].removeprefix("TrentService."), given)
        data = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client has given up, as it should
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def fake_kms() -> Iterator[FakeKMS]:
    """Run a fake of KMS on a free port."""
    kms = FakeKMS()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.kms = kms
    kms.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kms
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
