"""Certificates for a test: an authority, what it issued, and files of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enforcement.tls_development import Algorithm, Wish, issue, make_authority
from enforcement.tls_files import Credential
from ledger.clock import SystemClock

LOOPBACK = ("localhost", "127.0.0.1")
GATEWAY = "spiffe://acme/gateway/gateway-1"
AGENT = "spiffe://acme/agent/finance"


@dataclass(frozen=True)
class Files:
    """Where a certificate and its key lie."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        """As a section of the gateway's configuration has them."""
        return {"certificate": str(self.certificate), "key": f"file:{self.key}"}

    def write(self, credential: Credential) -> None:
        self.certificate.write_bytes(credential.chain_pem())
        self.key.write_bytes(credential.key_pem())
        self.key.chmod(0o600)


class PKI:
    """An authority in a folder."""

    def __init__(self, folder: Path, name: str = "authority", algorithm: Algorithm = "p-256") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.algorithm: Algorithm = algorithm
        self.authority = make_authority(name, algorithm=algorithm, now_ms=SystemClock().now_ms(), days=30)
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self.authority.chain_pem())

    def credential(self, wish: Wish, *, later_ms: int = 0) -> Credential:
        return issue(self.authority, wish, algorithm=self.algorithm, now_ms=SystemClock().now_ms() + later_ms)

    def files(self, wish: Wish) -> Files:
        """Issue a certificate and write it."""
        files = Files(self.folder / f"{wish.name}.crt", self.folder / f"{wish.name}.key")
        files.write(self.credential(wish))
        return files

    def server(self, name: str = "server", hosts: tuple[str, ...] = LOOPBACK) -> Files:
        return self.files(Wish(name=name, hosts=hosts, server=True))

    def client(self, name: str = "client", uri: str = AGENT) -> Files:
        return self.files(Wish(name=name, uris=(uri,), client=True))
