"""What an enforcer can record that is not true, and how the pack shows it: nothing is refused, nothing is satisfied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evidence.assemble import AssembledPack
from evidence.summary import ControlStatus
from evidence.verification import Status
from ledger.bodies import Approval, BundleReference, Outcome
from ledger.records import decode_entry
from tests.support.ledger import Enforcer
from tests.support.packs import FROM_MS, PackLog
from tests.support.verifiers import verify_pack

APPROVAL = "01990000-0000-7000-8000-000000000001"


def second_gateway(log: PackLog) -> Enforcer:
    other = Enforcer(enforcer_id="gateway-2", seed=9, epoch="2" * 32)
    log.add(log.service, log.service.introduction(other))
    return other


def close(log: PackLog, leaf: int, status: Any = "completed", *, by: Enforcer | None = None) -> None:
    body = Outcome(decision_id=decode_entry(log.entries[leaf]).record_id, status=status, session="5" * 32)
    log.add(by or log.gateway, body)


def forward_a_held_call(log: PackLog) -> None:
    close(log, log.call(name="void", session="h"))


def forward_a_denied_call(log: PackLog) -> None:
    close(log, log.call(arguments='{"amount": 900}', outcome="not_forwarded"))


def forward_a_denied_call_by_another_gateway(log: PackLog) -> None:
    other = second_gateway(log)
    close(log, log.call(arguments='{"amount": 900}'), by=other)


def forward_a_call_after_a_kill(log: PackLog) -> None:
    log.call(name="dump", session="k")
    close(log, log.call(arguments='{"amount": 3}', session="k", outcome="not_forwarded"))


def close_a_call_by_another_gateway(log: PackLog) -> None:
    other = second_gateway(log)
    close(log, log.call(arguments='{"amount": 3}', outcome=None), by=other)


def _use(log: PackLog, leaf: int, by: Enforcer) -> None:
    body = Approval(
        approval_id=APPROVAL,
        decision_id=decode_entry(log.entries[leaf]).record_id,
        action="used",
        binding="0" * 64,
    )
    log.add(by, body)


def use_an_approval_that_nobody_gave(log: PackLog) -> None:
    leaf = log.call(name="void", session="h", outcome=None)
    _use(log, leaf, log.gateway)
    close(log, leaf)


def use_an_approval_by_another_gateway(log: PackLog) -> None:
    other = second_gateway(log)
    leaf = log.call(name="void", session="h", outcome=None)
    _use(log, leaf, other)
    close(log, leaf)


ATTACKS: list[tuple[Callable[[PackLog], None], str]] = [
    (forward_a_held_call, "held-not-forwarded"),
    (forward_a_denied_call, "refused-not-forwarded"),
    (forward_a_denied_call_by_another_gateway, "refused-not-forwarded"),
    (forward_a_call_after_a_kill, "kill-ends-session"),
    (close_a_call_by_another_gateway, "one-outcome-each"),
    (use_an_approval_that_nobody_gave, "held-not-forwarded"),
    (use_an_approval_by_another_gateway, "held-not-forwarded"),
]


@pytest.mark.parametrize(("attack", "test"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_a_second_outcome_or_one_of_somebody_else_hides_no_breach(
    log: PackLog, tmp_path: Path, attack: Callable[[PackLog], None], test: str
) -> None:
    log.begin()
    log.gateway.time_ms = FROM_MS + 1000
    log.call(arguments='{"amount": 1}')
    attack(log)
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    (sheet,) = [
        control
        for framework in assembled.summary.frameworks
        for control in framework.controls
        if (framework.framework, control.control_id) == ("soc2", "CC6.1")
    ]
    assert sheet.status is ControlStatus.NOT_SATISFIED
    assert test in {one.test for one in sheet.tests if one.failed}
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN


def gaps(assembled: AssembledPack, kind: str) -> list[str]:
    return [gap.sentence for gap in assembled.summary.gaps if gap.kind == kind]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "another"}, "as another, run by cedar"),
        ({"engine": "rego", "engine_version": "9"}, "as shop, run by rego"),
    ],
    ids=str,
)
def test_a_decision_that_names_its_bundle_falsely_is_a_gap(
    log: PackLog, tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    log.begin()
    true = {"name": "shop", "revision": log.bundle.revision, "engine": "cedar", "engine_version": "1"}
    reference = BundleReference(**{**true, **changes})
    leaf = log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}', changes={"bundle": reference})
    log.call(arguments='{"amount": 1}')
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    named = f"1 of 2 decisions, between leaves {leaf} and {leaf}, name the bundle {log.bundle.revision[:12]} {told}"
    assert gaps(assembled, "bundle") == [f"{named}; its own manifest says shop, for cedar."]
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN


def test_a_record_id_that_occurs_twice_fails_the_control_of_unique_identities(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    leaf = log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    again = decode_entry(log.entries[leaf]).record_id
    log.add(log.gateway, log.gateway.heartbeat(), record_id=again)
    log.end()
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    assert gaps(assembled, "repeated") == ["1 records have an id that another record had before."]
    (sheet,) = [
        control
        for framework in assembled.summary.frameworks
        for control in framework.controls
        if control.control_id == "164.312(a)(2)(i)"
    ]
    assert {one.test for one in sheet.tests if one.failed} == {"record-ids-unique"}
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN
