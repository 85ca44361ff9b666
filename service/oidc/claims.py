"""From what a provider says of somebody to a person and the roles that he may have here.

Pure. Nothing but the verified ID token is asked: what a user-info endpoint says is not signed.
"""

from __future__ import annotations

from typing import Final

from ledger.canonical import JSONValue
from service.oidc.settings import OIDCSettings
from service.oidc.tokens import Claims
from service.persons import Person
from service.problems import ForbiddenError, UnauthenticatedError
from service.roles import Role

__all__ = ["person_of", "role_of"]

_MAX_CHARS: Final = 256
_MAX_NAME_CHARS: Final = 128
_MAX_VALUES: Final = 1024
_MAX_METHODS: Final = 16


def person_of(claims: Claims, provider: OIDCSettings) -> Person:
    """Return who somebody is.

    His name is his address if the provider has verified it, else what it calls him, else his subject: it is shown, and
    tells nobody apart; the subject does.

    Raises:
        UnauthenticatedError: The provider names nobody.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= _MAX_CHARS:
        raise UnauthenticatedError("the provider's token names nobody")
    acr, session, methods = claims.get("acr"), claims.get("sid"), claims.get("amr")
    listed = methods if isinstance(methods, list) else []
    return Person(
        issuer=provider.issuer,
        subject=subject,
        name=_name(claims, subject),
        method="oidc",
        acr=_short(acr),
        amr=tuple(sorted({_short(one) for one in listed[:_MAX_METHODS]} - {""})),
        provider_session=_short(session),
    )


def _short(value: JSONValue) -> str:
    """Return a claim that is a text of bearable length; nothing for any other."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= _MAX_CHARS else ""


def _name(claims: Claims, subject: str) -> str:
    verified = claims.get("email") if claims.get("email_verified") is True else None
    for value in (verified, claims.get("preferred_username"), subject):
        if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_NAME_CHARS:
            return value
    return subject[:_MAX_NAME_CHARS]


def _values(claims: Claims, path: tuple[str, ...]) -> frozenset[str]:
    value: JSONValue = dict(claims)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or len(listed) > _MAX_VALUES:
        return frozenset()
    return frozenset(one for one in listed if isinstance(one, str))


def role_of(claims: Claims, person: Person, provider: OIDCSettings, *, log_id: str, wanted: Role | None) -> Role:
    """Return the role that somebody has by this login: the one that he wants, or else the first that the settings name.

    Args:
        claims: What the provider says.
        person: Who that is.
        provider: What is demanded.
        log_id: The log that he logs in to.
        wanted: The role that he asks for; any if None.

    Raises:
        ForbiddenError: He has none here, not that one, or logged in too weakly for it.
    """
    if provider.log_claim and log_id not in _values(claims, provider.log_claim):
        raise ForbiddenError("the provider does not say that you may log in to this log")
    if provider.email_domains:
        address = claims.get("email")
        domain = address.rpartition("@")[2].lower() if isinstance(address, str) and "@" in address else ""
        if claims.get("email_verified") is not True or domain not in provider.email_domains:
            raise ForbiddenError("you have no verified address of a domain that may log in")
    values = _values(claims, provider.role_claim)
    granted = list(dict.fromkeys(role for value, role in provider.roles if value in values))
    if not granted:
        raise ForbiddenError("the provider gives you no role here; an administrator there can")
    if wanted is not None and wanted not in granted:
        raise ForbiddenError(f"the provider does not give you the role {wanted}")
    said = {f"acr:{person.acr}", *(f"amr:{method}" for method in person.amr)}
    for role in granted if wanted is None else [wanted]:
        demanded = provider.demands.get(role, frozenset())
        if not demanded or demanded & said:
            return role
    raise ForbiddenError("your role takes a stronger login: log in at the provider with another factor")
