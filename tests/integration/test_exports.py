"""Decisions handed to security tools: by the page over HTTP, as lines by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from service.auth import Role
from service.cli.main import cli
from tests.support.service import EnforcerClient, RunningService, start_service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("exports")) as service:
        yield service


@pytest.fixture(scope="module")
def enforcer(running: RunningService) -> EnforcerClient:
    return running.enforcer()


@pytest.fixture(scope="module")
def auditor(running: RunningService) -> Iterator[httpx.Client]:
    with running.client(Role.AUDITOR) as client:
        yield client


def decided(running: RunningService, enforcer: EnforcerClient, count: int) -> list[str]:
    ids = enforcer.decide_many([{"tool": f"tool-{number}"} for number in range(count)])
    running.wait_until_published(running.services.sequenced_size())
    return ids


def asked(auditor: httpx.Client, **params: Any) -> dict[str, Any]:
    return auditor.get("/v1/exports/ocsf", params=params).raise_for_status().json()


def uids(events: list[dict[str, Any]]) -> list[str]:
    return [event["metadata"]["uid"] for event in events]


def command(running: RunningService, *more: str) -> Result:
    token = running.token(Role.AUDITOR)
    return CliRunner().invoke(cli, ["export", "ocsf", "--url", running.url, "--token", token, *more])


def test_pages_of_few_leaves_give_each_decision_once_and_in_order(running, enforcer, auditor):
    ids = decided(running, enforcer, 5)
    found, after, pages = [], None, 0
    while True:
        page = asked(auditor, leaves=2, **({} if after is None else {"after": after}))
        found += uids(page["items"])
        after, pages = page["after"], pages + 1
        if page["complete"]:
            break
    assert [uid for uid in found if uid in ids] == ids
    assert len(found) == len(set(found))
    assert pages > 2


def test_what_is_handed_out_is_covered_by_the_checkpoint_that_it_names(running, enforcer, auditor):
    decided(running, enforcer, 1)
    event = asked(auditor)["items"][-1]
    checkpoint = event["unmapped"]["checkpoint"]
    assert event["unmapped"]["leaf_index"] < checkpoint["size"]
    assert checkpoint["origin"] == running.services.settings.origin


def test_an_outcome_that_is_there_by_now_is_the_status(running, enforcer, auditor):
    permitted = enforcer.decide(decision="PERMIT", enforcement="allow", failed_condition=None)
    enforcer.complete(permitted)
    running.wait_until_published(running.services.sequenced_size())
    (event,) = [one for one in asked(auditor)["items"] if one["metadata"]["uid"] == permitted]
    assert (event["status"], event["unmapped"]["outcome"]) == ("Success", "completed")


def test_handing_out_decisions_is_an_access_and_handing_out_none_is_not(running, enforcer, auditor):
    decided(running, enforcer, 2)
    before = len(running.access_events("query"))
    page = asked(auditor)
    after_first = len(running.access_events("query"))
    asked(auditor, after=page["after"])
    assert after_first == before + 1
    empty = asked(auditor, after=2**40)
    assert (empty["items"], empty["complete"]) == ([], True)
    assert len(running.access_events("query")) == after_first


def test_a_period_leaves_out_what_was_before_and_after(running, enforcer, auditor):
    now_ms = running.services.clock.now_ms()
    early = enforcer.decide(time_ms=now_ms - 60_000)
    late = enforcer.decide(time_ms=now_ms)
    running.wait_until_published(running.services.sequenced_size())
    found = uids(asked(auditor, time_from_ms=now_ms - 61_000, time_to_ms=now_ms - 59_000)["items"])
    assert early in found
    assert late not in found


@pytest.mark.parametrize("params", [{"leaves": 0}, {"leaves": 1001}, {"after": -1}, {"since": 3}])
def test_a_question_out_of_bounds_is_refused(auditor, params):
    assert auditor.get("/v1/exports/ocsf", params=params).status_code == 422


def test_the_command_prints_a_line_for_each_event_and_goes_on_where_it_ended(running, enforcer):
    first = decided(running, enforcer, 2)
    done = command(running)
    assert done.exit_code == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert uids(events)[-2:] == first
    second = decided(running, enforcer, 1)
    more = command(running, "--after", str(events[-1]["metadata"]["sequence"]))
    assert uids([json.loads(line) for line in more.stdout.splitlines()]) == second
    assert "go on with --after" in more.stderr


def test_following_the_log_prints_what_comes_later(running, enforcer, monkeypatch):
    decided(running, enforcer, 1)
    later: list[str] = []

    def instead_of_waiting(_seconds: float) -> None:
        if later:
            raise KeyboardInterrupt
        later.extend(decided(running, enforcer, 1))

    monkeypatch.setattr("service.cli.exporting.time.sleep", instead_of_waiting)
    done = command(running, "--follow")
    assert uids([json.loads(line) for line in done.stdout.splitlines()])[-1:] == later


def test_the_command_says_what_is_wrong_with_a_token(running):
    done = CliRunner().invoke(cli, ["export", "ocsf", "--url", running.url, "--token", "ts1.nonsense"])
    assert done.exit_code != 0
    assert done.stdout == ""
