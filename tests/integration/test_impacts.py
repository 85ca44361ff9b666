"""Impacts over a real service: recorded history made again in the background, on record from first to last."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from ledger.bodies import SessionEnd
from ledger.stores.sql_payloads import SQLPayloadArchive
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.impact import ImpactLine
from policies.model import DecisionRequest
from service.auth import Role
from service.cli.main import main
from service.impact_history import PAGE_LEAVES
from service.impacts import flips_of
from tests.support.commands import Finished
from tests.support.history import post_history, session_pseudonym
from tests.support.ledger import NOW_MS
from tests.support.policies import SCHEMA, cedar_bundle, cedar_files, make_request
from tests.support.service import EnforcerClient, RunningService, start_service

PURPOSE = "incident 42: would the proposed rules have held?"
CALLS = 2400
SESSION_CALLS = 6
THEN = cedar_bundle(
    '@id("work") permit(principal, action, resource);'
    '@id("limit") forbid(principal, action, resource) when { context.args has amount && context.args.amount > 800 };'
)
NOW = cedar_bundle(
    '@id("work") permit(principal, action, resource);'
    '@id("limit") forbid(principal, action, resource) when { context.args has amount && context.args.amount > 900 };'
    '@id("night") forbid(principal, action, resource) when { context.time.hour < 2 };'
)


def requests_of_a_load(number: int) -> list[DecisionRequest]:
    """Return calls of many sessions, six calls each, of three agents."""
    return [
        make_request(
            agent=f"Bot-{at // SESSION_CALLS % 3}",
            session=f"session-{at // SESSION_CALLS}",
            calls=at % SESSION_CALLS,
            started_ms=NOW_MS + at - at % SESSION_CALLS,
            now_ms=NOW_MS + at,
            hour=at * 7 % 24,
            name=("sell", "refund")[at % 2],
            arguments=json.dumps({"amount": at * 37 % 1000}),
        )
        for at in range(number)
    ]


@dataclass(frozen=True)
class Recorded:
    """A service that holds a load.

    Attributes:
        service: The service.
        evaluator: Evaluates directly, for comparison.
        requests: What was asked.
        ids: The decisions' ids.
        enforcer: Who recorded them.
    """

    service: RunningService
    evaluator: Evaluator
    requests: list[DecisionRequest]
    ids: list[str]
    enforcer: EnforcerClient


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    evaluator = Evaluator({"cedar": CedarEngine()})
    with start_service(tmp_path_factory.mktemp("impacts")) as service:
        for bundle in (THEN, NOW):
            service.services.bundle_archives.put(service.log_id, bundle.revision, bundle.archive())
        enforcer, requests = service.enforcer(), requests_of_a_load(CALLS)
        yield Recorded(service, evaluator, requests, post_history(enforcer, evaluator, THEN, requests), enforcer)
    evaluator.close()


@pytest.fixture
def responder(recorded: Recorded) -> Iterator[httpx.Client]:
    with recorded.service.client(Role.RESPONDER) as client:
        yield client


def ordered(**members: Any) -> dict[str, Any]:
    return {"from_ms": NOW_MS, "to_ms": NOW_MS + CALLS, **members}


def proposed(bundle: Bundle = NOW, **members: Any) -> dict[str, Any]:
    return ordered(**{"archive": json.loads(bundle.archive()), "purpose": PURPOSE, **members})


def finished(recorded: Recorded, client: httpx.Client, order: dict[str, Any]) -> dict[str, Any]:
    """Order an impact and return its job once it has ended."""
    answer = client.post("/v1/impacts", json=order)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]

    async def ended() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*recorded.service.services.impacts._tasks.values())

    recorded.service.run(ended)
    found: dict[str, Any] = client.get(f"/v1/impacts/{job_id}").json()
    return found


def report_of(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    assert job["state"] == "done", job["error"]
    answer = client.get(job["links"]["json"])
    assert hashlib.sha256(answer.content).hexdigest() == job["report_sha256"]
    report: dict[str, Any] = answer.json()
    return report


def lines_of(client: httpx.Client, job: dict[str, Any]) -> list[ImpactLine]:
    answer = client.get(job["links"]["ndjson"])
    assert hashlib.sha256(answer.content).hexdigest() == job["lines_sha256"]
    return [msgspec.json.decode(line, type=ImpactLine) for line in answer.content.splitlines()]


def effects(recorded: Recorded, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[str]:
    evaluations = asyncio.run(recorded.evaluator.evaluate_many(bundle, requests))
    return [evaluation.decision.effect.value for evaluation in evaluations]


def test_a_recorded_load_is_reproduced_exactly_under_its_own_bundle(recorded, responder):
    job = finished(recorded, responder, ordered())
    report = report_of(responder, job)
    assert (report["decisions"], report["exact"], report["reproduced"]) == (CALLS, CALLS, CALLS)
    assert (report["unknown"], report["flips"], report["lines"], lines_of(responder, job)) == (0, {}, 0, [])
    assert "missing" not in report["streams"][0]


@pytest.fixture(scope="module")
def whole(recorded: Recorded) -> dict[str, Any]:
    """Make all of the load again under the other bundle, once; ``records`` are those that the job left."""
    before = len(recorded.service.access_events())
    with recorded.service.client(Role.RESPONDER) as client:
        job = finished(recorded, client, proposed(server="shop"))
    return {**job, "records": recorded.service.access_events()[before:]}


def test_the_flips_are_exactly_those_that_a_direct_evaluation_says(recorded, responder, whole):
    job = whole
    then, now = (effects(recorded, bundle, recorded.requests) for bundle in (THEN, NOW))
    expected = {
        record_id: f"{before}:{after}".lower()
        for record_id, before, after in zip(recorded.ids, then, now, strict=True)
        if before != after
    }
    assert {line.decision_id: line.flip for line in lines_of(responder, job) if line.flip} == expected
    report = report_of(responder, job)
    assert {kind: found["count"] for kind, found in report["flips"].items()} == {
        kind: list(expected.values()).count(kind) for kind in set(expected.values())
    }
    assert set(report["flips"]) == {"permit:deny", "deny:permit"}


def test_what_follows_a_flip_in_its_session_is_downstream_and_nothing_else_is(recorded, responder, whole):
    lines = lines_of(responder, whole)
    flipped: set[str] = set()
    by_id = {line.decision_id: line for line in lines}
    for record_id, request in zip(recorded.ids, recorded.requests, strict=True):
        session = session_pseudonym(request.state.session)
        line = by_id.get(record_id)
        assert (line is not None and line.classification == "downstream") is (session in flipped)
        if line is not None and line.flip:
            flipped.add(session)


def test_a_scope_counts_its_own_decisions_alone(recorded, responder):
    job = finished(recorded, responder, proposed(agent="Bot-1", tool="refund", decision="PERMIT", to_ms=NOW_MS + 300))
    then = effects(recorded, THEN, recorded.requests[:300])
    wanted = [
        record_id
        for record_id, request, effect in zip(recorded.ids, recorded.requests, then, strict=False)
        if (request.principal.agent, request.resource.name, effect) == ("Bot-1", "refund", "PERMIT")
    ]
    assert report_of(responder, job)["decisions"] == len(wanted)
    assert {line.decision_id for line in lines_of(responder, job)} <= set(wanted)


def test_a_period_takes_what_lies_in_it_and_doubts_sessions_that_began_before(recorded, responder):
    start = NOW_MS + 3
    order = proposed(THEN, from_ms=start, to_ms=start + SESSION_CALLS)
    report = report_of(responder, finished(recorded, responder, order))
    assert report["decisions"] == SESSION_CALLS
    assert report["classes"]["downstream"]["same"] == 3
    warm = report_of(responder, finished(recorded, responder, {**order, "warm_up_ms": 3}))
    assert (warm["evaluated_besides"], warm["reproduced"]) == (3, SESSION_CALLS)


def test_the_request_is_on_record_with_its_purpose_and_what_came_of_it_before_it_is_handed_out(
    recorded, responder, whole
):
    asked, made = whole["records"]
    responder.get(whole["links"]["html"]).raise_for_status()
    delivered = recorded.service.access_events()[-1]
    assert (asked.action, asked.target_kind, asked.target_id) == ("impact", "bundle", NOW.revision)
    assert asked.purpose is not None
    assert (asked.scope.from_ms, asked.scope.to_ms, asked.scope.server) == (NOW_MS, NOW_MS + CALLS, "shop")
    assert (made.action, made.actor, made.target_id) == ("make_impact", asked.actor, whole["job_id"])
    assert (made.items, made.digest) == (CALLS, whole["report_sha256"])
    assert (delivered.action, delivered.digest) == ("download_html", whole["report_sha256"])


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (proposed(purpose=None), 422),
        (proposed(purpose="short"), 422),
        (ordered(from_ms=NOW_MS, to_ms=NOW_MS), 422),
        (ordered(state="recomputed"), 422),
        (ordered(bundle="0" * 64), 404),
        (ordered(bundle="active"), 404),
        (ordered(agent="two words"), 422),
        (ordered(warm_up_ms=2**40), 422),
        ({**ordered(archive={"manifest": {}}), "purpose": PURPOSE}, 422),
    ],
)
def test_an_order_that_cannot_be_met_is_refused_and_nothing_is_opened(recorded, responder, order, status):
    before = recorded.service.services.sequenced_size()
    assert responder.post("/v1/impacts", json=order).status_code == status
    assert recorded.service.services.sequenced_size() == before


def test_a_bundle_that_does_not_load_is_refused_with_its_place(recorded, responder):
    broken = cedar_bundle('@id("x") permit(principal, action, nowhere);')
    answer = responder.post("/v1/impacts", json=proposed(broken))
    assert answer.status_code == 422
    assert "policy.cedar" in answer.json()["detail"]


def test_an_impact_that_is_not_done_has_no_files_and_a_cancelled_one_never_will(recorded, responder):
    services = recorded.service.services
    recorded.service.run(services.impacts._one_at_a_time.acquire)
    try:
        job = responder.post("/v1/impacts", json=proposed()).json()
        assert responder.get(f"/v1/impacts/{job['job_id']}.json").status_code == 409
        cancelled = responder.delete(f"/v1/impacts/{job['job_id']}")
    finally:
        recorded.service.run(_releasing(services.impacts._one_at_a_time))
    assert cancelled.json()["state"] == "cancelled"
    assert responder.delete(f"/v1/impacts/{job['job_id']}").status_code == 409
    assert recorded.service.access_events("cancel_impact")[-1].target_id == job["job_id"]


def _releasing(semaphore: asyncio.Semaphore):
    async def release() -> None:
        semaphore.release()

    return release


def test_state_is_recomputed_as_far_back_as_the_windows_of_the_bundle_count(recorded, responder):
    window = {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60}
    files = cedar_files(
        '@id("few") permit(principal, action, resource) when { context.state.windows.calls <= 50 };',
        schema=SCHEMA.replace("started_ms: Long }", "started_ms: Long, windows: { calls: Long } }"),
        windows="windows.json",
    )
    bundle = bundle_from_files({**files, "windows.json": json.dumps({"windows": [window]}).encode()})
    job = finished(recorded, responder, proposed(bundle, state="recomputed", to_ms=NOW_MS + 200))
    report = report_of(responder, job)
    assert (report["state"], report["read_from_ms"]) == ("recomputed", NOW_MS - 120_000)
    assert recorded.service.access_events("impact")[-1].scope.from_ms == NOW_MS - 120_000
    # Of each of three agents fifty calls are let through within the minute, whatever the bundle of then has said.
    then = effects(recorded, THEN, recorded.requests[:200])
    now = {line.decision_id: line.now.effect for line in lines_of(responder, job)}
    after = [now.get(record_id, effect) for record_id, effect in zip(recorded.ids, then, strict=False)]
    assert report["classes"].keys() == {"exact"}
    assert after.count("PERMIT") == 3 * 50
    missing = report_of(responder, finished(recorded, responder, proposed(bundle, to_ms=NOW_MS + 200)))
    assert missing["classes"]["missing_fact"]["unknown"] == 200


def test_the_page_stands_alone_without_script(responder, whole):
    answer = responder.get(whole["links"]["html"])
    assert answer.headers["content-disposition"].startswith("attachment")
    page = answer.text
    assert "<script" not in page
    assert not any(word in page for word in ("http://", "https://", 'src="', "url("))
    assert "permit → deny" in page
    assert "SIMULATED" in page


def test_flips_of_tells_whoever_rolls_back_without_a_job(recorded):
    services = recorded.service.services
    impact = recorded.service.run(lambda: flips_of(services, NOW, NOW_MS, NOW_MS + 300))
    then, now = (effects(recorded, bundle, recorded.requests[:300]) for bundle in (THEN, NOW))
    expected = sum(pair == ("DENY", "PERMIT") for pair in zip(then, now, strict=True))
    assert (impact.flips["deny:permit"].count, impact.unknown) == (expected, 0)


def test_an_erased_request_is_counted_as_such_and_puts_its_session_in_doubt(recorded, responder):
    """Last of the tests that use the load: it leaves a session of its own behind."""
    requests = [
        make_request(session="gone", user="u", calls=at, started_ms=NOW_MS + 10**6, now_ms=NOW_MS + 10**6 + at)
        for at in range(3)
    ]
    ids = post_history(recorded.enforcer, recorded.evaluator, THEN, requests)
    end = SessionEnd(
        session=session_pseudonym("gone"), calls=3, denied=0, reason="client", agent="Bot", started_ms=NOW_MS + 10**6
    )
    recorded.enforcer.post([(recorded.enforcer.record(end), ())]).raise_for_status()
    services = recorded.service.services
    leaf = services.catalog.index_of(recorded.service.log_id, ids[1])
    SQLPayloadArchive(services.database).shred(recorded.service.log_id, [leaf])
    order = proposed(from_ms=NOW_MS + 10**6, to_ms=NOW_MS + 10**6 + 10)
    job = finished(recorded, responder, order)
    assert [line.classification for line in lines_of(responder, job)] == ["erased", "downstream"]
    report = report_of(responder, job)
    assert report["unknown"] == 1
    assert any("1 decisions (erased)" in sentence for sentence in report["left_out"])


def test_the_load_is_longer_than_a_page():
    assert CALLS > 2 * PAGE_LEAVES


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(recorded, monkeypatch, tmp_path, capsys):
    """Run ``tallystick impact`` over the first three hundred calls, as a responder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLYSTICK_URL", recorded.service.url)
    monkeypatch.setenv("TALLYSTICK_TOKEN", recorded.service.token(Role.RESPONDER))
    write_bundle(tmp_path / "proposed", NOW)
    period = ("--from", moment(NOW_MS), "--to", moment(NOW_MS + 300))

    def run(*arguments: str, within: Sequence[str] = period) -> Finished:
        monkeypatch.setattr(sys, "argv", ["tallystick", "impact", *within, *arguments])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        said = capsys.readouterr()
        return Finished(status=status, output=said.out, errors=said.err)

    return run


def moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat()


def write_bundle(folder: Path, bundle: Bundle) -> None:
    folder.mkdir()
    for path, data in bundle.files.items():
        (folder / path).write_bytes(data)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(bundle.manifest))


def test_the_table_says_how_many_came_out_exactly_and_what_would_flip(command):
    own = command()
    assert (own.status, "300 of 300 decisions made again exactly; 300 came out as recorded" in own.output) == (0, True)
    assert "no decision would have had another effect" in own.output
    other = command("--bundle", "proposed", "--purpose", PURPOSE)
    assert other.status == 0
    assert "permit:deny: " in other.output
    assert "RULE OR REASON" in other.output
    assert "left out: " in other.output


def test_a_flip_that_is_not_wanted_ends_with_status_5(command):
    asked = ("--bundle", "proposed", "--purpose", PURPOSE)
    assert command(*asked, "--fail-on", "permit:deny").status == 5
    assert command(*asked, "--fail-on", "permit:indeterminate", "--fail-on", "unknown").status == 0
    assert command("--fail-on", "permit:deny").status == 0


def test_report_and_list_are_saved_and_found_again_by_the_job(command, tmp_path):
    saved = command("--bundle", "proposed", "--purpose", PURPOSE, "--format", "html", "--out", "a.html", "--list", "l")
    assert saved.status == 0, saved.errors
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    lines = [msgspec.json.decode(line, type=ImpactLine) for line in (tmp_path / "l").read_bytes().splitlines()]
    job_id = saved.errors.split()[1]
    again = command("--job", job_id, "--format", "json", within=())
    assert json.loads(again.output)["lines"] == len(lines) > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--bundle", "proposed"), "needs --purpose"),
        (("--fail-on", "permit"), "--fail-on takes"),
        (("--fail-on", "permit:permit"), "--fail-on takes"),
        (("--out", "x"), "--format json or html"),
        (("--format", "json", "--out", "proposed/manifest.json"), "exists"),
        (("--warm-up", "1 day"), "such as 24h"),
        (("--state", "recomputed"), "recomputed under a bundle"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(recorded, command, arguments, told):
    before = recorded.service.services.sequenced_size()
    refused = command(*arguments)
    assert (refused.status, told in refused.errors) == (64, True), refused.errors
    assert recorded.service.services.sequenced_size() == before


def test_a_period_is_needed(command):
    assert "--from and --to" in command(within=()).errors
