"""Settings of what a gateway shows a server, as an OAuth client of its own, and of what the server must show.

Pure. What a setting means is said here and, for operators, in ``docs/identity.md``.

Source: RFC 6749 sections 2.3.1 and 4.4; RFC 7523 section 2.2; RFC 8707.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from enforcement.config_identity import SAN, SecureURL
from enforcement.config_types import URL, SecretURI, Settings

__all__ = ["ClientCredentials", "PinSettings"]

_Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,1024}$")]
_Digest: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Scope: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$")]


class PinSettings(Settings):
    """Which server it must be, beside what an authority says of its host. All that is given must be met.

    Attributes:
        spki_sha256: SHA-256 of public keys (SubjectPublicKeyInfo), hexadecimal; the server's is one of them. Two, while
            one takes the place of the other.
        sans: Names, compared exactly; its certificate has one of them.
        server_name: What it calls itself (``serverInfo.name``), wherever it does.
        other_name: Whether the answers of one that calls itself otherwise are refused, or passed and recorded.
    """

    spki_sha256: Annotated[tuple[_Digest, ...], Field(max_length=16)] = ()
    sans: Annotated[tuple[SAN, ...], Field(max_length=16)] = ()
    server_name: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    other_name: Literal["refuse", "record"] = "refuse"

    @property
    def of_certificate(self) -> bool:
        """Whether anything of its certificate is pinned."""
        return bool(self.spki_sha256 or self.sans)

    @model_validator(mode="after")
    def _pins_something(self) -> Self:
        if not self.of_certificate and self.server_name is None:
            raise ValueError("pins nothing")
        return self


class ClientCredentials(Settings):
    """The gateway as an OAuth client that acts for itself (grant ``client_credentials``).

    Attributes:
        token_url: The token endpoint.
        client_id: The gateway's id there.
        client_secret: Where its secret is; or
        private_key: where the key is that signs its assertions (``private_key_jwt``), PEM.
        client_auth: How the secret goes there: ``basic`` in the ``Authorization`` header, ``post`` in the form.
        algorithm: Of the private key.
        key_id: ``kid`` of the assertions.
        assertion_audience: ``aud`` of the assertions; the token endpoint by default.
        scopes: What is asked for.
        resource: What the token is to be meant for; the server's own URL by default.
        omit_resource: Ask for no resource, for an issuer that refuses the parameter.
        audience: Value of a parameter ``audience``, for an issuer that wants one.
        ca: File with the certificates that must vouch for the endpoint's host; the system's by default.
        timeout_seconds: For one request to it.
    """

    token_url: SecureURL
    client_id: _Text
    client_secret: SecretURI | None = None
    private_key: SecretURI | None = None
    client_auth: Literal["basic", "post"] = "basic"
    algorithm: Literal["ES256", "EdDSA", "RS256", "PS256"] = "ES256"
    key_id: _Text | None = None
    assertion_audience: _Text | None = None
    scopes: Annotated[tuple[_Scope, ...], Field(max_length=32)] = ()
    resource: URL | None = None
    omit_resource: bool = False
    audience: _Text | None = None
    ca: Path | None = None
    timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.client_secret is None) == (self.private_key is None):
            raise ValueError("takes client_secret or private_key, one of them")
        if self.omit_resource and self.resource is not None:
            raise ValueError("resource is set, and omitted")
        return self

    @property
    def secret(self) -> str:
        """Where what the gateway proves itself with is."""
        uri = self.client_secret or self.private_key
        assert uri is not None  # one of them is set
        return uri
