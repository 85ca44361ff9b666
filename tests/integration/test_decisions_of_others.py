"""What others decided or asked for, in an evidence pack: proven like everything, counted as nothing enforced."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from evidence.verification import Status
from evidence.verify import verify_pack
from service.auth import Role
from service.keyset import trust_policy
from tests.support.packs import read_files, ready_bundle
from tests.support.service import RunningService, start_service

POLICY = (
    '@id("small") permit (principal, action, resource) when { context.args has amount && context.args.amount < 9 };'
)
EVENT = {"labels": {"id": "opa-1"}, "path": "shop/allow", "input": {}, "result": True}


def question(amount: int) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": "bot"},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "price", "properties": {"server": "shop", "tags": []}},
        "context": {"arguments": {"amount": amount}},
    }


def made_pack(service: RunningService) -> bytes:
    now = service.services.clock.now_ms()
    order = {"from_ms": now - 3_600_000, "to_ms": now + 1000, "frameworks": ["soc2"]}
    with service.client(Role.AUDITOR) as auditor:
        job = auditor.post("/v1/evidence-packs", json=order).json()
        deadline = time.monotonic() + 90
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
            job = auditor.get(f"/v1/evidence-packs/{job['job_id']}").json()
        assert job["state"] == "done", job
        return auditor.get(job["links"]["zip"]).content


@pytest.mark.slow
def test_a_pack_over_decisions_of_others_is_proven_and_counts_none_as_enforced(tmp_path: Path):
    with start_service(tmp_path) as service, service.client(Role.CLIENT) as client:
        service.put_in_force(ready_bundle(POLICY))
        answers = [client.post("/access/v1/evaluation", json=question(amount)).json() for amount in (1, 2, 10)]
        assert [answer["decision"] for answer in answers] == [True, True, False]
        events = [{**EVENT, "decision_id": f"d-{n}"} for n in range(4)]
        assert client.post("/logs", json=[*events, 7]).json()["taken"] == 4
        content = made_pack(service)
        trust = trust_policy(service.services.keys)
    verified = verify_pack(content, trust=trust)
    assert verified.status is Status.PROVEN, list(verified.lines())
    population = json.loads(read_files(content)["population/counts.json"])
    assert population["records_by_type"]["opa_decision"] == 5
    assert (population["decisions"], population["observed"]) == (3, 3)
    assert population["by_enforcement"] == {"allow": 2, "deny": 1}
    assert population["completeness"] != "gap"
