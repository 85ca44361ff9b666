"""Access tokens: whatever is spoiled in one, it makes nobody known; a claim that is no name is never made into one."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enforcement.access_tokens import MAX_TOKEN_CHARS, KnownToken, check_token, parse_unverified_token
from enforcement.config_identity import IssuerSettings
from enforcement.identity import Cause, CredentialError, Identity
from enforcement.jwks import parse_key_set
from enforcement.tls_peer import TLSPeer
from tests.support.gateway_keys import NOON_MS
from tests.support.issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    claims_of,
    encoded,
    issuer_settings,
    key_set,
    private_key,
    signed,
    token_of,
)

KIDS = ("ec", "rsa", "ed")
THUMBPRINT = bytes(range(32))
TLS = TLSPeer(version="TLSv1.3", group="x25519", cipher="c", certificate_sha256=THUMBPRINT.hex())
HEADER = b'{"alg":"ES256","kid":"ec","typ":"at+jwt"}'


def verified(token: str, *, kids: tuple[str, ...] = KIDS, audience: str = AUDIENCE, **settings: Any) -> KnownToken:
    require_bound = settings.pop("require_bound", False)
    issuer = IssuerSettings.model_validate(issuer_settings(**settings))
    read = parse_unverified_token(token)
    key = parse_key_set(key_set(*kids), issuer.algorithms).find(read.kid, read.algorithm)
    if key is None:
        raise CredentialError(Cause.KEY)
    return check_token(read, key, issuer, audiences={audience}, now_ms=NOON_MS, require_bound=require_bound)


def identity(token: str, tls: TLSPeer | None = None, **settings: Any) -> Identity:
    return verified(token, **settings).check(NOON_MS, tls)


def refused(token: str, tls: TLSPeer | None = None, **settings: Any) -> Cause:
    with pytest.raises(CredentialError) as caught:
        identity(token, tls, **settings)
    return caught.value.cause


@pytest.mark.parametrize("kid", KIDS)
def test_a_token_of_each_kind_of_key_names_agent_user_and_scopes(kid: str) -> None:
    known = identity(token_of(kid))
    assert (known.agent, known.user, known.roles, known.mfa) == ("Finance-Bot", "alice", (), False)
    assert (known.authn, known.scopes) == ("oauth", frozenset({"mcp"}))


def unsigned(header: bytes, signature: str = "AAAA") -> str:
    return f"{encoded(header)}.{encoded(json.dumps(claims_of()).encode())}.{signature}"


def hmac_with_the_public_key() -> str:
    pem = private_key("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = unsigned(b'{"alg":"HS256","kid":"rsa","typ":"at+jwt"}').rpartition(".")[0]
    return f"{text}.{encoded(hmac.digest(pem, text.encode(), 'sha256'))}"


def other_payload() -> str:
    header, _, signature = token_of().split(".")
    return f"{header}.{encoded(json.dumps(claims_of(client_id='Payroll-Bot')).encode())}.{signature}"


def spare_bits() -> str:
    """The same signature bytes in another spelling: its last character holds bits that no byte has."""
    token = token_of("ed")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def spoiled(name: str, value: object) -> str:
    return (
        token_of(**{name: value})
        if not isinstance(value, str)
        else signed(HEADER, json.dumps({**claims_of(), name: value}).encode())
    )


NUMBERS = [True, "1", -1, 1e300, [], {}]
FORGED: dict[str, tuple[Callable[[], str], Cause]] = {
    "no signature": (lambda: unsigned(b'{"alg":"none"}', ""), Cause.MALFORMED),
    "none with a signature": (lambda: unsigned(b'{"alg":"none"}'), Cause.KEY),
    "None": (lambda: unsigned(b'{"alg":"NoNe","kid":"ec"}'), Cause.KEY),
    "HMAC with the public key": (hmac_with_the_public_key, Cause.KEY),
    "another algorithm of the same key": (lambda: token_of("rsa", alg="RS512"), Cause.KEY),
    "an algorithm of another key": (lambda: token_of("rsa", headers={"kid": "ec"}), Cause.KEY),
    "another key of the same kind": (lambda: token_of("ec-2", headers={"kid": "ec"}), Cause.SIGNATURE),
    "a key that is not known": (lambda: token_of("ec-2"), Cause.KEY),
    "no kid, and several keys": (lambda: token_of(headers={"kid": None}), Cause.KEY),
    "another payload": (other_payload, Cause.SIGNATURE),
    "another spelling of the signature": (spare_bits, Cause.SIGNATURE),
    "crit": (lambda: token_of(headers={"crit": ["exp"], "exp": 1}), Cause.UNSUPPORTED),
    "empty crit": (lambda: signed(HEADER[:-1] + b',"crit":[]}', b"{}"), Cause.UNSUPPORTED),
    "b64": (lambda: signed(HEADER[:-1] + b',"b64":false}', b"{}"), Cause.UNSUPPORTED),
    "compressed": (lambda: token_of(headers={"zip": "DEF"}), Cause.UNSUPPORTED),
    "an identity token": (lambda: token_of(headers={"typ": "JWT"}), Cause.TYPE),
    "no typ": (lambda: signed(b'{"alg":"ES256","kid":"ec"}', json.dumps(claims_of()).encode()), Cause.TYPE),
    "typ is no text": (lambda: signed(b'{"alg":"ES256","kid":"ec","typ":7}', b'{"iss":"x"}'), Cause.MALFORMED),
    "kid is no text": (lambda: signed(b'{"alg":"ES256","kid":["ec"]}', b'{"iss":"x"}'), Cause.MALFORMED),
    "kid is a novel": (lambda: token_of(headers={"kid": "k" * 257}), Cause.MALFORMED),
    "alg is no text": (lambda: unsigned(b'{"alg":["ES256"]}'), Cause.MALFORMED),
    "alg twice": (
        lambda: signed(b'{"alg":"none","alg":"ES256","kid":"ec","typ":"at+jwt"}', json.dumps(claims_of()).encode()),
        Cause.MALFORMED,
    ),
    "a claim twice": (
        lambda: signed(HEADER, json.dumps(claims_of())[:-1].encode() + b',"client_id":"Payroll-Bot"}'),
        Cause.MALFORMED,
    ),
    "a claim twice below": (lambda: signed(HEADER, b'{"iss":"x","cnf":{"jkt":"a","jkt":"b"}}'), Cause.MALFORMED),
    "claims are a list": (lambda: signed(HEADER, b"[]"), Cause.MALFORMED),
    "claims are no JSON": (lambda: signed(HEADER, b"{"), Cause.MALFORMED),
    "claims are not UTF-8": (lambda: signed(HEADER, b'{"iss":"\xff"}'), Cause.MALFORMED),
    "header is a list": (lambda: signed(b"[]", b"{}"), Cause.MALFORMED),
    "nested too deep": (lambda: signed(HEADER, b'{"iss":' + b"[" * 50 + b"]" * 50 + b"}"), Cause.MALFORMED),
    "a token within the token": (lambda: signed(HEADER, token_of().encode()), Cause.MALFORMED),
    "encrypted": (lambda: f"{token_of()}.AAAA.AAAA", Cause.MALFORMED),
    "two parts": (lambda: token_of().rsplit(".", 1)[0], Cause.MALFORMED),
    "padding": (lambda: token_of() + "=", Cause.MALFORMED),
    "standard base64": (lambda: "+/+/.+/+/.+/+/", Cause.MALFORMED),
    "huge": (lambda: token_of(groups="g" * MAX_TOKEN_CHARS), Cause.MALFORMED),
    "another issuer": (lambda: token_of(iss="https://login.example.evil"), Cause.ISSUER),
    "the issuer with a slash": (lambda: token_of(iss=f"{ISSUER}/"), Cause.ISSUER),
    "no issuer": (lambda: token_of(iss=None), Cause.MALFORMED),
    "issuers": (lambda: signed(HEADER, b'{"iss":["https://login.example"]}'), Cause.MALFORMED),
    "another server's": (lambda: token_of(aud=AUDIENCE.replace("finance", "payroll")), Cause.AUDIENCE),
    "the gateway's own URI": (lambda: token_of(aud="https://gateway.example"), Cause.AUDIENCE),
    "the resource with a slash": (lambda: token_of(aud=f"{AUDIENCE}/"), Cause.AUDIENCE),
    "the resource in other letters": (lambda: token_of(aud=AUDIENCE.upper()), Cause.AUDIENCE),
    "no audience": (lambda: token_of(aud=None), Cause.AUDIENCE),
    "empty audience": (lambda: token_of(aud=[]), Cause.AUDIENCE),
    "audience in an object": (lambda: token_of(aud={AUDIENCE: True}), Cause.AUDIENCE),
    "audience in a list in a list": (lambda: token_of(aud=[[AUDIENCE]]), Cause.AUDIENCE),
    "audiences without end": (lambda: token_of(aud=[AUDIENCE, *map(str, range(40))]), Cause.AUDIENCE),
    "expired": (lambda: token_of(exp=NOW - 30), Cause.EXPIRED),
    "no expiry": (lambda: token_of(exp=None), Cause.MALFORMED),
    "lives for ever": (lambda: token_of(exp=NOW + 100 * 86_400), Cause.LIFETIME),
    "lives for ever, issued at no time": (lambda: token_of(exp=NOW + 100 * 86_400, iat=None), Cause.LIFETIME),
    "not yet": (lambda: token_of(nbf=NOW + 31), Cause.NOT_YET),
    "issued tomorrow": (lambda: token_of(iat=NOW + 86_400, exp=NOW + 86_500), Cause.NOT_YET),
    **{f"exp is {value!r}": (partial(spoiled, "exp", value), Cause.MALFORMED) for value in NUMBERS},
    **{f"nbf is {value!r}": (partial(spoiled, "nbf", value), Cause.MALFORMED) for value in NUMBERS},
    **{f"iat is {value!r}": (partial(spoiled, "iat", value), Cause.MALFORMED) for value in NUMBERS},
    "no client": (lambda: token_of(client_id=None), Cause.NAME),
    "a client that is no name": (lambda: token_of(client_id="Finance Bot"), Cause.NAME),
    "a client with a line break": (lambda: token_of(client_id="Finance-Bot\n"), Cause.NAME),
    "a client that is a list": (lambda: token_of(client_id=["Finance-Bot"]), Cause.NAME),
    "an empty client": (lambda: token_of(client_id=""), Cause.NAME),
    "a user with a line break": (lambda: token_of(sub="alice\n"), Cause.NAME),
    "a user with space around it": (lambda: token_of(sub=" alice"), Cause.NAME),
    "a user that is nobody": (lambda: token_of(sub=""), Cause.NAME),
    "a user that is a number": (lambda: signed(HEADER, json.dumps(claims_of(sub=1)).encode()), Cause.NAME),
    "a user that is a novel": (lambda: token_of(sub="a" * 257), Cause.NAME),
    "scopes in an object": (lambda: token_of(scope={"mcp": True}), Cause.NAME),
    "scopes that are numbers": (lambda: token_of(scope=[1]), Cause.NAME),
    "bound to a key of the client's": (lambda: token_of(cnf={"jkt": "x" * 43}), Cause.UNSUPPORTED),
    "bound to something else besides": (lambda: token_of(cnf={"x5t#S256": "A" * 43, "jkt": "x"}), Cause.UNSUPPORTED),
    "bound to no digest": (lambda: token_of(cnf={"x5t#S256": "AAAA"}), Cause.UNSUPPORTED),
    "bound to nothing": (lambda: token_of(cnf={}), Cause.UNSUPPORTED),
    "bound to a certificate, and there is none": (
        lambda: token_of(cnf={"x5t#S256": encoded(THUMBPRINT)}),
        Cause.NOT_BOUND_HERE,
    ),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_token_makes_nobody_known(case: str) -> None:
    forge, cause = FORGED[case]
    assert refused(forge()) is cause


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_a_token_brings_along_is_not_used(member: str) -> None:
    value: Any = {"jwk": jwt.algorithms.ECAlgorithm.to_jwk(private_key("ec-2").public_key(), as_dict=True)}.get(
        member, "https://evil.example/keys"
    )
    assert refused(token_of("ec-2", headers={"kid": "ec", member: value})) is Cause.SIGNATURE


def test_a_set_of_one_key_needs_no_kid() -> None:
    assert identity(token_of(headers={"kid": None}), kids=("ec",)).agent == "Finance-Bot"


def test_an_algorithm_that_is_not_configured_is_refused_though_the_key_has_it() -> None:
    assert refused(token_of("rsa"), algorithms=["ES256", "PS256"]) is Cause.KEY


def test_one_of_several_audiences_suffices_and_fractions_of_seconds_are_read() -> None:
    assert identity(token_of(aud=["other", AUDIENCE], exp=NOW + 1.5)).agent == "Finance-Bot"


def test_an_issuer_without_types_of_its_own_can_be_configured() -> None:
    assert identity(token_of(headers={"typ": "JWT"}), typ=None).agent == "Finance-Bot"
    assert identity(token_of(headers={"typ": "application/AT+JWT"})).agent == "Finance-Bot"


def test_a_token_is_good_within_its_time_and_leeway_by_the_clock_that_is_given() -> None:
    known = verified(token_of(nbf=NOW + 10))
    assert known.check((NOW + 329) * 1000, None).agent == "Finance-Bot"
    for moment, cause in ((NOW + 330, Cause.EXPIRED), (NOW - 21, Cause.NOT_YET)):
        with pytest.raises(CredentialError) as caught:
            known.check(moment * 1000, None)
        assert caught.value.cause is cause


def test_a_bound_token_is_good_with_its_certificate_and_no_other() -> None:
    token = token_of(cnf={"x5t#S256": encoded(THUMBPRINT)})
    assert identity(token, TLS).agent == "Finance-Bot"
    other = TLSPeer(version="TLSv1.3", group="x25519", cipher="c", certificate_sha256=("00" * 32))
    assert refused(token, other) is Cause.NOT_BOUND_HERE


def test_where_bound_tokens_are_demanded_a_bearer_token_is_refused() -> None:
    assert refused(token_of(), TLS, require_bound=True) is Cause.NOT_BOUND


def test_a_client_that_acts_for_itself_has_no_user() -> None:
    assert identity(token_of(sub="Finance-Bot")).user is None
    assert identity(token_of(), claims={}).user is None


def test_agents_can_be_listed_and_then_others_are_refused() -> None:
    agents = {"0oa1b2c3": "Finance-Bot"}
    assert identity(token_of(client_id="0oa1b2c3"), agents=agents).agent == "Finance-Bot"
    assert refused(token_of(client_id="Finance-Bot"), agents=agents) is Cause.AGENT


def test_roles_come_from_a_path_into_the_claims() -> None:
    claims = {"roles": ["realm_access", "roles"]}
    assert identity(token_of(realm_access={"roles": ["b", "a", "a"]}), claims=claims).roles == ("a", "b")
    assert identity(token_of(realm_access=["roles"]), claims=claims).roles == ()
    assert identity(
        token_of(**{"https://x.example/roles": "b a"}), claims={"roles": "https://x.example/roles"}
    ).roles == (
        "a",
        "b",
    )


def test_a_role_that_is_no_name_is_refused_unless_roles_are_listed() -> None:
    claims = {"roles": "groups"}
    token = token_of(groups=["/finance team", "noise"])
    assert refused(token, claims=claims) is Cause.NAME
    assert identity(token, claims=claims, role_names={"/finance team": "finance"}).roles == ("finance",)
    assert refused(token_of(groups=[f"g{number}" for number in range(33)]), claims=claims) is Cause.NAME


@pytest.mark.parametrize(
    ("claims", "mfa"),
    [
        ({"amr": ["pwd", "otp"]}, True),
        ({"amr": ["pwd"]}, False),
        ({"amr": "otp"}, False),
        ({"acr": "urn:two"}, True),
        ({"acr": ["urn:two"]}, False),
        ({}, False),
    ],
)
def test_a_second_factor_is_what_is_configured_as_one(claims: dict[str, Any], mfa: bool) -> None:
    assert identity(token_of(**claims), mfa_amr=["otp", "hwk"], mfa_acr=["urn:two"]).mfa is mfa


def test_the_next_token_of_a_caller_is_the_same_credential_and_another_users_is_not() -> None:
    first, second = identity(token_of(jti="1")), identity(token_of(jti="2", exp=NOW + 200))
    assert first.credential == second.credential
    assert identity(token_of(sub="bob")).credential != first.credential


def test_a_prefix_keeps_the_users_of_two_issuers_apart() -> None:
    assert identity(token_of(), user_prefix="corp/").user == "corp/alice"


def test_nothing_of_a_token_stands_in_an_error_or_a_representation() -> None:
    token = token_of(client_id="Finance Bot")
    with pytest.raises(CredentialError) as caught:
        identity(token)
    assert "Finance" not in str(caught.value)
    assert token[:10] not in repr(parse_unverified_token(token))
