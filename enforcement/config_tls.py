"""Settings of TLS: what the gateway shows and asks for on its own port, and on its ways to servers and to the service.

Pure. What they mean to an operator is in ``docs/tls.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from enforcement.config_types import Seconds, SecretURI, Settings

__all__ = ["ClientTLSSettings", "ListenerTLSSettings", "refuse_tls_without_https"]

_Minimum: TypeAlias = Literal["1.2", "1.3"]
_Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(URI|DNS|IP|email):\S{1,1024}$")]


class ListenerTLSSettings(Settings):
    """TLS on the port where clients arrive.

    Attributes:
        certificate: File with the certificate and what leads to its root, PEM.
        key: Where its key is.
        client_ca: File with the authorities that issue clients' certificates, PEM.
        client_certificates: ``require`` refuses a client without one in the handshake, ``optional`` takes it as one
            more proof, ``none`` does not ask.
        client_names: Names that a client's certificate must have one of, each with its kind (``URI:spiffe://…``,
            ``DNS:…``); a ``*`` at the end stands for all that begin so. Empty: whatever ``client_ca`` issued.
        groups: ``strict`` refuses clients without post-quantum key agreement, ``permissive`` records which it was.
        minimum: Oldest version of TLS.
        handshake_seconds: A handshake must be over by then.
    """

    certificate: Path
    key: SecretURI
    client_ca: Path | None = None
    client_certificates: Literal["none", "optional", "require"] = "require"
    client_names: Annotated[tuple[_Name, ...], Field(max_length=256)] = ()
    groups: Literal["strict", "permissive"] = "permissive"
    minimum: _Minimum = "1.3"
    handshake_seconds: Seconds = 10

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.client_certificates != "none" and self.client_ca is None:
            raise ValueError("client certificates are asked for: client_ca says who issues them")
        if self.client_certificates == "none" and (self.client_ca is not None or self.client_names):
            raise ValueError("client_ca and client_names mean nothing where client certificates are not asked for")
        return self


class ClientTLSSettings(Settings):
    """TLS on the way to a server or to the service.

    Attributes:
        ca: File with the authorities that may have issued its certificate, PEM; None for those of the system.
        certificate: File with the certificate that the gateway shows, and what leads to its root; None for none.
        key: Where its key is.
        groups: ``strict`` refuses a server without post-quantum key agreement, ``permissive`` records which it was.
        minimum: Oldest version of TLS.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: SecretURI | None = None
    groups: Literal["strict", "permissive"] = "permissive"
    minimum: _Minimum = "1.2"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


def refuse_tls_without_https(url: str | None, tls: ClientTLSSettings | None) -> None:
    """Refuse TLS settings for a place that is not reached by TLS.

    Raises:
        ValueError: They would silently mean nothing.
    """
    if tls is not None and not (url or "").startswith("https:"):
        raise ValueError("tls is set, but the url is not https")
