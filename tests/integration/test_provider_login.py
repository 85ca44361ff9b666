"""Logging in by an OpenID provider over HTTP: whom it lets in, as what, and every way round it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from ledger.commitments import pseudonym
from service.auth import Role
from service.persons import CONSOLE, Person, actor_name
from service.web.throttle import LoginThrottle
from tests.support.issuer import encoded, private_key
from tests.support.provider import ANN, CLIENT_ID, CLIENT_SECRET, OpenIDServer, at_provider, openid_provider, target_of
from tests.support.service import RunningService, start_service

ORDER = {"agent": "Bot", "seconds": 300, "reason": "it runs wild"}


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIDServer]:
    with openid_provider() as running:
        yield running


@pytest.fixture(scope="module")
def service(provider: OpenIDServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("provider-login")
    yield from started(provider, folder)


def started(provider: OpenIDServer, folder: Path, **changes: object) -> Iterator[RunningService]:
    secret = folder / "client.secret"
    secret.write_text(CLIENT_SECRET)
    secret.chmod(0o600)
    with start_service(folder, **{**provider.settings(f"file:{secret}"), **changes}) as running:
        yield running


@pytest.fixture(autouse=True)
def as_it_was(provider: OpenIDServer, service: RunningService) -> Iterator[None]:
    before = replace(provider)
    yield
    # What failed in one test must not make the next one wait.
    service._server.config.app.state.lobby.throttle = LoginThrottle()
    for name in ("signing", "published", "forge", "require_secret"):
        setattr(provider, name, getattr(before, name))
    provider.user, provider.spoil, provider.metadata = dict(ANN), {}, {}


def browser(service: RunningService) -> httpx.Client:
    return service.server.browser_client()


def begun(visitor: httpx.Client, query: str = "") -> str:
    """Begin a login and return the provider's address."""
    answer = visitor.get(f"/login/provider{query}")
    assert answer.status_code == 200, answer.text
    return target_of(answer.text)


def log_in(service: RunningService, visitor: httpx.Client, query: str = "") -> httpx.Response:
    return visitor.get(at_provider(begun(visitor, query)))


def logged_in(visitor: httpx.Client) -> bool:
    return visitor.get("/").status_code == 200


def refused(service: RunningService, visitor: httpx.Client, answer: httpx.Response) -> str:
    """Check that nobody was let in, and return the reason that is on record."""
    assert answer.status_code == 403, answer.text
    assert visitor.cookies.get("tallystick") is None
    assert not logged_in(visitor)
    events = service.access_events("login")
    assert events[-1].actor_role == "unauthenticated"
    return events[-1].result


# --- whom it lets in


def test_a_person_logs_in_and_the_record_names_him_by_a_pseudonym_of_issuer_and_subject(service, provider):
    with browser(service) as visitor:
        answer = log_in(service, visitor, "?next=/packs")
        assert (answer.status_code, target_of(answer.text)) == (200, "/packs")
        page = visitor.get("/").text
    assert "ann@example.com" in page
    assert "approver" in page
    login = service.access_events("login")[-1]
    named = pseudonym(service.services.keys.pseudonym.seed, "actor", actor_name(provider.url, "248289761001"))
    assert (login.actor, login.actor_role, login.result) == (named, "approver", "ok")


def test_the_request_is_a_code_flow_with_pkce_nonce_and_state(service, provider):
    with browser(service) as visitor:
        log_in(service, visitor)
        log_in(service, visitor)
    first, second = provider.asked[-2:]
    assert first["response_type"] == "code"
    assert first["redirect_uri"] == f"{service.services.settings.external_url}/login/callback"
    for name, shortest in (("state", 43), ("nonce", 43), ("code_challenge", 43)):
        assert len(first[name]) >= shortest
        assert first[name] != second[name]


@pytest.mark.parametrize(
    ("values", "query", "role"),
    [
        (["tally-responders"], "", "responder"),
        (["tally-auditors", "somewhere-else"], "", "auditor"),
        ("tally-admins", "", "admin"),
        (["tally-responders", "tally-approvers"], "", "approver"),
        (["tally-responders", "tally-approvers"], "?role=responder", "responder"),
    ],
    ids=str,
)
def test_roles_come_from_the_claim_by_the_order_of_the_settings_or_as_asked_for(service, provider, values, query, role):
    provider.user["roles"] = values
    with browser(service) as visitor:
        assert log_in(service, visitor, query).status_code == 200
    assert service.access_events("login")[-1].actor_role == role


