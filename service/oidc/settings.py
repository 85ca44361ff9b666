"""What an installation demands of its OpenID provider, read once from `service.settings.Settings`.

Roles come from one claim of the ID token, which the provider has signed. INVARIANT: that claim is none that people edit
themselves at most providers: a nickname must make nobody an administrator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from enforcement.config_files import read_secret
from enforcement.config_identity import is_loopback
from ledger.errors import ConfigError
from service.roles import Role

if TYPE_CHECKING:
    from service.settings import Settings

__all__ = ["ALGORITHMS", "OIDCSettings", "login_methods", "oidc_settings", "require_own_people"]

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "RS384", "PS384", "ES384", "RS512", "PS512", "ES512")
"""Signatures of ID tokens that count; none of them is symmetric."""

_EDITABLE: Final = frozenset(
    {
        "address",
        "birthdate",
        "email",
        "family_name",
        "gender",
        "given_name",
        "locale",
        "middle_name",
        "name",
        "nickname",
        "phone_number",
        "picture",
        "preferred_username",
        "profile",
        "website",
        "zoneinfo",
    }
)
"""Claims of OpenID Connect Core section 5.1 that say what a person says of himself."""

_MACHINES: Final = (Role.ENFORCER, Role.CLIENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class OIDCSettings:
    """An OpenID provider, and what makes somebody who he is here.

    Attributes:
        issuer: Its identifier, compared character by character.
        client_id: What this service is called there.
        client_secret: Its secret there; empty for a public client.
        redirect_uri: Where the provider sends browsers back to.
        ca: Certificates that must vouch for its host; the system's if None.
        scopes: What is asked for.
        role_claim: In which claim the roles are; the way into nested objects.
        roles: Value of that claim, and the role that it means; the first that fits is taken.
        log_claim: The claim that must name the log; empty if none must.
        email_domains: Of these a verified address must be; any, or none, if empty.
        demands: By role, what of ``acr:…`` and ``amr:…`` a login must have; one of several is enough.
        seconds: How long a login counts.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    redirect_uri: str
    ca: Path | None = None
    scopes: str = "openid profile email"
    role_claim: tuple[str, ...]
    roles: tuple[tuple[str, Role], ...]
    log_claim: tuple[str, ...] = ()
    email_domains: frozenset[str] = frozenset()
    demands: Mapping[Role, frozenset[str]] = field(default_factory=dict)
    seconds: int

    @property
    def host(self) -> str:
        """The provider's host, to be shown."""
        return urlsplit(self.issuer).netloc


def _named(name: str) -> str:
    return f"TALLYSTICK_OIDC_{name}"


def _pairs(text: str, name: str) -> list[tuple[str, str]]:
    found = []
    for part in (part.strip() for part in text.split(",")):
        left, equals, right = part.rpartition("=")
        if part and (not equals or not left.strip() or not right.strip()):
            raise ConfigError(f"{_named(name)}: give pairs such as tally-approvers=approver, with commas between them")
        if part:
            found.append((left.strip(), right.strip()))
    return found


def _role(text: str, name: str) -> Role:
    if text not in {role.value for role in Role} or Role(text) in _MACHINES:
        raise ConfigError(f"{_named(name)}: {text!r} is no role of people")
    return Role(text)


def _demands(text: str) -> dict[Role, frozenset[str]]:
    found: dict[Role, set[str]] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        role, _, demand = part.partition("=")
        if not demand.startswith(("acr:", "amr:")) or not demand[4:]:
            raise ConfigError(
                f"{_named('REQUIRE')}: give pairs such as approver=amr:otp or approver=acr:urn:example:gold"
            )
        found.setdefault(_role(role, "REQUIRE"), set()).add(demand)
    return {role: frozenset(values) for role, values in found.items()}


def oidc_settings(settings: Settings) -> OIDCSettings | None:
    """Return what the settings say of a provider; None if they name none.

    Raises:
        ConfigError: They cannot be used; the setting and the reason.
    """
    if not settings.oidc_issuer:
        return None
    parts = urlsplit(settings.oidc_issuer)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ConfigError(f"{_named('ISSUER')}: not an https URL, and not on this machine")
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{_named('ISSUER')}: not the identifier of a provider")
    if not settings.oidc_client_id:
        raise ConfigError(f"{_named('CLIENT_ID')}: the provider knows this service by one")
    roles = tuple((value, _role(role, "ROLES")) for value, role in _pairs(settings.oidc_roles, "ROLES"))
    if not roles:
        raise ConfigError(f"{_named('ROLES')}: say which values of the claim mean which role: nobody could log in")
    claim = tuple(settings.oidc_role_claim.split("."))
    if claim[0] in _EDITABLE or not all(claim):
        raise ConfigError(f"{_named('ROLE_CLAIM')}: people edit {settings.oidc_role_claim!r} themselves")
    return OIDCSettings(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=read_secret(settings.oidc_client_secret) if settings.oidc_client_secret else "",
        redirect_uri=settings.external_url.rstrip("/") + "/login/callback",
        ca=settings.oidc_ca,
        scopes=settings.oidc_scopes,
        role_claim=claim,
        roles=roles,
        log_claim=tuple(settings.oidc_log_claim.split(".")) if settings.oidc_log_claim else (),
        email_domains=frozenset(one.strip().lower() for one in settings.oidc_email_domains.split(",") if one.strip()),
        demands=_demands(settings.oidc_require),
        seconds=settings.oidc_seconds,
    )


def login_methods(settings: Settings) -> frozenset[str]:
    """Return how people may have logged in: by the provider, and at the console where there is none, or in need."""
    if not settings.oidc_issuer:
        return frozenset({"console"})
    return frozenset({"oidc", "break_glass"} if settings.break_glass else {"oidc"})


def require_own_people(logs: Sequence[Settings]) -> None:
    """Refuse logs of which one's people would be let in to another.

    INVARIANT 12: a login is for one log. Two logs tell their people apart by the client that each is at the provider,
    or by a claim that names the log.

    Raises:
        ConfigError: Which two.
    """
    seen: dict[tuple[str, str], str] = {}
    for log in logs:
        if not log.oidc_issuer or log.oidc_log_claim:
            continue
        other = seen.setdefault((log.oidc_issuer, log.oidc_client_id), log.log_id)
        if other != log.log_id:
            raise ConfigError(
                f"the logs {other} and {log.log_id} are one client of one OpenID provider: whoever may log in to one "
                f"could to the other; give each a client of its own, or set {_named('LOG_CLAIM')}"
            )
