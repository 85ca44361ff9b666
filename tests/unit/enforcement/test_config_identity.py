"""Settings of identities: what would make one name stand for two, or a token good for everybody, is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from enforcement.config_identity import IdentitySettings
from tests.support.issuer import RESOURCE, issuer_settings

OTHER = "https://other.example"
CERTIFICATE = {"san": "spiffe://acme.example/a", "agent": "A"}


def issuer(**members: Any) -> dict[str, Any]:
    return {"resource": RESOURCE, "issuers": [issuer_settings(**members)]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"issuers": [issuer_settings()]}, "issuers need resource"),
        ({"resource": "http://gateway.example"}, "is not an https URL"),
        ({"resource": "https://gateway.example/?x=1"}, "must not carry"),
        (issuer(issuer="http://login.example"), "is not an https URL"),
        (issuer(jwks="http://login.example/keys"), "is not an https URL"),
        (issuer(jwks="ftp://login.example/keys"), "is not an https URL"),
        (issuer(jwks="https://u:p@login.example/keys"), "must not carry credentials"),
        (issuer(jwks="file:"), "names no file"),
        (issuer(algorithms=["HS256"]), "Input should be 'RS256'"),
        (issuer(algorithms=["none"]), "Input should be 'RS256'"),
        (issuer(algorithms=[]), "at least 1"),
        (issuer(leeway_seconds=3600), "less than or equal to 300"),
        (issuer(agents={"x": "a b"}), "is not a name"),
        (issuer(claims={"agent": []}), "at least 1"),
        ({"resource": RESOURCE, "issuers": [issuer_settings()] * 2}, "an issuer is listed twice"),
        ({"resource": RESOURCE, "issuers": [issuer_settings(), issuer_settings(issuer=OTHER)]}, "need agents each"),
        (
            {
                "resource": RESOURCE,
                "issuers": [issuer_settings(agents={"a": "A"}), issuer_settings(issuer=OTHER, agents={"a": "B"})],
            },
            "need user_prefix each",
        ),
        ({"required_scopes": ["a b"]}, "should match pattern"),
        ({"required_scopes": ['a"']}, "should match pattern"),
        ({"certificates": [CERTIFICATE] * 2}, "a name stands for two principals"),
        ({"require_certificate": True}, "needs certificates"),
        *(
            ({"certificates": [{**CERTIFICATE, "san": san}]}, "is no spiffe://")
            for san in (
                "acme.example",
                "DNS:*.acme.example",
                "DNS:Acme.example",
                "DNS:",
                "spiffe://Acme.example/a",
                "spiffe://acme.example/a/",
                "spiffe://acme.example/a b",
                "spiffe://acme.example/a?x",
                "CN:acme",
                "IP:10.0.0.1",
            )
        ),
    ],
)
def test_what_is_not_sound_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IdentitySettings.model_validate(settings)


def test_what_is_sound_is_taken_and_names_get_the_form_in_which_they_are_compared() -> None:
    given = IdentitySettings.model_validate(
        {**issuer(jwks="http://127.0.0.1:9/keys"), "certificates": [CERTIFICATE, {**CERTIFICATE, "san": "DNS:a.b-c.d"}]}
    )
    assert [one.san for one in given.certificates] == ["URI:spiffe://acme.example/a", "DNS:a.b-c.d"]
    assert given.issuers[0].claims.agent == ("client_id",)


def test_nothing_is_demanded_and_nobody_known_by_default() -> None:
    given = IdentitySettings()
    assert (given.issuers, given.certificates, given.require_certificate) == ((), (), False)