def test_a_key_that_the_provider_has_changed_to_counts(service, provider):
    with browser(service) as visitor:
        assert log_in(service, visitor).status_code == 200
    provider.published, provider.signing = ("ec", "ec-next"), "ec-next"
    service.services.oidc._keys._asked_ms = None  # as if the last question for keys were long ago
    with browser(service) as visitor:
        assert log_in(service, visitor).status_code == 200


def test_a_new_login_has_a_new_session_and_ends_the_one_that_the_browser_had(service):
    with browser(service) as visitor:
        log_in(service, visitor)
        first = visitor.cookies["tallystick"]
        log_in(service, visitor)
        assert visitor.cookies["tallystick"] != first
        visitor.cookies.set("tallystick", first)
    with browser(service) as thief:
        thief.cookies.set("tallystick", first)
        assert not logged_in(thief)


def test_a_session_that_was_planted_is_not_the_one_that_is_let_in(service):
    with browser(service) as visitor:
        visitor.cookies.set("tallystick", "acme." + "x" * 43)
        log_in(service, visitor)
    with browser(service) as thief:
        thief.cookies.set("tallystick", "acme." + "x" * 43)
        assert not logged_in(thief)


# --- who is not believed


NONE = b'{"alg":"none","kid":"ec","typ":"JWT"}'


def _none(text: str, claims: dict) -> str:
    return f"{encoded(NONE)}.{text.split('.')[1]}."


def _none_with_signature(text: str, claims: dict) -> str:
    return f"{encoded(NONE)}.{text.split('.')[1]}.{text.split('.')[2]}"


def _hmac_of_the_secret(text: str, claims: dict) -> str:
    return jwt.encode(claims, CLIENT_SECRET * 2, algorithm="HS256", headers={"kid": "ec"})


def _hmac_of_the_public_key(text: str, claims: dict) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spelt = private_key("ec").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return jwt.encode(claims, spelt, algorithm="HS256", headers={"kid": "ec"})


def _own_key(text: str, claims: dict) -> str:
    return jwt.encode(claims, private_key("ec-mallory"), algorithm="ES256", headers={"kid": "ec"})


def _key_in_header(text: str, claims: dict) -> str:
    from tests.support.issuer import jwk_of

    header = {"kid": "ec-mallory", "jwk": jwk_of("ec-mallory")}
    return jwt.encode(claims, private_key("ec-mallory"), algorithm="ES256", headers=header)


def _other_claims(text: str, claims: dict) -> str:
    import json

    head, _, signature = text.split(".")
    body = encoded(json.dumps({**claims, "roles": ["tally-admins"]}).encode())
    return f"{head}.{body}.{signature}"


def _access_token(text: str, claims: dict) -> str:
    return jwt.encode(claims, private_key("ec"), algorithm="ES256", headers={"kid": "ec", "typ": "at+jwt"})


def _garbage(text: str, claims: dict) -> str:
    return "not a token"


