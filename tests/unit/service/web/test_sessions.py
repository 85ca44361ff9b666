"""Logins end when they must, links work once, and neither passes for the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, update

from ledger.clock import SimulatedClock
from ledger.database import open_engine
from ledger.errors import ConfigError
from migrations.schema import upgrade
from service import tables
from service.auth import Role, TokenStore
from service.problems import ForbiddenError, UnauthenticatedError
from service.web.sessions import LINK_SECONDS, LoginLinks, WebSessions, session_digest
from service.web.terminals import TerminalLogins

LOG, OTHER_LOG = "acme", "other"
HOUR = 3600
SEED, OLD_SEED = b"s" * 32, b"o" * 32


def seeds() -> tuple[bytes, ...]:
    return SEED, OLD_SEED


class Parts:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = SimulatedClock(1_763_546_400_000)
        self.tokens = TokenStore(engine, self.clock)
        self.sessions = WebSessions(engine, self.clock, LOG, self.tokens, seeds, lifetime_seconds=HOUR)
        self.links = LoginLinks(engine, self.clock, LOG, self.tokens, seeds)

    def token(self, role: Role = Role.AUDITOR, **options: object) -> str:
        return self.tokens.issue(LOG, role, "jane", **options)

    def caller(self, role: Role = Role.AUDITOR, **options: object):
        return self.tokens.authenticate(self.token(role, **options))

    def write(self, **values: object) -> None:
        """Change every row, as whoever can write the database does."""
        with self.engine.begin() as connection:
            connection.execute(update(tables.web_sessions).values(**values))

    def rows(self) -> list:
        with self.engine.connect() as connection:
            return list(connection.execute(select(tables.web_sessions)))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    engine = open_engine(f"sqlite:///{tmp_path / 'service.db'}")
    upgrade(engine)
    yield Parts(engine)
    engine.dispose()


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.APPROVER, Role.ADMIN])
def test_every_role_but_an_enforcer_may_log_in(parts, role):
    session = parts.sessions.find(parts.sessions.begin(parts.caller(role)))
    assert (session.caller.role, session.caller.name, session.caller.log_id) == (role, "jane", LOG)


def test_an_enforcers_token_begins_no_session(parts):
    caller = parts.caller(Role.ENFORCER, enforcer_id="gateway-1")
    with pytest.raises(ForbiddenError):
        parts.sessions.begin(caller)
    assert parts.rows() == []


def test_a_token_of_another_log_begins_no_session(parts):
    caller = parts.tokens.authenticate(parts.tokens.issue(OTHER_LOG, Role.ADMIN, "jane"))
    with pytest.raises(UnauthenticatedError):
        parts.sessions.begin(caller)


def test_the_database_holds_no_session_id_and_no_token(parts):
    token = parts.token()
    session_id = parts.sessions.begin(parts.tokens.authenticate(token))
    code = parts.links.issue(token)
    stored = " ".join(str(value) for row in parts.rows() for value in row)
    assert session_id not in stored
    assert code not in stored
    assert token not in stored


def test_session_ids_and_csrf_secrets_are_never_the_same(parts):
    caller = parts.caller()
    ids = [parts.sessions.begin(caller) for _ in range(20)]
    secrets = {parts.sessions.find(session_id).csrf for session_id in ids}
    assert len(set(ids)) == len(secrets) == 20
    assert not secrets & set(ids)


@pytest.mark.parametrize("session_id", ["", "x", "A" * 43, "\udcff", "é" * 43])
def test_a_made_up_session_id_opens_nothing(parts, session_id):
    parts.sessions.begin(parts.caller())
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(session_id)


def test_a_session_ends_at_its_time_and_not_before(parts):
    session_id = parts.sessions.begin(parts.caller())
    parts.clock.advance(HOUR * 1000 - 1)
    parts.sessions.find(session_id)
    parts.clock.advance(1)
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(session_id)


def test_a_session_ends_with_its_revoked_token_at_once(parts):
    caller = parts.caller()
    session_id = parts.sessions.begin(caller)
    assert parts.tokens.revoke(LOG, caller.token_sha256)
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(session_id)


def test_a_session_ends_with_its_expired_token(parts):
    sessions = WebSessions(parts.engine, parts.clock, LOG, parts.tokens, seeds, lifetime_seconds=7 * 24 * HOUR)
    session_id = sessions.begin(parts.caller(lifetime_days=1))
    parts.clock.advance(24 * HOUR * 1000)
    with pytest.raises(UnauthenticatedError):
        sessions.find(session_id)


def test_an_ended_session_stays_ended_and_leaves_others_alone(parts):
    caller = parts.caller()
    first, second = parts.sessions.begin(caller), parts.sessions.begin(caller)
    assert parts.sessions.end(first)
    assert not parts.sessions.end(first)
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(first)
    parts.sessions.find(second)


def test_a_session_of_another_log_is_not_found(parts):
    session_id = parts.sessions.begin(parts.caller())
    other = WebSessions(parts.engine, parts.clock, OTHER_LOG, parts.tokens, seeds, lifetime_seconds=HOUR)
    with pytest.raises(UnauthenticatedError):
        other.find(session_id)
    assert not other.end(session_id)


def test_expired_rows_are_removed_when_a_new_one_is_stored(parts):
    for _ in range(5):
        parts.sessions.begin(parts.caller())
    parts.clock.advance(HOUR * 1000)
    parts.sessions.begin(parts.caller())
    assert len(parts.rows()) == 1


def test_a_link_logs_in_as_its_token_would(parts):
    caller = parts.links.spend(parts.links.issue(parts.token(Role.RESPONDER)))
    assert (caller.role, caller.name) == (Role.RESPONDER, "jane")


def test_a_link_works_once(parts):
    code = parts.links.issue(parts.token())
    parts.links.spend(code)
    with pytest.raises(UnauthenticatedError):
        parts.links.spend(code)
    assert not parts.links.is_open(code)


def test_looking_at_a_link_does_not_spend_it(parts):
    code = parts.links.issue(parts.token())
    assert all(parts.links.is_open(code) for _ in range(3))
    parts.links.spend(code)


def test_of_many_that_spend_one_link_at_once_one_gets_in(parts):
    code = parts.links.issue(parts.token())
    barrier = threading.Barrier(8)
    results: list[str] = []

    def spend() -> None:
        barrier.wait()
        try:
            parts.links.spend(code)
        except UnauthenticatedError:
            results.append("refused")
        else:
            results.append("in")

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["in"] + ["refused"] * 7


def test_a_link_expires(parts):
    code = parts.links.issue(parts.token(), seconds=60)
    parts.clock.advance(60_000)
    assert not parts.links.is_open(code)
    with pytest.raises(UnauthenticatedError):
        parts.links.spend(code)


@pytest.mark.parametrize("seconds", [0, -1, LINK_SECONDS + 1])
def test_no_link_lives_longer_than_fifteen_minutes(parts, seconds):
    with pytest.raises(ConfigError):
        parts.links.issue(parts.token(), seconds=seconds)


def test_a_link_dies_with_its_token(parts):
    token = parts.token()
    code = parts.links.issue(token)
    parts.tokens.revoke(LOG, parts.tokens.authenticate(token).token_sha256)
    with pytest.raises(UnauthenticatedError):
        parts.links.spend(code)


@pytest.mark.parametrize("token", ["", "ts1.acme.unknown", "x" * 500])
def test_no_link_is_made_for_an_unknown_token(parts, token):
    with pytest.raises(UnauthenticatedError):
        parts.links.issue(token)


def test_no_link_is_made_for_an_enforcer(parts):
    with pytest.raises(ForbiddenError):
        parts.links.issue(parts.token(Role.ENFORCER, enforcer_id="gateway-1"))


def test_a_links_code_is_no_session_and_a_session_id_no_code(parts):
    code, session_id = parts.links.issue(parts.token()), parts.sessions.begin(parts.caller())
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(code)
    with pytest.raises(UnauthenticatedError):
        parts.links.spend(session_id)
    assert not parts.sessions.end(code)
    parts.sessions.find(session_id)
    parts.links.spend(code)


# --- whoever can write rows, and has no key


def test_no_session_becomes_another_persons_by_a_changed_row(parts):
    mine, admins = parts.caller(Role.APPROVER), parts.caller(Role.ADMIN)
    session_id = parts.sessions.begin(mine)
    before = parts.rows()
    parts.write(token_sha256=admins.token_sha256)
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(session_id)
    parts.write(token_sha256=mine.token_sha256, expires_ms=before[0].expires_ms + 1)
    with pytest.raises(UnauthenticatedError):
        parts.sessions.find(session_id)
    parts.write(expires_ms=before[0].expires_ms)
    assert parts.sessions.find(session_id).caller.token_sha256 == mine.token_sha256


@pytest.mark.parametrize("csrf", ["", "A" * 43])
def test_a_session_that_somebody_wrote_into_the_table_is_none(parts, csrf):
    admins = parts.caller(Role.ADMIN)
    session_id = f"{LOG}.{'x' * 43}"
    genuine = parts.sessions.begin(parts.caller())
    row = {
        **parts.rows()[0]._mapping,
        "session_sha256": session_digest(session_id),
        "token_sha256": admins.token_sha256,
    }
    for seal in (csrf, parts.rows()[0].csrf):  # one of his own, and one of another session
        with parts.engine.begin() as connection:
            connection.execute(insert(tables.web_sessions), {**row, "csrf": seal})
        with pytest.raises(UnauthenticatedError):
            parts.sessions.find(session_id)
        assert parts.sessions.end(session_id)
    parts.sessions.find(genuine)


def test_no_link_logs_in_as_somebody_else_by_a_changed_row(parts):
    code = parts.links.issue(parts.token())
    parts.write(token_sha256=parts.caller(Role.ADMIN).token_sha256)
    assert not parts.links.is_open(code)
    with pytest.raises(UnauthenticatedError):
        parts.links.spend(code)


def test_nobody_says_yes_to_a_command_line_by_writing_a_row(parts):
    terminals = TerminalLogins(parts.engine, parts.clock, LOG, parts.tokens, seeds)
    session_id = parts.sessions.begin(parts.caller(Role.ADMIN))
    asked = terminals.ask()
    with parts.engine.begin() as connection:
        waiting = update(tables.web_sessions).where(tables.web_sessions.c.csrf == asked.user_code)
        connection.execute(waiting.values(token_sha256=session_digest(session_id)))
    with pytest.raises(UnauthenticatedError, match="access_denied"):
        terminals.take(asked.device_code)
    again = terminals.ask()
    terminals.answer(again.user_code, session_id)
    assert terminals.take(again.device_code).role is Role.ADMIN


def test_nobody_is_let_in_at_a_command_line_by_a_session_that_is_not_ours(parts):
    terminals = TerminalLogins(parts.engine, parts.clock, LOG, parts.tokens, seeds)
    session_id = parts.sessions.begin(parts.caller())
    asked = terminals.ask()
    terminals.answer(asked.user_code, session_id)
    with parts.engine.begin() as connection:
        of_session = tables.web_sessions.c.session_sha256 == session_digest(session_id)
        admins = parts.caller(Role.ADMIN).token_sha256
        connection.execute(update(tables.web_sessions).where(of_session).values(token_sha256=admins))
    with pytest.raises(UnauthenticatedError, match="access_denied"):
        terminals.take(asked.device_code)


def test_a_session_outlives_the_rotation_of_the_key_that_sealed_it(parts):
    def under(*keys: bytes) -> WebSessions:
        return WebSessions(parts.engine, parts.clock, LOG, parts.tokens, lambda: keys, lifetime_seconds=HOUR)

    session_id = under(OLD_SEED).begin(parts.caller())
    parts.sessions.find(session_id)
    for keys in ((), (SEED,)):  # of no log, and of another
        with pytest.raises(UnauthenticatedError):
            under(*keys).find(session_id)
