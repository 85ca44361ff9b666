"""What the gateway says of itself to OAuth clients: each server's URI, its metadata, and why a token will not do.

Pure. The metadata of the server ``finance`` (line breaks are ours), at
``/.well-known/oauth-protected-resource/servers/finance/mcp``::

    {"resource":"https://gateway.example/servers/finance/mcp","authorization_servers":["https://login.example"],
     "bearer_methods_supported":["header"],"scopes_supported":["mcp"]}

Strangers read it, so that it says nothing of whether there is a server of the name: it is the same for all names, but
for those that have scopes of their own.

Source: RFC 9728 sections 2, 3 and 5; RFC 6750 section 3; Model Context Protocol, "Authorization".
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from enforcement.config_identity import IdentitySettings

__all__ = ["WELL_KNOWN", "challenge", "metadata_at", "resource_of"]

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
"""Where the metadata of a resource is: this, before the path of the resource."""

_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"  # as of `enforcement.config.ServerSettings`
_PATH: Final = re.compile(rf"/servers/(?P<name>{_NAME})/mcp")
_REALM: Final = 'Bearer realm="tallystick"'


def resource_of(base: str, server: str) -> str:
    """Return the URI that a token for a server must be meant for; ``base`` has no slash at its end."""
    return f"{base}/servers/{server}/mcp"


def _metadata_url(base: str, server: str) -> str:
    """Return where a server's metadata is: the well-known part stands between host and path (RFC 9728 section 3.1)."""
    scheme, _, rest = resource_of(base, server).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{WELL_KNOWN}{slash}{path}"


def _metadata_of(settings: IdentitySettings, server: str | None) -> dict[str, Any] | None:
    """Return the metadata of a server as a protected resource.

    Args:
        settings: Issuers and scopes.
        server: The server's name, whether there is one or not; None for the gateway as a whole, which is a resource
            only if an issuer's tokens may be meant for it.

    Returns:
        The document; None if there is none.
    """
    base = settings.resource
    if base is None or not settings.issuers:
        return None
    issuers = [one.issuer for one in settings.issuers if server is not None or base in one.audiences]
    if not issuers:
        return None
    document: dict[str, Any] = {
        "resource": base if server is None else resource_of(base, server),
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
    }
    scopes = settings.required_scopes if server is None else settings.scopes_for(server)
    if scopes:
        document["scopes_supported"] = list(scopes)
    if settings.require_bound_tokens:
        document["tls_client_certificate_bound_access_tokens"] = True
    return document


def metadata_at(settings: IdentitySettings, path: str) -> dict[str, Any] | None:
    """Return the metadata of the resource whose URI has this path; None if there is no such resource.

    A gateway below a path of its host is asked with that path or, by a proxy that takes it off, without it.
    """
    base = urlsplit(settings.resource or "").path
    path = path.removeprefix(base) if base else path
    if path in ("", "/"):
        return _metadata_of(settings, None)
    match = _PATH.fullmatch(path)
    return None if match is None else _metadata_of(settings, match["name"])


def challenge(settings: IdentitySettings, server: str, *, error: str | None) -> str:
    """Return the ``WWW-Authenticate`` value for a caller whose token is missing, or will not do.

    Args:
        settings: Issuers and scopes.
        server: The server that was asked for; it stands in the answer only if it can be a server's name.
        error: ``invalid_token`` or ``insufficient_scope``; None if no credential was presented.
    """
    parts = [_REALM]
    if error is not None:
        parts.append(f'error="{error}"')
    if settings.issuers and settings.resource is not None and re.fullmatch(_NAME, server):
        scopes = settings.scopes_for(server)
        if scopes:
            parts.append(f'scope="{" ".join(scopes)}"')
        parts.append(f'resource_metadata="{_metadata_url(settings.resource, server)}"')
    return ", ".join(parts)