FORGERIES = [
    _none,
    _none_with_signature,
    _hmac_of_the_secret,
    _hmac_of_the_public_key,
    _own_key,
    _key_in_header,
    _other_claims,
    _access_token,
    _garbage,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_token_that_the_provider_has_not_signed_lets_nobody_in(service, provider, forge):
    provider.forge = forge
    with browser(service) as visitor:
        assert refused(service, visitor, log_in(service, visitor)) == "provider_refused"


SPOILT = {
    "wrong nonce": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "nonce that is no text": {"nonce": ["x"]},
    "another issuer": {"iss": "https://login.example"},
    "no issuer": {"iss": None},
    "another client": {"aud": "somebody-else"},
    "no audience": {"aud": None},
    "shared, made for nobody": {"aud": [CLIENT_ID, "somebody-else"]},
    "shared, made for another": {"aud": [CLIENT_ID, "somebody-else"], "azp": "somebody-else"},
    "ours, made for another": {"azp": "somebody-else"},
    "expired": {"exp": 1_700_000_000},
    "never expires": {"exp": None},
    "expires in words": {"exp": "tomorrow"},
    "issued never": {"iat": None},
    "issued long ago": {"iat": 1_700_000_000},
    "issued in the future": {"iat": 4_000_000_000, "exp": 4_000_000_300},
    "good later": {"nbf": 4_000_000_000},
    "of another access token": {"at_hash": "x" * 22},
    "names nobody": {"sub": None},
    "names nobody by name": {"sub": ""},
    "names somebody twice": {"sub": ["248289761001", "admin"]},
    "a name with line feeds": {"sub": "ann\nadmin"},
    "a logout token": {"events": {}},
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_token_that_is_not_for_this_login_lets_nobody_in(service, provider, spoilt):
    provider.spoil = SPOILT[spoilt]
    with browser(service) as visitor:
        assert refused(service, visitor, log_in(service, visitor)) == "provider_refused"


@pytest.mark.parametrize(
    "changes",
    [
        {"roles": None},
        {"roles": []},
        {"roles": ["TALLY-ADMINS", "tally-admin", "admin", "approver"]},
        {"roles": {"tally-admins": True}},
        {"roles": [["tally-admins"]]},
        {"roles": "tally-admins tally-approvers"},
        # What somebody says of himself.
        {"roles": None, "name": "tally-admins", "preferred_username": "tally-admins", "nickname": "tally-admins"},
        {"roles": None, "groups": ["tally-admins"], "profile": {"roles": ["tally-admins"]}},
    ],
    ids=str,
)
def test_who_has_no_role_is_not_let_in_whatever_he_calls_himself(service, provider, changes):
    provider.user |= changes
    with browser(service) as visitor:
        assert refused(service, visitor, log_in(service, visitor)) == "no_role"


def test_nobody_gets_a_role_that_he_asks_for_and_has_not(service, provider):
    with browser(service) as visitor:
        assert refused(service, visitor, log_in(service, visitor, "?role=admin")) == "no_role"
    with browser(service) as visitor:
        log_in(service, visitor, "?role=enforcer")
    assert service.access_events("login")[-1].actor_role == "approver"


# --- answers that belong to no login


def test_an_answer_counts_once(service, provider):
    with browser(service) as visitor:
        back = at_provider(begun(visitor))
        cookie = visitor.cookies["tallystick-login"]
        assert visitor.get(back).status_code == 200
        assert visitor.cookies.get("tallystick-login") is None
    with browser(service) as again:
        again.cookies.set("tallystick-login", cookie)
        exchanged = provider.exchanged
        assert refused(service, again, again.get(back)) == "provider_refused"
        assert provider.exchanged == exchanged  # the code is not even tried


def test_a_state_that_was_answered_takes_no_other_code(service, provider):
    with browser(service) as visitor:
        there = begun(visitor)
        cookie = visitor.cookies["tallystick-login"]
        visitor.get(at_provider(there))
    with browser(service) as again:
        again.cookies.set("tallystick-login", cookie)
        assert refused(service, again, again.get(at_provider(there))) == "provider_refused"


def test_a_code_that_was_used_lets_nobody_in(service, provider):
    with browser(service) as victim:
        back = at_provider(begun(victim))
        victim.get(back)
    used = parse_qs(urlsplit(back).query)["code"][0]
    with browser(service) as thief:
        mine = parse_qs(urlsplit(at_provider(begun(thief))).query)
        answer = thief.get("/login/callback", params={"state": mine["state"][0], "code": used, "iss": provider.url})
        assert refused(service, thief, answer) == "provider_refused"


def test_a_code_of_another_browsers_login_lets_nobody_in(service, provider):
    with browser(service) as victim, browser(service) as thief:
        stolen = parse_qs(urlsplit(at_provider(begun(victim))).query)["code"][0]
        state = parse_qs(urlsplit(begun(thief)).query)["state"][0]
        answer = thief.get("/login/callback", params={"state": state, "code": stolen, "iss": provider.url})
        # The provider knows that code by another challenge; and its ID token would have another nonce.
        assert refused(service, thief, answer) == "provider_refused"


def test_an_answer_is_taken_in_the_browser_alone_that_asked(service, provider):
    with browser(service) as mallory, browser(service) as victim:
        back = at_provider(begun(mallory))
        # Login CSRF: the victim's browser is led to the answer to mallory's login.
        assert refused(service, victim, victim.get(back)) == "provider_refused"
        begun(victim)
        assert refused(service, victim, victim.get(back)) == "provider_refused"


@pytest.mark.parametrize(
    "bend",
    [
        lambda cookie: cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        lambda cookie: "x" + cookie,
        lambda cookie: cookie.partition(".")[0],
        lambda cookie: cookie.partition(".")[0] + ".",
        lambda _: ".",
        lambda _: "a" * 5000,
    ],
)
def test_a_login_under_way_that_was_altered_is_none(service, bend):
    with browser(service) as visitor:
        back = at_provider(begun(visitor))
        bent = bend(visitor.cookies["tallystick-login"])
        visitor.cookies.clear()
        visitor.cookies.set("tallystick-login", bent)
        assert refused(service, visitor, visitor.get(back)) == "provider_refused"


def test_an_answer_of_another_provider_is_refused(service, provider):
    with browser(service) as visitor:
        back = parse_qs(urlsplit(at_provider(begun(visitor))).query)
        exchanged = provider.exchanged
        mixed = {"state": back["state"][0], "code": back["code"][0], "iss": "https://honest.example"}
        assert refused(service, visitor, visitor.get("/login/callback", params=mixed)) == "provider_refused"
    with browser(service) as visitor:
        back = parse_qs(urlsplit(at_provider(begun(visitor))).query)
        # It says that it names itself beside each code (RFC 9207): an answer without a name is somebody else's.
        unnamed = {"state": back["state"][0], "code": back["code"][0]}
        assert refused(service, visitor, visitor.get("/login/callback", params=unnamed)) == "provider_refused"
    assert provider.exchanged == exchanged


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?code=x",
        "?state=acme.x&code=x",
        f"?state=acme.{'x' * 43}&code=x",
        f"?state=acme.{'x' * 43}&error=access_denied",
        f"?state=globex.{'x' * 43}&code=x",
    ],
)
def test_an_answer_to_nothing_lets_nobody_in(service, query):
    with browser(service) as visitor:
        answer = visitor.get(f"/login/callback{query}")
        assert answer.status_code in (403, 404, 429)
        assert visitor.cookies.get("tallystick") is None


