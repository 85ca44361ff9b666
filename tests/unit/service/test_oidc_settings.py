"""What the settings say of an OpenID provider: what is refused, and that one log's people are not let in to another."""

from __future__ import annotations

import pytest

from ledger.errors import ConfigError
from service.oidc.settings import ALGORITHMS, login_methods, oidc_settings, require_own_people
from service.roles import Role
from service.settings import Settings, load_settings

GOOD = {
    "oidc_issuer": "https://login.example",
    "oidc_client_id": "tallystick",
    "oidc_roles": "tally-approvers=approver, x=y=responder",
}


def settings(**changes: object) -> Settings:
    return load_settings(**{**GOOD, **changes})


def test_without_an_issuer_there_is_no_provider_and_people_log_in_at_the_console():
    assert oidc_settings(settings(oidc_issuer="")) is None
    assert login_methods(settings(oidc_issuer="")) == {"console"}


def test_with_one_the_console_counts_in_need_alone():
    assert login_methods(settings()) == {"oidc"}
    assert login_methods(settings(break_glass=True)) == {"oidc", "break_glass"}


def test_good_settings_are_read():
    found = oidc_settings(settings(oidc_require="approver=amr:otp,approver=acr:a=b", external_url="https://t.example/"))
    assert found is not None
    assert found.roles == (("tally-approvers", Role.APPROVER), ("x=y", Role.RESPONDER))
    assert found.demands == {Role.APPROVER: {"amr:otp", "acr:a=b"}}
    assert found.redirect_uri == "https://t.example/login/callback"


def test_the_clients_secret_is_in_no_representation(monkeypatch):
    monkeypatch.setenv("CLIENT", "a very secret word")
    found = oidc_settings(settings(oidc_client_secret="env:CLIENT"))
    assert found is not None
    assert found.client_secret == "a very secret word"
    assert "secret word" not in repr(found)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"oidc_issuer": "http://login.example"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "ftp://127.0.0.1"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example?x=y"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://u:p@login.example"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "login.example"}, "OIDC_ISSUER"),
        ({"oidc_client_id": ""}, "OIDC_CLIENT_ID"),
        ({"oidc_roles": ""}, "OIDC_ROLES"),
        ({"oidc_roles": "tally-approvers"}, "OIDC_ROLES"),
        ({"oidc_roles": "=approver"}, "OIDC_ROLES"),
        ({"oidc_roles": "x=enforcer"}, "OIDC_ROLES"),
        ({"oidc_roles": "x=client"}, "OIDC_ROLES"),
        ({"oidc_roles": "x=root"}, "OIDC_ROLES"),
        ({"oidc_role_claim": "name"}, "OIDC_ROLE_CLAIM"),
        ({"oidc_role_claim": "nickname"}, "OIDC_ROLE_CLAIM"),
        ({"oidc_role_claim": "preferred_username"}, "OIDC_ROLE_CLAIM"),
        ({"oidc_role_claim": "email"}, "OIDC_ROLE_CLAIM"),
        ({"oidc_role_claim": "address.formatted"}, "OIDC_ROLE_CLAIM"),
        ({"oidc_role_claim": "a..b"}, "OIDC_ROLE_CLAIM"),
        ({"oidc_require": "approver"}, "OIDC_REQUIRE"),
        ({"oidc_require": "approver=otp"}, "OIDC_REQUIRE"),
        ({"oidc_require": "approver=amr:"}, "OIDC_REQUIRE"),
        ({"oidc_require": "enforcer=amr:otp"}, "OIDC_REQUIRE"),
    ],
    ids=str,
)
def test_settings_that_let_in_nobody_or_anybody_are_refused_by_name(changes, told):
    with pytest.raises(ConfigError, match=f"TALLYSTICK_{told}"):
        oidc_settings(settings(**changes))


@pytest.mark.parametrize("seconds", [0, 59, 86_401])
def test_no_login_counts_longer_than_a_day(seconds):
    with pytest.raises(ConfigError, match="OIDC_SECONDS"):
        settings(oidc_seconds=seconds)


def test_no_symmetric_algorithm_counts_and_no_missing_signature():
    assert not {"none", "HS256", "HS384", "HS512"} & set(ALGORITHMS)


def test_two_logs_that_are_one_client_of_one_provider_are_refused():
    mine, theirs = settings(log_id="acme"), settings(log_id="globex")
    with pytest.raises(ConfigError, match="acme and globex are one client"):
        require_own_people([mine, theirs])
    require_own_people([mine, settings(log_id="globex", oidc_client_id="globex")])
    require_own_people([mine, settings(log_id="globex", oidc_issuer="https://other.example")])
    require_own_people([settings(log_id=name, oidc_log_claim="logs") for name in ("acme", "globex")])
    require_own_people([mine, settings(log_id="globex", oidc_issuer="")])
