"""A witness for tests, written from the specification and sharing no code with `ledger` but the tree's arithmetic.

It keeps, for one log, size and root of what it cosigned last. `instead` lets it do what no witness must do.

Source: C2SP tlog-witness v1.0.0.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

from ledger.errors import VerificationError
from ledger.merkle import RootHash
from ledger.notes import parse_vkey
from ledger.proofs import TreeHead, verify_consistency
from ledger.trust import TrustPolicy, Witness, WitnessGroup
from tests.conformance.reference.c2sp import COSIGNATURE, Ed25519Signer, MLDSA44Signer

Answer = tuple[int, str, bytes]

TIME = 1_763_546_400
SIZE_TYPE = "text/x.tlog.size"


@dataclass
class ReferenceWitness:
    """Cosigns checkpoints of one origin.

    Attributes:
        signer: Its key.
        size: Tree size of what it cosigned last.
        root: The root of that.
        requests: Bodies of all requests, in order.
        instead: Answers in its place, for tests of what a witness must not do.
    """

    signer: Ed25519Signer | MLDSA44Signer
    size: int = 0
    root: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    instead: Callable[[bytes], Answer] | None = None
    time: int = TIME

    @property
    def vkey(self) -> str:
        return self.signer.vkey

    def answer(self, body: bytes) -> Answer:
        self.requests.append(body)
        if self.instead is not None:
            return self.instead(body)
        return self.honest(body)

    def honest(self, body: bytes) -> Answer:
        header, _, checkpoint = body.partition(b"\n\n")
        first, *lines = header.decode().split("\n")
        old = int(first.removeprefix("old "))
        proof = [base64.b64decode(line, validate=True) for line in lines]
        text = checkpoint.decode().partition("\n\n")[0] + "\n"
        _, size_line, root_line = text.split("\n")[:3]
        size, root = int(size_line), base64.b64decode(root_line)
        if old > size:
            return 400, "text/plain", b"old size is larger\n"
        if old != self.size:
            return 409, SIZE_TYPE, f"{self.size}\n".encode()
        if old == size and root != self.root:
            return 422, "text/plain", b"another root\n"
        try:
            seen, offered = TreeHead(size=old, root=RootHash(self.root)), TreeHead(size=size, root=RootHash(root))
            if old:
                verify_consistency(seen, offered, proof)
        except VerificationError:
            return 422, "text/plain", b"inconsistent\n"
        self.size, self.root = size, root
        return 200, "text/plain", self.signer.line(text, timestamp=self.time).encode()

    def transport(self) -> httpx.MockTransport:
        def handle(request: httpx.Request) -> httpx.Response:
            status, media_type, body = self.answer(request.content)
            return httpx.Response(status, headers={"Content-Type": media_type}, stream=httpx.ByteStream(body))

        return httpx.MockTransport(handle)


def reference_witness(name: str = "w1", *, mldsa: bool = False, seed: int = 40) -> ReferenceWitness:
    key_name, key_seed = f"witness.example/{name}", bytes([seed + sum(name.encode()) % 50]) * 32
    signer = MLDSA44Signer(key_name, key_seed) if mldsa else Ed25519Signer(key_name, key_seed, COSIGNATURE)
    return ReferenceWitness(signer)


def witness_policy(
    witnesses: dict[str, ReferenceWitness], *, threshold: int, urls: dict[str, str] | None = None
) -> TrustPolicy:
    """Return a policy with a group of all of them, of which ``threshold`` make the quorum."""
    known = {
        name: Witness(name, parse_vkey(one.vkey), (urls or {}).get(name, f"https://{name}.example"))
        for name, one in witnesses.items()
    }
    return TrustPolicy(
        witnesses=known, groups={"enough": WitnessGroup("enough", threshold, tuple(known))}, quorum="enough"
    )


@contextmanager
def serving(witness: ReferenceWitness) -> Iterator[str]:
    """Answer on a port of this machine; yields the submission prefix."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is http.server's
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, media_type, answer = witness.answer(body) if self.path == "/w/add-checkpoint" else (404, "", b"")
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
        yield f"http://127.0.0.1:{server.server_address[1]}/w"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