def test_who_says_no_at_the_provider_is_not_let_in(service):
    with browser(service) as visitor:
        state = parse_qs(urlsplit(begun(visitor)).query)["state"][0]
        answer = visitor.get("/login/callback", params={"state": state, "error": "access_denied"})
        assert refused(service, visitor, answer) == "provider_refused"


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/login/provider",
        "/decisions/../../evil",
        "/%0d%0aSet-Cookie:x=y",
    ],
)
def test_nobody_is_led_elsewhere_after_logging_in(service, wanted):
    with browser(service) as visitor:
        url = at_provider(target_of(visitor.get("/login/provider", params={"next": wanted}).text))
        assert target_of(visitor.get(url).text) == "/"


# --- the provider itself


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://login.example/authorize"},
        {"token_endpoint": "http://login.example/token"},
        {"jwks_uri": "ftp://login.example/keys"},
        {"token_endpoint": None},
        {"authorization_endpoint": 7},
    ],
    ids=str,
)
def test_a_provider_that_says_something_else_of_itself_is_not_asked(provider, tmp_path, metadata):
    provider.metadata = metadata
    for service in started(provider, tmp_path):
        with browser(service) as visitor:
            answer = visitor.get("/login/provider")
            assert answer.status_code == 503
            assert "login.example" not in answer.text
            assert "evil.example" not in answer.text


def test_a_secret_that_the_provider_does_not_know_lets_nobody_in(provider, tmp_path):
    for service in started(provider, tmp_path, oidc_client_secret=""):
        with browser(service) as visitor:
            assert refused(service, visitor, log_in(service, visitor)) == "provider_refused"


