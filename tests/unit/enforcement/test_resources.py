"""What strangers are told of the gateway: enough to get a token, and nothing of which servers there are."""

from __future__ import annotations

from typing import Any

import pytest

from enforcement.config_identity import IdentitySettings
from enforcement.resources import challenge, metadata_at
from tests.support.issuer import ISSUER, RESOURCE, issuer_settings


def settings(**members: Any) -> IdentitySettings:
    return IdentitySettings.model_validate({"resource": RESOURCE, "issuers": [issuer_settings()], **members})


def test_the_metadata_of_a_server_say_who_issues_tokens_for_it() -> None:
    document = metadata_at(settings(required_scopes=["mcp"]), "/servers/finance/mcp")
    assert document == {
        "resource": f"{RESOURCE}/servers/finance/mcp",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp"],
    }


def test_a_server_may_need_further_scopes_and_bound_tokens_are_announced() -> None:
    given = settings(required_scopes=["mcp"], server_scopes={"finance": ["finance", "mcp"]}, require_bound_tokens=True)
    document = metadata_at(given, "/servers/finance/mcp")
    assert document is not None
    assert document["scopes_supported"] == ["mcp", "finance"]
    assert document["tls_client_certificate_bound_access_tokens"] is True


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/servers",
        "/servers//mcp",
        "/servers/finance",
        "/servers/finance/mcp/",
        "/servers/finance/mcp/x",
        "/servers/a b/mcp",
        '/servers/a"b/mcp',
        "/servers/a\r\nb/mcp",
        "/x/servers/finance/mcp",
    ],
)
def test_what_is_no_resource_has_no_metadata(path: str) -> None:
    assert metadata_at(settings(), path) is None


def test_without_issuers_there_are_no_metadata() -> None:
    assert metadata_at(IdentitySettings(), "/servers/finance/mcp") is None


def test_the_gateway_as_a_whole_is_a_resource_if_tokens_may_be_meant_for_it() -> None:
    given = settings(issuers=[issuer_settings(audiences=[RESOURCE])])
    document = metadata_at(given, "/")
    assert document is not None
    assert document["resource"] == RESOURCE


@pytest.mark.parametrize("prefix", ["/tools", ""])
def test_a_gateway_below_a_path_is_asked_with_it_or_without(prefix: str) -> None:
    document = metadata_at(settings(resource=f"{RESOURCE}/tools/"), f"{prefix}/servers/finance/mcp")
    assert document is not None
    assert document["resource"] == f"{RESOURCE}/tools/servers/finance/mcp"


def test_a_challenge_leads_to_the_metadata_and_names_the_scopes() -> None:
    given = settings(resource=f"{RESOURCE}/tools", required_scopes=["mcp", "read"])
    assert challenge(given, "finance", error="invalid_token") == (
        'Bearer realm="tallystick", error="invalid_token", scope="mcp read", '
        f'resource_metadata="{RESOURCE}/.well-known/oauth-protected-resource/tools/servers/finance/mcp"'
    )


def test_without_issuers_a_challenge_is_bare() -> None:
    assert challenge(IdentitySettings(), "finance", error=None) == 'Bearer realm="tallystick"'


@pytest.mark.parametrize("name", ['x"y', "x\r\nSet-Cookie: a", "x/y", "", "x" * 65])
def test_a_name_that_no_server_can_have_is_not_repeated(name: str) -> None:
    assert challenge(settings(), name, error=None) == 'Bearer realm="tallystick"'
