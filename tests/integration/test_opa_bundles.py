"""Bundles as a stock OPA pulls them, and requests that are held until there is another bundle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from policies.bundles import Bundle
from policies.opa_archive import MEDIA_TYPE, opa_archive, parse_opa_archive
from service import bundle_watch
from service.auth import Role
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

FIRST, SECOND, THIRD = (ready_bundle(f'@id("r{number}") permit (principal, action, resource);') for number in range(3))
ACTIVE = "/v1/opa/bundles/active.tar.gz"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("opa")) as service:
        with service.client(Role.CLIENT) as client:
            assert client.get(ACTIVE).status_code == 404
            assert client.get(ACTIVE, headers={"prefer": "wait=1"}).status_code == 404
        service.put_in_force(FIRST)
        service.publish(SECOND)
        service.publish(THIRD)
        yield service


@pytest.fixture(scope="module")
def opa(running: RunningService) -> Iterator[httpx.Client]:
    with running.client(Role.CLIENT) as client:
        yield client


def activate(service: RunningService, bundle: Bundle) -> None:
    service.put_in_force(bundle)


def held(opa: httpx.Client, bundle: Bundle, prefer: str, path: str = ACTIVE) -> httpx.Response:
    return opa.get(path, headers={"if-none-match": f'"{bundle.revision}"', "prefer": prefer})


def test_opa_pulls_the_active_bundle_and_hears_by_its_tag_that_it_has_it(running, opa):
    answer = opa.get(ACTIVE)
    assert answer.content == opa_archive(FIRST)
    assert parse_opa_archive(answer.content) == FIRST
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["etag"] == f'"{FIRST.revision}"'
    again = held(opa, FIRST, "modes=snapshot,delta")
    assert (again.status_code, again.content, again.headers["content-type"]) == (304, b"", MEDIA_TYPE)
    assert "preference-applied" not in again.headers


def test_a_bundle_is_pulled_by_its_revision_by_those_who_may_read_bundles(running, opa):
    path = f"/v1/opa/bundles/{SECOND.revision}.tar.gz"
    assert opa.get(path).status_code == 403
    with running.client(Role.AUDITOR) as auditor:
        answer = auditor.get(path)
        assert parse_opa_archive(answer.content) == SECOND
        assert held(auditor, SECOND, "wait=30", path).status_code == 304
        assert auditor.get(f"/v1/opa/bundles/{'0' * 64}.tar.gz").status_code == 404
        assert auditor.get("/v1/opa/bundles/../secret.tar.gz").status_code in (404, 422)


def test_a_request_that_waits_is_answered_once_another_bundle_is_active(running, opa):
    with ThreadPoolExecutor(2) as threads:
        waiting = [
            threads.submit(held, opa, FIRST, "modes=snapshot,delta;wait=30"),
            threads.submit(held, opa, FIRST, "wait=30", "/v1/bundles/active"),
        ]
        activate(running, SECOND)
        packed, plain = (item.result(25) for item in waiting)
    assert parse_opa_archive(packed.content) == SECOND
    assert plain.content == SECOND.archive()
    assert packed.headers["preference-applied"] == plain.headers["preference-applied"] == "wait"
    activate(running, FIRST)


def test_a_wait_ends_with_its_time_and_says_that_nothing_changed(running, opa):
    answer = held(opa, FIRST, "wait=1")
    assert (answer.status_code, answer.headers["preference-applied"]) == (304, "wait")


def test_steps_that_activate_nothing_end_no_wait(running, opa):
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(held, opa, FIRST, "wait=2")
        with running.client(Role.APPROVER) as approver:
            body = {"verdict": "rejected"}
            approver.post(f"/v1/bundles/{THIRD.revision}/review", json=body).raise_for_status()
        assert waiting.result(25).status_code == 304


@pytest.mark.parametrize("prefer", ["wait=", "wait=x", "wait=-1", "wait=99999", "respond-async", "waits=5", ""])
def test_who_asks_in_other_words_is_answered_at_once(running, opa, prefer):
    answer = held(opa, FIRST, prefer)
    assert (answer.status_code, "preference-applied" in answer.headers) == (304, False)


def test_who_has_another_bundle_is_not_held(running, opa):
    assert held(opa, THIRD, "wait=30").status_code == 200


def test_beyond_so_many_waiting_one_is_answered_at_once(running, opa, monkeypatch):
    monkeypatch.setattr(bundle_watch, "MAX_WAITERS", 0)
    answer = held(opa, FIRST, "wait=30")
    assert (answer.status_code, "preference-applied" in answer.headers) == (304, False)


def test_who_hangs_up_waits_no_longer(running, opa):
    watch = running.services.bundle_watch
    with running.client(Role.CLIENT) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.get(ACTIVE, headers={"if-none-match": f'"{FIRST.revision}"', "prefer": "wait=60"}, timeout=0.5)
    noticed = threading.Event()
    for _ in range(500):
        if watch._waiters == 0:
            break
        noticed.wait(0.02)
    assert watch._waiters == 0


def test_a_packed_bundle_is_published_under_the_revision_that_it_has_unpacked(running):
    with running.client(Role.ADMIN) as admin:
        for kind in ("application/gzip", "application/x-gzip", f"{MEDIA_TYPE}; charset=binary"):
            answer = admin.post("/v1/bundles", content=opa_archive(SECOND), headers={"content-type": kind})
            assert (answer.status_code, answer.json()["revision"]) == (201, SECOND.revision)
        for content in (b"", opa_archive(SECOND)[:-1], SECOND.archive()):
            answer = admin.post("/v1/bundles", content=content, headers={"content-type": "application/gzip"})
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:tallystick:problem:policy")
        assert admin.post("/v1/bundles", content=opa_archive(SECOND)).status_code == 422


def test_a_service_that_ends_lets_those_go_who_wait(tmp_path):
    with ThreadPoolExecutor(1) as threads, start_service(tmp_path) as service:
        service.put_in_force(FIRST)
        client = service.client(Role.CLIENT)
        waiting = threads.submit(held, client, FIRST, "wait=60")
        for _ in range(500):
            if service.services.bundle_watch._waiters:
                break
            time.sleep(0.02)

        async def release() -> None:
            service.services.bundle_watch.release()

        service.run(release)
        assert waiting.result(25).status_code == 304
        assert held(client, FIRST, "wait=60").status_code == 304, "nobody is held any more"
        client.close()