@pytest.mark.parametrize(
    ("changes", "claims", "let_in"),
    [
        ({"oidc_require": "approver=amr:otp"}, {}, True),
        ({"oidc_require": "approver=amr:hwk,approver=acr:urn:example:silver"}, {}, True),
        ({"oidc_require": "approver=amr:hwk"}, {}, False),
        ({"oidc_require": "approver=amr:otp"}, {"amr": "otp"}, False),
        ({"oidc_require": "approver=amr:otp"}, {"amr": None}, False),
        ({"oidc_require": "admin=amr:hwk"}, {}, True),
        ({"oidc_email_domains": "example.com"}, {}, True),
        ({"oidc_email_domains": "example.com"}, {"email": "ann@EXAMPLE.com"}, True),
        ({"oidc_email_domains": "example.com"}, {"email": "ann@evil.example"}, False),
        ({"oidc_email_domains": "example.com"}, {"email": "ann@evilexample.com"}, False),
        ({"oidc_email_domains": "example.com"}, {"email_verified": False}, False),
        ({"oidc_email_domains": "example.com"}, {"email_verified": "true"}, False),
        ({"oidc_email_domains": "example.com"}, {"email": None}, False),
        ({"oidc_log_claim": "tally.logs"}, {"tally": {"logs": ["acme"]}}, True),
        ({"oidc_log_claim": "tally.logs"}, {"tally": {"logs": ["globex"]}}, False),
        ({"oidc_log_claim": "tally.logs"}, {}, False),
        ({"oidc_role_claim": "realm_access.roles"}, {"realm_access": {"roles": ["tally-approvers"]}}, True),
        ({"oidc_role_claim": "realm_access.roles"}, {}, False),
    ],
    ids=str,
)
def test_what_the_settings_demand_of_a_login_is_demanded(provider, tmp_path, changes, claims, let_in):
    provider.user |= claims
    for service in started(provider, tmp_path, **changes):
        with browser(service) as visitor:
            answer = log_in(service, visitor)
            assert (answer.status_code == 200) is logged_in(visitor) is let_in


# --- the end of a login


def backchannel(service: RunningService, token: str, log_id: str = "acme") -> int:
    with service.server.stranger() as caller:
        return caller.post(f"/login/backchannel/{log_id}", data={"logout_token": token}).status_code


def test_a_provider_ends_the_logins_of_a_session_at_once_and_that_is_recorded(service, provider):
    with browser(service) as visitor, browser(service) as other:
        log_in(service, visitor)
        provider.user |= {"sub": "bob", "sid": "sid-of-bob", "email": "bob@example.com"}
        log_in(service, other)
        provider.user = dict(ANN)
        assert backchannel(service, provider.logout_token()) == 200
        assert not logged_in(visitor)
        assert logged_in(other)
        ended = service.access_events("provider_logout")[-1]
        assert (ended.actor_role, ended.result) == ("identity_provider", "ok")
        assert ended.items >= 1


@pytest.mark.parametrize(
    "members",
    [
        {"iss": "https://login.example"},
        {"aud": "somebody-else"},
        {"events": None},
        {"events": {}},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": True}},
        {"nonce": "x"},
        {"sid": None},
        {"sid": 7},
        {"exp": 1_700_000_000},
        {"iat": 1_700_000_000},
    ],
    ids=str,
)
def test_nobody_else_ends_a_login(service, provider, members):
    with browser(service) as visitor:
        log_in(service, visitor)
        assert backchannel(service, provider.logout_token(**members)) == 400
        assert logged_in(visitor)


def test_neither_does_an_id_token_or_one_of_nobody(service, provider):
    with browser(service) as visitor:
        log_in(service, visitor)
        assert backchannel(service, provider.sign(provider.claims())) == 400
        forged = jwt.encode(provider.claims(), private_key("ec-mallory"), algorithm="ES256", headers={"kid": "ec"})
        assert backchannel(service, forged) == 400
        assert backchannel(service, "") == 400
        assert backchannel(service, provider.logout_token(), "globex") == 404
        assert logged_in(visitor)


def test_a_login_ends_by_itself(provider, tmp_path):
    for service in started(provider, tmp_path, oidc_seconds=60):
        with browser(service) as visitor:
            log_in(service, visitor)
            assert logged_in(visitor)
            events = service.access_events("login")
            assert events[-1].result == "ok"
            persons = service.services.people.tokens
            # Not a row's age but the token's end decides, and that is sealed.
            found = persons.end(provider.url, subject=ANN["sub"])
            assert found == 1
            assert not logged_in(visitor)


# --- the console, where there is a provider


