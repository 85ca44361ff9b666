"""Access requests where several processes of a service share one log: who was first is said by the log, and no lock.

Each service is whole, over one PostgreSQL (`test_many_services.py`); their turns within a process do not know of each
other. What happens between a look and a record is made to happen there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.bodies import Approval, Decision
from ledger.clock import SimulatedClock
from service.auth import Role
from service.persons import CONSOLE, Person
from tests.integration.test_access_requests import POLICY, REASON, SECONDS, Desk, Point, problem, sale, with_context
from tests.integration.test_approvals import LOGINS
from tests.support.ledger import LOG_ID, NOW_MS
from tests.support.packs import ready_bundle
from tests.support.postgres import PostgresCluster
from tests.support.service import start_service

OTHER = Person(issuer=CONSOLE, subject="cleo@example.com", name="cleo@example.com", method="break_glass")


def furnish(folder: Path, postgres: PostgresCluster, **more: Any) -> Iterator[tuple[Desk, Desk]]:
    clock = SimulatedClock(NOW_MS)
    settings = {"database_url": postgres.new_schema(), "access_request_seconds": SECONDS, **more}
    with ExitStack() as stack:
        first = stack.enter_context(start_service(folder, clock=clock, migrate=True, **settings))
        second = stack.enter_context(start_service(folder, clock=clock, **settings))
        first.put_in_force(ready_bundle(POLICY))
        yield stack.enter_context(Desk(first, clock)), stack.enter_context(Desk(second, clock))


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresCluster) -> Iterator[tuple[Desk, Desk]]:
    yield from furnish(tmp_path, postgres)


@pytest.fixture
def two_needed(tmp_path: Path, postgres: PostgresCluster) -> Iterator[tuple[Desk, Desk]]:
    """Two processes, and two people who must agree; they log in by a provider, and at the console in need."""
    provider = {"oidc_issuer": "https://login.example", "oidc_client_id": "tally", "oidc_roles": "a=approver"}
    yield from furnish(tmp_path, postgres, access_request_approvers=2, break_glass=True, **provider)


def bearing(task: dict[str, Any]) -> dict[str, Any]:
    return with_context(sale(), authzen_access_request_approval={"approval_id": task["id"]})


def steps(desk: Desk, task: dict[str, Any]) -> list[str]:
    return [action for action, _ in desk.steps(task)]


def just_before(monkeypatch: pytest.MonkeyPatch, desk: Desk, action: str, deed: Callable[[], object]) -> None:
    """Have something happen elsewhere once a service has looked, and before it records a step."""
    recorder = desk.service.services.recorder
    append = recorder.append
    done: list[object] = []

    async def later(drafts: Any, **options: Any) -> Any:
        due = any(isinstance(draft.body, Approval) and draft.body.action == action for draft in drafts)
        if due and not done:
            done.append(None)
            done.append(await asyncio.to_thread(deed))
        return await append(drafts, **options)

    monkeypatch.setattr(recorder, "append", later)


def test_of_two_processes_that_are_asked_with_one_approval_one_permits(pair: tuple[Desk, Desk]) -> None:
    first, second = pair
    for _ in range(4):
        task = first.approved(sale())
        with ThreadPoolExecutor(6) as threads:
            points: list[Point] = [first.point, second.point] * 3
            answers = list(threads.map(lambda point, question: point.ask(question), points, [bearing(task)] * 6))
        assert [answer["decision"] for answer in answers].count(True) == 1
        assert steps(first, task).count("used") == 1
        told = {answer["context"].get("detail") for answer in answers if not answer["decision"]}
        assert told == {"approval: used"}


def test_who_loses_the_race_by_a_hair_is_told_that_it_is_used(
    pair: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    task = first.approved(sale())
    won: list[bool] = []
    just_before(monkeypatch, first, "used", lambda: won.append(second.point.ask(bearing(task))["decision"]))
    lost = first.point.ask(bearing(task))
    assert won == [True]
    assert (lost["decision"], lost["context"]["detail"]) == (False, "approval: used")
    assert steps(second, task)[-2:] == ["used", "refused"]


def test_a_denial_that_another_process_recorded_first_counts(
    pair: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    task = first.approved(sale())
    just_before(monkeypatch, first, "used", lambda: second.say(task, "cleo", "denied").raise_for_status())
    answer = first.point.ask(bearing(task))
    assert (answer["decision"], answer["context"]["detail"]) == (False, "approval: denied")
    assert steps(first, task)[-4:] == ["seen", "denied", "used", "refused"]
    body = first.record(answer)
    assert isinstance(body, Decision)
    assert (body.enforcement, body.continues) == ("ask", None)
    assert first.point.ask(bearing(task))["decision"] is False
    assert first.point.status(task)["task"]["status"] == "denied"


def test_who_withdraws_while_another_process_hears_an_agreement_has_not_withdrawn(
    pair: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    task = first.point.request(sale())

    def elsewhere() -> None:
        second.say(task).raise_for_status()
        assert second.point.ask(bearing(task))["decision"] is True

    just_before(monkeypatch, first, "cancelled", elsewhere)
    assert problem(first.point.client.post(task["links"]["cancel"])) == (409, "invalid_task_state")
    assert second.point.status(task)["task"]["status"] == "approved"


def test_one_request_that_reaches_two_processes_is_put_before_people_once(
    pair: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    submission = first.point.submission(sale(), first.point.ask(sale()))
    seen: list[str] = []

    def elsewhere() -> None:
        seen.append(second.point.send(submission, key="another-key-18").json()["task"]["id"])

    just_before(monkeypatch, first, "held", elsewhere)
    answer = first.point.send(submission, key="request-18")
    assert (answer.status_code, [answer.json()["task"]["id"]]) == (202, seen)
    services = first.service.services
    bodies = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "approval")]
    held = [one for one in bodies if isinstance(one, Approval) and one.action == "held"]
    assert len(held) == 1


def test_two_requests_under_one_key_at_two_processes_are_one_and_a_refusal(
    pair: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    one = first.point.submission(sale(), first.point.ask(sale()))
    other = second.point.submission(sale(6), second.point.ask(sale(6)))
    just_before(monkeypatch, first, "held", lambda: second.point.send(other, key="request-18").raise_for_status())
    assert problem(first.point.send(one, key="request-18")) == (409, "duplicate_request")
    assert first.point.send(other, key="request-18").status_code == 202


def logged_in(desk: Desk, person: Person) -> str:
    return desk.service.services.people.issue(person, Role.APPROVER, seconds=3600)[0]


def agree(desk: Desk, task: dict[str, Any], token: str) -> httpx.Response:
    """Have somebody open a request and agree to it, at one of the processes."""
    with desk.service.client(token=token) as client:
        binding = client.post(f"/v1/approvals/{task['id']}/open").json()["binding"]
        said = {"verdict": "granted", "binding": binding, "reason": REASON}
        return client.post(f"/v1/approvals/{task['id']}/verdict", json=said)


@pytest.mark.parametrize("logins", [LOGINS, LOGINS[::-1], LOGINS[:1] * 2], ids=["two", "other-order", "one"])
def test_who_agrees_at_two_processes_at_once_by_two_logins_is_one_of_two(
    two_needed: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch, logins: tuple[Person, Person]
) -> None:
    first, second = two_needed
    task, tokens = first.point.request(sale()), [logged_in(first, person) for person in logins]
    just_before(monkeypatch, first, "granted", lambda: agree(second, task, tokens[1]).raise_for_status())
    assert agree(first, task, tokens[0]).status_code == 409
    assert [step for step in first.steps(task) if step[0] != "seen"] == [
        ("held", None),
        ("granted", None),
        ("refused", "twice"),
    ]
    assert second.point.status(task)["task"]["status"] == "pending"
    assert first.point.ask(bearing(task))["decision"] is False


def test_two_who_agree_at_two_processes_at_once_are_two(
    two_needed: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_needed
    task, tokens = first.point.request(sale()), [logged_in(first, person) for person in (LOGINS[0], OTHER)]
    just_before(monkeypatch, first, "granted", lambda: agree(second, task, tokens[1]).raise_for_status())
    agree(first, task, tokens[0]).raise_for_status()
    assert [action for action, _ in first.steps(task) if action != "seen"] == ["held", "granted", "granted"]
    assert first.point.ask(bearing(task))["decision"] is True
