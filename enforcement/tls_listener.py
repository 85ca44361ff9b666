"""The server's side of TLS: which context a new connection gets, whom it lets in, and what became of it.

TLS 1.3 by default, and only the certificates that the configuration names. OpenSSL does the handshake, the one that
``cryptography`` brings: the system's may be too old for hybrid key agreement. It prefers X25519MLKEM768 with every
client that offers it.

No session is resumed. A resumed one would show who the client was when it began, by authorities that may have changed
since, and would keep a classical key agreement alive.

Source: RFC 8446; draft-ietf-tls-ecdhe-mlkem; RFC 9325 (recommendations for TLS).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from OpenSSL import SSL, crypto

from enforcement.tls_files import Credential, Material, Rotating
from enforcement.tls_peer import UNKNOWN, TLSPeer, describe_peer
from ledger.errors import ConfigError

__all__ = ["ClientCertificates", "Groups", "Listener", "Refused", "TLSRules", "reason_of", "server_context"]

ClientCertificates: TypeAlias = Literal["none", "optional", "require"]
Groups: TypeAlias = Literal["strict", "permissive"]
Refused: TypeAlias = Literal[
    "certificate",
    "classical",
    "crowded",
    "gone",
    "handshake",
    "late",
    "name",
    "no_certificate",
    "not_tls",
    "version",
]
"""Why a connection ended with its handshake."""

_VERIFY: Final = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}
_MINIMUM: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# For TLS 1.2 alone: forward secrecy and authenticated encryption, as RFC 9325 section 4.2 has it.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_REASONS: Final[dict[str, Refused]] = {
    "peer did not return a certificate": "no_certificate",
    "certificate verify failed": "certificate",
    "http request": "not_tls",
    "https proxy request": "not_tls",
    "wrong version number": "not_tls",
    "packet length too long": "not_tls",
    "unsupported protocol": "version",
    "no shared cipher": "version",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSRules:
    """Whom a listener lets in.

    Attributes:
        client_certificates: Whether clients must show a certificate.
        names: Names that a client's certificate must have one of, each with its kind, such as
            ``URI:spiffe://acme/gateway-1``; one that ends in ``*`` stands for all that begin so. Empty: any name.
        groups: ``strict`` refuses a client whose key agreement has no post-quantum half.
        minimum: Oldest version of TLS.
    """

    client_certificates: ClientCertificates = "none"
    names: tuple[str, ...] = ()
    groups: Groups = "permissive"
    minimum: Literal["1.2", "1.3"] = "1.3"


def server_context(material: Material, rules: TLSRules) -> SSL.Context:
    """Return the context of new connections.

    Raises:
        ConfigError: The files do not fit the rules, or OpenSSL does not take them.
    """
    credential = material.credential
    if credential is None:
        raise ConfigError("a server has no TLS without a certificate")
    if rules.client_certificates != "none" and not material.authorities:
        raise ConfigError("client certificates need a client_ca to be checked against")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        context.set_min_proto_version(_MINIMUM[rules.minimum])
        context.set_cipher_list(_CIPHERS)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_certificate(credential.chain[0])
        for certificate in credential.chain[1:]:
            context.add_extra_chain_cert(certificate)
        _use_key(context, credential)
        context.check_privatekey()
        _believe(context, material.authorities or (), rules)
    except (SSL.Error, TypeError, ValueError, OSError) as error:
        raise ConfigError("OpenSSL does not take the certificate or its key") from error
    return context


def _use_key(context: SSL.Context, credential: Credential) -> None:
    if isinstance(credential.key, mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey):
        # pyOpenSSL takes these from files alone; this one is in memory, and gone when it is closed.
        with os.fdopen(os.memfd_create("key"), "wb") as file:
            file.write(credential.key_pem())
            file.flush()
            context.use_privatekey_file(f"/proc/self/fd/{file.fileno()}")
    else:
        context.use_privatekey(credential.key)  # type: ignore[arg-type]  # those that it does not take raise


def _believe(context: SSL.Context, authorities: tuple[x509.Certificate, ...], rules: TLSRules) -> None:
    store = context.get_cert_store()
    assert store is not None  # OpenSSL makes one with every context
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)  # so that a client knows which of its certificates to show
    context.set_verify(_VERIFY[rules.client_certificates])


class Listener:
    """What all connections of one server share. Owned by the event loop.

    Attributes:
        contexts: The context of new connections.
        handshake_seconds: A handshake must be over by then.
        max_handshakes: Most handshakes that may be under way, those of the last second aside.
    """

    def __init__(
        self,
        contexts: Rotating[SSL.Context],
        rules: TLSRules,
        *,
        handshake_seconds: float,
        max_handshakes: int,
        on_accepted: Callable[[TLSPeer], None] = lambda _: None,
        on_refused: Callable[[Refused], None] = lambda _: None,
    ) -> None:
        """Take the parts.

        Args:
            contexts: Make the context of new connections.
            rules: Whom to let in.
            handshake_seconds: A handshake must be over by then.
            max_handshakes: Most handshakes that may be under way, those of the last second aside.
            on_accepted: Told of every connection that was let in.
            on_refused: Told why one was not.
        """
        self.contexts = contexts
        self.handshake_seconds = handshake_seconds
        self.max_handshakes = max_handshakes
        self.accepted = on_accepted
        self.refused = on_refused
        self._rules = rules

    def open(self) -> SSL.Connection:
        """Return the server's side of a new connection, over memory."""
        connection = SSL.Connection(self.contexts.current, None)
        connection.set_accept_state()
        return connection

    def admit(self, connection: SSL.Connection) -> tuple[TLSPeer, x509.Certificate | None] | Refused:
        """Return who is at the other end after a handshake, or why nothing goes on with it.

        INVARIANT: the certificate is one that OpenSSL verified; without verification there is none.
        """
        certificate = None
        if self._rules.client_certificates != "none":
            certificate = connection.get_peer_certificate(as_cryptography=True)
        try:
            peer = describe_peer(
                version=connection.get_protocol_version_name(),
                group=connection.get_group_name() or UNKNOWN,
                cipher=connection.get_cipher_name() or UNKNOWN,
                certificate=certificate,
            )
        except ValueError:
            return "certificate"
        if self._rules.groups == "strict" and not peer.hybrid:
            return "classical"
        if certificate is not None and not self._named(peer.sans):
            return "name"
        return peer, certificate

    def _named(self, sans: tuple[str, ...]) -> bool:
        wanted = self._rules.names
        return not wanted or any(_matches(pattern, name) for pattern in wanted for name in sans)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def reason_of(error: SSL.Error) -> Refused:
    """Return why a handshake failed, in one of our words: nothing that a client chose becomes a label."""
    if isinstance(error, SSL.SysCallError | SSL.ZeroReturnError):
        return "gone"
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else ()
    return next((_REASONS[entry[2]] for entry in entries if entry[2] in _REASONS), "handshake")
