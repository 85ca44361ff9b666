"""Tokens and roles: what is kept of a token, when it ends, and what each role may do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select

from ledger.clock import SimulatedClock
from ledger.database import open_engine
from ledger.errors import ConfigError, StorageError
from migrations.schema import upgrade
from service import tables
from service.auth import (
    PERSONS_ONLY,
    Caller,
    Permission,
    Role,
    TokenStore,
    may,
    new_token,
    require,
    roles_holding,
    token_digest,
)
from service.persons import CONSOLE, Person
from service.problems import ForbiddenError, PersonNeededError, UnauthenticatedError
from tests.support.ledger import LOG_ID, NOW_MS

DAY_MS = 86_400_000

GRANTS = """
permission                             enforcer client auditor responder approver admin
write records                          yes      no     no      no        no       no
ask for decisions                      no       yes    no      no        no       no
hand in decision logs of an OPA        no       yes    no      no        no       no
read the active bundle                 yes      yes    no      no        no       yes
read the log's tiles                   yes      yes    yes     yes       yes      yes
read entry bundles                     no       no     yes     no        no       yes
read decisions                         no       no     yes     yes       yes      yes
open payloads                          no       no     no      yes       no       yes
replay decisions                       no       no     no      yes       no       yes
read bundles                           no       no     yes     yes       yes      yes
publish bundles                        no       no     no      no        no       yes
review bundles                         no       no     no      no        yes      yes
activate bundles                       no       no     no      no        yes      yes
propose what is only observed          no       no     no      yes       no       yes
review what is only observed           no       no     no      no        yes      yes
confirm and reject tags                no       no     no      no        yes      yes
make evidence packs                    no       no     yes     no        no       yes
introduce enforcers and issue tokens   no       no     no      no        no       yes
erase, expire and hold payloads        no       no     no      no        no       yes
contain agents, sessions, tools and servers no  no     no      yes       no       yes
release and review containments        no       no     no      yes       yes      yes
follow the restrictions in force       yes      no     no      no        no       no
add, try and remove webhooks           no       no     no      no        no       yes
read definitions of tools              no       no     no      yes       yes      yes
approve definitions of tools           no       no     no      no        yes      yes
see and decide held calls              no       no     no      no        yes      yes
close departures, accept baselines     no       no     no      yes       yes      yes
hand in what a scan found              no       yes    no      yes       no       yes
see where servers are that scans found, and dismiss them no no no yes    yes      yes
"""


def _grants() -> Iterator[tuple[Permission, Role, bool]]:
    header, *rows = GRANTS.strip().splitlines()
    roles = [Role(name) for name in header.split()[1:]]
    for row in rows:
        words = row.split()
        permission, answers = " ".join(words[: -len(roles)]), words[-len(roles) :]
        for role, answer in zip(roles, answers, strict=True):
            yield Permission(permission), role, answer == "yes"


JANE = Person(issuer=CONSOLE, subject="jane", name="jane", method="console")


def caller(role: Role, person: Person | None = None) -> Caller:
    return Caller(
        person=person,
        log_id=LOG_ID,
        name="jane",
        role=role,
        enforcer_id="gateway-1" if role is Role.ENFORCER else None,
        token_sha256="0" * 64,
    )


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW_MS)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path_factory.mktemp('tokens') / 'ledger.db'}")
    upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def tokens(engine: Engine, clock: SimulatedClock) -> TokenStore:
    return TokenStore(engine, clock)


# --- roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("permission", "role", "held"), list(_grants()), ids=str)
def test_a_role_holds_what_the_table_says_and_nothing_else(permission, role, held):
    assert (role in roles_holding(permission)) is held
    somebody = caller(role, JANE)
    if held:
        require(somebody, permission)
    else:
        with pytest.raises(ForbiddenError, match=f"the role {role} may not {permission}"):
            require(somebody, permission)
    assert may(somebody, permission) is held


@pytest.mark.parametrize(("permission", "role", "held"), list(_grants()), ids=str)
def test_what_takes_a_person_is_refused_to_a_machine_whatever_its_role(permission, role, held):
    machine = caller(role)
    if held and permission in PERSONS_ONLY:
        with pytest.raises(PersonNeededError, match=f"to {permission} takes a person .* `tallystick login`"):
            require(machine, permission)
    elif held:
        require(machine, permission)
    assert may(machine, permission) is (held and permission not in PERSONS_ONLY)


def test_machines_approve_review_contain_erase_and_open_nothing():
    assert {
        Permission.OPEN_PAYLOADS,
        Permission.REVIEW_BUNDLES,
        Permission.REVIEW_MODES,
        Permission.CONFIRM_TAGS,
        Permission.ERASE,
        Permission.CONTAIN,
        Permission.END_CONTAINMENTS,
        Permission.READ_TOOLS,
        Permission.REVIEW_TOOLS,
        Permission.APPROVE,
        Permission.REVIEW_DRIFT,
        Permission.REVIEW_DISCOVERIES,
    } == PERSONS_ONLY


def test_the_table_names_every_role_for_every_permission():
    assert {(permission, role) for permission, role, _ in _grants()} == {(p, r) for p in Permission for r in Role}


def test_nobody_but_an_enforcer_writes_records_or_a_client_has_them_made_and_neither_reads_any():
    assert roles_holding(Permission.WRITE_RECORDS) == (Role.ENFORCER,)
    assert roles_holding(Permission.DECIDE) == roles_holding(Permission.WRITE_OPA_LOGS) == (Role.CLIENT,)
    for permission in (Permission.READ_DECISIONS, Permission.READ_ENTRIES, Permission.OPEN_PAYLOADS):
        assert not {Role.ENFORCER, Role.CLIENT} & set(roles_holding(permission))


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_says_its_log_and_holds_256_random_bits():
    made = {new_token("acme") for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"ts1\.acme\.[A-Za-z0-9_-]{43}", token) for token in made)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ENFORCER])
def test_a_token_speaks_for_whom_it_was_issued(tokens, role):
    token = tokens.issue(LOG_ID, role, "jane")
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert token_digest(token) == digest
    assert tokens.authenticate(token) == Caller(
        log_id=LOG_ID, name="jane", role=role, enforcer_id=None, token_sha256=digest
    )


def test_an_enforcers_token_names_its_enforcer(tokens):
    token = tokens.issue(LOG_ID, Role.ENFORCER, "gateway-1", enforcer_id="gateway-1")
    assert tokens.authenticate(token).enforcer_id == "gateway-1"


def test_the_database_holds_no_token_only_its_digest(tokens, engine):
    token = tokens.issue(LOG_ID, Role.ADMIN, "jane")
    secret = token.rpartition(".")[2]
    with engine.connect() as connection:
        rows = [str(row) for row in connection.execute(select(tables.api_tokens))]
    assert any(token_digest(token) in row for row in rows)
    assert not any(secret in row for row in rows)


def test_a_token_that_was_only_made_is_not_valid_until_it_is_issued(tokens):
    token = new_token(LOG_ID)
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(token)
    assert tokens.issue(LOG_ID, Role.AUDITOR, "jane", token=token) == token
    assert tokens.authenticate(token).role is Role.AUDITOR


def test_one_token_is_not_issued_twice(tokens):
    token = tokens.issue(LOG_ID, Role.AUDITOR, "jane")
    with pytest.raises(StorageError) as caught:
        tokens.issue(LOG_ID, Role.ADMIN, "jane", token=token)
    assert token not in str(caught.value)
    assert tokens.authenticate(token).role is Role.AUDITOR


@pytest.mark.parametrize("role", list(Role))
def test_an_enforcers_token_and_no_other_names_an_enforcer(tokens, role):
    wrong = None if role is Role.ENFORCER else "gateway-1"
    with pytest.raises(ConfigError):
        tokens.issue(LOG_ID, role, "jane", enforcer_id=wrong)


def test_a_token_ends_with_its_lifetime_to_the_millisecond(tokens, clock):
    token = tokens.issue(LOG_ID, Role.AUDITOR, "jane", lifetime_days=1)
    clock.advance(DAY_MS - 1)
    tokens.authenticate(token)
    clock.advance(1)
    with pytest.raises(UnauthenticatedError, match="unknown, expired or revoked"):
        tokens.authenticate(token)


def test_a_token_without_a_lifetime_outlives_years(tokens, clock):
    token = tokens.issue(LOG_ID, Role.AUDITOR, "jane")
    clock.advance(20 * 365 * DAY_MS)
    tokens.authenticate(token)


def test_a_revoked_token_is_dead_at_once_and_for_everyone(tokens, engine, clock):
    token = tokens.issue(LOG_ID, Role.ADMIN, "jane")
    assert tokens.revoke(LOG_ID, token_digest(token))
    for store in (tokens, TokenStore(engine, clock)):
        with pytest.raises(UnauthenticatedError, match="unknown, expired or revoked"):
            store.authenticate(token)


def test_revoking_again_or_what_is_not_there_or_of_another_log_revokes_nothing(tokens):
    token = tokens.issue(LOG_ID, Role.ADMIN, "jane")
    assert not tokens.revoke(LOG_ID, "0" * 64)
    assert not tokens.revoke("other", token_digest(token))
    tokens.authenticate(token)
    assert tokens.revoke(LOG_ID, token_digest(token))
    assert not tokens.revoke(LOG_ID, token_digest(token))


def test_a_token_of_one_log_opens_no_other(tokens):
    token = tokens.issue(LOG_ID, Role.ADMIN, "jane")
    moved = token.replace(f".{LOG_ID}.", ".other.")
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(moved)
    with pytest.raises(UnauthenticatedError):
        tokens.caller("other", token_digest(token))


@pytest.mark.parametrize(
    "bend",
    [
        lambda token: token[:-1],
        lambda token: token + "x",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token.upper(),
        lambda token: token.replace("ts1.", "ts2.", 1),
        lambda token: token.replace("ts1.", "", 1),
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token.replace("ts1.acme.", "ts1.acme..", 1),
        lambda token: token.replace("acme", "ac/me", 1),
        lambda token: token.replace("acme", "a" * 64, 1),
        lambda _token: "ts1.' OR 1=1 --." + "x" * 43,
        lambda _token: "",
        lambda _token: "ts1.acme." + "\u0663" * 43,
        lambda _token: "\x00" * 60,
    ],
)
def test_a_token_that_was_bent_is_unknown_and_not_quoted(tokens, bend):
    token = bend(tokens.issue(LOG_ID, Role.ADMIN, "jane"))
    with pytest.raises(UnauthenticatedError) as caught:
        tokens.authenticate(token)
    assert len(token) < 5 or token.strip() not in str(caught.value)


def test_without_its_database_nobody_is_known_and_the_caller_is_told_so_apart(tmp_path, clock):
    """A failure is not a refusal: it must not read as if the token were wrong."""
    empty = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    store = TokenStore(empty, clock)
    for attempt in (
        lambda: store.authenticate(new_token(LOG_ID)),
        lambda: store.issue(LOG_ID, Role.ADMIN, "jane"),
        lambda: store.revoke(LOG_ID, "0" * 64),
    ):
        with pytest.raises(StorageError):
            attempt()
