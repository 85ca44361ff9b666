"""A service that audits its own log, in a process of its own, and says what it found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.support.ledger import LOG_ID
from tests.support.service import RunningService, start_service

_WAIT_SECONDS = 60.0


def audit_check(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/readyz")
    assert answer.status_code == 200, "an audit takes no service out of work"
    return next(check for check in answer.json()["checks"] if check["name"] == "audit")


def wait_for(service: RunningService, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    with service.stranger() as client:
        while not wanted(check := audit_check(client)):
            assert time.monotonic() < deadline, check
            time.sleep(0.2)
    return check


def metric(service: RunningService, name: str) -> float:
    text = service.services.metrics.render(service.services).decode()
    return next(float(line.split(" ")[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_a_sound_log_is_audited_and_the_metrics_say_when(tmp_path: Path) -> None:
    with start_service(tmp_path, audit_interval_seconds=0.5) as service:
        service.enforcer().decide()
        service.wait_until_published()
        check = wait_for(service, lambda check: check["detail"].startswith("clean at"))
        assert check["ok"]
        assert not check["vital"]
        assert 0 <= metric(service, "tallystick_clean_audit_age_seconds") < _WAIT_SECONDS
        assert metric(service, "tallystick_audited_size") > 0
        assert metric(service, "tallystick_audit_findings") == 0


def test_damage_is_found_in_the_background_said_loudly_and_stops_nothing(tmp_path: Path) -> None:
    options = {"audit_interval_seconds": 0.5, "audit_full_interval_seconds": 0, "heartbeat_interval_seconds": 3600}
    with start_service(tmp_path, **options) as service:
        enforcer = service.enforcer()
        enforcer.decide()
        service.wait_until_published()
        wait_for(service, lambda check: check["detail"].startswith("clean at"))
        for bundle in (tmp_path / "data" / "logs" / LOG_ID / "tile" / "entries" / "000.p").iterdir():
            bundle.write_bytes(bundle.read_bytes().replace(b'"running_count":0', b'"running_count":1', 1))
        check = wait_for(service, lambda check: check["detail"].startswith("FOUND"))
        assert not check["ok"]
        assert metric(service, "tallystick_audit_findings") > 0
        enforcer.decide()


def test_without_an_interval_nothing_is_audited(tmp_path: Path) -> None:
    with start_service(tmp_path, audit_interval_seconds=0) as service, service.stranger() as client:
        assert "TALLYSTICK_AUDIT_INTERVAL_SECONDS is 0" in audit_check(client)["detail"]
        assert metric(service, "tallystick_clean_audit_age_seconds") == float("inf")
