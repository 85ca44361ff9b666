"""Facts: the hour in its zone, the network of the socket, who the token stands for."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from enforcement.config import NetworkSettings, PrincipalSettings, ServerSettings
from enforcement.facts import UNKNOWN, Networks, Pseudonyms, build_request, local_time, tags_of
from enforcement.identity import Identity, Principals, bearer_token
from enforcement.mcp import Message, parse_message
from ledger.commitments import pseudonym, pseudonym_key_id
from policies.model import SessionState, decode_request, encode_request, public_facts
from tests.support.mcp_messages import body_of, headers_of

NETWORKS = Networks(
    [
        NetworkSettings(label="office", cidrs=("10.0.0.0/8",)),
        NetworkSettings(label="coffee-shop", cidrs=("10.9.0.0/16", "2001:db8::/32")),
    ]
)
TOKEN = "a-token-of-some-length"
ALICE = PrincipalSettings(
    token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(), agent="Bot", user="alice", roles=("b", "a"), mfa=True
)


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type]  # year to minute


@pytest.mark.parametrize(
    ("moment", "zone", "date", "hour", "minute", "weekday"),
    [
        (ms(2025, 11, 24, 11, 0), "Europe/Berlin", "2025-11-24", 12, 0, 1),
        (ms(2025, 11, 23, 23, 30), "Europe/Berlin", "2025-11-24", 0, 30, 1),
        (ms(2025, 7, 1, 6, 59), "Europe/Berlin", "2025-07-01", 8, 59, 2),
        (ms(2025, 10, 26, 0, 30), "Europe/Berlin", "2025-10-26", 2, 30, 7),  # the first 02:30 of that night
        (ms(2025, 10, 26, 1, 30), "Europe/Berlin", "2025-10-26", 2, 30, 7),  # the second
        (ms(2025, 3, 30, 1, 0), "Europe/Berlin", "2025-03-30", 3, 0, 7),  # 02:00 does not exist
        (ms(2024, 2, 29, 20, 0), "Pacific/Kiritimati", "2024-03-01", 10, 0, 5),
        (ms(2025, 1, 1, 0, 0), "Asia/Kathmandu", "2025-01-01", 5, 45, 3),
        (0, "UTC", "1970-01-01", 0, 0, 4),
    ],
)
def test_the_local_hour_follows_the_zone(
    moment: int, zone: str, date: str, hour: int, minute: int, weekday: int
) -> None:
    time = local_time(moment, zone)
    assert (time.now_ms, time.zone) == (moment, zone)
    assert (time.local_date, time.hour, time.minute, time.weekday) == (date, hour, minute, weekday)


@pytest.mark.parametrize(
    ("peer", "address", "label"),
    [
        ("10.1.2.3", "10.1.2.3", "office"),
        ("10.9.2.3", "10.9.2.3", "coffee-shop"),  # the narrower range wins
        ("::ffff:10.9.2.3", "10.9.2.3", "coffee-shop"),
        ("2001:DB8::1", "2001:db8::1", "coffee-shop"),
        ("fe80::1%eth0", "fe80::1", UNKNOWN),
        ("192.0.2.1", "192.0.2.1", UNKNOWN),
        ("::a09:203", "::a09:203", UNKNOWN),  # not a mapped address
        ("testclient", UNKNOWN, UNKNOWN),
        (None, UNKNOWN, UNKNOWN),
    ],
)
def test_a_caller_is_in_the_narrowest_network_of_its_address(peer: str | None, address: str, label: str) -> None:
    place = NETWORKS.locate(peer)
    assert (place.address, place.network) == (address, label)


def test_tags_are_those_of_the_server_and_of_the_tool() -> None:
    server = ServerSettings.model_validate(
        {"name": "s", "url": "http://x/", "tags": ["b", "a"], "tools": [{"name": "t", "tags": ["c", "a"]}]}
    )
    assert tags_of(server, "t") == ("a", "b", "c")
    assert tags_of(server, "other") == tags_of(server, None) == ("a", "b")


def test_a_request_holds_all_facts_and_can_be_read_back() -> None:
    message = parse_message(body_of(arguments={"amount": 1.0}), headers_of())
    assert isinstance(message, Message)
    identity = Principals([ALICE]).identify(TOKEN, 0)
    assert identity is not None
    request = build_request(
        identity=identity,
        message=message,
        server=ServerSettings(name="finance", url="http://x/"),
        time=local_time(0, "UTC"),
        place=NETWORKS.locate("10.1.2.3"),
        state=SessionState(session="s", calls=3, denied=1, started_ms=5),
    )
    assert decode_request(encode_request(request)) == request
    assert (request.principal.user, request.principal.roles) == ("alice", ("a", "b"))
    assert request.arguments == '{"amount": 1.0}'
    facts = public_facts(request)
    assert (facts.network, facts.session_calls, facts.authn, facts.mfa) == ("office", 3, "api_token", True)


def test_a_message_without_arguments_is_judged_by_an_empty_object() -> None:
    message = parse_message(body_of("tools/list", None), headers_of("tools/list", None))
    assert isinstance(message, Message)
    request = build_request(
        identity=Identity(credential="0", agent="Bot", user=None, roles=(), mfa=False),
        message=message,
        server=ServerSettings(name="finance", url="http://x/"),
        time=local_time(0, "UTC"),
        place=NETWORKS.locate(None),
        state=SessionState(session="s"),
    )
    assert (request.arguments, request.resource.name, request.principal.user) == ("{}", None, None)


@pytest.mark.parametrize("token", ["", f"{TOKEN}x", f" {TOKEN}", ALICE.token_sha256])
def test_nothing_but_the_token_itself_is_a_credential(token: str) -> None:
    assert Principals([ALICE]).identify(token, 0) is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_is_matched_without_regard_to_case(scheme: str) -> None:
    assert bearer_token([(b"Authorization", f"{scheme} {TOKEN}".encode())]) == TOKEN


def test_pseudonyms_are_those_of_the_tenants_key_and_show_no_key() -> None:
    key = bytes(range(32))
    names = Pseudonyms(key)
    assert names.user("alice") == pseudonym(key, "user", "alice")
    assert (names.user(None), names.address(UNKNOWN), names.content(None)) == (None, None, None)
    assert names.user("x") != names.session("x") != names.address("x")
    assert repr(names) == f"Pseudonyms({pseudonym_key_id(key)})"
