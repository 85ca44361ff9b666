"""The library's windows over whole days: what each call says of the next, in both languages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from policies.bundles import Bundle
from policies.directories import read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.model import Decision, Effect, Obligation
from policies.testing import Given
from policies.window_history import History
from policies.windows import read_windows

MORNING = datetime.fromisoformat("2026-11-17T10:00:00")


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine(), "rego": RegoEngine()}, threads=1)
    yield made
    made.close()


class Day:
    """Calls one after the other, counted as an enforcement point counts them; obligations are fulfilled."""

    def __init__(self, bundle: Bundle, evaluator: Evaluator, given: Given) -> None:
        self._bundle = bundle
        self._evaluator = evaluator
        self._given = given
        self._history = History(read_windows(bundle))
        self.now = MORNING

    def call(self, arguments: str = "{}", **changes: object) -> Decision:
        """Make one call at the present time, and count it as it came out."""
        members = {name: getattr(self._given, name) for name in Given.__struct_fields__}
        asked = Given(**{**members, "at": self.now, "arguments": arguments, **changes})
        request = self._history.restated(asked.request())
        (evaluation,) = asyncio.run(self._evaluator.evaluate_many(self._bundle, [request]))
        self._history.add(request, permitted=evaluation.decision.permitted)
        return evaluation.decision

    def later(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture(params=["", "-rego"], ids=["cedar", "rego"])
def begin(request, evaluator):
    def start(name: str, **given: object) -> Day:
        bundle = read_library_bundle(name + request.param)
        return Day(bundle, evaluator, Given(**{"agent": "Bot", "user": "ada", "at": MORNING, **given}))

    return start


PAYMENT = '{"amount": 400}'


def test_payments_stop_at_the_cap_of_a_session_and_go_on_in_another(begin):
    day = begin("cumulative-caps", roles=("finance",), server="finance", tool="refund")
    assert [day.call(PAYMENT).permitted for _ in range(3)] == [True, True, False]
    assert day.call('{"amount": 200}').permitted  # what was denied took no room
    assert day.call('{"amount": 0.0001}').rules == ("cap-session",)
    assert day.call(PAYMENT, session="another").permitted


def test_payments_of_a_user_stop_at_the_cap_of_the_day_whatever_agent_and_session_make_them(begin):
    day = begin("cumulative-caps", roles=("finance",), server="finance", tool="refund")
    for number in range(5):
        assert day.call(PAYMENT, session=f"s{number}", agent=f"Bot-{number}", tool="transfer").permitted
    assert day.call(PAYMENT, session="s9", agent="Bot-9").rules == ("cap-day",)
    assert day.call(PAYMENT, session="s9", agent="Bot-9", user="grace").permitted
    day.later(hours=14)  # the next day
    assert day.call(PAYMENT, session="s10", agent="Bot-9").permitted


def test_payments_of_an_agent_stop_at_its_cap_of_thirty_days(begin):
    day = begin("cumulative-caps", roles=("finance",), server="finance", tool="refund")
    made = 0
    while day.call(PAYMENT, session=f"s{made}", user=f"u{made}").permitted:
        made += 1
    assert made == 50
    day.later(days=15)
    assert day.call(PAYMENT, session="s", user="u").rules == ("cap-agent",)
    day.later(days=16)
    assert day.call(PAYMENT, session="s", user="u").permitted


def test_small_exports_of_several_agents_add_up_to_the_users_day(begin):
    day = begin("bulk-export", roles=("support",), server="crm", tool="export_orders")
    made = [day.call('{"limit": 250}', agent=f"Bot-{number}", session=f"s{number}").permitted for number in range(9)]
    assert made == [True] * 8 + [False]
    assert day.call('{"limit": 1}').rules == ("export-day",)
    assert day.call('{"limit": 1}', user="grace").permitted


def test_what_was_read_is_not_sent_in_the_same_session(begin):
    day = begin("confused-deputy", roles=("helper",), server="desk")
    mail = {"tool": "send_mail", "tags": ("write", "external")}
    assert day.call(**mail).permitted
    assert day.call(tool="get_record", tags=("read", "sensitive")).permitted
    sent = day.call(**mail)
    assert (sent.effect, sent.failed_condition) == (Effect.DENY, "deputy-exfiltration")
    assert sent.obligations == (Obligation.END_SESSION,)
    day.later(hours=30)
    assert not day.call(**mail).permitted
    assert day.call(**mail, session="another").permitted


def test_a_resource_that_was_read_taints_as_a_call_does(begin):
    day = begin("confused-deputy", roles=("helper",), server="desk")
    assert day.call(method="resources/read", tool="desk://1", tags=("read", "sensitive")).permitted
    assert day.call(tool="send_mail", tags=("write", "external")).rules == ("deputy-exfiltration",)


def test_a_read_that_was_denied_taints_nothing(begin):
    day = begin("confused-deputy", roles=("helper",), server="desk")
    assert not day.call(tool="get_record", tags=("read", "sensitive"), roles=("contractor",)).permitted
    assert day.call(tool="send_mail", tags=("write", "external")).permitted


def test_writes_after_untrusted_content_wait_for_a_person(begin):
    day = begin("confused-deputy", roles=("helper",), server="desk")
    note = {"tool": "note", "tags": ("write",)}
    assert day.call(**note).obligations == ()
    day.call(tool="fetch", tags=("read", "untrusted"))
    assert day.call(**note).obligations == (Obligation.APPROVAL,)


def test_a_burst_stops_and_calls_go_on_when_it_is_over(begin):
    day = begin("rate-limits", roles=("staff",), server="search", tool="query")
    made = []
    for number in range(12):
        made.append(day.call(session=f"s{number}").permitted)
        day.later(milliseconds=100)
    assert made == [True] * 10 + [False] * 2
    assert day.call(agent="Other-Bot").permitted
    day.later(seconds=11)
    assert day.call().permitted


def test_an_agent_that_goes_on_although_it_is_refused_loses_its_session(begin):
    day = begin("rate-limits", roles=("staff",), server="search", tool="reindex")
    assert day.call().permitted
    refused = [day.call() for _ in range(7)]
    assert {decision.failed_condition for decision in refused[:6]} == {"rate-tool"}
    assert refused[6].obligations == (Obligation.END_SESSION,)
    assert "rate-refused" in refused[6].rules
    day.later(minutes=6)
    assert day.call().permitted
