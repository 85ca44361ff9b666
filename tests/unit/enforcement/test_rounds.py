"""Further rounds of a call: questions are read strictly, and a state comes back for its own call alone, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enforcement import rounds as rounds_module
from enforcement.identity import Identity
from enforcement.input_requests import MAX_QUESTIONS, read_input_required, with_round, with_state
from enforcement.mcp import Message, Refusal, parse_message
from enforcement.round_tokens import MAX_ROUND_MS, TokenScope, make_token, open_token, round_key
from enforcement.rounds import OpenedRound, Rounds
from enforcement.state import StateDatabase
from ledger.clock import SimulatedClock
from ledger.errors import MalformedError
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY
from tests.support.mcp_messages import META, headers_of

ROOT = "0199f0c5-0000-7000-8000-000000000001"
KEY = round_key(PSEUDONYM_KEY)
SCOPE = TokenScope(
    agent="Finance-Bot", user="alice", server="finance", method="tools/call", name="pay", arguments='{"amount":1}'
)
QUESTION = '{"method":"elicitation/create","params":{"message":"Sure?", "x":1.50}}'


def answer_of(result: str) -> bytes:
    return f'{{"jsonrpc":"2.0","id":7,"result":{result}}}'.encode()


def token_of(state: str | None = "server's", asked: tuple[str, ...] = ("sure",), scope: TokenScope = SCOPE) -> str:
    return make_token(KEY, scope, root=ROOT, asked=asked, state=state, expires_ms=NOON_MS + 1000)


# --- what a server asks


def test_each_question_becomes_a_request_with_the_params_as_they_stand() -> None:
    read = read_input_required(
        answer_of(f'{{"resultType":"input_required","inputRequests":{{"sure":{QUESTION}}},"requestState":"s"}}')
    )
    (question,) = read.questions
    assert question.key == "sure"
    assert b'{"message":"Sure?", "x":1.50}' in question.message
    assert json.loads(question.message)["id"] == "sure"
    assert read.state == "s"
    rest = json.loads(with_state(read, "token"))
    assert rest["result"] == {
        "resultType": "input_required",
        "inputRequests": {"sure": json.loads(QUESTION)},
        "requestState": "token",
    }


@pytest.mark.parametrize(
    "result",
    [
        '{"resultType":"input_required"}',
        '{"resultType":"input_required","inputRequests":[]}',
        '{"resultType":"input_required","inputRequests":{"a":7}}',
        '{"resultType":"input_required","inputRequests":{"a":{}}}',
        '{"resultType":"input_required","inputRequests":{"":{"method":"roots/list"}}}',
        '{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list","METHOD":"x"}}}',
        '{"resultType":"input_required","requestState":7}',
        '{"resultType":"input_required","requestState":"\\ud800"}',
        '{"resultType":"input_required","requestState":"a","requeststate":"b"}',
        '{"resulttype":"input_required","requestState":"a"}',
        '{"resultType":"input_required","inputRequests":{"a":{"method":"x"},"a":{"method":"y"}}}',
    ],
)
def test_an_answer_that_asks_in_no_one_way_is_malformed(result: str) -> None:
    with pytest.raises(MalformedError):
        read_input_required(answer_of(result))


def test_an_answer_asks_no_more_than_so_many_questions() -> None:
    many = ",".join(f'"{place}":{QUESTION}' for place in range(MAX_QUESTIONS + 1))
    with pytest.raises(MalformedError):
        read_input_required(answer_of(f'{{"resultType":"input_required","inputRequests":{{{many}}}}}'))


# --- tokens


@pytest.mark.parametrize("state", ["server's", "", None, "with.dots\nand ä"])
def test_a_token_comes_back_as_it_went(state: str | None) -> None:
    token = open_token(KEY, SCOPE, token_of(state, ("a", "ä")), now_ms=NOON_MS)
    assert token is not None
    assert (token.root, token.asked, token.state, token.expires_ms) == (ROOT, ("a", "ä"), state, NOON_MS + 1000)


@pytest.mark.parametrize(
    "other",
    [
        {"agent": "Support-Bot"},
        {"user": "bob"},
        {"user": None},
        {"server": "hr"},
        {"method": "prompts/get"},
        {"name": "pay2"},
        {"arguments": '{"amount":2}'},
        {"arguments": None},
        {"agent": "Finance-Botalice", "user": ""},
    ],
)
def test_a_token_is_of_one_call_alone(other: dict[str, str | None]) -> None:
    assert open_token(KEY, replace(SCOPE, **other), token_of(), now_ms=NOON_MS) is None


def test_no_character_of_a_token_can_be_changed() -> None:
    text = token_of()
    for place, character in enumerate(text):
        changed = text[:place] + ("1" if character != "1" else "2") + text[place + 1 :]
        assert open_token(KEY, SCOPE, changed, now_ms=NOON_MS) is None
    assert open_token(KEY, SCOPE, text + "x", now_ms=NOON_MS) is None
    assert open_token(KEY, SCOPE, text[:-1], now_ms=NOON_MS) is None
    assert open_token(round_key(bytes(32)), SCOPE, text, now_ms=NOON_MS) is None


def test_a_token_expires() -> None:
    assert open_token(KEY, SCOPE, token_of(), now_ms=NOON_MS + 999) is not None
    assert open_token(KEY, SCOPE, token_of(), now_ms=NOON_MS + 1000) is None


def test_a_state_given_and_none_given_are_not_the_same() -> None:
    assert open_token(KEY, SCOPE, token_of(None).replace(".n.", ".s."), now_ms=NOON_MS) is None


# --- rounds


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    database = StateDatabase(tmp_path)
    yield database
    database.close()


IDENTITY = Identity(credential="c", agent="Finance-Bot", user="alice", roles=(), mfa=False)


def body_of(**params: object) -> bytes:
    members = {"name": "pay", "arguments": {"amount": 1}, **params, "_meta": META}
    request = {"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": members}
    return json.dumps(request, separators=(",", ":")).encode()


def read(body: bytes) -> Message:
    message = parse_message(body, headers_of(name="pay"))
    assert isinstance(message, Message)
    return message


def opened(rounds: Rounds, body: bytes) -> OpenedRound | None:
    return rounds.open(body, read(body), IDENTITY, "finance")


def test_the_server_gets_its_own_state_and_the_answers_that_it_asked_for(state: StateDatabase) -> None:
    rounds = Rounds(PSEUDONYM_KEY, state, SimulatedClock(NOON_MS))
    answers = {"sure": {"action": "accept"}, "more": {"action": "accept"}}
    found = opened(rounds, body_of(requestState=token_of(), inputResponses=answers))
    assert found is not None
    params = json.loads(found.body)["params"]
    assert params["requestState"] == "server's"
    assert params["inputResponses"] == {"sure": {"action": "accept"}}
    assert params["arguments"] == {"amount": 1}


def test_a_state_that_the_server_did_not_give_does_not_reach_it(state: StateDatabase) -> None:
    found = opened(Rounds(PSEUDONYM_KEY, state, SimulatedClock(NOON_MS)), body_of(requestState=token_of(None)))
    assert found is not None
    assert "requestState" not in json.loads(found.body)["params"]


@pytest.mark.parametrize(
    "params",
    [
        {"requestState": "server's"},
        {"requestState": ""},
        {"inputResponses": {"sure": {"action": "accept"}}},
        {"requestState": token_of(), "arguments": {"amount": 2}},
        {"requestState": token_of(scope=replace(SCOPE, user="bob"))},
    ],
)
def test_a_round_of_no_known_call_is_refused(state: StateDatabase, params: dict[str, object]) -> None:
    assert opened(Rounds(PSEUDONYM_KEY, state, SimulatedClock(NOON_MS)), body_of(**params)) is None


def test_a_token_is_used_once_and_after_a_restart_no_more(state: StateDatabase) -> None:
    clock = SimulatedClock(NOON_MS)
    rounds, body = Rounds(PSEUDONYM_KEY, state, clock), body_of(requestState=token_of())
    first = opened(rounds, body)
    assert first is not None
    assert opened(rounds, body) is None  # while the first is being judged
    with state.transaction() as connection:
        for change in rounds.settle(first, permitted=True):
            change.apply(connection)
    assert opened(rounds, body) is None
    assert opened(Rounds(PSEUDONYM_KEY, state, clock), body) is None


def test_a_round_that_was_refused_may_be_tried_again(state: StateDatabase) -> None:
    rounds, body = Rounds(PSEUDONYM_KEY, state, SimulatedClock(NOON_MS)), body_of(requestState=token_of())
    first = opened(rounds, body)
    assert first is not None
    assert rounds.settle(first, permitted=False) == []
    assert opened(rounds, body) is not None


def test_no_more_rounds_than_can_be_remembered_go_on(state: StateDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "MAX_USED", 1)
    clock = SimulatedClock(NOON_MS)
    rounds = Rounds(PSEUDONYM_KEY, state, clock)
    assert opened(rounds, body_of(requestState=token_of())) is not None
    later = make_token(KEY, SCOPE, root=ROOT, asked=(), state="b", expires_ms=NOON_MS + MAX_ROUND_MS)
    assert opened(rounds, body_of(requestState=later)) is None
    clock.advance(2000)
    assert opened(rounds, body_of(requestState=later)) is not None


@pytest.mark.parametrize(
    "params",
    [
        {"requestState": None},
        {"requestState": 7},
        {"inputResponses": None},
        {"inputResponses": []},
        {"RequestState": "x"},
        {"inputresponses": {}},
        {"requestState": "a", "task": {}},
    ],
)
def test_what_is_no_further_round_in_one_way_is_refused(params: dict[str, object]) -> None:
    assert isinstance(parse_message(body_of(**params), headers_of(name="pay")), Refusal)


def test_a_round_is_rewritten_in_these_two_members_alone() -> None:
    body = b'{"id":8,"method":"tools/call","params":{"name":"pay","requestState":"t","arguments":{"a":1.0 }}}'
    assert b'"arguments":{"a":1.0 }' in with_round(body, "s", ())