def test_a_token_of_the_console_lets_nobody_in_where_people_log_in_by_a_provider(service):
    token = service.person_token(Role.ADMIN, "olga")
    with service.client(token=token) as client:
        answer = client.get("/v1/decisions")
        assert answer.status_code == 401
        assert "identity provider" in answer.json()["detail"]


def test_in_need_it_does_where_the_operator_says_so_and_each_first_use_says_so_too(provider, tmp_path):
    for service in started(provider, tmp_path, break_glass=True):
        assert any("beside the OpenID provider" in said for said in service.services.settings.warnings())
        people = service.services.people
        ordinary = Person(issuer=CONSOLE, subject="olga", name="olga", method="console")
        console = people.issue(ordinary, Role.ADMIN, seconds=60)[0]
        with service.client(token=console) as client:
            assert client.get("/v1/decisions").status_code == 401
        person = Person(issuer=CONSOLE, subject="olga", name="olga", method="break_glass")
        token = people.issue(person, Role.RESPONDER, seconds=60)[0]
        with service.client(token=token) as client:
            assert client.post("/v1/containments", json=ORDER).status_code == 201
        (used,) = service.access_events("break_glass_login")
        assert used.actor_role == "responder"


def test_where_no_provider_is_configured_nobody_logs_in_by_one_and_the_page_says_so(tmp_path):
    with start_service(tmp_path) as service, browser(service) as visitor:
        assert visitor.get("/login/provider").status_code == 404
        assert visitor.get(f"/login/callback?state=acme.{'x' * 43}&code=x").status_code == 404
        assert backchannel(service, "x") == 404
        assert "No identity provider is configured" in visitor.get("/login").text


# --- logging out at the provider as well


def leave(visitor: httpx.Client) -> httpx.Response:
    csrf = visitor.get("/").text.partition('name="csrf" value="')[2].partition('"')[0]
    assert csrf
    return visitor.post("/logout", data={"csrf": csrf})


def asked_anew(service: RunningService) -> None:
    """Have the provider's metadata fetched at the next question."""
    service.services.oidc._metadata = None


def test_whoever_logs_out_is_led_to_the_providers_logout_and_back(service, provider):
    asked_anew(service)
    with browser(service) as visitor:
        log_in(service, visitor)
        answer = leave(visitor)
        assert answer.status_code == 200
        target = urlsplit(target_of(answer.text))
        assert f"{target.scheme}://{target.netloc}{target.path}" == f"{provider.url}/logout"
        back = f"{service.services.settings.external_url}/login?said=logged-out"
        assert parse_qs(target.query) == {"client_id": [CLIENT_ID], "post_logout_redirect_uri": [back]}
        assert not logged_in(visitor)
    assert service.access_events("logout")[-1].result == "ok"


@pytest.mark.parametrize("how", ["it has no such place", "it does not answer", "its address is not https"])
def test_where_the_provider_cannot_log_anybody_out_the_login_here_ends_all_the_same(service, provider, how):
    with browser(service) as visitor:
        log_in(service, visitor)
        oidc = service.services.oidc
        kept = oidc._keys
        asked_anew(service)
        if how == "it does not answer":
            oidc._keys, provider.metadata = None, {"issuer": "https://another.example"}
        else:
            address = "http://evil.example/logout" if how.endswith("https") else None
            oidc._keys, provider.metadata = None, {"end_session_endpoint": address}
        answer = leave(visitor)
        if oidc._keys is not None:
            service.run(oidc._keys.stop)
        oidc._keys = kept
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?said=logged-out")
        assert not logged_in(visitor)


def test_a_form_of_another_site_ends_no_login_and_leads_nowhere(service):
    with browser(service) as visitor:
        log_in(service, visitor)
        for headers, csrf in (({}, "made up"), ({"origin": "https://evil.example"}, "made up"), ({}, "")):
            answer = visitor.post("/logout", data={"csrf": csrf}, headers=headers)
            assert answer.status_code == 403
            assert "http-equiv" not in answer.text
        assert logged_in(visitor)


def test_whom_no_provider_logged_in_is_led_to_none(service):
    with browser(service) as visitor:
        page = visitor.get("/login").text
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        visitor.post("/login", data={"csrf": csrf, "token": service.machine_token(Role.AUDITOR)})
        answer = leave(visitor)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?said=logged-out")
        assert visitor.post("/logout").headers["location"] == "/login?said=logged-out"  # who has left already
