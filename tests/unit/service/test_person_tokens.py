"""Persons' tokens: whom they speak for, what makes them count, when they end, and by which names one is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, insert, select, update

from ledger.clock import SimulatedClock
from ledger.database import open_engine
from ledger.errors import ConfigError
from migrations.schema import upgrade
from service import tables
from service.auth import Caller, Permission, Role, TokenStore, require, token_digest
from service.person_tokens import PersonTokens
from service.persons import CONSOLE, MAX_PERSON_SECONDS, Owner, Person, actor_name, is_sealed, seal_of
from service.problems import PersonNeededError, UnauthenticatedError
from tests.support.ledger import LOG_ID, NOW_MS

SEED = b"s" * 32
ISSUER = "https://login.example"
ANN = Person(
    issuer=ISSUER,
    subject="0a1b",
    name="ann@example.com",
    method="oidc",
    acr="urn:example:silver",
    amr=("pwd", "otp"),
    provider_session="sid-1",
)
CONSOLE_ANN = Person(issuer=CONSOLE, subject="ann@example.com", name="ann@example.com", method="console")
BOB = replace(ANN, subject="ffff", name="bob@example.com", provider_session="sid-2")


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW_MS)


@pytest.fixture
def engine(tmp_path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def persons(engine, clock) -> PersonTokens:
    return PersonTokens(engine, clock, LOG_ID)


@pytest.fixture
def tokens(engine, clock) -> TokenStore:
    return TokenStore(engine, clock)


def issue(persons: PersonTokens, person: Person = ANN, role: Role = Role.APPROVER, *, seconds: int = 3600) -> str:
    return persons.issue(person, role, seed=SEED, seconds=seconds)[0]


def sealed(caller: Caller, *seeds: bytes) -> bool:
    assert caller.person is not None
    told = (caller.log_id, caller.token_sha256, caller.role.value, caller.expires_ms or 0, caller.person)
    return is_sealed(caller.seal, seeds or (SEED,), *told)


# --- whom a token speaks for


@pytest.mark.parametrize("person", [ANN, CONSOLE_ANN], ids=lambda person: person.method)
def test_a_persons_token_says_who_logged_in_and_how(persons, tokens, person):
    token, caller = persons.issue(person, Role.APPROVER, seed=SEED, seconds=60)
    assert token.startswith("tp1.acme.")
    assert tokens.authenticate(token) == caller
    assert (caller.person, caller.owner, caller.expires_ms) == (person, None, NOW_MS + 60_000)
    assert sealed(caller)
    require(caller, Permission.REVIEW_BUNDLES)


def test_a_machines_token_is_no_persons_whatever_it_is_called(tokens):
    caller = tokens.authenticate(tokens.issue(LOG_ID, Role.APPROVER, "ann@example.com"))
    assert caller.person is None
    with pytest.raises(PersonNeededError):
        require(caller, Permission.REVIEW_BUNDLES)


def test_a_machines_token_says_whose_it_is_where_that_is_known_and_is_no_person_for_it(tokens):
    caller = tokens.authenticate(tokens.issue(LOG_ID, Role.ADMIN, "ci", owner=ANN.owner))
    assert (caller.owner, caller.person) == (Owner(issuer=ISSUER, subject="0a1b"), None)
    with pytest.raises(PersonNeededError):
        require(caller, Permission.REVIEW_BUNDLES)


def test_a_persons_token_ends_by_itself(persons, tokens, clock):
    token = issue(persons, seconds=60)
    clock.advance(59_999)
    assert tokens.authenticate(token).person == ANN
    clock.advance(1)
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(token)


@pytest.mark.parametrize("seconds", [-1, 0, MAX_PERSON_SECONDS + 1, 10**9])
def test_no_persons_token_lives_longer_than_a_day(persons, seconds):
    with pytest.raises(ConfigError, match="86400"):
        issue(persons, seconds=seconds)


@pytest.mark.parametrize("role", [Role.ENFORCER, Role.CLIENT])
def test_no_person_is_a_machine(persons, role):
    with pytest.raises(ConfigError, match="for machines"):
        issue(persons, role=role)


@pytest.mark.parametrize(
    "changes", [{"subject": ""}, {"name": ""}, {"subject": "x" * 257}, {"name": "x" * 129}], ids=str
)
def test_who_has_no_name_that_can_be_kept_gets_no_token(persons, changes):
    with pytest.raises(ConfigError):
        issue(persons, replace(ANN, **changes))


TAKEN = actor_name(ISSUER, ANN.subject)


@pytest.mark.parametrize("field", ["subject", "name"])
@pytest.mark.parametrize("called", [TAKEN, "ann\x00", "ann\u202e"])
def test_nobody_at_the_console_is_called_like_a_person_of_the_provider(persons, field, called):
    with pytest.raises(ConfigError, match="printable"):
        issue(persons, replace(CONSOLE_ANN, **{field: called}))


def test_no_machine_is_called_like_a_person_of_the_provider(tokens):
    with pytest.raises(ConfigError, match="printable"):
        tokens.issue(LOG_ID, Role.ADMIN, TAKEN)


def test_no_secret_of_a_token_is_kept(persons, engine):
    secret = issue(persons).rpartition(".")[2]
    with engine.connect() as connection:
        rows = [*connection.execute(select(tables.api_tokens)), *connection.execute(select(tables.token_persons))]
    assert rows
    assert not any(secret in str(row) for row in rows)


# --- the seal


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": CONSOLE},
        {"subject": "ffff"},
        {"kind": "console"},
        {"acr": "urn:example:gold"},
        {"amr": '["hwk"]'},
        {"provider_session": ""},
        {"seal": ""},
        {"seal": "0" * 64},
    ],
    ids=str,
)
def test_who_can_write_the_database_makes_nobody_another_person(persons, tokens, engine, changes):
    token = issue(persons)
    assert sealed(tokens.authenticate(token))
    with engine.begin() as connection:
        connection.execute(update(tables.token_persons).values(**changes))
    assert not sealed(tokens.authenticate(token))


@pytest.mark.parametrize("changes", [{"role": "admin"}, {"name": "mallory"}, {"expires_ms": NOW_MS + 10**9}], ids=str)
def test_nor_gives_he_a_person_another_role_name_or_time(persons, tokens, engine, changes):
    token = issue(persons)
    with engine.begin() as connection:
        connection.execute(update(tables.api_tokens).values(**changes))
    assert not sealed(tokens.authenticate(token))


def test_nor_makes_he_a_person_of_his_machine(persons, tokens, engine):
    seal = tokens.authenticate(issue(persons)).seal
    machine = tokens.issue(LOG_ID, Role.ADMIN, "mallory")
    row = {"log_id": LOG_ID, "token_sha256": token_digest(machine), "kind": "console", "issuer": CONSOLE}
    with engine.begin() as connection:
        told = {"subject": "ann", "acr": "", "amr": "[]", "provider_session": "", "seal": seal}
        connection.execute(insert(tables.token_persons), {**row, **told})
    caller = tokens.authenticate(machine)
    assert caller.person is not None
    assert not sealed(caller)


def test_a_seal_of_an_earlier_key_counts_while_the_key_is_kept(persons, tokens):
    caller = tokens.authenticate(issue(persons))
    assert sealed(caller, b"n" * 32, SEED)
    assert not sealed(caller, b"n" * 32)
    assert not is_sealed(caller.seal, (), LOG_ID, caller.token_sha256, "approver", caller.expires_ms or 0, ANN)


def test_the_seal_of_one_log_is_none_of_another():
    told = ("0" * 64, "approver", NOW_MS, ANN)
    assert seal_of(SEED, "acme", *told) != seal_of(SEED, "globex", *told)
    assert not is_sealed(seal_of(SEED, "acme", *told), (SEED,), "globex", *told)


# --- the end of a login


def test_the_end_of_a_session_at_the_provider_ends_its_logins_and_no_others(persons, tokens):
    first, second = issue(persons), issue(persons, replace(ANN, provider_session="sid-9"))
    others, machine = issue(persons, BOB), tokens.issue(LOG_ID, Role.ADMIN, "ci", owner=ANN.owner)
    assert persons.end(ISSUER, provider_session="sid-1") == 1
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(first)
    for token in (second, others, machine):
        tokens.authenticate(token)
    assert persons.end(ISSUER, subject="0a1b") == 1
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(second)
    tokens.authenticate(others)
    tokens.authenticate(machine)


@pytest.mark.parametrize("issuer", ["https://login.example/", "https://other.example", CONSOLE, ""])
def test_another_provider_ends_nobodys_login(persons, tokens, issuer):
    token = issue(persons)
    assert persons.end(issuer, subject="0a1b") == persons.end(issuer, provider_session="sid-1") == 0
    tokens.authenticate(token)


def test_what_names_nobody_ends_nobodys_login(persons):
    with pytest.raises(ConfigError):
        persons.end(ISSUER)


# --- by which names one person is known


def names(persons: PersonTokens, tokens: TokenStore, token: str) -> set[str]:
    return set(persons.names_of(tokens.authenticate(token)))


def test_a_person_is_known_by_his_subject_and_his_name(persons, tokens):
    told = persons.names_of(tokens.authenticate(issue(persons)))
    assert told[0] == actor_name(ISSUER, "0a1b")
    assert "ann@example.com" in told


def test_two_logins_of_one_subject_are_one_person_whatever_he_called_himself(persons, tokens):
    issue(persons, replace(ANN, name="old-name"))
    assert "old-name" in names(persons, tokens, issue(persons))


def test_a_login_at_the_console_and_one_at_the_provider_under_one_name_are_one_person(persons, tokens):
    issue(persons)
    assert actor_name(ISSUER, "0a1b") in names(persons, tokens, issue(persons, CONSOLE_ANN))


def test_a_persons_machines_count_as_his_also_when_they_have_ended(persons, tokens):
    machine = tokens.issue(LOG_ID, Role.ADMIN, "ci", owner=ANN.owner)
    tokens.revoke(LOG_ID, token_digest(machine))
    tokens.issue(LOG_ID, Role.ADMIN, "bobs-ci", owner=BOB.owner)
    told = names(persons, tokens, issue(persons))
    assert "ci" in told
    assert "bobs-ci" not in told


def test_two_people_are_two(persons, tokens):
    issue(persons)
    bobs = names(persons, tokens, issue(persons, BOB))
    assert bobs == {"bob@example.com", actor_name(ISSUER, "ffff")}


def test_nobody_of_another_log_is_anybody_here(persons, tokens, engine, clock):
    elsewhere = PersonTokens(engine, clock, "globex")
    elsewhere.issue(replace(ANN, name="elsewhere"), Role.APPROVER, seed=SEED, seconds=60)
    tokens.issue("globex", Role.ADMIN, "their-ci", owner=ANN.owner)
    assert not {"elsewhere", "their-ci"} & names(persons, tokens, issue(persons))
    assert elsewhere.end(ISSUER, subject="0a1b") == 1
    assert persons.end(ISSUER, subject="0a1b") == 1


def test_no_machine_can_be_called_like_a_person_of_a_provider():
    assert "\n" in actor_name(ISSUER, "0a1b")
    assert actor_name(CONSOLE, "ann") == "ann"
